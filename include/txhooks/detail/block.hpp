// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/hook_arena.hpp>

namespace txhooks::detail {

class Blocks;

struct Block {
    enum class Kind : unsigned char {
        outermost,      // with the connection's own verbs and its own hooks
        special,        // an outermost one with `detach` or `resolve`, or in a scope of txhooks::testing
        savepoint,      //
        half_released,  // a savepoint whose RELEASE failed: it may be gone
        joined,         //
        pinned,         // no block: while code of the user's copies or destroys captures, the block around cannot end
    };

    Blocks* db;  // null once the block has ended
    Block* parent;
    HookArena::Mark mark;
    unsigned number;  // of its savepoint
    unsigned taken;   // up to here savepoints may be in the engine, while this block is the innermost
    Kind kind;
    bool roll_back;  // set_rollback(true)
};

}  // namespace txhooks::detail

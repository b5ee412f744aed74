// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/hook_list.hpp>

namespace txhooks {
class Connection;
}

namespace txhooks::detail {

struct Block {
    enum class Kind : unsigned char {
        outermost,
        staged,  // an outermost block on a Stage, or with a DoubtState
        savepoint,
        half_released,  // a savepoint whose RELEASE failed: it may be gone
        joined,
        pinned,  // no block: while a hook is being copied into its parent, or discarded, that one cannot end
    };

    Connection* db;  // null once the block has ended
    Block* parent;
    HookList::Mark mark;
    unsigned number;  // of its savepoint
    unsigned taken;   // up to here savepoints may be in the engine, while this block is the innermost
    Kind kind;
    bool roll_back;  // set_rollback(true)
};

// What <txhooks/testing/...> puts under the outermost blocks of a connection.
struct Stage {
    Stage* outer;
    Block* base;         // a transaction that is never committed: outermost blocks are savepoints in it. Or null
    HookList* captured;  // where the hooks of committed blocks stay instead of running. Or null
};

}  // namespace txhooks::detail

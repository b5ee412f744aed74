// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/error_sink.hpp>

#include <cstdint>
#include <deque>
#include <vector>

// What a random program is made of: a tree that is executed once, by the library on a real connection and, where nothing
// is made to fail, by the reference model.
namespace random_programs {

struct Hook;
struct Block;

struct Step {
    enum class Kind : std::uint8_t {
        hook,          // puts a row and registers the hook that belongs to it
        block,         // opens a block
        throw_std,     // throws
        throw_int,     // throws what is no std::exception
        ask,           // set_rollback(true)
        take_back,     // set_rollback(false)
        out_of_order,  // tries to end the enclosing block, and a block from its own hook: both must be refused
        policy,        // sets what happens when a hook throws (outside blocks)
        foreign,       // a raw BEGIN outside blocks: hooks and blocks must be refused until it ends
        trouble,       // makes something fail, now or later
    };

    Kind kind = Kind::hook;
    bool swallow = false;  // what comes out of it is caught and forgotten
    std::uint32_t number = 0;
    const Hook* hook = nullptr;
    const Block* block = nullptr;
};

using Steps = std::vector<Step>;

enum class Throws : std::uint8_t {
    nothing,
    std_exception,
    integer,
    failed_result,  // one before COMMIT returns it
};

// What a hook waits for.
enum class Kind : std::uint8_t { commit, before_commit, rollback, unless_committed };
inline constexpr unsigned kinds = 4;

struct Hook {
    // How it is handed over.
    enum class Way : std::uint8_t { lambda, moved, copied, argument };

    unsigned id = 0;
    Kind kind = Kind::commit;
    Way way = Way::lambda;
    bool robust = false;  // a commit hook
    bool judged = false;  // one before COMMIT that returns a result
    bool large = false;   // an over-aligned capture of several hundred bytes
    bool through_connection = false;
    bool copy_throws = false;
    Throws throws = Throws::nothing;
    Steps steps;     // when it runs
    Steps farewell;  // when its capture is destroyed
    Steps copying;   // when its capture is copied

    // Its capture is an object whose life can be followed.
    bool tracked() const { return way != Way::lambda; }
    // Called when what was done at its place in the code is undone.
    bool waits_for_undo() const { return kind == Kind::rollback or kind == Kind::unless_committed; }
};

struct Block {
    enum class Form : std::uint8_t { guard, function, connection_guard, connection_function };
    enum class End : std::uint8_t {
        commit,
        rollback,  // the function form returns a failed result
        abandon,   // the function form throws
        throw_std,
        throw_int,
        leave_open,  // the guard outlives the scope it was opened in
    };
    enum class Afterwards : std::uint8_t { run, discard, destroy };

    unsigned id = 0;
    Form form = Form::guard;
    End end = End::commit;
    bool join = false;
    bool durable = false;
    bool detach = false;
    bool resolve = false;                     // where the backend has markers
    bool marked = true;                       // an outermost block that writes a row of its own, before anything else
    Afterwards afterwards = Afterwards::run;  // with the detached hooks, or with the doubt
    unsigned begin = 0;                       // begin mode, where the backend has some
    unsigned retries = 0;                     // of commit() while the engine leaves the transaction open
    std::uint32_t settle = 0;                 // what is done before each
    Steps steps;

    bool is_guard() const { return form == Form::guard or form == Form::connection_guard; }
    bool knows_begin_modes() const { return form != Form::connection_guard and form != Form::connection_function; }
};

struct Program {
    bool trouble = false;       // something may be made to fail: too much for the model
    std::uint32_t setting = 0;  // of the world: witness, journal mode
    Steps steps;
    std::deque<Hook> hooks;    // by id
    std::deque<Block> blocks;  // by id
};

}  // namespace random_programs

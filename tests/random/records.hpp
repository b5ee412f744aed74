// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"
#include "program.hpp"

#include <txhooks/error_sink.hpp>
#include <txhooks/outcome.hpp>

#include <functional>
#include <vector>

// What is noted while a program is executed.
namespace random_programs {

struct Frame;

struct Transaction {
    const Block* block;
    txhooks::HookFailure policy;
    Frame* frame = nullptr;  // of `block`, while that is being executed
    bool marked = false;     // the row of the block itself was put
    bool ended_by_raw_sql = false;
    bool failed_result = false;                // returned by a hook before COMMIT
    std::vector<const Hook*> hooks = {};       // registered, in order
    std::vector<const Hook*> ran_before = {};  // before COMMIT, in order
    std::vector<const Hook*> ran = {};         // after it, in order
    std::vector<txhooks::Outcome> lost = {};   // what was told of a loss
};

// A block in execution.
struct Frame {
    Frame* below = nullptr;
    const Block* block = nullptr;
    Transaction* transaction = nullptr;
    bool ending = false;     // being ended, by whomever: what is registered meanwhile is not part of it
    bool left_open = false;  // its scope is over, but not its guard's
    bool opened = false;
    bool committing = false;      // commit() was called, or the function has returned
    bool asked = false;           // to roll back
    unsigned long recovered = 0;  // how often the connection had been when it was opened
    Told told = Told::rolled_back;
    std::function<void(bool commit)> end = {};  // the guard's
};

struct HookState {
    Transaction* transaction = nullptr;
    bool registered = false;
    bool being_registered = false;   // in a block
    bool perhaps_elsewhere = false;  // its row was put into a transaction that user code has exchanged, unnoticed
    bool threw = false;
    unsigned ran = 0;
    unsigned destroyed = 0;
};

// What the caller knows of the transaction of an outermost block.
inline Told told_of_transaction(const Frame& frame) {
    if (not frame.transaction->lost.empty()) return Told::lost;
    if (frame.told == Told::committed or frame.told == Told::rolled_back) return frame.told;
    if (frame.committing and (frame.told == Told::hook_error or frame.told == Told::unknown)) return frame.told;
    return Told::rolled_back;
}

}  // namespace random_programs

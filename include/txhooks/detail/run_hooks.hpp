// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

#include <cstddef>
#include <exception>

namespace txhooks::detail {

struct Blocks;

// Runs the hooks of a committed transaction as `policy` says. Those left when this throws are discarded by `run`.
inline void run_hooks(HookList::Run& run, HookFailure policy, const Reporter& report) {
    std::exception_ptr first;
    std::size_t position = 0;
    std::size_t failed = 0;
    for (;;) {
        try {
            run();
            break;
        } catch (...) {
            ++failed;
            if (policy == HookFailure::report or first) {
                report("txhooks: a hook threw, after its transaction was committed", std::current_exception());
                continue;
            }
            first = std::current_exception();
            position = run.done() - 1;
            if (policy == HookFailure::stop) break;
        }
    }
    if (first) throw HookError{position, run.left(), failed, first};
}

}  // namespace txhooks::detail

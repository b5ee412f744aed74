// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

#include <cstddef>
#include <exception>

namespace txhooks::detail {

// A hook threw: does with the others as `policy` says.
[[gnu::cold, gnu::noinline]] inline void run_after_failure(HookList::Walk& run, HookFailure policy,
                                                           const Reporter& report) {
    const char* const what = "txhooks: a hook threw, after its transaction was committed";
    std::exception_ptr first;
    std::size_t position = 0;
    std::size_t failed = 1;
    if (policy == HookFailure::report) {
        report(what, std::current_exception());
    } else {
        first = std::current_exception();
        position = run.done() - 1;
    }
    while (policy != HookFailure::stop) {
        try {
            run();
            break;
        } catch (...) {
            ++failed;
            report(what, std::current_exception());
        }
    }
    if (first) throw HookError{position, run.left(), failed, first};
}

}  // namespace txhooks::detail

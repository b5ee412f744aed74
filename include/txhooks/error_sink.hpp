// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/exception_text.hpp>

#include <cstdio>
#include <exception>

namespace txhooks {

/// Where failures go that no caller can be given: a robust hook that threw, a ROLLBACK that failed in a destructor.
/// `what` is one sentence of ours. `error` is the exception; null where there was none, or where it was one of another
/// language, which no `exception_ptr` can hold: then `what` says so.
/// What a sink throws is dropped. It is called where nothing may leave: to end the thread in it (pthread_exit,
/// pthread_cancel) ends the program.
using ErrorSink = void (*)(void* context, const char* what, const std::exception_ptr& error);

/// The default sink: one line on stderr.
inline void print_to_stderr(void*, const char* what, const std::exception_ptr& error) {
    if (!error) {
        std::fprintf(stderr, "%s\n", what);
        return;
    }
    detail::with_text_of(error, [what](const char* text) { std::fprintf(stderr, "%s: %s\n", what, text); });
}

/// What to do when a hook throws. Everywhere: the data stays committed, and a `robust` hook's failure goes to the sink.
/// An exception of another language is a failure like any other. A hook that ends its thread is none: see `on_commit`.
enum class HookFailure : unsigned char {
    stop,  ///< later hooks are discarded, `commit()` throws `HookError` (the default)
    run_all,  ///< every hook runs, then `commit()` throws one `HookError` with the first failure; the others go to the sink
    report,  ///< every hook runs, every failure goes to the sink, `commit()` returns normally
};

namespace detail {

struct Reporter {
    ErrorSink sink = print_to_stderr;
    void* context = nullptr;

    void operator()(const char* what, const std::exception_ptr& error = nullptr) const noexcept {
        try {
            sink(context, what, error);
        } catch (...) {
            // There is no place left to report to.
        }
    }

    // The same for what a `catch (...)` has caught: null is an exception of another language.
    [[gnu::cold, gnu::noinline]] void failure(const char* what, const std::exception_ptr& error) const noexcept {
        if (error) return (*this)(what, error);
        char text[300];
        std::snprintf(text, sizeof text, "%s (an exception of another language)", what);
        (*this)(text);
    }
};

}  // namespace detail
}  // namespace txhooks

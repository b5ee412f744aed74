// SPDX-License-Identifier: MIT
#pragma once

// pthread_exit() and pthread_cancel() of glibc end a thread by unwinding its stack, and `catch (...)` catches that too.
// It has to go on, or the process is aborted ("FATAL: exception not rethrown"). So who swallows an exception lets this
// one pass first:
//
//     catch (const ForcedUnwind&) { throw; } catch (...) { ... }
//
// Where nothing may leave (noexcept) the program ends either way, by std::terminate or that abort. The reference refers
// to no object: never look at it. (UBSan of GCC reports that, as it does for libstdc++'s own handlers: the check is
// called `null`.)

#include <txhooks/detail/cxx20.hpp>

#include <exception>

#ifdef __GLIBCXX__
#include <bits/cxxabi_forced.h>
#endif

namespace txhooks::detail {

#ifdef __GLIBCXX__
using ForcedUnwind = __cxxabiv1::__forced_unwind;
#else
// Never thrown. libc++ cannot tell an unwinding thread from an exception of another language, and one that was caught
// cannot go on: rethrowing it ends the program (seen with libc++ 14).
struct ForcedUnwind {
    ForcedUnwind() = delete;
};
#endif

}  // namespace txhooks::detail

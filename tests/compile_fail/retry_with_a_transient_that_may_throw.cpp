// error: txhooks: RetryPolicy::transient is a function, or a lambda without captures, that is noexcept
// SPDX-License-Identifier: MIT
#include <txhooks/retry.hpp>

#ifndef CONTROL
const txhooks::RetryPolicy policy{.transient = [](const std::exception_ptr&) { return true; }};
#else
const txhooks::RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
#endif

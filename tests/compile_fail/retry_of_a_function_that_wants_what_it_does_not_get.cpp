// error: txhooks: atomic\(fn\) calls fn without arguments, or with what runs SQL on this connection; this fn takes neither
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <txhooks/retry.hpp>

void serve(txhooks::HookedConnection<Database>& db) {
    const txhooks::RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
#ifndef CONTROL
    txhooks::retry(db, policy, [](int) {});
#else
    txhooks::retry(db, policy, [](Database&) {});
#endif
}

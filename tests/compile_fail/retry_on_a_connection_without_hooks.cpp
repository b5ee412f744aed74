// error: txhooks: this is not a hooked connection; wrap it first: txhooks::HookedConnection db\{connection\}
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <txhooks/retry.hpp>

void serve(Database& connection) {
    const txhooks::RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
#ifndef CONTROL
    txhooks::retry(connection, policy, [] {});
#else
    txhooks::HookedConnection db{connection};
    txhooks::retry(db, policy, [] {});
#endif
}

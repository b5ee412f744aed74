// error: txhooks: this connection is hooked already; use it as it is
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    txhooks::HookedConnection again{db};
#else
    txhooks::Connection& again = db;
#endif
    again.atomic([] {});
}

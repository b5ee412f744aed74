// error: txhooks: atomic\(fn\) calls fn without arguments
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(txhooks::Connection& db) {
#ifndef CONTROL
    db.atomic([](Database&) {});
#else
    db.atomic([] {});
#endif
}

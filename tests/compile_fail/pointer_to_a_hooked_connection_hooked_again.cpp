// error: txhooks: this type is no database connection that txhooks knows.*pass what it points to
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    txhooks::HookedConnection again{&db};
#else
    txhooks::Connection& again = db;
#endif
    again.atomic([] {});
}

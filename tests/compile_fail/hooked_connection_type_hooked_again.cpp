// error: txhooks: this connection type is hooked already
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up() {
#ifndef CONTROL
    txhooks::HookedConnection<Hooked> db;
#else
    Hooked db;
#endif
    db.atomic([] {});
}

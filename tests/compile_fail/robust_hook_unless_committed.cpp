// error: txhooks: robust is for on_commit\(\) alone
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void forget(int key);

void change(Hooked& db) {
#ifndef CONTROL
    db.unless_committed(txhooks::robust, forget, 7);
#else
    db.unless_committed(forget, 7);
#endif
}

// error: txhooks: durable and join exclude each other
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(txhooks::Connection& db) {
#ifndef CONTROL
    txhooks::Atomic tx{db, {.durable = true, .join = true}};
#else
    txhooks::Atomic tx{db, {.join = true}};
#endif
    tx.commit();
}

// error: txhooks: durable and join exclude each other
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    txhooks::atomically(db, {.durable = true, .join = true}, [] {});
#else
    txhooks::atomically(db, {.join = true}, [] {});
#endif
}

// error: txhooks: durable and join exclude each other
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(txhooks::Connection& db) {
#ifndef CONTROL
    db.atomic({.durable = true, .join = true}, [] {});
#else
    db.atomic({.join = true}, [] {});
#endif
}

// error: txhooks: durable and join exclude each other
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.atomic({.durable = true, .join = true}, [] {});
#else
    db.atomic({.durable = true}, [] {});
#endif
}

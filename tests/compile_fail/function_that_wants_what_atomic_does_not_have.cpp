// error: txhooks: atomic\(fn\) calls fn without arguments, or with what runs SQL on this connection
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Logger {};

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.atomic([](Logger&) {});
#else
    db.atomic([](Database&) {});
#endif
}

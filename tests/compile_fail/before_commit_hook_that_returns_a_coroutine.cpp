// error: txhooks: this hook returns a coroutine or a future
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include "coroutine.hpp"

Task check_total();

void add_line(txhooks::Connection& db) {
#ifndef CONTROL
    db.before_commit(check_total);
#else
    db.before_commit([] { check_total(); });
#endif
}

// error: txhooks: robust is for on_commit\(\) alone
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void check_total();

void add_line(txhooks::Connection& db) {
#ifndef CONTROL
    db.before_commit(txhooks::robust, check_total);
#else
    db.before_commit(check_total);
#endif
}

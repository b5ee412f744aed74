// error: txhooks: this hook cannot be called with these arguments
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void recount(int order);

void add_line(txhooks::Connection& db) {
#ifndef CONTROL
    db.before_commit(recount);
#else
    db.before_commit(recount, 7);
#endif
}

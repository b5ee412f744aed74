// error: txhooks: robust is for on_commit\(\) alone
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void remove_file();

void upload(txhooks::Connection& db) {
#ifndef CONTROL
    db.on_rollback(txhooks::robust, remove_file);
#else
    db.on_rollback(remove_file);
#endif
}

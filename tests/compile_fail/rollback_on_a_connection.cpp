// error: txhooks: a connection has no transaction verbs of its own; a block ends with tx.commit\(\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.rollback();
#else
    db.backend().rollback();
#endif
}

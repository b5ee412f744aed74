// error: txhooks: this type is no database connection that txhooks knows
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Database& database) {
#ifndef CONTROL
    txhooks::HookedConnection db{"app.db"};
#else
    txhooks::HookedConnection db{database};
#endif
    db.atomic([] {});
}

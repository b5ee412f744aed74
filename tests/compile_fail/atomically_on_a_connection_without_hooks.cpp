// error: txhooks: atomically\(\) needs a hooked connection; wrap this one first
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Database& database) {
#ifndef CONTROL
    txhooks::atomically(database, [] {});
#else
    txhooks::HookedConnection db{database};
    txhooks::atomically(db, [] {});
#endif
}

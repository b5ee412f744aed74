// error: txhooks: (atomically\(\) needs a hooked connection; wrap this one first|this is not a hooked connection; wrap it first)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Database& database) {
#ifndef CONTROL
    txhooks::atomically(database, {.durable = true}, [] {});
#else
    txhooks::HookedConnection db{database};
    txhooks::atomically(db, {.durable = true}, [] {});
#endif
}

// error: txhooks: HookedConnection needs a connection that is not const
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#ifndef CONTROL
void sign_up(const Database& database) {
#else
void sign_up(Database& database) {
#endif
    txhooks::HookedConnection db{database};
    db.atomic([] {});
}

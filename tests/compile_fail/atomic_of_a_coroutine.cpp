// error: txhooks: atomic\(fn\) would commit before the coroutine or future that fn returns has run
// SPDX-License-Identifier: MIT
#include "backend.hpp"
#include "coroutine.hpp"

Task insert_user();

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.atomic(insert_user);
#else
    db.atomic([] { static_cast<void>(insert_user()); });
#endif
}

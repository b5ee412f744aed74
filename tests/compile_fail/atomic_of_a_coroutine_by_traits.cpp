// error: txhooks: atomic\(fn\) would commit before the coroutine or future that fn returns has run
// SPDX-License-Identifier: MIT
#include "coroutine_by_traits.hpp"

#include "backend.hpp"

FireAndForget send_welcome_email();
Expected insert_user();
void log_in();

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.atomic(send_welcome_email);
#else
    db.atomic(insert_user);
    db.atomic(log_in);
#endif
}

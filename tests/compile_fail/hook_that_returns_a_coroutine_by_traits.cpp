// error: txhooks: this hook returns a coroutine or a future, which nobody would wait for
// SPDX-License-Identifier: MIT
#include "coroutine_by_traits.hpp"

#include "backend.hpp"

FireAndForget send_welcome_email();
void log_in();

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.on_commit(send_welcome_email);
#else
    db.on_commit(log_in);
#endif
}

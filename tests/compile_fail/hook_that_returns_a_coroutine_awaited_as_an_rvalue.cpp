// error: txhooks: this hook returns a coroutine or a future, which nobody would wait for
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Lazy {
    struct Awaiter;
    Awaiter operator co_await() &&;
};

Lazy send_welcome_email(int user_id);

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.on_commit(send_welcome_email, 7);
#else
    db.on_commit([] { static_cast<void>(send_welcome_email(7)); });
#endif
}

// error: txhooks: this hook cannot be called with these arguments
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void send_welcome_email(int user_id);

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.on_commit(send_welcome_email, "seven");
#else
    db.on_commit(send_welcome_email, 7);
#endif
}

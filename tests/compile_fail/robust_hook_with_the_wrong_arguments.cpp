// error: txhooks: this hook cannot be called with these arguments
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void send_welcome_email(int user_id);

void sign_up(txhooks::Connection& db) {
#ifndef CONTROL
    db.on_commit(txhooks::robust, send_welcome_email);
#else
    db.on_commit(txhooks::robust, send_welcome_email, 7);
#endif
}

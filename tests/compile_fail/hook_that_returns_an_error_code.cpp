// error: txhooks: this hook returns a result that can mean failure, and nobody would look at it
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <system_error>

std::error_code send_welcome_email(int user_id);
void report(std::error_code);

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.on_commit(send_welcome_email, 7);
#else
    db.on_commit([] {
        if (const std::error_code error = send_welcome_email(7)) report(error);
    });
#endif
}

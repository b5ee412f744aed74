// error: txhooks: this hook returns a result that can mean failure, and nobody would look at it
// SPDX-License-Identifier: MIT
#include "backend.hpp"

enum class Sent { yes, no };

template <>
struct txhooks::result_traits<Sent> {
    static constexpr bool failed(Sent sent) { return sent == Sent::no; }
};

Sent send_welcome_email(int user_id);

void sign_up(Hooked& db) {
#ifndef CONTROL
    db.on_commit(send_welcome_email, 7);
#else
    db.on_commit([] {
        if (send_welcome_email(7) == Sent::no) throw 7;
    });
#endif
}

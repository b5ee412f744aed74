// error: txhooks: atomic\(fn\) returns the result of fn, which therefore must be movable
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct User {
    User();
#ifndef CONTROL
    User(const User&) = delete;
#endif
};

void sign_up(Hooked& db) {
    db.atomic([] { return User{}; });
}

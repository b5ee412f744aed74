// error: txhooks: this hook cannot be called with these arguments: it gets copies of them
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <functional>

void count(int& calls);

void sign_up(Hooked& db, int& calls) {
#ifndef CONTROL
    db.on_commit(count, calls);
#else
    db.on_commit(count, std::ref(calls));
#endif
}

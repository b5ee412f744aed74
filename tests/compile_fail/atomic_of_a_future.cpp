// error: txhooks: atomic\(fn\) would commit before the coroutine or future that fn returns has run
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <future>

std::future<int> insert_user();

int sign_up(Hooked& db) {
#ifndef CONTROL
    return db.atomic(insert_user).get();
#else
    return db.atomic([] { return insert_user().get(); });
#endif
}

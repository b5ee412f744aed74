// error: txhooks: a handler returns a coroutine, a future, or a result that can mean failure
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

#include <system_error>

std::error_code grant(Db&, const Welcome&);

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.handle<Welcome>(txhooks::in_transaction, grant);
#else
    types.handle<Welcome>(txhooks::in_transaction,
                          [](Db& db, const Welcome& job) { static_cast<void>(grant(db, job)); });
#endif
}

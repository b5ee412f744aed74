// error: txhooks: a handler in_transaction is called, as const, with \(Db&, const Job&\) or \(Db&, const Job&, JobRun&\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.handle<Welcome>(txhooks::in_transaction, [](const Welcome&) {});
#else
    types.handle<Welcome>(txhooks::in_transaction, [](Db&, const Welcome&) {});
#endif
}

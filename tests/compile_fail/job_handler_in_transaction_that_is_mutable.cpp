// error: txhooks: a handler in_transaction is called, as const, with \(Db&, const Job&\) or \(Db&, const Job&, JobRun&\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.handle<Welcome>(txhooks::in_transaction, [n = 0](Db&, const Welcome&) mutable {
        if (++n == 2) throw n;
    });
#else
    types.handle<Welcome>(txhooks::in_transaction, [n = 0](Db&, const Welcome&) { static_cast<void>(n); });
#endif
}

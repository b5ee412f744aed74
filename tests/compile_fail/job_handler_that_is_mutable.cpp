// error: txhooks: a handler is called, as const, with \(const Job&\), \(const Job&, JobRun&\) or \(Db&, const Job&, JobRun&\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.handle<Welcome>([n = 0](const Welcome&) mutable {
        if (++n == 2) throw n;
    });
#else
    types.handle<Welcome>([n = 0](const Welcome&) { static_cast<void>(n); });
#endif
}

// error: txhooks: a handler is called, as const, with \(const Job&\), \(const Job&, JobRun&\) or \(Db&, const Job&, JobRun&\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.handle<Welcome>([](Welcome&) {});
#else
    types.handle<Welcome>([](Welcome) {});
#endif
}

// error: (no matching|no viable|could not convert|cannot convert)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct OtherBackend : txhooks::testing::FakeBackend {};
using Other = txhooks::HookedConnection<OtherBackend>;

#ifndef CONTROL
void work(Other& db, txhooks::JobTypes<Db>& types) {
#else
void work(Other& db, txhooks::JobTypes<Other>& types) {
#endif
    txhooks::Outbox<Other> outbox{db, types};
    outbox.run_due();
}

// error: txhooks: there is no JobStore for this connection; include <txhooks/outbox/\.\.\.> for its driver
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Database {
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
    void savepoint(unsigned n);
    void release(unsigned n);
    void rollback_to(unsigned n);
};
#ifndef CONTROL
using Mine = txhooks::HookedConnection<Database>;
#else
using Mine = Db;
#endif

void work(Mine& db, txhooks::JobTypes<Mine>& types) {
    txhooks::Outbox<Mine> outbox{db, types};
    outbox.run_due();
}

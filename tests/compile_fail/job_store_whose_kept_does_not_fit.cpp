// error: txhooks: a JobStore that has a class Kept is made of what runs SQL in a block, and of that
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mine : txhooks::testing::FakeBackend {};

template <>
class txhooks::JobStore<Mine> : public txhooks::JobStore<txhooks::testing::FakeBackend> {
public:
    struct Kept {
#ifdef CONTROL
        void close() noexcept {}
#endif
    };
    JobStore(Mine& db, Kept&) : txhooks::JobStore<txhooks::testing::FakeBackend>{db} {}
};

void work(txhooks::HookedConnection<Mine>& db, txhooks::JobTypes<txhooks::HookedConnection<Mine>>& types) {
    txhooks::Outbox<txhooks::HookedConnection<Mine>> outbox{db, types};
    outbox.run_due();
}

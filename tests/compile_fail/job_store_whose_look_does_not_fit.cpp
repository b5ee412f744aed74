// error: txhooks: a JobStore has std::int64_t look\(
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mine : txhooks::testing::FakeBackend {};

template <>
class txhooks::JobStore<Mine> : public txhooks::JobStore<txhooks::testing::FakeBackend> {
public:
    using JobStore<txhooks::testing::FakeBackend>::JobStore;
#ifndef CONTROL
    void look(std::span<const txhooks::JobsNamed> names, std::vector<txhooks::FirstJob>& first);
#endif
};

void work(txhooks::HookedConnection<Mine>& db, txhooks::JobTypes<txhooks::HookedConnection<Mine>>& types) {
    txhooks::Outbox<txhooks::HookedConnection<Mine>> outbox{db, types};
    outbox.run_due();
}

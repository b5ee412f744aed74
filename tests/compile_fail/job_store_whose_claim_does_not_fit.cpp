// error: txhooks: a JobStore has std::vector<JobRow> claim\(const JobClaim&\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mine : txhooks::testing::FakeBackend {};

template <>
class txhooks::JobStore<Mine> : public txhooks::JobStore<txhooks::testing::FakeBackend> {
public:
    using JobStore<txhooks::testing::FakeBackend>::JobStore;
#ifndef CONTROL
    std::vector<txhooks::JobRow> claim(std::string_view name);
#endif
};

void work(txhooks::HookedConnection<Mine>& db, txhooks::JobTypes<txhooks::HookedConnection<Mine>>& types) {
    txhooks::Outbox<txhooks::HookedConnection<Mine>> outbox{db, types};
    outbox.run_due();
}

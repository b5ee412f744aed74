// error: txhooks: a JobStore has void insert\(std::span<const NewJob> jobs, std::string_view holder\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mine : txhooks::testing::FakeBackend {};

template <>
class txhooks::JobStore<Mine> : public txhooks::JobStore<txhooks::testing::FakeBackend> {
public:
    using JobStore<txhooks::testing::FakeBackend>::JobStore;
#ifndef CONTROL
    void insert(const txhooks::NewJob& job);
#endif
};

void work(txhooks::HookedConnection<Mine>& db, txhooks::JobTypes<txhooks::HookedConnection<Mine>>& types) {
    txhooks::Outbox<txhooks::HookedConnection<Mine>> outbox{db, types};
    outbox.run_due();
}

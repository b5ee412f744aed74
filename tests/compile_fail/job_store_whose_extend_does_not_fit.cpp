// error: txhooks: a JobStore has bool extend\(std::string_view id, std::int64_t claim, std::chrono::microseconds lease\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mine : txhooks::testing::FakeBackend {};

template <>
class txhooks::JobStore<Mine> : public txhooks::JobStore<txhooks::testing::FakeBackend> {
public:
    using JobStore<txhooks::testing::FakeBackend>::JobStore;
#ifndef CONTROL
    void extend(std::string_view id, std::int64_t claim, std::chrono::microseconds lease);
#endif
};

void work(txhooks::HookedConnection<Mine>& db, txhooks::JobTypes<txhooks::HookedConnection<Mine>>& types) {
    txhooks::Outbox<txhooks::HookedConnection<Mine>> outbox{db, types};
    outbox.run_due();
}

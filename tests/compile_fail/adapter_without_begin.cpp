// error: txhooks: this adapter has no begin\(\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
#ifdef CONTROL
    void begin();
#endif
    txhooks::CommitResult commit() noexcept;
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

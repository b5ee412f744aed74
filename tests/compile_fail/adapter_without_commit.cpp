// error: txhooks: this adapter has no commit\(\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
#ifdef CONTROL
    txhooks::CommitResult commit() noexcept;
#endif
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

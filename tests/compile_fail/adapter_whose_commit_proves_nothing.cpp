// error: txhooks: this adapter has no commit\(\): write CommitResult commit\(\) noexcept, which says what is proven
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
#ifndef CONTROL
    void commit();
#else
    txhooks::CommitResult commit() noexcept;
#endif
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

// error: txhooks: this adapter has no rollback\(\): write void rollback\(\).*a result would be ignored
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
    txhooks::CommitResult commit() noexcept;
#ifdef CONTROL
    void rollback();
#else
    bool rollback();
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

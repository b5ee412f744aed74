// error: txhooks: this adapter has only one of commit\(marker\) and was_committed\(marker\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
    bool was_committed(const char* marker);
#ifdef CONTROL
    txhooks::CommitResult commit(const char* marker) noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

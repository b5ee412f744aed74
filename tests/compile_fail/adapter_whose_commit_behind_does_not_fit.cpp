// error: txhooks: commit\(ahead, marker\) of this adapter does not fit: write CommitResult commit\(const char\*
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
#ifdef CONTROL
    txhooks::CommitResult commit(const char* ahead, const char* marker) noexcept;
#else
    txhooks::CommitResult commit(const char* ahead, const char* marker);
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

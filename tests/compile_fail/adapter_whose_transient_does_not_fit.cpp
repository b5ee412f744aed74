// error: txhooks: transient\(\) of this adapter does not fit: write bool transient
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
    bool transient(const std::exception_ptr& error) const noexcept;
#else
    bool transient(const std::exception& error) const noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

// error: txhooks: rolled_back_by\(\) of this adapter does not fit: write bool rolled_back_by
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
    bool rolled_back_by(const std::exception_ptr& error) const noexcept;
#else
    bool rolled_back_by(const std::exception_ptr& error) noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

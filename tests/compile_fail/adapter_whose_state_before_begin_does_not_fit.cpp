// error: txhooks: state_before_begin\(\) of this adapter does not fit: write ConnectionState
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
    txhooks::ConnectionState state() const noexcept;
#endif
    txhooks::ConnectionState state_before_begin() const noexcept;
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

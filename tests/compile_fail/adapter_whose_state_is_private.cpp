// error: txhooks: state\(\) of this adapter does not fit.*public
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
#ifndef CONTROL
private:
#endif
    txhooks::ConnectionState state() const noexcept;
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

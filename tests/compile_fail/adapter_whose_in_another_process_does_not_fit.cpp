// error: txhooks: in_another_process\(\) of this adapter does not fit: write bool in_another_process
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
    bool in_another_process() const noexcept;
#else
    bool in_another_process() noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

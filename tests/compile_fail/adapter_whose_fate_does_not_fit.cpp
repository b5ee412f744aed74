// error: txhooks: fate\(\) of this adapter does not fit: write Outcome fate\(\) noexcept
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
    txhooks::Outcome fate() noexcept;
#else
    txhooks::Outcome fate();
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

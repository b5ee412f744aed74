// error: txhooks: state\(\) of this adapter does not fit: write ConnectionState state\(\) const noexcept
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
#ifdef CONTROL
    txhooks::ConnectionState state() const noexcept;
#else
    txhooks::ConnectionState state() noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

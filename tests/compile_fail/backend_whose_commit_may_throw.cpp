// error: txhooks: begin\(\), commit\(\) and rollback\(\) of this class prove nothing.*txhooks::SqlAdapter.*CommitResult commit\(\) noexcept
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
#ifdef CONTROL
    txhooks::CommitResult commit() noexcept;
#else
    txhooks::CommitResult commit();
#endif
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

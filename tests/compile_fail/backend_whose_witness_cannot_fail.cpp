// error: txhooks: begin\(\), commit\(\) and rollback\(\) of this class prove nothing.*txhooks::SqlAdapter.*CommitResult commit\(\) noexcept
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
    void commit();
    void rollback();
    void savepoint(unsigned n);
#ifdef CONTROL
    void release(unsigned n);
#else
    void release(unsigned n) noexcept;
#endif
    void rollback_to(unsigned n);
    txhooks::ConnectionState state() const noexcept;
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

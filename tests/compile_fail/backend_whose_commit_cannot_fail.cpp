// error: txhooks: begin\(\), commit\(\) and rollback\(\) of this class prove nothing.*txhooks::SqlAdapter.*CommitResult commit\(\) noexcept
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
#ifdef CONTROL
    void commit();
#else
    void commit() noexcept;
#endif
    void rollback();
    void savepoint(unsigned n);
    void release(unsigned n);
    void rollback_to(unsigned n);
    txhooks::ConnectionState state() const noexcept;
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

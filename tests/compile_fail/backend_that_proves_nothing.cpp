// error: txhooks: begin\(\), commit\(\) and rollback\(\) of this class prove nothing.*txhooks::SqlAdapter.*CommitResult commit\(\) noexcept
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
    void commit();
    void rollback();
#ifdef CONTROL
    void savepoint(unsigned n);
    void release(unsigned n);
    void rollback_to(unsigned n);
    txhooks::ConnectionState state() const noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

// error: txhooks: this adapter has only some of savepoint\(unsigned\).*or they do not fit
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
    void savepoint(unsigned n);
#ifdef CONTROL
    void release(unsigned n);
#else
    bool release(unsigned n);
#endif
    void rollback_to(unsigned n);
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

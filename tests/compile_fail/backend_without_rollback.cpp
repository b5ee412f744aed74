// error: txhooks: this type is no database connection that txhooks knows.*specialise txhooks::BackendAdapter.*txhooks::SqlAdapter
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
    txhooks::CommitResult commit() noexcept;
#ifdef CONTROL
    void rollback();
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

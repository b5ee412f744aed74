// error: txhooks: this adapter has no begin\(\): write void begin\(\).*a result would be ignored
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
#ifdef CONTROL
    void begin();
#else
    bool begin();
#endif
    txhooks::CommitResult commit() noexcept;
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

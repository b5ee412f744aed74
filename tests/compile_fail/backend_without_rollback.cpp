// error: txhooks: this type is no database connection that txhooks knows.*give it begin\(\), commit\(\) and rollback\(\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {
    void begin();
    void commit();
#ifdef CONTROL
    void rollback();
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

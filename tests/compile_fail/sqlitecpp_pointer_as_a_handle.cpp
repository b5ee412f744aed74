// error: txhooks: this type is no database connection that txhooks knows.*pass what it points to
// SPDX-License-Identifier: MIT
#include <txhooks/backends/sqlitecpp.hpp>

void sign_up(SQLite::Database* database) {
#ifndef CONTROL
    txhooks::HookedConnection db{database};
#else
    txhooks::HookedConnection db{*database};
#endif
    db.atomic([] {});
}

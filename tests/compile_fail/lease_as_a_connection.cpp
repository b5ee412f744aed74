// error: txhooks: this type is no database connection that txhooks knows.*a lease, a pointer or a file name is not a connection: pass what it points to
// SPDX-License-Identifier: MIT
#include "backend.hpp"

class Lease {
public:
    Database& operator*() const;
    Database* operator->() const;
};
Lease lease();

void sign_up() {
    const Lease leased = lease();
#ifndef CONTROL
    txhooks::HookedConnection<Lease> db{lease()};
#else
    txhooks::HookedConnection<Database&> db{*leased};
#endif
    db.atomic([] {});
}

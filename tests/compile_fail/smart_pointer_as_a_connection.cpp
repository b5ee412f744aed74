// error: txhooks: this type is no database connection that txhooks knows.*a lease, a pointer or a file name is not a connection: pass what it points to
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <memory>

void sign_up(std::unique_ptr<Database>& database) {
#ifndef CONTROL
    txhooks::HookedConnection db{database};
#else
    txhooks::HookedConnection db{*database};
#endif
    db.atomic([] {});
}

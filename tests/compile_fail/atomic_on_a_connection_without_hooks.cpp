// error: txhooks: this is not a hooked connection; wrap it first: txhooks::HookedConnection db\{connection\}
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Database& database) {
#ifndef CONTROL
    txhooks::Atomic tx{database};
#else
    txhooks::HookedConnection db{database};
    txhooks::Atomic tx{db};
#endif
    tx.commit();
}

// error: txhooks: this is not a hooked connection; wrap it first: txhooks::HookedConnection db\{connection\}
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <txhooks/ambient.hpp>

void serve(Database& connection) {
#ifndef CONTROL
    const txhooks::AmbientConnection here{connection};
#else
    txhooks::HookedConnection db{connection};
    const txhooks::AmbientConnection here{db};
#endif
}

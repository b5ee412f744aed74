// error: ignoring (return value|temporary).*(Atomic|nodiscard)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    txhooks::Atomic{db};
#else
    txhooks::Atomic tx{db};
    tx.commit();
#endif
}

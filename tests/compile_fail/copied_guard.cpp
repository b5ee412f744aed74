// error: use of deleted function .*Atomic\(const |call to deleted constructor of .*Atomic
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
    txhooks::Atomic tx{db};
#ifndef CONTROL
    txhooks::Atomic<Hooked> copy = tx;
    copy.commit();
#endif
    tx.commit();
}

// error: use of deleted function .*operator new|call to deleted function .operator new.|selected deleted .*operator new
// SPDX-License-Identifier: MIT
#include "backend.hpp"

void sign_up(Hooked& db) {
#ifndef CONTROL
    auto* const tx = new txhooks::Atomic<Hooked>{db};
    tx->commit();
    delete tx;
#else
    txhooks::Atomic<Hooked> tx{db};
    tx.commit();
#endif
}

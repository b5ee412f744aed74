// error: use of deleted function .*operator new|call to deleted function .operator new.|selected deleted .*operator new
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <memory>

void sign_up(Hooked& db) {
#ifndef CONTROL
    const auto tx = std::make_unique<txhooks::Atomic<Hooked>>(db);
    tx->commit();
#else
    txhooks::Atomic<Hooked> tx{db};
    tx.commit();
#endif
}

// error: use of deleted function .*operator=|overload resolution selected deleted operator .=
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <utility>

void sign_up(Hooked& db, txhooks::Atomic<Hooked>& outer) {
    txhooks::Atomic tx{db};
#ifndef CONTROL
    tx = std::move(outer);
#endif
    tx.commit();
    outer.commit();
}

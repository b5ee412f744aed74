// error: use of deleted function .*Atomic\(const |call to deleted constructor of .*Atomic
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <utility>

void sign_up(Hooked& db) {
    txhooks::Atomic tx{db};
#ifndef CONTROL
    txhooks::Atomic<Hooked> moved{std::move(tx)};
    moved.commit();
#endif
    tx.commit();
}

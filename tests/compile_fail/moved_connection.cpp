// error: use of deleted function|call to deleted constructor
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <utility>

void sign_up(Hooked& db) {
#ifndef CONTROL
    Hooked moved{std::move(db)};
#else
    Hooked& moved{db};
#endif
    moved.atomic([] {});
}

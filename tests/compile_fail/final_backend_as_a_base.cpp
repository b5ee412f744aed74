// error: txhooks: this backend is final and cannot be a base class; keep it beside
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct FinalDatabase final : Database {};

void sign_up(FinalDatabase& database) {
#ifndef CONTROL
    txhooks::HookedConnection<FinalDatabase> db;
#else
    txhooks::HookedConnection<FinalDatabase&> db{database};
#endif
    db.atomic([] {});
}

// error: txhooks: this SqlAdapter has no state\(\).*txhooks::SqlAdapterWithoutState
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> : txhooks::SqlAdapter<txhooks::BackendAdapter<Driver>> {
    explicit BackendAdapter(Driver&) {}
    void execute(const char* sql);
#ifdef CONTROL
    txhooks::ConnectionState state() const noexcept;
#endif
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

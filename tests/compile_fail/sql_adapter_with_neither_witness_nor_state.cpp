// error: txhooks: with neither a witness nor state\(\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver>
    : txhooks::SqlAdapterWithoutState<txhooks::BackendAdapter<Driver>, txhooks::SqlWitness::none> {
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

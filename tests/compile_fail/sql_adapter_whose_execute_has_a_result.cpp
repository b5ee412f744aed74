// error: txhooks: this SqlAdapter has no execute\(\): write void execute\(const char\* sql\).*a result would be ignored
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> : txhooks::SqlAdapter<txhooks::BackendAdapter<Driver>> {
    explicit BackendAdapter(Driver&) {}
#ifdef CONTROL
    void execute(const char* sql);
#else
    bool execute(const char* sql);
#endif
    txhooks::ConnectionState state() const noexcept;
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

// error: txhooks: this adapter has no begin\(\).*void begin\(const begin_options&\)
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    struct begin_options {
        friend bool operator==(const begin_options&, const begin_options&) = default;
    };
#ifdef CONTROL
    void begin(const begin_options& options);
#else
    void begin();
#endif
    txhooks::CommitResult commit() noexcept;
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

// error: txhooks: read_only of these begin_options does not fit
// SPDX-License-Identifier: MIT
#include "backend.hpp"

struct Driver {};

template <>
struct txhooks::BackendAdapter<Driver> {
    explicit BackendAdapter(Driver& driver);
    struct begin_options {
#ifdef CONTROL
        bool read_only = false;
#else
        int read_only = 0;
#endif
        friend bool operator==(const begin_options&, const begin_options&) = default;
    };
    void begin(const begin_options& options);
    txhooks::CommitResult commit() noexcept;
    void rollback();
};

void sign_up() {
    txhooks::HookedConnection<Driver> db;
    db.atomic([] {});
}

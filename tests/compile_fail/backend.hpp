// SPDX-License-Identifier: MIT
#pragma once

// A connection with every verb, and the HookedConnection on it, for the refusals to be tried on.

#include <txhooks/txhooks.hpp>

struct Database {
    void begin();
    txhooks::CommitResult commit() noexcept;
    void rollback();
    void savepoint(unsigned n);
    void release(unsigned n);
    void rollback_to(unsigned n);
};

using Hooked = txhooks::HookedConnection<Database>;

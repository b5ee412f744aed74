// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <exception>

namespace txhooks {

/// How a transaction ended, as far as it is proven.
enum class Outcome : unsigned char {
    committed,    ///< the data is there; hooks run
    rolled_back,  ///< the data is gone; hooks are discarded
    still_open,   ///< the engine refused to end it (SQLite: busy, deferred constraint); nothing is decided
    unknown,      ///< in doubt: it may be committed; no hook runs
};

/// What an adapter can prove about a COMMIT.
struct CommitResult {
    Outcome outcome = Outcome::unknown;
    /// What the engine reported, if it reported an error.
    std::exception_ptr error = nullptr;
    /// The transaction had ended before COMMIT was sent; `outcome` says what became of it.
    bool lost = false;
    /// The engine reported an error, also where `error` is null: an exception of another language is in no
    /// `exception_ptr`. With an `error` it need not be set.
    bool failed = false;

    bool reported_error() const noexcept { return failed || error != nullptr; }
};

/// What the client side knows about the connection, without asking the server.
enum class ConnectionState : unsigned char {
    idle,    ///< in no transaction
    open,    ///< in a transaction that can go on
    failed,  ///< in a transaction that can only be rolled back
    lost,    ///< what is open is not the transaction txhooks began, or the connection is gone
};

}  // namespace txhooks

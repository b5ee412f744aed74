// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/stage.hpp>
#include <txhooks/errors.hpp>

#include <cstddef>
#include <cstdio>
#include <exception>

namespace txhooks::testing {

/// A scope ended while hooks were still waiting for a commit in it.
class HooksLeft final : public Error {
public:
    explicit HooksLeft(std::size_t count) noexcept : Error{Outcome::rolled_back, ""}, count_{count} {
        std::snprintf(text_, sizeof text_,
                      "txhooks: %zu hook(s) were still waiting for a commit when the test's scope ended; end the block "
                      "they were registered in first",
                      count);
    }

    const char* what() const noexcept override { return text_; }
    std::size_t count() const noexcept { return count_; }

private:
    std::size_t count_;
    char text_[160];
};

/// A transaction around a test that is always rolled back, so that tests leave no rows to one another:
///
///     TEST_CASE("a user who signs up gets an e-mail") {
///         txhooks::testing::RolledBack test{db};
///         sign_up(db, "ann");      // its blocks commit, its hooks run: as in production
///         ...
///     }                            // the rows are gone
///
/// Inside, an outermost block is a savepoint in that transaction: it commits by RELEASE, and then its hooks run, at the
/// same place and in the same order as after a COMMIT; `durable` is satisfied; `usable()` and `in_atomic_block()`
/// answer as they would. What is different:
///
/// - Nobody else sees the rows: code that uses a second connection needs tests with real commits.
/// - What only a COMMIT can answer does not happen: a busy SQLite file, a deferred constraint (PostgreSQL: `SET
///   CONSTRAINTS ALL IMMEDIATE`), a serialization failure at COMMIT, `CommitUnknown`.
/// - A `Doubt` is not used: there is none.
/// - Begin options are accepted and change nothing: the transaction has begun.
/// - On PostgreSQL a statement that fails outside every block aborts the whole test. Put it into a block.
///
/// Needs a backend with savepoints. Scopes on one connection, `CapturedHooks` included, end in the reverse order of
/// their beginning, and before their connection: anything else terminates the program.
class RolledBack {
public:
    /// Begins the transaction. Throws: what opening a block throws; `UsageError` in an atomic block.
    explicit RolledBack(Connection& db) : db_{&db} { detail::Stages::push_base(db, stage_, base_); }
    RolledBack(const RolledBack&) = delete;
    RolledBack& operator=(const RolledBack&) = delete;

    /// As `end()`; what that would throw goes to the error sink.
    ~RolledBack() {
        if (db_ == nullptr) return;
        Connection& db = *db_;
        if (const std::exception_ptr error = finish())
            detail::Blocks::report(db, "txhooks: at the end of a RolledBack", error);
    }

    /// Rolls back everything, blocks that are still open included. Throws, after that: `HooksLeft` when hooks were
    /// waiting in such blocks; `TransactionLost` when the transaction had ended before (a raw COMMIT: the rows stay);
    /// what ROLLBACK throws.
    void end() {
        if (db_ == nullptr) return;
        if (const std::exception_ptr error = finish()) std::rethrow_exception(error);
    }

private:
    std::exception_ptr finish() noexcept {
        Connection& db = *db_;
        db_ = nullptr;
        std::exception_ptr error;
        const std::size_t left = detail::Stages::pop(db, stage_, error);
        if (!error && left != 0) error = std::make_exception_ptr(HooksLeft{left});
        return error;
    }

    Connection* db_;
    detail::Stage stage_;
    detail::Block base_;
};

}  // namespace txhooks::testing

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/block.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/stage.hpp>
#include <txhooks/detail/staging.hpp>
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
/// - A block that has committed in it runs no rollback hooks when the rows are taken back at the end.
/// - Begin options are accepted and change nothing: the transaction has begun.
/// - On PostgreSQL a statement that fails outside every block aborts the whole test. Put it into a block.
///
/// Needs a backend with savepoints. Scopes on one connection, `CapturedHooks` included, end in the reverse order of
/// their beginning, and before their connection: anything else terminates the program.
class RolledBack {
public:
    /// Begins the transaction. Throws: what opening a block throws; `UsageError` in an atomic block.
    explicit RolledBack(Connection& db) : db_{detail::blocks(db)} { db_.push(stage_, base_); }
    RolledBack(const RolledBack&) = delete;
    RolledBack& operator=(const RolledBack&) = delete;

    /// As `end()`; what that would throw goes to the error sink.
    ~RolledBack() {
        if (ending_) detail::die("txhooks: a RolledBack was destroyed while it ends");
        if (ended_) return;
        if (const detail::Failure failure = finish()) db_.report("txhooks: at the end of a RolledBack", failure);
    }

    /// Rolls back everything, blocks that are still open included. Throws, after that: `HooksLeft` when hooks were
    /// waiting in such blocks; `TransactionLost` when the transaction had ended before (a raw COMMIT: the rows stay);
    /// what ROLLBACK throws.
    void end() {
        if (ended_) return;
        if (const detail::Failure failure = finish()) failure.rethrow();
    }

private:
    // In place of BEGIN, COMMIT and ROLLBACK.
    class Savepoints final : public detail::OutermostVerbs {
    public:
        Savepoints(detail::Blocks& db, detail::Block& base) noexcept : db_{db}, base_{base} {}

        unsigned begin() override {
            number_ = base_.taken + 1;
            try {
                db_.verb_savepoint(number_);
            } catch (...) {
                base_.taken = number_;  // it may be there all the same
                throw;
            }
            return number_;
        }
        CommitResult commit() noexcept override {
            detail::Failure failure;
            try {
                db_.verb_release(number_);
                return {Outcome::committed};
            } catch (const TransactionLost& lost) {
                return {lost.outcome(), lost.cause(), true};
            } catch (...) {
                failure = detail::Failure::current();
            }
            const bool undone = !detail::attempt([this] { rollback(); });
            return {undone ? Outcome::rolled_back : Outcome::unknown, failure.error, false, true};
        }
        void rollback() override { db_.verb_rollback_to(number_); }

    private:
        detail::Blocks& db_;
        detail::Block& base_;
        unsigned number_ = 0;
    };

    detail::Failure finish() noexcept {
        ended_ = ending_ = true;
        const std::size_t left = db_.pop(stage_);
        detail::Failure failure = db_.undo_base(base_);
        ending_ = false;
        if (failure || left == 0) return failure;
        return {true, false, std::make_exception_ptr(HooksLeft{left})};
    }

    detail::Blocks& db_;
    detail::Block base_{};
    Savepoints verbs_{db_, base_};
    detail::Stage stage_{.verbs = &verbs_};
    bool ended_ = false;
    bool ending_ = false;
};

}  // namespace txhooks::testing

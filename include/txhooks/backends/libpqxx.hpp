// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on `pqxx::connection` (libpqxx 6.4; written for 7 and 8, where it is final and must be borrowed, but
/// not tried there):
///
///     txhooks::HookedConnection<pqxx::connection> db{"dbname=app"};
///     db.atomic([&](pqxx::transaction_base& tx) {
///         tx.exec("INSERT INTO user ...");
///         db.on_commit(send_welcome_email, user_id);
///     });
///
/// libpqxx runs SQL through transaction objects. The outermost block has one, which a function given to `atomic` may
/// take, nested ones too; elsewhere it is `db.adapter().session()`. While the block is open libpqxx refuses any other
/// on the connection, and a subtransaction is not possible: open a nested block. Leave `commit()` and `abort()` of that
/// object alone: they end its use, not the transaction, and the block can only roll back then. Errors are thrown as
/// libpqxx throws them.
///
/// The witness is a savepoint, `txhooks_0`, set with BEGIN and released with COMMIT, each in one string and one round
/// trip: COMMIT is only reached in the transaction that the block began, and if no statement of it has failed.
///
/// - It costs a second transaction id for every block that writes. `SET TRANSACTION` and `pg_export_snapshot()` fail in
///   a block, as PostgreSQL has it in a savepoint: give the isolation level with `.begin`.
/// - libpqxx does not say in what state the connection is. So a transaction begun by raw SQL outside of blocks is not
///   noticed (the block becomes part of it, and ends it); a loss inside is noticed when the block, or a nested one,
///   ends; and it is not known what became of it. A transaction object of yours that lives outside of blocks, a
///   `nontransaction` too, counts as a transaction: `on_commit` and blocks are refused.
/// - The connection does not reconnect by itself while a block is open (`inhibit_reactivation` of libpqxx 6, which is
///   off after it). What is in doubt or could not be rolled back is over after `db.disconnect(); db.reset();`.
/// - A block belongs to the process that began it. After `fork()` the guard of the other sends nothing, and says so
///   (`UsageError`, or the error sink); leave that process with `_exit` or `exec`, because the destructor of its
///   `pqxx::connection` would end the session of both.
/// - A hook belongs to its block, not to a savepoint of yours: `ROLLBACK TO` undoes the row and not the hook. Open a
///   nested block instead.
/// - A stream or a pipeline that is unfinished stops the end of a block with `pqxx::usage_error`: finish it before.

#include <txhooks/backends/detail/postgres.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/txhooks.hpp>

#include <pqxx/connection>
#include <pqxx/except>
#include <pqxx/nontransaction>
#include <pqxx/version>

#include <concepts>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>

namespace txhooks {
namespace postgres::detail {

#if PQXX_VERSION_MAJOR < 7
using PqxxConnection = pqxx::connection_base;
#else
using PqxxConnection = pqxx::connection;
#endif

// The SQLSTATE with which the server answered, or nothing. libpqxx 6 has it in the type alone for some.
inline std::string pqxx_sqlstate(const std::exception_ptr& error) noexcept {
    if (!error) return {};
    try {
        std::rethrow_exception(error);
    } catch (const pqxx::serialization_failure&) {
        return "40001";
    } catch (const pqxx::deadlock_detected&) {
        return "40P01";
    } catch (const pqxx::insufficient_privilege&) {
        return "42501";
    } catch (const pqxx::statement_completion_unknown&) {
        return {};
    } catch (const pqxx::transaction_rollback&) {
        return "40000";
    } catch (const pqxx::sql_error& e) {
        return e.sqlstate();
    } catch (...) {
        return {};
    }
}

}  // namespace postgres::detail

template <std::derived_from<postgres::detail::PqxxConnection> Backend>
class BackendAdapter<Backend> {
public:
    using begin_options = postgres::Begin;

    explicit BackendAdapter(Backend& db) noexcept : db_{db} {}

    /// What runs SQL in a block. Throws: `UsageError` outside.
    pqxx::transaction_base& session() {
        if (!session_) throw UsageError{"txhooks: session() outside an atomic block; open one, or a pqxx::work"};
        return *session_;
    }

    void begin(const postgres::Begin& options) {
        session_.emplace(db_);
        try {
            postgres::detail::begin("BEGIN; SAVEPOINT txhooks_0", options, [this](const char* sql) { execute(sql); });
        } catch (...) {
            if (!db_.is_open()) end();
            throw;
        }
        stay_disconnected(true);
        ours_ = true;
        process_ = postgres::detail::this_process();
    }

    CommitResult commit() noexcept { return commit_by("RELEASE txhooks_0; COMMIT"); }

    /// For `Doubt`. In one round trip, as without the marker.
    CommitResult commit(const char* marker) noexcept {
        return postgres::detail::commit_marked(
            "RELEASE txhooks_0; SAVEPOINT txhooks_0; ", marker, "RELEASE txhooks_0; COMMIT", [this](const char* sql) {
                return commit_by(sql, [this](const std::exception_ptr& error) { return failed_marker(error); });
            });
    }

    bool was_committed(const char* marker) {
        pqxx::nontransaction session{db_};
        return postgres::detail::was_committed(marker, [&](const char* sql) {
            const pqxx::result rows = session.exec(std::string{sql});
            return std::string{rows.empty() ? "" : rows[0][0].c_str()};
        });
    }

    void rollback() {
        if (!session_) return;
        if (in_another_process()) {
            unfinished_ = true;
            throw UsageError{postgres::detail::after_fork};
        }
        txhooks::detail::Failure failure = failure_of("ROLLBACK TO txhooks_0; ROLLBACK");
        if (failure) {  // it may have been interrupted
            replace_closed_session();
            failure = failure_of("ROLLBACK TO txhooks_0; ROLLBACK");
        }
        const std::string state = postgres::detail::pqxx_sqlstate(failure.error);
        const bool idle = !failure || state == postgres::detail::no_transaction || !failure_of("ROLLBACK");
        const bool was_ours = ours_;
        if (!idle) {
            // An unfinished stream of the user's needs its transaction object.
            unfinished_ = true;
            if (!db_.is_open()) end();
            failure.rethrow();
        }
        end();
        if (was_ours && failure) throw TransactionLost{Outcome::unknown, failure.error};  // or not proven to be ours
    }

    void savepoint(unsigned n) { numbered("SAVEPOINT", n); }
    void release(unsigned n) { numbered("RELEASE", n); }
    void rollback_to(unsigned n) {
        char sql[80];
        std::snprintf(sql, sizeof sql, "ROLLBACK TO txhooks_%u; RELEASE txhooks_%u", n, n);
        execute_nested(sql);
    }

    ConnectionState state() const noexcept {
        if (unfinished_) return ConnectionState::lost;
        if (!session_) return is_taken() ? ConnectionState::open : ConnectionState::idle;  // as far as is known
        return db_.is_open() ? ConnectionState::open : ConnectionState::lost;
    }

    bool in_another_process() const noexcept { return ours_ && postgres::detail::this_process() != process_; }

    void reset() noexcept {
        if (in_another_process() && db_.is_open()) return;
        if (session_ && db_.is_open()) {
            replace_closed_session();
            if (failure_of("ROLLBACK")) return;
        }
        end();
        unfinished_ = false;
    }

    /// For `retry`: a serialization failure (40001), or the victim of a deadlock (40P01).
    bool transient(const std::exception_ptr& error) const noexcept {
        const std::string state = postgres::detail::pqxx_sqlstate(error);
        return postgres::detail::is_transient(state);
    }

private:
    static constexpr const char* failed_transaction = "25P02";
    static constexpr const char* no_savepoint = "3B001";
    static constexpr const char* something_written = "22012";

    CommitResult commit_by(const char* sql) noexcept {
        return commit_by(sql, [this](const std::exception_ptr& error) { return failed_commit(error); });
    }

    template <class Failed>
    CommitResult commit_by(const char* sql, Failed failed) noexcept {
        try {
            refuse_another_process();
            execute(sql);
            end();
            return {Outcome::committed};
        } catch (const pqxx::usage_error&) {  // something of the user's is unfinished; nothing was sent
            return {Outcome::still_open, std::current_exception()};
        } catch (const UsageError&) {
            return {Outcome::still_open, std::current_exception()};
        } catch (...) {
            return failed(std::current_exception());
        }
    }

    // A block that could not write its marker is committed without one if it was read-only, and has written nothing.
    CommitResult failed_marker(const std::exception_ptr& error) noexcept {
        if (postgres::detail::pqxx_sqlstate(error) != postgres::detail::read_only) return failed_commit(error);
        const txhooks::detail::Failure failure = failure_of(postgres::detail::commit_unmarked);
        if (!failure) {
            end();
            return {Outcome::committed};
        }
        const std::string state = postgres::detail::pqxx_sqlstate(failure.error);
        // Something was written (division by zero), or it was COMMIT that had failed.
        if (state == something_written || state == postgres::detail::no_transaction) return failed_commit(error);
        CommitResult result = failed_commit(failure.error);
        if (result.outcome == Outcome::unknown) result.lost = true;  // not in doubt: no marker was sent
        return result;
    }

    void refuse_another_process() const {
        if (in_another_process()) throw UsageError{postgres::detail::after_fork};
    }

    void execute(const char* sql) { session_->exec(std::string{sql}); }

    txhooks::detail::Failure failure_of(const char* sql) noexcept {
        return txhooks::detail::attempt([&] { execute(sql); });
    }

    void numbered(const char* verb, unsigned n) {
        char sql[40];
        std::snprintf(sql, sizeof sql, "%s txhooks_%u", verb, n);
        execute_nested(sql);
    }

    void execute_nested(const char* sql) {
        refuse_another_process();
        const txhooks::detail::Failure failure = failure_of(sql);
        if (!failure) return;
        const std::string state = postgres::detail::pqxx_sqlstate(failure.error);
        if (state == no_savepoint || state == postgres::detail::no_transaction)
            throw TransactionLost{Outcome::unknown, failure.error};
        if (state == failed_transaction) throw TransactionAborted{failure.error};
        failure.rethrow();
    }

    CommitResult failed_commit(const std::exception_ptr& error) noexcept {
        const std::string state = postgres::detail::pqxx_sqlstate(error);
        if (state == postgres::detail::no_transaction) return {Outcome::unknown, error, true};
        if (state.empty()) return ended(Outcome::unknown, error);  // also an exception of another language
        // If the session lives on, it has answered. In no transaction: it was COMMIT that failed. Else that was not
        // reached.
        if (!failure_of("BEGIN; ROLLBACK")) return ended(Outcome::rolled_back, error);
        if (state == no_savepoint) return {Outcome::unknown, error, true};
        try {
            rollback();
        } catch (const TransactionLost&) {
            return {Outcome::unknown, error, true};
        } catch (...) {
            return ended(Outcome::unknown, error);
        }
        if (state == failed_transaction) return {Outcome::rolled_back};  // a statement had failed
        return {Outcome::rolled_back, error};
    }

    CommitResult ended(Outcome outcome, const std::exception_ptr& error) noexcept {
        end();
        return {outcome, error, false, true};
    }

    // By a transaction object that was not closed: ours, or in no block one of the user's.
    bool is_taken() const noexcept {
        try {
            const pqxx::nontransaction free{db_};
            return false;
        } catch (...) {
            return true;  // as far as is known
        }
    }

    // After the user has called commit() or abort() of the transaction object it takes another to go on.
    void replace_closed_session() noexcept {
        if (is_taken()) return;  // it was not closed
        try {
            session_.emplace(db_);
        } catch (...) {
            // The connection is gone.
        }
    }

    void end() noexcept {
        if (ours_) stay_disconnected(false);
        ours_ = false;
        session_.reset();
    }

    // libpqxx 6 would reconnect, and the rest of the block would run outside of any transaction.
    void stay_disconnected([[maybe_unused]] bool stay) noexcept {
#if PQXX_VERSION_MAJOR < 7
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        db_.inhibit_reactivation(stay);
#pragma GCC diagnostic pop
#endif
    }

    Backend& db_;
    std::optional<pqxx::nontransaction> session_;  // while a block is open
    bool ours_ = false;
    bool unfinished_ = false;  // a ROLLBACK has failed
    long process_ = 0;         // that of BEGIN
};

}  // namespace txhooks

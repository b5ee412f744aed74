// SPDX-License-Identifier: MIT
#pragma once

// What the adapters for SQLite share: <txhooks/backends/sqlite3.hpp> and <txhooks/backends/sqlitecpp.hpp> say how a
// connection is reached and how an error is made into an exception (`Driver`); how transactions are begun, watched and
// ended is here.

#include <txhooks/backend_adapter.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <sqlite3.h>

#include <cstdio>
#include <cstring>
#include <exception>

namespace txhooks::sqlite {

/// When an outermost block takes its locks (the manual's BEGIN DEFERRED, IMMEDIATE, EXCLUSIVE).
enum class Begin : unsigned char {
    deferred,   ///< at the first statement that needs them (the default)
    immediate,  ///< the write locks at once: no writer can come between; recommended for read-then-write in WAL mode
    exclusive,  ///< like immediate, and without WAL nobody else can read either
};

namespace detail {

// How a connection of type Backend is reached, and an error made into an exception.
template <class Backend>
struct DriverOf;

// Statements of one connection, prepared when first used and kept.
class Statements {
public:
    explicit Statements(sqlite3* db) noexcept : db_{db} {}
    Statements(const Statements&) = delete;
    Statements& operator=(const Statements&) = delete;
    ~Statements() { forget(); }

    sqlite3* db() const noexcept { return db_; }

    /// Runs the kept statement `slot`, which is `sql`. Returns SQLite's result code; errors are in the connection.
    int run(unsigned slot, const char* sql) noexcept {
        sqlite3_stmt*& statement = kept_[slot];
        if (statement == nullptr) {
            const int rc = sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
            if (rc != SQLITE_OK) return rc;
        }
        sqlite3_step(statement);
        return sqlite3_reset(statement);
    }

    /// Whether `slot` was ever prepared: if not, it has not run.
    bool has(unsigned slot) const noexcept { return kept_[slot] != nullptr; }

    /// Runs `sql` without keeping it.
    int run_once(const char* sql) noexcept { return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr); }

    /// Runs `verb` on savepoint `n`. The statements of the first levels of nesting are kept.
    int run_numbered(unsigned slot, const char* verb, unsigned n) noexcept {
        if (n < kept_levels && kept_[slot + n] != nullptr) return run(slot + n, nullptr);
        char sql[64];
        std::snprintf(sql, sizeof sql, "%s txhooks_%u", verb, n);
        return n < kept_levels ? run(slot + n, sql) : run_once(sql);
    }

    void forget() noexcept {
        for (sqlite3_stmt*& statement : kept_) {
            sqlite3_finalize(statement);
            statement = nullptr;
        }
    }

    static constexpr unsigned kept_levels = 4;
    enum Slot : unsigned {
        begin,
        commit,
        rollback,
        savepoint,
        release = savepoint + kept_levels,
        rollback_to = release + kept_levels,
        slot_count = rollback_to + kept_levels,
    };

private:
    sqlite3* db_;
    sqlite3_stmt* kept_[slot_count] = {};
};

// What does not depend on the witness.
template <class Driver>
class Verbs {
public:
    using begin_options = Begin;

    void savepoint(unsigned n) { check(sql_.run_numbered(Statements::savepoint, "SAVEPOINT", n)); }
    void release(unsigned n) { check_ours(release_numbered(n)); }
    void rollback_to(unsigned n) {
        check_ours(rollback_to_numbered(n));
        release(n);
    }
    void reset() noexcept {
        sql_.forget();
        ours_ = false;
    }

    /// For `retry`: somebody else had the lock, or has written since this transaction began to read.
    bool transient(const std::exception_ptr& error) const noexcept {
        return (Driver::code(error) & 0xff) == SQLITE_BUSY;
    }

protected:
    explicit Verbs(sqlite3* db) noexcept : sql_{db} {}

    bool in_transaction() const noexcept { return sqlite3_get_autocommit(sql_.db()) == 0; }
    bool writing() const noexcept { return sqlite3_txn_state(sql_.db(), nullptr) == SQLITE_TXN_WRITE; }

    // Outside blocks. An unfinished INSERT ... RETURNING in autocommit mode has not committed yet: not idle.
    ConnectionState state_outside() const noexcept {
        const bool idle = !in_transaction() && !writing();
        return idle ? ConnectionState::idle : ConnectionState::open;
    }

    int release_numbered(unsigned n) noexcept { return sql_.run_numbered(Statements::release, "RELEASE", n); }
    int rollback_to_numbered(unsigned n) noexcept {
        return sql_.run_numbered(Statements::rollback_to, "ROLLBACK TO", n);
    }

    // BEGIN IMMEDIATE and EXCLUSIVE lock the databases that were attached when they were prepared: never keep them.
    int begin_locking(Begin mode) noexcept {
        return sql_.run_once(mode == Begin::immediate ? "BEGIN IMMEDIATE" : "BEGIN EXCLUSIVE");
    }

    // SQLite says so, and nothing else, when the transaction that held the savepoint is gone.
    bool says_no_such_savepoint(int rc) const noexcept {
        return rc == SQLITE_ERROR && std::strncmp(sqlite3_errmsg(sql_.db()), "no such savepoint", 17) == 0;
    }

    std::exception_ptr error(int rc, Outcome outcome = Outcome::rolled_back) const noexcept {
        return Driver::error(sql_.db(), rc, outcome);
    }

    void check(int rc) const {
        if (rc != SQLITE_OK)
            std::rethrow_exception(error(rc, in_transaction() ? Outcome::still_open : Outcome::rolled_back));
    }

    void check_ours(int rc) const {
        if (says_no_such_savepoint(rc)) throw TransactionLost{Outcome::unknown, error(rc)};
        check(rc);
    }

    Statements sql_;
    bool ours_ = false;  // from BEGIN until we have seen the end
};

}  // namespace detail

/// The default adapter. Its transactions are savepoints called `txhooks_0`, so that ending one is exact: RELEASE fails
/// if that transaction is gone, even when user code began another one (`ROLLBACK; BEGIN`).
///
/// - Cost: none that can be measured in bulk for deferred blocks, where the savepoint *is* the transaction. In
///   immediate and exclusive ones it stands inside a BEGIN, and SQLite then journals every page it changes once more:
///   a bulk UPDATE in WAL mode takes about twice its time (small transactions do not notice). `HookCounters` avoids it.
/// - It takes no hook slot, writes nothing, and works on read-only databases and in every journal mode. Under
///   `query_only` SQLite itself refuses to begin immediate and exclusive blocks.
/// - It cannot tell what became of a lost transaction (`TransactionLost` with `Outcome::unknown`), and an error from
///   COMMIT that ended the transaction is in doubt (`CommitUnknown`), except a veto by the user's commit hook, which is
///   a rollback. `HookCounters` can.
template <class Driver>
class SavepointWitness : public detail::Verbs<Driver> {
    using Base = detail::Verbs<Driver>;
    using Statements = detail::Statements;

public:
    explicit SavepointWitness(typename Driver::Handle db) noexcept : Base{Driver::handle(db)} {}

    void begin(const Begin& mode) {
        if (mode != Begin::deferred) this->check(this->begin_locking(mode));
        this->check(set_witness());
        this->ours_ = true;
    }

    CommitResult commit() noexcept {
        int rc = this->release_numbered(0);
        const bool nested = rc == SQLITE_OK && this->in_transaction();  // an immediate or exclusive one
        if (nested) rc = this->sql_.run(Statements::commit, "COMMIT");
        if (rc == SQLITE_OK) {
            this->ours_ = false;
            return {Outcome::committed};
        }
        if (!this->in_transaction()) return ended(rc, vetoed() ? Outcome::rolled_back : Outcome::unknown);
        if (this->says_no_such_savepoint(rc)) return {Outcome::unknown, this->error(rc), true};
        if (!nested && !this->writing() && !refused()) return ended_in_release(rc);
        std::exception_ptr error = this->error(rc, Outcome::still_open);
        // Without it the next attempt would look like a loss.
        if (nested && set_witness() != SQLITE_OK) return {Outcome::unknown, error, true};
        return {Outcome::still_open, error};
    }

    void rollback() {
        this->ours_ = false;
        if (!this->in_transaction()) return;
        int rc = this->rollback_to_numbered(0);
        if (rc != SQLITE_OK && !this->says_no_such_savepoint(rc)) rc = this->rollback_to_numbered(0);  // interrupted
        const bool lost = rc != SQLITE_OK;  // or not proven to be ours
        std::exception_ptr error = lost ? this->error(rc) : nullptr;
        if (this->in_transaction()) this->check(this->sql_.run(Statements::rollback, "ROLLBACK"));
        if (lost) throw TransactionLost{Outcome::unknown, error};
    }

    ConnectionState state() const noexcept {
        if (!this->ours_) return this->state_outside();
        return this->in_transaction() ? ConnectionState::open : ConnectionState::lost;
    }

private:
    CommitResult ended(int rc, Outcome outcome) noexcept {
        this->ours_ = false;
        return {outcome, this->error(rc, outcome)};
    }

    // RELEASE has undone nothing: it could not be prepared, statements are in progress, or a file is busy. (A commit
    // that ends in an extended code of BUSY is undone.)
    bool refused() const noexcept {
        return !this->sql_.has(Statements::release) || sqlite3_extended_errcode(this->sql_.db()) == SQLITE_BUSY;
    }

    // When the RELEASE that commits fails for good, SQLite undoes everything and yet stays in a transaction: an empty
    // one, in which the next RELEASE would succeed. One that was interrupted before it had written looks the same.
    CommitResult ended_in_release(int rc) noexcept {
        const bool undone = vetoed() || sqlite3_extended_errcode(this->sql_.db()) == SQLITE_INTERRUPT;
        CommitResult result = ended(rc, undone ? Outcome::rolled_back : Outcome::unknown);
        result.lost = this->rollback_to_numbered(0) != SQLITE_OK;  // not proven to be ours
        if (result.lost) result.outcome = Outcome::unknown;
        this->sql_.run(Statements::rollback, "ROLLBACK");
        if (this->in_transaction()) result.outcome = Outcome::unknown;
        return result;
    }

    bool vetoed() const noexcept { return sqlite3_extended_errcode(this->sql_.db()) == SQLITE_CONSTRAINT_COMMITHOOK; }

    int set_witness() noexcept { return this->sql_.run_numbered(Statements::savepoint, "SAVEPOINT", 0); }
};

/// Watches its transactions through the connection's commit hook and rollback hook instead:
///
///     txhooks::HookedConnection<sqlite3*, txhooks::sqlite::Counting<sqlite3*>> db{handle};
///
/// - Cost: none, in every begin mode.
/// - It takes both hook slots of the connection from whoever had them; if user code takes one back while a block is
///   open the transaction counts as lost. Destroyed, it leaves the slots empty.
/// - It knows what became of a lost transaction, and runs the hooks of one that was committed although COMMIT reported
///   an error (a write-ahead log hook that failed). Still in doubt: an I/O error at COMMIT.
/// - It does not see a raw `COMMIT; BEGIN` of a transaction that had written nothing; nothing was lost then.
template <class Driver>
class HookCounters : public detail::Verbs<Driver> {
    using Base = detail::Verbs<Driver>;
    using Statements = detail::Statements;

public:
    explicit HookCounters(typename Driver::Handle db) noexcept : Base{Driver::handle(db)} {}
    ~HookCounters() {
        sqlite3_commit_hook(this->sql_.db(), nullptr, nullptr);
        sqlite3_rollback_hook(this->sql_.db(), nullptr, nullptr);
    }

    void begin(const Begin& mode) {
        take_slots();
        this->check(mode == Begin::deferred ? this->sql_.run(Statements::begin, "BEGIN") : this->begin_locking(mode));
        commits_ = rollbacks_ = 0;
        watched_ = true;
        this->ours_ = true;
    }

    CommitResult commit() noexcept {
        if (!still_watched()) return {Outcome::unknown, nullptr, true};
        const int rc = this->sql_.run(Statements::commit, "COMMIT");
        if (rc == SQLITE_OK) {
            this->ours_ = false;
            return {Outcome::committed};
        }
        if (this->in_transaction()) {
            commits_ = 0;  // the hook is called before a file may turn out to be busy
            return {Outcome::still_open, this->error(rc, Outcome::still_open)};
        }
        this->ours_ = false;
        const Outcome outcome = (rc & 0xff) == SQLITE_IOERR ? Outcome::unknown
                                : rollbacks_ != 0           ? Outcome::rolled_back
                                                            : fate();
        return {outcome, this->error(rc, outcome)};
    }

    void rollback() {
        const Outcome outcome = fate();
        const bool lost = !watched_ || state() == ConnectionState::lost;
        const bool was_ours = this->ours_;
        this->ours_ = false;
        if (this->in_transaction()) this->check(this->sql_.run(Statements::rollback, "ROLLBACK"));
        if (was_ours && lost) throw TransactionLost{outcome};
    }

    ConnectionState state() const noexcept {
        if (!this->ours_) return this->state_outside();
        const bool ended = !this->in_transaction() || commits_ != 0 || rollbacks_ != 0;
        return ended ? ConnectionState::lost : ConnectionState::open;
    }

    Outcome fate() noexcept {
        if (!still_watched()) return Outcome::unknown;
        if (rollbacks_ == 0) return Outcome::committed;  // silent if it had written nothing
        return commits_ == 0 ? Outcome::rolled_back : Outcome::unknown;
    }

private:
    // Whether both were ours already.
    bool take_slots() noexcept {
        const void* const commit_slot = sqlite3_commit_hook(this->sql_.db(), &HookCounters::on_commit, this);
        const void* const rollback_slot = sqlite3_rollback_hook(this->sql_.db(), &HookCounters::on_rollback, this);
        return commit_slot == this && rollback_slot == this;
    }
    bool still_watched() noexcept {
        if (!take_slots()) watched_ = false;
        return watched_;
    }
    static int on_commit(void* self) {
        ++static_cast<HookCounters*>(self)->commits_;
        return 0;
    }
    static void on_rollback(void* self) { ++static_cast<HookCounters*>(self)->rollbacks_; }

    unsigned commits_ = 0;
    unsigned rollbacks_ = 0;
    bool watched_ = true;  // since BEGIN both slots were ours whenever we looked
};

/// The adapter to name in `HookedConnection<Backend, sqlite::Counting<Backend>>`; see `HookCounters`.
template <class Backend>
using Counting = HookCounters<typename detail::DriverOf<Backend>::type>;

}  // namespace txhooks::sqlite

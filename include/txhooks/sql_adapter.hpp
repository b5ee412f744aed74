// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backend_adapter.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/detail/witness.hpp>
#include <txhooks/outcome.hpp>

#include <concepts>
#include <cstdio>

namespace txhooks {

/// How `SqlAdapter` tells its own transaction from one that user code began behind its back (`ROLLBACK; BEGIN`).
enum class SqlWitness : unsigned char {
    savepoint,  ///< a savepoint set with BEGIN and released right before COMMIT: RELEASE fails if it is gone
    none,       ///< nothing: only `state()` is looked at. For engines without RELEASE
};

/// `SqlAdapter` for a driver that does not know by itself whether a transaction is open: `execute` is enough. What only a
/// `state()` can tell is then not promised:
/// - a raw BEGIN outside of blocks is not seen: hooks registered after it run at once, and what a block's BEGIN does to
///   that transaction is the engine's: SQLite refuses it, and it is rolled back; PostgreSQL goes on in it, and the block
///   ends it; MariaDB commits it;
/// - a raw COMMIT or ROLLBACK in a block is noticed at its end, not before;
/// - a COMMIT that fails is in doubt, also one that could have been tried again (busy, a deferred constraint), and what
///   it left open is rolled back.
template <class Derived, SqlWitness witness = SqlWitness::savepoint>
class SqlAdapterWithoutState {
public:
    using begin_options = NoBeginOptions;

    void begin(const NoBeginOptions&) {
        self().execute("BEGIN");
        if constexpr (witness == SqlWitness::savepoint) self().savepoint(0);
    }
    CommitResult commit() noexcept {
        const auto commit = [this] { self().execute("COMMIT"); };
        if constexpr (witness == SqlWitness::savepoint)
            return detail::commit_with_witness(self(), commit);
        else
            return detail::commit_by_state(self(), commit);
    }
    void rollback() {
        const auto rollback = [this] { end_whatever_is_open(); };
        if constexpr (witness == SqlWitness::savepoint)
            detail::rollback_with_witness(self(), rollback);
        else
            rollback();
    }

    void savepoint(unsigned n) { numbered("SAVEPOINT", n); }
    void release(unsigned n) { numbered("RELEASE SAVEPOINT", n); }
    void rollback_to(unsigned n) {
        numbered("ROLLBACK TO SAVEPOINT", n);
        self().release(n);
    }

protected:
    SqlAdapterWithoutState() noexcept {
        static_assert(
            requires(Derived& adapter, const char* sql) {
                { adapter.execute(sql) } -> std::same_as<void>;
                requires !noexcept(adapter.execute(sql));
            },
            "txhooks: this SqlAdapter has no execute(): write void execute(const char* sql), public, which throws "
            "when the statement fails: a result would be ignored");
        static_assert(witness == SqlWitness::savepoint || detail::HasState<Derived>,
                      "txhooks: with neither a witness nor state() nothing would show that a transaction is gone: give "
                      "this adapter SqlWitness::savepoint");
    }

private:
    Derived& self() noexcept { return static_cast<Derived&>(*this); }

    // SQLite refuses a ROLLBACK if nothing is open, and without state() that could not be told from one that has failed.
    // With a savepoint there is something to roll back, or it does no harm.
    void end_whatever_is_open() {
        if constexpr (detail::HasState<Derived>) {
            self().execute("ROLLBACK");
        } else {
            const detail::Failure refused = detail::attempt([this] { self().execute("ROLLBACK"); });
            const auto with_savepoint = [this] {
                self().savepoint(0);
                self().execute("ROLLBACK");
            };
            if (refused && detail::attempt(with_savepoint)) refused.rethrow();
        }
    }

    void numbered(const char* verb, unsigned n) {
        char sql[64];
        std::snprintf(sql, sizeof sql, "%s txhooks_%u", verb, n);
        self().execute(sql);
    }
};

/// An adapter for whatever speaks SQL, from two functions:
///
///     template <> struct txhooks::BackendAdapter<MyDatabase> : txhooks::SqlAdapter<txhooks::BackendAdapter<MyDatabase>> {
///         explicit BackendAdapter(MyDatabase& database) : db{database} {}
///         void execute(const char* sql) { db.run(sql); }                       // throws on failure
///         txhooks::ConnectionState state() const noexcept { ... }              // what the client knows
///         MyDatabase& db;
///     };
///
/// Any verb may be written anew in `Derived`. Savepoints are called `txhooks_` and a number, 0 is the witness. A
/// RELEASE of the witness that fails counts as lost with outcome `unknown`: nothing more can be told for every engine.
template <class Derived, SqlWitness witness = SqlWitness::savepoint>
class SqlAdapter : public SqlAdapterWithoutState<Derived, witness> {
protected:
    SqlAdapter() noexcept {
        static_assert(detail::HasState<Derived>,
                      "txhooks: this SqlAdapter has no state(): write ConnectionState state() const noexcept, public, "
                      "which tells without a round trip whether a transaction is open; if the driver does not know, "
                      "derive from txhooks::SqlAdapterWithoutState, which says what is then not promised");
    }
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <concepts>
#include <cstdio>
#include <exception>
#include <type_traits>

namespace txhooks {

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

/// The begin options of a backend that has none.
struct NoBeginOptions {
    friend bool operator==(const NoBeginOptions&, const NoBeginOptions&) = default;
};

namespace detail {

template <class B>
concept HasBegin = requires(B& b) { b.begin(); } || requires(B& b, const typename B::begin_options& o) { b.begin(o); };
template <class B>
concept HasSavepoints = requires(B& b, unsigned n) {
    b.savepoint(n);
    b.release(n);
    b.rollback_to(n);
};
template <class B>
concept HasAnySavepointVerb = requires(B& b, unsigned n) { b.savepoint(n); } || requires(B& b, unsigned n) {
    b.release(n);
} || requires(B& b, unsigned n) { b.rollback_to(n); };
template <class B>
concept HasState = requires(const B& b) {
    { b.state() } -> std::same_as<ConnectionState>;
};

template <class B>
concept HasMarkers = requires(B& b, const char* marker) {
    { b.commit(marker) } noexcept -> std::same_as<CommitResult>;
    { b.was_committed(marker) } -> std::same_as<bool>;
};

// All that HookedConnection asks of a type before it looks closer.
template <class B>
concept Transactional = HasBegin<B> && requires(B& b) {
    b.commit();
    b.rollback();
};

template <class T>
struct BeginOptionsOf {
    using type = NoBeginOptions;
};
template <class T>
    requires requires { typename T::begin_options; }
struct BeginOptionsOf<T> {
    using type = typename T::begin_options;
};
template <class T>
using begin_options_of = typename BeginOptionsOf<T>::type;

// BEGIN, with options if it takes any.
template <class T, class Options>
void begin_with(T& target, const Options& options) {
    if constexpr (requires { target.begin(options); })
        target.begin(options);
    else
        target.begin();
}

// COMMIT by a verb that throws or not, for who has nothing better to go by than what the client sees afterwards. That
// is no proof of a rollback: a driver may throw after the reply, so an error with the connection idle is in doubt.
template <class State, class Commit>
CommitResult commit_by_state(const State& state_of, Commit commit) noexcept {
    CommitResult result{Outcome::committed};
    try {
        commit();
    } catch (...) {
        result = {Outcome::unknown, std::current_exception(), false, true};
    }
    if constexpr (HasState<State>) {
        const ConnectionState state = state_of.state();
        if (result.failed && (state == ConnectionState::open || state == ConnectionState::failed))
            result.outcome = Outcome::still_open;
        if (!result.failed && state != ConnectionState::idle)
            return {Outcome::unknown, std::make_exception_ptr(UsageError{
                                          "txhooks: COMMIT reported success, but the backend still says it is in a "
                                          "transaction"})};
    }
    return result;
}

}  // namespace detail

/// The customization point: how txhooks speaks to a connection of type `Backend` (a class, or a handle `T*`).
///
/// A class that has the verbs as members needs nothing; this primary template calls them:
///
///     void begin();  void begin(const begin_options&);         // either; begin_options is a nested type of yours;
///                                                              // its bool read_only: such a block needs no marker
///     void commit();  CommitResult commit() noexcept;          // either; the second says what it can prove
///     void rollback();
///     void savepoint(unsigned n);  void release(unsigned n);   // all three or none; without them nested blocks
///     void rollback_to(unsigned n);                            //   must be {.join = true}; rollback_to also releases
///     ConnectionState state() const noexcept;                  // optional, client-side: no round trip
///     Outcome fate() noexcept;                                 // optional: what became of a lost transaction
///     CommitResult commit(const char* marker) noexcept;        // both or none: for txhooks::Doubt. COMMIT that writes
///     bool was_committed(const char* marker);                  //   the marker's row; whether that row was there
///
/// For any other type specialise it: a class with the same members, constructed from `Backend&` (or the handle). It
/// lives in the connection, so it may remember things. It may also have `session()`, which returns what a function
/// given to `atomic` runs SQL through, and `void reset()`, which forgets what it knows of the old session. What speaks
/// SQL derives from `SqlAdapter` and writes two functions.
///
/// A verb that finds the transaction gone may throw `TransactionLost`. Without `state()`, a raw BEGIN of the user's is
/// not seen and an error from COMMIT is in doubt. Verbs may throw exceptions of another language, but for one thrown
/// while another exception is being handled (by the ROLLBACK after a BEGIN or RELEASE that threw, say): libstdc++ ends
/// the program then. Where `noexcept` is written above, and in every `commit()`, `rollback()` and `rollback_to()`, to
/// end the thread (pthread_exit, pthread_cancel) ends the program.
template <class Backend>
class BackendAdapter {
    static_assert(detail::Transactional<Backend>,
                  "txhooks: this type is no database connection that txhooks knows: include its adapter "
                  "(<txhooks/backends/...>), give it begin(), commit() and rollback(), or specialise "
                  "txhooks::BackendAdapter; a lease, a pointer or a file name is not a connection: pass what it "
                  "points to, or open it");

public:
    using begin_options = detail::begin_options_of<Backend>;

    explicit BackendAdapter(Backend& backend) noexcept : backend_{&backend} {}

    void begin(const begin_options& options) { detail::begin_with(*backend_, options); }
    CommitResult commit() noexcept {
        if constexpr (std::same_as<decltype(backend_->commit()), CommitResult>)
            return backend_->commit();
        else
            return detail::commit_by_state(*backend_, [this] { backend_->commit(); });
    }
    void rollback() { backend_->rollback(); }

    void savepoint(unsigned n)
        requires detail::HasSavepoints<Backend>
    {
        backend_->savepoint(n);
    }
    void release(unsigned n)
        requires detail::HasSavepoints<Backend>
    {
        backend_->release(n);
    }
    void rollback_to(unsigned n)
        requires detail::HasSavepoints<Backend>
    {
        backend_->rollback_to(n);
    }

    ConnectionState state() const noexcept
        requires detail::HasState<Backend>
    {
        return backend_->state();
    }
    CommitResult commit(const char* marker) noexcept
        requires detail::HasMarkers<Backend>
    {
        return backend_->commit(marker);
    }
    bool was_committed(const char* marker)
        requires detail::HasMarkers<Backend>
    {
        return backend_->was_committed(marker);
    }
    Outcome fate() noexcept
        requires requires(Backend& b) { b.fate(); }
    {
        return backend_->fate();
    }

private:
    Backend* backend_;
};

/// How `SqlAdapter` tells its own transaction from one that user code began behind its back (`ROLLBACK; BEGIN`).
enum class SqlWitness : unsigned char {
    savepoint,  ///< a savepoint set with BEGIN and released right before COMMIT: RELEASE fails if it is gone
    none,       ///< nothing: only `state()` is looked at. For engines without RELEASE
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
class SqlAdapter {
public:
    using begin_options = NoBeginOptions;

    void begin(const NoBeginOptions&) {
        self().execute("BEGIN");
        if constexpr (witness == SqlWitness::savepoint) self().savepoint(0);
    }

    CommitResult commit() noexcept {
        if constexpr (witness == SqlWitness::savepoint) {
            try {
                self().release(0);
            } catch (...) {
                return {Outcome::unknown, std::current_exception(), true, true};
            }
        }
        CommitResult result = detail::commit_by_state(self(), [this] { self().execute("COMMIT"); });
        if constexpr (witness == SqlWitness::savepoint) {
            // Without it the next commit() would look like a loss.
            if (result.outcome == Outcome::still_open && detail::attempt([this] { self().savepoint(0); }))
                result.outcome = Outcome::unknown;
        }
        return result;
    }

    void rollback() {
        detail::Failure gone;
        if constexpr (witness == SqlWitness::savepoint) gone = detail::attempt([this] { self().rollback_to(0); });
        self().execute("ROLLBACK");
        if (gone) throw TransactionLost{Outcome::unknown, gone.error};
    }

    void savepoint(unsigned n) { numbered("SAVEPOINT txhooks_%u", n); }
    void release(unsigned n) { numbered("RELEASE SAVEPOINT txhooks_%u", n); }
    void rollback_to(unsigned n) {
        numbered("ROLLBACK TO SAVEPOINT txhooks_%u", n);
        self().release(n);
    }

private:
    Derived& self() noexcept { return static_cast<Derived&>(*this); }

    void numbered(const char* pattern, unsigned n) {
        char sql[64];
        std::snprintf(sql, sizeof sql, pattern, n);
        self().execute(sql);
    }
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backend_adapter.hpp>
#include <txhooks/outcome.hpp>

#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace txhooks::testing {

/// What a backend is asked to do.
enum class Verb : unsigned char { begin, commit, rollback, savepoint, release, rollback_to };

/// Whether a verb that fails has done its work all the same.
enum class When : unsigned char {
    before_effect,  ///< the engine never saw it
    after_effect,   ///< the engine did it, then the driver threw
};

/// What is thrown when a connection is lost on purpose.
class ConnectionLostError : public std::runtime_error {
public:
    ConnectionLostError() : std::runtime_error{"the connection was lost (on purpose)"} {}
};

/// Failures to come, for tests:
///
///     db.faults.fail(Verb::release, When::before_effect, std::runtime_error{"disk full"});
///     db.faults.fail(Verb::commit, When::after_effect, 42, 3);              // the third commit from now, an int
///     db.faults.lose_connection(Verb::commit, When::after_effect);
///
/// Each happens once.
class Faults {
public:
    /// Makes the `nth` call of `verb` from now throw `exception`, of any type.
    template <class Exception>
    void fail(Verb verb, When when, Exception exception, std::size_t nth = 1) {
        planned_.push_back({verb, when, nth, std::make_exception_ptr(std::move(exception)), false});
    }

    /// Makes the `nth` call of `verb` from now lose the connection (by calling `lose`) and throw `ConnectionLostError`.
    void lose_connection(Verb verb, When when, std::size_t nth = 1) {
        planned_.push_back({verb, when, nth, std::make_exception_ptr(ConnectionLostError{}), true});
    }

    /// How many have not happened yet.
    std::size_t planned() const noexcept { return planned_.size(); }

    /// Forgets those that have not happened yet.
    void clear() noexcept { planned_.clear(); }

    /// What losing the connection means; a fake backend sets its own.
    std::function<void()> lose = [] {};

    /// Calls `effect()` as the work of `verb`, with the failure that is due, if one is.
    template <class Effect>
    void around(Verb verb, Effect effect) {
        const Planned due = take(verb);
        if (due.error && due.when == When::before_effect) happen(due);
        effect();
        if (due.error) happen(due);
    }

private:
    struct Planned {
        Verb verb;
        When when;
        std::size_t nth;
        std::exception_ptr error;
        bool loses_connection;
    };

    // The failure of this call of `verb`, or one without an error.
    Planned take(Verb verb) {
        Planned due{verb, When::before_effect, 0, nullptr, false};
        for (std::size_t i = 0; i != planned_.size();) {
            if (planned_[i].verb != verb || --planned_[i].nth != 0) {
                ++i;
                continue;
            }
            due = planned_[i];
            planned_.erase(planned_.begin() + static_cast<std::ptrdiff_t>(i));
        }
        return due;
    }

    [[noreturn]] void happen(const Planned& due) const {
        if (due.loses_connection) lose();
        std::rethrow_exception(due.error);
    }

    std::vector<Planned> planned_;
};

/// Any adapter with failures injected around its verbs, the engine being the real one:
///
///     HookedConnection<SQLite::Database, FaultyAdapter<BackendAdapter<SQLite::Database>>> db{...};
///     db.adapter().faults.fail(Verb::release, When::after_effect, std::runtime_error{"injected"});
///
/// A COMMIT that fails before effect leaves the transaction open; after effect, nothing proves how it ended.
template <class Adapter>
class FaultyAdapter : public Adapter {
public:
    using begin_options = txhooks::detail::begin_options_of<Adapter>;
    using Adapter::Adapter;

    Faults faults;

    void begin(const begin_options& options) {
        faults.around(Verb::begin, [&] { txhooks::detail::begin_with(adapter(), options); });
    }

    CommitResult commit() noexcept {
        return commit_by([this] { return Adapter::commit(); });
    }
    CommitResult commit(const char* marker) noexcept
        requires txhooks::detail::HasMarkers<Adapter>
    {
        return commit_by([&] { return Adapter::commit(marker); });
    }

    void rollback() {
        faults.around(Verb::rollback, [&] { Adapter::rollback(); });
    }

    void savepoint(unsigned n)
        requires txhooks::detail::HasSavepoints<Adapter>
    {
        faults.around(Verb::savepoint, [&] { Adapter::savepoint(n); });
    }
    void release(unsigned n)
        requires txhooks::detail::HasSavepoints<Adapter>
    {
        faults.around(Verb::release, [&] { Adapter::release(n); });
    }
    void rollback_to(unsigned n)
        requires txhooks::detail::HasSavepoints<Adapter>
    {
        faults.around(Verb::rollback_to, [&] { Adapter::rollback_to(n); });
    }

private:
    Adapter& adapter() noexcept { return *this; }

    template <class Commit>
    CommitResult commit_by(Commit commit) noexcept {
        CommitResult result{Outcome::still_open};
        try {
            faults.around(Verb::commit, [&] { result = commit(); });
        } catch (...) {
            if (result.outcome == Outcome::committed) result.outcome = Outcome::unknown;
            if (!result.error) result.error = std::current_exception();
        }
        return result;
    }
};

}  // namespace txhooks::testing

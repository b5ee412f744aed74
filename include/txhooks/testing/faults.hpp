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
///     db.faults.act(Verb::begin, When::before_effect, [&] { ... });         // what a driver's callback would do
///
/// Each happens once.
class Faults {
public:
    /// Makes the `nth` call of `verb` from now throw `exception`, of any type.
    template <class Exception>
    void fail(Verb verb, When when, Exception exception, std::size_t nth = 1) {
        const std::exception_ptr error = std::make_exception_ptr(std::move(exception));
        act(verb, when, [error] { std::rethrow_exception(error); }, nth);
    }

    /// Makes the `nth` call of `verb` from now lose the connection (by calling `lose`) and throw `ConnectionLostError`.
    void lose_connection(Verb verb, When when, std::size_t nth = 1) {
        planned_.push_back({verb, when, nth, [](const Faults& self) {
                                self.lose();
                                throw ConnectionLostError{};
                            }});
    }

    /// Makes the `nth` call of `verb` from now call `what()`, which may throw, an exception of another language too.
    void act(Verb verb, When when, std::function<void()> what, std::size_t nth = 1) {
        planned_.push_back({verb, when, nth, [what = std::move(what)](const Faults&) { what(); }});
    }

    /// How many have not happened yet.
    std::size_t planned() const noexcept { return planned_.size(); }

    /// Forgets those that have not happened yet.
    void clear() noexcept { planned_.clear(); }

    /// What losing the connection means; a fake backend sets its own.
    std::function<void()> lose = [] {};

    /// Calls `effect()` as the work of `verb`, with what is due before and after it.
    template <class Effect>
    void around(Verb verb, Effect effect) {
        const std::vector<Planned> due = take(verb);
        happen(due, When::before_effect);
        effect();
        happen(due, When::after_effect);
    }

private:
    struct Planned {
        Verb verb;
        When when;
        std::size_t nth;
        std::function<void(const Faults&)> what;
    };

    // What is due at this call of `verb`.
    std::vector<Planned> take(Verb verb) {
        std::vector<Planned> due;
        for (std::size_t i = 0; i != planned_.size();) {
            if (planned_[i].verb != verb || --planned_[i].nth != 0) {
                ++i;
                continue;
            }
            due.push_back(std::move(planned_[i]));
            planned_.erase(planned_.begin() + static_cast<std::ptrdiff_t>(i));
        }
        return due;
    }

    void happen(const std::vector<Planned>& due, When when) const {
        for (const Planned& planned : due)
            if (planned.when == when) planned.what(*this);
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
    using conditional_members = void;
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
            const bool decided = result.outcome == Outcome::rolled_back || result.outcome == Outcome::still_open;
            if (!decided) result.outcome = Outcome::unknown;
            if (!result.reported_error()) result.error = std::current_exception();
            result.failed = true;
        }
        return result;
    }
};

}  // namespace txhooks::testing

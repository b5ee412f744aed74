// SPDX-License-Identifier: MIT
#pragma once

/// An atomic block that is done again when the engine says that this may help:
///
///     txhooks::retry(db, {.attempts = 8}, [&] { transfer(db, from, to, amount); });

#include <txhooks/atomic.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/detail/failed_result.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/errors.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <type_traits>

namespace txhooks {

namespace detail {

// A function that may be given as a function or a lambda. It must be noexcept: it is asked while an error is handled.
class TransientTest {
public:
    using Function = bool (*)(const std::exception_ptr&) noexcept;

    constexpr TransientTest(std::nullptr_t = nullptr) noexcept {}
    template <class F>
        requires(!std::same_as<F, TransientTest>)
    constexpr TransientTest(const F& function) noexcept {
        constexpr bool fits = std::convertible_to<const F&, Function>;
        static_assert(fits,
                      "txhooks: RetryPolicy::transient is a function, or a lambda without captures, that is noexcept: "
                      "[](const std::exception_ptr& error) noexcept { return ...; }");
        if constexpr (fits) function_ = function;
    }

    constexpr operator Function() const noexcept { return function_; }

private:
    Function function_ = nullptr;
};

}  // namespace detail

/// How often `retry` tries, and what happens in between.
struct RetryPolicy {
    /// At most so many, the first included.
    unsigned attempts = 5;
    /// The pause before the second attempt is random, up to this; then up to twice that, and so on, up to
    /// `longest_delay`: two that were in each other's way are unlikely to meet again.
    std::chrono::nanoseconds first_delay = std::chrono::milliseconds{10};
    std::chrono::nanoseconds longest_delay = std::chrono::seconds{1};
    /// Which errors are worth another attempt, besides those the adapter knows: exceptions of your own.
    /// `bool (*)(const std::exception_ptr& error) noexcept`; `error` is never null.
    detail::TransientTest transient = nullptr;
    /// Called before each pause, outside the block, with the number of the attempt that failed, from 1, and its error.
    /// What it throws ends `retry`.
    std::function<void(unsigned failed_attempt, const std::exception_ptr& error)> before_retry = nullptr;
    /// Pauses: `std::this_thread::sleep_for`, unless a test has no time for that.
    std::function<void(std::chrono::nanoseconds delay)> sleep = nullptr;
};

namespace detail {

template <class Db>
concept AdapterTells = requires(Db& db) { requires HasTransient<std::remove_cvref_t<decltype(db.adapter())>>; };

template <class Db>
bool is_worth_a_retry(Db& db, const RetryPolicy& policy, const std::exception_ptr& error) noexcept {
    if (!error) return false;  // of another language, or the thread is being ended
    const auto cause_is = [&](const Error& e) { return e.cause() && is_worth_a_retry(db, policy, e.cause()); };
    try {
        std::rethrow_exception(error);
    } catch (const EngineError&) {
        // As the exceptions of other engines: below.
    } catch (const TransactionAborted& e) {
        return cause_is(e);
    } catch (const TransactionLost& e) {
        return e.outcome() == Outcome::rolled_back && cause_is(e);
    } catch (const FailedHook&) {
        return false;  // a result
    } catch (const Error&) {
        return false;  // committed, or perhaps; or it would fail again
    } catch (...) {
        // Below.
    }
    if constexpr (AdapterTells<Db>)
        if (db.adapter().transient(error)) return true;
    return policy.transient != nullptr && policy.transient(error);
}

// Does `call`, and then what waits for COMMIT, while nothing has been sent that would end the block.
template <class Call>
auto with_hooks_before_commit(Blocks& db, const Call& call) -> decltype(call()) {
    const auto run_hooks = [&](const auto&... result) {
        if (db.may_wait_for_commit() && !detail::is_failed(result...)) db.run_before_commit();
    };
    return detail::return_after(call, run_hooks);
}

// Ends the open block, in which `error` was thrown. Returns whether nothing of it can have been committed.
template <class Db>
bool roll_back_for_sure(Db& db, const std::exception_ptr& error) noexcept {
    if (!db.in_atomic_block()) return false;  // ended in fn
    const auto rolled_back = [&]() noexcept {
        if constexpr (requires { db.adapter().rolled_back_by(error); })
            return db.adapter().rolled_back_by(error);
        else
            return false;
    };
    const Failure failure = detail::blocks(db).roll_back_all(rolled_back);
    if (!failure) return true;
    if (!failure.lost) return false;
    try {
        failure.rethrow();
    } catch (const TransactionLost& lost) {
        return lost.outcome() == Outcome::rolled_back || (lost.outcome() == Outcome::unknown && rolled_back());
    }
}

// Full jitter: anything from nothing to a ceiling that doubles.
class Backoff {
public:
    explicit Backoff(const RetryPolicy& policy) noexcept
        : ceiling_{policy.first_delay},
          longest_{policy.longest_delay},
          random_{static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()) ^
                  reinterpret_cast<std::uintptr_t>(this)} {}

    std::chrono::nanoseconds next() noexcept {
        const std::chrono::nanoseconds ceiling = ceiling_ < longest_ ? ceiling_ : longest_;
        if (ceiling.count() <= 0) return {};
        ceiling_ = ceiling < longest_ / 2 ? ceiling * 2 : longest_;
        const std::uint64_t choices = static_cast<std::uint64_t>(ceiling.count()) + 1;
        return std::chrono::nanoseconds{static_cast<std::chrono::nanoseconds::rep>(random() % choices)};
    }

private:
    // SplitMix64 (Steele, Lea, Flood 2014; the constants are Vigna's).
    std::uint64_t random() noexcept {
        std::uint64_t z = random_ += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    std::chrono::nanoseconds ceiling_;
    std::chrono::nanoseconds longest_;
    std::uint64_t random_;
};

}  // namespace detail

/// Runs `fn()` in an outermost atomic block, as `db.atomic([options,] fn)` does, and does it again after an error that
/// is transient: one after which the engine itself says that the same transaction may succeed another time. Returns
/// what `fn` returns; a result that means failure (`result_traits`) rolls back and is returned, it is not tried again.
///
/// Every attempt is a block of its own: the hooks of a failed one are discarded, those of the one that commits run, in
/// here. Rollback hooks run before the pause. What a hook before COMMIT throws is judged as if `fn` had thrown it.
/// `fn` must set its own variables back: only the database forgets. What is `std::move`d into a hook is not there
/// for the next attempt: copy it.
///
/// Transient are: SQLite's SQLITE_BUSY with all its kinds (a stale snapshot in WAL mode: begin such blocks immediate),
/// also at COMMIT; PostgreSQL's 40001 and 40P01; MariaDB's 1213 and 1205; what `RetryPolicy::transient` adds. They are
/// known by the exception that leaves `fn` or the block: with a C handle, throw `EngineError` for your own statements'
/// errors, or let `RetryPolicy::transient` know yours.
///
/// Nothing is done again unless its transaction is proven to be rolled back: never after `CommitUnknown`, `HookError`,
/// a `TransactionLost` that is not `rolled_back`, or when the transaction turns out to have ended before the error and
/// nobody knows how; nor after `UsageError` and `ConnectionBroken`. (One thing MariaDB does not show: that user code
/// committed a part of the block, by raw `COMMIT; START TRANSACTION` or by DDL that failed, before a deadlock. Such
/// code does not belong into a block, and less into this one.) After a `CommitUnknown` that a `Doubt` resolves to
/// `rolled_back`, call `retry` again, on a new connection.
///
/// An exception of another language is not transient and passes through. If code of yours (`before_retry`, say) destroys
/// the connection, nothing is tried again.
///
/// Throws: `UsageError` before the first attempt in an open block (only the outermost can be done again), and on a
/// connection whose transient errors nobody tells; else the error of the last attempt, as it was.
template <class Db, class Fn>
decltype(auto) retry(Db& db, const RetryPolicy& policy, const detail::options_of<Db>& options, Fn&& fn) {
    if (!detail::AdapterTells<Db> && policy.transient == nullptr)
        throw UsageError{
            "txhooks: retry() is not told which errors of this connection are transient: give it the HookedConnection "
            "itself, give its adapter bool transient(const std::exception_ptr&) const noexcept, or set "
            "RetryPolicy::transient"};
    const detail::Blocks::Watch connection{detail::blocks(db)};  // code of the user's may destroy it
    const auto is_transient = [&](const std::exception_ptr& error) noexcept {
        return connection.alive() != nullptr && detail::is_worth_a_retry(db, policy, error) &&
               connection.alive() != nullptr;
    };
    detail::Backoff backoff{policy};
    for (unsigned attempt = 1;; ++attempt) {
        if (db.in_atomic_block())
            throw UsageError{
                "txhooks: retry() in an atomic block: the engine would have the outermost one done again; call retry() "
                "around that"};
        std::exception_ptr error;
        bool in_doubt = false;
        const auto once = [&]<class... Sql>(Sql&&... sql) -> std::invoke_result_t<Fn&, Sql...>
            requires std::invocable<Fn&, Sql...>
        {
            const auto call = [&]() -> decltype(auto) { return detail::invoke(fn, static_cast<Sql&&>(sql)...); };
            std::exception_ptr thrown;
            try {
                return detail::with_hooks_before_commit(detail::blocks(db), call);
            } catch (...) {
                thrown = std::current_exception();
                if (!is_transient(thrown)) throw;
            }
            in_doubt = !detail::roll_back_for_sure(db, thrown);
            std::rethrow_exception(thrown);
        };
        try {
            return db.atomic(options, once);
        } catch (...) {
            error = std::current_exception();
            if (attempt >= policy.attempts || in_doubt || !is_transient(error) || !db.usable()) throw;
        }
        if (policy.before_retry) policy.before_retry(attempt, error);
        if (connection.alive() == nullptr) std::rethrow_exception(error);
        error = nullptr;
        const std::chrono::nanoseconds delay = backoff.next();
        if (policy.sleep)
            policy.sleep(delay);
        else
            std::this_thread::sleep_for(delay);
        if (connection.alive() == nullptr) throw ConnectionBroken{};
    }
}

template <class Db, class Fn>
decltype(auto) retry(Db& db, const RetryPolicy& policy, Fn&& fn) {
    return txhooks::retry(db, policy, {}, static_cast<Fn&&>(fn));
}

}  // namespace txhooks

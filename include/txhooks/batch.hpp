// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/result_traits.hpp>

#include <functional>
#include <memory>
#include <type_traits>
#include <unordered_set>
#include <vector>

namespace txhooks {

/// Work that is done once for all that a transaction has touched, before its COMMIT:
///
///     txhooks::Batch<int, Db> recount{[](Db& db, std::vector<int> orders) { ... }};
///     recount.add(db, 7);    // in a block, as often as you like
///
/// What was added in a transaction and survives its savepoints is handed over together, inside the transaction, in the
/// order in which it was first added, equal values (`==`) once. What is added after that, by a later hook before COMMIT
/// or between two tries to COMMIT, is handed over again: nothing that changes late is lost.
///
/// `T` needs `==`, and to be movable. With `std::hash<T>` handing over is O(n), without it O(n^2) comparisons.
///
/// What `handler` throws rolls the transaction back. To do something after the commit, let it register one commit hook.
///
/// Serves any number of connections of one thread. Destroyed before a transaction ends, it hands nothing of that over, and
/// the error sink is told.
template <class T, class Db = Connection>
class Batch {
    using Values = std::vector<T>;
    using Function = std::function<void(Db&, Values)>;

public:
    /// `handler(db, values)`.
    template <class Handler>
        requires(!std::is_same_v<std::remove_cvref_t<Handler>, Batch>)
    explicit Batch(Handler&& handler) {
        constexpr bool fits = std::is_invocable_v<std::decay_t<Handler>&, Db&, Values>;
        static_assert(fits, "txhooks: the function of a Batch<T, Db> is called with (Db&, std::vector<T>)");
        if constexpr (fits) {
            using Result = std::remove_cvref_t<std::invoke_result_t<std::decay_t<Handler>&, Db&, Values>>;
            static_assert(
                !detail::CanFail<Result> && !detail::Asynchronous<Result>,
                "txhooks: the function of a Batch returns a coroutine, a future, or a result that can mean "
                "failure, and nobody would look at it; throw to roll the transaction back, and return nothing");
            if (detail::is_empty(handler)) throw UsageError{"txhooks: a Batch was given an empty function"};
            state_->handler = std::make_shared<Function>(static_cast<Handler&&>(handler));
        }
    }
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;
    ~Batch() { state_->handler = nullptr; }

    /// Adds `value` to what is handed over before the COMMIT of the transaction that is open on `db`. If this block, or
    /// one around it, rolls back, it is not. Outside any block it is handed over at once. O(1).
    ///
    /// Throws: as `Connection::before_commit`, and what copying throws. After a throw: nothing was added.
    void add(Db& db, T value) { db.before_commit(Collect{state_, &db, static_cast<T&&>(value)}); }

private:
    // Of one transaction. The hook that hands it over owns it, so it dies with that transaction.
    struct Collected {
        const void* transaction;
        Values values;
    };

    struct State {
        std::shared_ptr<Function> handler;  // null: the Batch is gone
        std::vector<std::weak_ptr<Collected>> open;

        // What was collected in `transaction` and is not handed over yet. (One that is being rolled back may still be there.)
        std::shared_ptr<Collected> find(const void* transaction) {
            std::erase_if(open, [](const auto& collected) { return collected.expired(); });
            for (const auto& each : open)
                if (std::shared_ptr<Collected> collected = each.lock();
                    collected && collected->transaction == transaction)
                    return collected;
            return nullptr;
        }
    };

    // Runs before COMMIT, for what has survived. Behind the last one of all that wait then, HandOver runs.
    struct Collect {
        std::shared_ptr<State> state;
        Db* db;
        T value;

        void operator()() {
            const void* const transaction = detail::blocks(*db).transaction();
            std::shared_ptr<Collected> collected = transaction != nullptr ? state->find(transaction) : nullptr;
            if (collected) return collected->values.push_back(static_cast<T&&>(value));
            collected = std::make_shared<Collected>(Collected{transaction, {}});
            collected->values.push_back(static_cast<T&&>(value));
            if (transaction != nullptr) state->open.push_back(collected);
            db->before_commit(HandOver{state, db, static_cast<std::shared_ptr<Collected>&&>(collected)});
        }
    };

    struct HandOver {
        std::shared_ptr<State> state;
        Db* db;
        std::shared_ptr<Collected> collected;

        void operator()() {
            const std::shared_ptr<Function> handler = state->handler;  // it may destroy the Batch
            if (!handler)
                return detail::blocks(*db).report(
                    "txhooks: a Batch was destroyed before the transaction ended in which something was added to it; "
                    "that is not handed over");
            (*handler)(*db, without_repetitions(static_cast<Values&&>(collected->values)));
        }
    };

    static Values without_repetitions(Values&& values) {
        Values unique;
        if constexpr (requires(const T& value) { std::hash<T>{}(value); }) {
            const auto hash = [](const T* value) { return std::hash<T>{}(*value); };
            const auto equal = [](const T* a, const T* b) { return *a == *b; };
            std::unordered_set<const T*, decltype(hash), decltype(equal)> seen{values.size(), hash, equal};
            std::vector<T*> firsts;
            for (T& value : values)
                if (seen.insert(&value).second) firsts.push_back(&value);
            for (T* const first : firsts) unique.push_back(static_cast<T&&>(*first));
        } else {
            for (T& value : values) {
                bool known = false;
                for (const T& other : unique) known = known || static_cast<bool>(other == value);
                if (!known) unique.push_back(static_cast<T&&>(value));
            }
        }
        return unique;
    }

    std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace txhooks

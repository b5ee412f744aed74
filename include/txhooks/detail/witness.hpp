// SPDX-License-Identifier: MIT
#pragma once

// COMMIT and ROLLBACK of who has no better proof than a savepoint 0, set with BEGIN and released right before COMMIT,
// and what the client sees afterwards.

#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <exception>

namespace txhooks::detail {

// COMMIT by a verb that throws, for who has nothing better to go by than what the client sees afterwards. That is no
// proof of a rollback: a driver may throw after the reply, so an error with the connection idle is in doubt.
template <class State, class Commit>
CommitResult commit_by_state(const State& state_of, Commit commit) noexcept {
    CommitResult result{Outcome::committed};
    try {
        commit();
    } catch (const TransactionLost& lost) {
        return {lost.outcome(), lost.cause(), true, true};
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

// RELEASE of the witness fails if it is gone: then the transaction that began with it is, and what became of that cannot
// be told for every engine.
template <class Verbs, class Commit>
CommitResult commit_with_witness(Verbs& verbs, Commit commit) noexcept {
    try {
        verbs.release(0);
    } catch (const TransactionLost& lost) {
        return {lost.outcome(), lost.cause(), true, true};
    } catch (...) {
        return {Outcome::unknown, std::current_exception(), true, true};
    }
    CommitResult result = commit_by_state(verbs, commit);
    // Without it the next commit() would look like a loss.
    if (result.outcome == Outcome::still_open && attempt([&] { verbs.savepoint(0); }))
        result.outcome = Outcome::unknown;
    return result;
}

template <class Verbs, class Rollback>
void rollback_with_witness(Verbs& verbs, Rollback rollback) {
    const Failure gone = attempt([&] { verbs.rollback_to(0); });
    rollback();
    if (!gone) return;
    try {
        gone.rethrow();
    } catch (const TransactionLost&) {  // who says that knows what became of it
        throw;
    } catch (...) {
        throw TransactionLost{Outcome::unknown, gone.error};
    }
}

}  // namespace txhooks::detail

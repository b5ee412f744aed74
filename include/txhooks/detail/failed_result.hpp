// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>
#include <txhooks/result_traits.hpp>

#include <type_traits>

namespace txhooks::detail {

// How a result of a hook before COMMIT that means failure gets to the end of its block. Nobody else meets one: the
// function form returns the result, or throws TransactionAborted; commit() returns Outcome::rolled_back. Where nobody is
// given the result, what went wrong in the ROLLBACK is thrown instead.
struct FailedHook {
    Failure rolling_back = {};

    [[gnu::cold, gnu::noinline]] Outcome outcome() const {
        if (rolling_back) rolling_back.rethrow();
        return Outcome::rolled_back;
    }
};

template <class Result>
struct FailedResult : FailedHook {
    explicit FailedResult(Result&& failed) : result(static_cast<Result&&>(failed)) {}
    Result result;
};

// A hook before COMMIT whose result is looked at. Where it cannot mean failure it is the hook itself.
template <class Hook>
struct Judged {
    Hook hook;

    void operator()() {
        using Result = std::remove_cvref_t<decltype(static_cast<Hook&&>(hook)())>;
        Result result = static_cast<Hook&&>(hook)();
        if (result_traits<Result>::failed(result)) throw FailedResult<Result>{static_cast<Result&&>(result)};
    }
};

// Does `act`, which ends a block. A failed result of a hook is returned if it is of the type that `act` returns.
template <class Act>
auto or_failed_result(const Act& act) -> decltype(act()) {
    using Result = decltype(act());
    struct Nothing {};
    using Same = std::conditional_t<CanFail<Result> && !std::is_reference_v<Result>, Result, Nothing>;
    try {
        return act();
    } catch (FailedResult<Same>& failed) {
        if constexpr (std::is_same_v<Same, Result>) return static_cast<Result&&>(failed.result);
        throw;
    } catch (const FailedHook& failed) {
        static_cast<void>(failed.outcome());
        throw TransactionAborted{};
    }
}

}  // namespace txhooks::detail

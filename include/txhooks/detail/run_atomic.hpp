// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/detail/committing.hpp>
#include <txhooks/detail/failed_result.hpp>
#include <txhooks/detail/opening.hpp>
#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/options.hpp>
#include <txhooks/result_traits.hpp>

#include <type_traits>

namespace txhooks::detail {

// Calls `fn`, with what runs SQL in a block if it takes that: `session()` returns it, or nothing.
template <class Fn, class Session>
decltype(auto) call(Fn&& fn, Session& session) {
    using Sql = decltype(session());
    if constexpr (std::is_invocable_v<Fn>)
        return detail::invoke(static_cast<Fn&&>(fn));
    else if constexpr (std::is_invocable_v<Fn, Sql>)
        return detail::invoke(static_cast<Fn&&>(fn), session());
    else
        static_assert(
            std::is_invocable_v<Fn>,
            "txhooks: atomic(fn) calls fn without arguments, or with what runs SQL on this connection; this fn "
            "takes neither");
}

template <class Result>
consteval void check_result() {
    using Value = std::remove_cvref_t<Result>;
    static_assert(!Asynchronous<Value>,
                  "txhooks: atomic(fn) would commit before the coroutine or future that fn returns has run");
    static_assert(std::is_void_v<Result> || std::is_reference_v<Result> || std::is_move_constructible_v<Result>,
                  "txhooks: atomic(fn) returns the result of fn, which therefore must be movable");
}

// The result is made where the caller gets it: after `end`, the COMMIT, nothing is moved that could throw. (In a function
// of its own, or GCC would move it.)
template <class Make, class End>
auto return_value_after(const Make& make, const End& end) -> decltype(make()) {
    decltype(make()) result = make();
    end(result);
    return result;
}

// Returns what `make` returns, after `end(result...)`.
template <class Make, class End>
auto return_after(const Make& make, const End& end) -> decltype(make()) {
    using Result = decltype(make());
    if constexpr (std::is_void_v<Result>) {
        make();
        end();
    } else if constexpr (std::is_reference_v<Result>) {
        Result result = make();
        end(result);
        return static_cast<Result>(result);
    } else {
        return detail::return_value_after(make, end);
    }
}

// Whether `result`, if there is one, means that the block failed. Code of the user's.
template <class... Result>
bool is_failed(const Result&... result) {
    return (result_traits<Result>::failed(result) || ... || false);
}

// The function form of a block.
template <class Verbs, class Options, class Fn, class Session>
auto run_atomic(Blocks& db, const Options& options, Fn&& fn, Session session)
    -> decltype(detail::call(static_cast<Fn&&>(fn), session)) {
    using Result = decltype(detail::call(static_cast<Fn&&>(fn), session));
    check_result<Result>();
    Block block;
    db.open<Verbs>(block, options);
    const auto called = [&]() -> Result {
        return or_roll_back(block, [&]() -> Result { return detail::call(static_cast<Fn&&>(fn), session); });
    };
    const auto end = [&](const auto&... result) {
        or_roll_back(block, [&] {
            const bool failed = detail::is_failed(result...);
            if (block.db == nullptr) Blocks::refuse_ended();  // in fn
            if (failed)
                block.db->roll_back_quietly(block);
            else
                block.db->template commit<Verbs>(block);
        });
    };
    return or_failed_result([&]() -> Result { return detail::return_after(called, end); });
}

}  // namespace txhooks::detail

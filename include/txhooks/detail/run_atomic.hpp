// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/options.hpp>
#include <txhooks/result_traits.hpp>

#include <exception>
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
    static_assert(not Asynchronous<Value>,
                  "txhooks: atomic(fn) would commit before the coroutine or future that fn returns has run");
    static_assert(std::is_void_v<Result> or std::is_reference_v<Result> or std::is_move_constructible_v<Result>,
                  "txhooks: atomic(fn) returns the result of fn, which therefore must be movable");
}

// The function form of a block.
template <class Db, class Fn, class Session>
auto run_atomic(Db& db, const BlockOptions<typename Db::begin_options>& options, Fn&& fn, Session session)
    -> decltype(detail::call(static_cast<Fn&&>(fn), session)) {
    using Result = decltype(detail::call(static_cast<Fn&&>(fn), session));
    using Value = std::remove_cvref_t<Result>;
    check_result<Result>();
    Block block;
    Blocks::open(db, block, options);
    try {
        if constexpr (std::is_void_v<Result>) {
            detail::call(static_cast<Fn&&>(fn), session);
            Blocks::commit(db, block);
        } else {
            Result result = detail::call(static_cast<Fn&&>(fn), session);
            if (result_traits<Value>::failed(result))
                Blocks::roll_back_quietly(block, nullptr);
            else
                Blocks::commit(db, block);
            if constexpr (std::is_rvalue_reference_v<Result>)
                return static_cast<Result>(result);
            else
                return result;
        }
    } catch (...) {
        // Open still: fn threw, or COMMIT left the transaction open.
        if (block.db != nullptr) Blocks::roll_back_quietly(block, std::current_exception());
        throw;
    }
}

}  // namespace txhooks::detail

namespace txhooks {

template <class Fn>
decltype(auto) Connection::atomic(Fn&& fn) {
    return detail::run_atomic(*this, {}, static_cast<Fn&&>(fn), [] {});
}

template <class Fn>
[[gnu::always_inline]] inline decltype(auto) Connection::atomic(const BlockOptions<>& options, Fn&& fn) {
    detail::refuse_contradiction(options);
    return detail::run_atomic(*this, options, static_cast<Fn&&>(fn), [] {});
}

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <type_traits>

namespace txhooks {
namespace detail {

template <class T>
concept ExpectedLike = requires(const T& t) {
    static_cast<bool>(t.has_value());
    t.error();
};

template <class T>
concept ErrorCodeLike = requires(const T& t) {
    t.value();
    t.message();
} || requires(const T& t) { t.ok(); } || (std::is_enum_v<T> && requires(const T& t) { make_error_code(t); });

}  // namespace detail

/// Which results of a function given to `atomic` mean that it failed, so that the block rolls back.
///
/// Expected-like types (`has_value()` and `error()`) fail when they hold an error; `bool`, numbers and the rest never
/// fail. Types that look like an error code must be told, by specialising this:
///
///     template <> struct txhooks::result_traits<std::error_code> {
///         static bool failed(const std::error_code& e) { return bool(e); }
///     };
///
/// A hook with a result that can mean failure is refused: its transaction is committed, and nobody looks at the result.
template <class T>
struct result_traits {
    using nobody_told = void;  // that a hook with this result can fail: not in a specialisation
    static constexpr bool failed(const T& result) {
        static_assert(
            detail::ExpectedLike<T> || !detail::ErrorCodeLike<T>,
            "txhooks: this result looks like an error code; specialise txhooks::result_traits for it to say when "
            "it means that the block must roll back");
        if constexpr (detail::ExpectedLike<T>) return !static_cast<bool>(result.has_value());
        return false;
    }
};

namespace detail {

// A result that can mean failure: it looks like that, or result_traits was told.
template <class T>
concept CanFail = !std::is_void_v<T> &&
                  (ExpectedLike<T> || ErrorCodeLike<T> || !requires { typename result_traits<T>::nobody_told; });

}  // namespace detail

}  // namespace txhooks

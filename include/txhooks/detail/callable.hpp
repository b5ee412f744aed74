// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>
#include <txhooks/detail/hook_kind.hpp>
#include <txhooks/result_traits.hpp>

#include <type_traits>

// libc++'s would nearly double what is included here; who has a type that is a coroutine by its traits has included it.
#if defined(__cpp_impl_coroutine) && !defined(_LIBCPP_VERSION)
#include <coroutine>
#endif

namespace txhooks {
struct robust_t;
}

namespace txhooks::detail {

// What can be said of T& or of T&&: a function may be for one of them only. What it returns need not be complete.
template <class Ref>
concept Awaitable = requires(Ref r) { typename std::void_t<decltype(static_cast<Ref>(r).await_ready())>; } ||
                    requires(Ref r) { typename std::void_t<decltype(static_cast<Ref>(r).operator co_await())>; } ||
                    requires(Ref r) { typename std::void_t<decltype(operator co_await(static_cast<Ref>(r)))>; };
template <class Ref>
concept Waits = requires(Ref r) { typename std::void_t<decltype(static_cast<Ref>(r).wait())>; };
template <class Ref>
concept Gets = requires(Ref r) { typename std::void_t<decltype(static_cast<Ref>(r).get())>; };

// A coroutine for std::coroutine_traits alone. A type that tells at once whether it has a value is a result, even if it
// can be written as a coroutine (folly::Expected).
#if (defined(__cpp_impl_coroutine) && !defined(_LIBCPP_VERSION)) || defined(_GLIBCXX_COROUTINE) || \
    defined(_LIBCPP_COROUTINE)
template <class T>
concept CoroutineByTraits = !std::is_void_v<T> && requires { typename std::coroutine_traits<T>::promise_type; } &&
                            !requires(const T& t) { t.has_value(); };
#else
template <class T>
concept CoroutineByTraits = false;
#endif

// A coroutine or a future: calling the function that returned it did not do the work yet.
template <class T>
concept Asynchronous = requires { typename T::promise_type; } || CoroutineByTraits<T> || Awaitable<T&> ||
                       Awaitable<T&&> || ((Waits<T&> || Waits<T&&>) && (Gets<T&> || Gets<T&&>));

// A union is no base of itself.
template <class Object, class Class>
concept HasMembersOf =
    std::is_same_v<Class, std::remove_cvref_t<Object>> || std::is_base_of_v<Class, std::remove_cvref_t<Object>>;

template <class Member, class Class, class Object, class... Args>
decltype(auto) invoke_member(Member Class::* member, Object&& object, Args&&... args) {
    if constexpr (!HasMembersOf<Object, Class>) {
        if constexpr (requires { requires HasMembersOf<decltype(object.get()), Class>; })  // std::reference_wrapper
            return invoke_member(member, object.get(), static_cast<Args&&>(args)...);
        else
            return invoke_member(member, *static_cast<Object&&>(object), static_cast<Args&&>(args)...);
    } else if constexpr (std::is_member_function_pointer_v<Member Class::*>) {
        return (static_cast<Object&&>(object).*member)(static_cast<Args&&>(args)...);
    } else {
        return (static_cast<Object&&>(object).*member);
    }
}

// std::invoke, without <functional>. Whether the call is possible is std::is_invocable's to say.
template <class F, class... Args>
decltype(auto) invoke(F&& f, Args&&... args) {
    if constexpr (std::is_member_pointer_v<std::remove_cvref_t<F>>)
        return invoke_member(f, static_cast<Args&&>(args)...);
    else
        return static_cast<F&&>(f)(static_cast<Args&&>(args)...);
}

template <HookKind kind, class Hook, class... Args>
consteval void check_hook() {
    constexpr bool is_robust = kind != HookKind::commit && std::is_same_v<std::decay_t<Hook>, robust_t>;
    static_assert(
        !is_robust,
        "txhooks: robust is for on_commit() alone: what a hook of before_commit() throws rolls the block back, "
        "and what one of on_rollback() or unless_committed() throws goes to the error sink anyhow");
    static_assert(is_robust || std::is_invocable_v<std::decay_t<Hook>, std::decay_t<Args>...>,
                  "txhooks: this hook cannot be called with these arguments: it gets copies of them, as a std::thread "
                  "does (std::ref passes a reference)");
    if constexpr (std::is_invocable_v<std::decay_t<Hook>, std::decay_t<Args>...>) {
        using Result = std::remove_cvref_t<std::invoke_result_t<std::decay_t<Hook>, std::decay_t<Args>...>>;
        static_assert(
            !Asynchronous<Result>,
            "txhooks: this hook returns a coroutine or a future, which nobody would wait for; start the work in "
            "the hook and return nothing");
        static_assert(
            kind != HookKind::commit || !CanFail<Result>,
            "txhooks: this hook returns a result that can mean failure, and nobody would look at it: the data "
            "is committed already; look at it in the hook (throw, or report it) and return nothing");
        static_assert(
            kind < HookKind::rollback || !CanFail<Result>,
            "txhooks: this hook returns a result that can mean failure, and nobody would look at it: the block "
            "has ended already; look at it in the hook (throw, or report it) and return nothing");
        static_assert(
            kind != HookKind::before_commit || !CanFail<Result> || std::is_move_constructible_v<Result>,
            "txhooks: before_commit() passes on a result of this hook that means failure, which therefore must be "
            "movable");
    }
}

// Whether `hook` is a null function pointer, or a std::function or the like that holds nothing.
template <class Hook>
constexpr bool is_empty(const Hook& hook) noexcept {
    using Stored = std::decay_t<Hook>;
    if constexpr (std::is_function_v<Hook>)
        return false;
    else if constexpr (std::is_pointer_v<Stored> || std::is_member_pointer_v<Stored>)
        return hook == nullptr;
    else if constexpr (!std::is_empty_v<Stored> && requires { static_cast<bool>(hook == nullptr); })
        return static_cast<bool>(hook == nullptr);
    else
        return false;
}

// A hook and its arguments, to be called at most once, as rvalues. No lambda: GCC 11 does not destroy the captures it
// has made when the next one throws.
template <class Hook, class... Args>
class Bound;

template <class Hook>
class Bound<Hook> {
public:
    template <class H>
    explicit Bound(H&& hook) : hook_(static_cast<H&&>(hook)) {}

    template <class... Args>
    decltype(auto) call(Args&&... args) {
        return detail::invoke(static_cast<Hook&&>(hook_), static_cast<Args&&>(args)...);
    }
    decltype(auto) operator()() { return call(); }

private:
    Hook hook_;
};

template <class Hook, class First, class... Rest>
class Bound<Hook, First, Rest...> : public Bound<Hook, Rest...> {
    using Base = Bound<Hook, Rest...>;

public:
    template <class H, class F, class... R>
    Bound(H&& hook, F&& first, R&&... rest)
        : Base(static_cast<H&&>(hook), static_cast<R&&>(rest)...), first_(static_cast<F&&>(first)) {}

    template <class... Before>
    decltype(auto) call(Before&&... before) {
        return Base::call(static_cast<Before&&>(before)..., static_cast<First&&>(first_));
    }
    decltype(auto) operator()() { return call(); }

private:
    First first_;
};

// `hook` with its arguments, all decay-copied now, as one callable.
template <class Hook, class... Args>
auto bind(Hook&& hook, Args&&... args) {
    if constexpr (sizeof...(Args) == 0 && !std::is_member_pointer_v<std::decay_t<Hook>>)
        return std::decay_t<Hook>(static_cast<Hook&&>(hook));
    else
        return Bound<std::decay_t<Hook>, std::decay_t<Args>...>(static_cast<Hook&&>(hook),
                                                                static_cast<Args&&>(args)...);
}

// Whether storing them can throw or run code of the user's.
template <class... T>
inline constexpr bool copies_run_user_code = !(std::is_trivially_constructible_v<std::decay_t<T>, T> && ...);

}  // namespace txhooks::detail

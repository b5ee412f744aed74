// SPDX-License-Identifier: MIT
#pragma once

#include <coroutine>

// Nothing in it says so.
struct FireAndForget {};

// Done when it is returned, although it can be written as a coroutine.
struct Expected {
    bool has_value() const;
    int error() const;
};

struct Promise {
    FireAndForget get_return_object() noexcept { return {}; }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept {}
};

template <class... Args>
struct std::coroutine_traits<FireAndForget, Args...> {
    using promise_type = Promise;
};
template <class... Args>
struct std::coroutine_traits<Expected, Args...> {
    using promise_type = Promise;
};
template <class... Args>
struct std::coroutine_traits<void, Args...> {
    using promise_type = Promise;
};

// SPDX-License-Identifier: MIT
#pragma once

#include "support/exceptions.hpp"

#if defined(__clang__) and not defined(__cpp_impl_coroutine)
#define __cpp_impl_coroutine 201902L  // Clang 14 has coroutines, and <coroutine> of GCC asks for this
#endif
#include <coroutine>
#include <exception>
#include <string>
#include <thread>
#include <utility>

namespace support {

/// A coroutine that waits to be resumed, at its start too.
class Task {
public:
    struct promise_type {
        std::exception_ptr error;

        Task get_return_object() { return Task{std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { error = std::current_exception(); }
    };

    explicit Task(std::coroutine_handle<promise_type> handle) noexcept : handle_{handle} {}
    Task(Task&& other) noexcept : handle_{std::exchange(other.handle_, nullptr)} {}
    Task& operator=(Task&&) = delete;
    ~Task() {
        if (handle_) handle_.destroy();
    }

    void resume() { handle_.resume(); }
    void resume_on_another_thread() {
        std::thread{[this] { handle_.resume(); }}.join();
    }
    bool done() const noexcept { return handle_.done(); }
    std::string error() const { return name_of(handle_.promise().error); }

private:
    std::coroutine_handle<promise_type> handle_;
};

inline constexpr std::suspend_always elsewhere{};

}  // namespace support

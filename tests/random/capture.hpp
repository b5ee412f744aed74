// SPDX-License-Identifier: MIT
#pragma once

#include "program.hpp"

#include <cstddef>
#include <cstring>
#include <utility>

namespace random_programs {

/// The capture of a hook that returns a `Result`. Moved from, it is nobody's.
template <class Interpreter, class Result, std::size_t size, std::size_t alignment>
class Capture {
public:
    Capture(Interpreter& interpreter, const Hook& hook, bool is_the_hook)
        : interpreter_{interpreter}, hook_{hook}, is_the_hook_{is_the_hook} {
        if (is_the_hook_) interpreter_.captured();
    }
    Capture(Capture&& other) noexcept
        : interpreter_{other.interpreter_},
          hook_{other.hook_},
          is_the_hook_{std::exchange(other.is_the_hook_, false)} {}
    Capture(const Capture& pattern) : interpreter_{pattern.interpreter_}, hook_{pattern.hook_}, is_the_hook_{true} {
        interpreter_.copied(hook_);
        interpreter_.captured();
    }
    Capture& operator=(const Capture&) = delete;
    ~Capture() {
        if (is_the_hook_) interpreter_.destroyed(hook_);
    }
    Result operator()() const {
        for (std::size_t i = 0; i != size; ++i)
            if (filling_[i] != 'x') interpreter_.damaged(hook_);
        return interpreter_.template call<Result>(hook_);
    }

private:
    static constexpr std::size_t room = size == 0 ? 1 : size;

    struct alignas(alignment) Filling {
        char bytes[room];
        Filling() { std::memset(bytes, 'x', sizeof bytes); }
        char operator[](std::size_t i) const { return bytes[i]; }
    };

    Interpreter& interpreter_;
    const Hook& hook_;
    bool is_the_hook_;
    Filling filling_;
};

}  // namespace random_programs

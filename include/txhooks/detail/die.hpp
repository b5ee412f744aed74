// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <cstdio>
#include <exception>

namespace txhooks::detail {

// For what would be use after free otherwise.
[[noreturn]] inline void die(const char* why) noexcept {
    std::fprintf(stderr, "%s\n", why);
    std::terminate();
}

}  // namespace txhooks::detail

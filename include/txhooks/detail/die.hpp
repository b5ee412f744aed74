// SPDX-License-Identifier: MIT
#pragma once

#include <cstdio>
#include <exception>

namespace txhooks::detail {

// For what would be use after free otherwise.
[[noreturn]] inline void die(const char* why) noexcept {
    std::fprintf(stderr, "%s\n", why);
    std::terminate();
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// The names that some tests still use.

#include "support/exceptions.hpp"

namespace support {

inline std::string describe(const std::exception_ptr& error) {
    return name_of(error);
}
inline std::string text_of(const std::exception_ptr& error) {
    return name_of(error);
}

}  // namespace support

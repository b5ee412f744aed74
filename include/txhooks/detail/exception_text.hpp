// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <cstddef>
#include <exception>

namespace txhooks::detail {

// Copies `text`, or as much as fits without splitting a character of UTF-8, without newlines at its end. Returns the
// length.
inline std::size_t copy_text(char* to, std::size_t size, const char* text) noexcept {
    std::size_t length = 0;
    while (text[length] != '\0' && length + 1 < size) ++length;
    const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
    while (length != 0 && continues(text[length])) --length;  // '\0' does not
    while (length != 0 && text[length - 1] == '\n') --length;
    for (std::size_t i = 0; i != length; ++i) to[i] = text[i];
    to[length] = '\0';
    return length;
}

// Calls `use` with what `error`, which is not null, says.
template <class Use>
[[gnu::cold, gnu::noinline]] void with_text_of(const std::exception_ptr& error, Use use) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        const char* const text = e.what();
        use(text != nullptr ? text : "an exception without a text");
    } catch (...) {
        use("an exception that is not a std::exception");
    }
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace txhooks::detail {

// Whether it is UTF-8 without a zero byte, which a column of text takes.
inline bool is_text(std::string_view text) noexcept {
    std::size_t more = 0;  // bytes of a character
    for (std::size_t i = 0; i != text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto next = static_cast<unsigned char>(i + 1 != text.size() ? text[i + 1] : 0);
        if (byte == 0 || (more != 0 && byte >> 6 != 2)) return false;
        if (more != 0) {
            --more;
        } else if (byte >= 0x80) {
            more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
            // Too long for what they say, surrogates, and beyond the last character.
            if (byte < 0xc2 || byte > 0xf4 || (byte == 0xe0 && next < 0xa0) || (byte == 0xed && next > 0x9f) ||
                (byte == 0xf0 && next < 0x90) || (byte == 0xf4 && next > 0x8f))
                return false;
        }
    }
    return more == 0;
}

// The text of an error may be anything, and to lose a whole settlement for that would be worse than a few '?'.
inline std::string readable_text(std::string_view text) {
    constexpr std::size_t most = 2000;
    std::size_t size = text.size() < most ? text.size() : most;
    while (size != text.size() && size != 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) --size;
    std::string readable{text.substr(0, size)};
    if (is_text(readable)) return readable;
    for (char& c : readable)
        if (c != '\n' && c != '\t' && (c < ' ' || c > '~')) c = '?';
    return readable;
}

}  // namespace txhooks::detail

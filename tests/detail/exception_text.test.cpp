// SPDX-License-Identifier: MIT

#include <txhooks/detail/exception_text.hpp>

#include "support/catch.hpp"

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>

using txhooks::detail::copy_text;
using txhooks::detail::with_text_of;

namespace {

template <std::size_t size>
std::string copied(const char* text) {
    char to[size + 1];
    to[size] = '#';
    const std::size_t length = copy_text(to, size, text);
    CHECK(to[size] == '#');
    CHECK(to[length] == '\0');
    CHECK(std::string{to}.size() == length);
    return to;
}

template <class Exception>
std::string text_of(const Exception& exception) {
    std::string text;
    with_text_of(std::make_exception_ptr(exception), [&](const char* said) { text = said; });
    return text;
}

struct Mute : std::exception {
    const char* what() const noexcept override { return nullptr; }
};

}  // namespace

TEST_CASE("copy_text: copies what fits, without newlines at the end") {
    CHECK(copied<8>("") == "");
    CHECK(copied<8>("busy") == "busy");
    CHECK(copied<8>("1234567") == "1234567");
    CHECK(copied<8>("12345678") == "1234567");
    CHECK(copied<1>("busy") == "");
    CHECK(copied<8>("a\nb\n\n") == "a\nb");
    CHECK(copied<8>("12345\n\n\n9") == "12345");
    CHECK(copied<8>("\n") == "");
}

TEST_CASE("copy_text: splits no character of UTF-8") {
    CHECK(copied<8>("gr\xc3\xb6\xc3\x9f") == "gr\xc3\xb6\xc3\x9f");
    CHECK(copied<7>("gr\xc3\xb6\xc3\x9f") == "gr\xc3\xb6\xc3\x9f");
    CHECK(copied<6>("gr\xc3\xb6\xc3\x9f") == "gr\xc3\xb6");
    CHECK(copied<5>("gr\xc3\xb6\xc3\x9f") == "gr\xc3\xb6");
    CHECK(copied<4>("gr\xc3\xb6\xc3\x9f") == "gr");
    CHECK(copied<4>("\xf0\x9f\xaa\x9d") == "");
    CHECK(copied<4>("\x80\x80\x80\x80\x80") == "");  // no UTF-8 at all
}

TEST_CASE("with_text_of: every exception says something") {
    CHECK(text_of(std::runtime_error{"disk full"}) == "disk full");
    CHECK(text_of(42) == "an exception that is not a std::exception");
    CHECK(text_of(Mute{}) == "an exception without a text");
}

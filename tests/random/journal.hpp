// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"
#include "program.hpp"

#include <concepts>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace random_programs {

/// The readable trace of a program, and the first thing that was violated in it.
class Journal {
protected:
    explicit Journal(bool traced) : traced_{traced} {}

    template <class... Parts>
    void expect(bool holds, const Parts&... parts) {
        if (holds) return;
        const std::string words = (std::string{} + ... + word(parts));
        trace("VIOLATION: ", words);
        if (violation_.empty()) violation_ = words;
    }

    template <class... Parts>
    void trace(const Parts&... parts) const {
        if (not traced_) return;
        const std::string words = (std::string(2 * depth_, ' ') + ... + word(parts));
        std::fprintf(stderr, "  %s\n", words.c_str());
    }

    static std::string word(const std::string& text) { return text; }
    static std::string word(const char* text) { return text; }
    template <std::integral Number>
    static std::string word(Number number) {
        return std::to_string(number);
    }
    static std::string word(const std::exception_ptr& error) {
        if (not error) return {};
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& e) {
            return std::string{text(told_by(error))} + " (" + e.what() + ")";
        } catch (...) {
            return "an int";
        }
    }

    static std::string ids(const std::vector<const Hook*>& hooks) {
        std::string list;
        for (const Hook* hook : hooks) list += " " + std::to_string(hook->id);
        return list.empty() ? " (none)" : list;
    }

    const bool traced_;
    std::string violation_;
    std::size_t depth_ = 0;  // of the trace
};

}  // namespace random_programs

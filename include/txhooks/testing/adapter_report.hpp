// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/exception_text.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace txhooks::testing {

/// What became of one row of an `adapter_check`.
struct AdapterFinding {
    enum class Verdict : unsigned char {
        kept,    ///< as it must be
        cannot,  ///< not kept, or not tried; and declared
        failed,  ///< not kept, or not tried; or a hook ran for lost data, was lost, or ran twice; or declared, but kept
    };

    std::string row;
    Verdict verdict = Verdict::failed;
    std::string text;  ///< what was seen
};

/// The table of an `adapter_check`.
class AdapterReport {
public:
    AdapterReport(std::string_view name, std::vector<AdapterFinding> rows) : name_{name}, rows_{std::move(rows)} {}

    bool passed() const { return !rows_.empty() && count(AdapterFinding::Verdict::failed) == 0; }
    const std::vector<AdapterFinding>& rows() const noexcept { return rows_; }

    std::string table() const {
        using Verdict = AdapterFinding::Verdict;
        std::string table = name_ + '\n';
        for (const auto& [row, verdict, text] : rows_) {
            const std::string word = verdict == Verdict::kept     ? "kept"
                                     : verdict == Verdict::cannot ? "cannot"
                                                                  : "FAILED";
            table += "  " + padded(row, 36) + padded(word, 8) + one_line(text) + '\n';
        }
        return table + "  " + std::to_string(count(Verdict::kept)) + " kept, " +
               std::to_string(count(Verdict::cannot)) + " cannot, " + std::to_string(count(Verdict::failed)) +
               " failed\n";
    }

private:
    static std::string padded(std::string text, std::size_t width) {
        if (text.size() < width) text.resize(width, ' ');
        return text + ' ';
    }
    static std::string one_line(const std::string& text) {
        char line[101];
        detail::copy_text(line, sizeof line, text.substr(0, text.find('\n')).c_str());
        return line == text ? line : std::string{line} + " ...";
    }
    std::size_t count(AdapterFinding::Verdict verdict) const noexcept {
        std::size_t found = 0;
        for (const AdapterFinding& finding : rows_)
            if (finding.verdict == verdict) ++found;
        return found;
    }

    std::string name_;
    std::vector<AdapterFinding> rows_;
};

}  // namespace txhooks::testing

// SPDX-License-Identifier: MIT
#pragma once

// SQL as text and its rows, over MariaDB's client.

#include <txhooks/errors.hpp>

#include <mysql.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace txhooks::mariadb::detail {

// A literal that means the same in every sql_mode and character set. Empty: NULL.
inline std::string hex_or_null(std::string_view bytes) {
    if (bytes.empty()) return "NULL";
    constexpr const char* digits = "0123456789ABCDEF";
    std::string literal;
    literal.reserve(bytes.size() * 2 + 3);
    literal += "X'";
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        literal += digits[byte >> 4];
        literal += digits[byte & 15];
    }
    return literal += '\'';
}
inline std::string hex(std::string_view bytes) {
    return bytes.empty() ? "X''" : hex_or_null(bytes);
}

// The rows of a statement, all of them read.
class JobResult {
public:
    explicit JobResult(MYSQL_RES* rows) noexcept : rows_{rows} {}
    JobResult(JobResult&& other) noexcept : rows_{std::exchange(other.rows_, nullptr)} {}
    JobResult& operator=(JobResult&&) = delete;
    ~JobResult() { mysql_free_result(rows_); }

    bool next() noexcept { return (row_ = mysql_fetch_row(rows_)) != nullptr; }
    std::int64_t number(unsigned column) const noexcept {
        return row_[column] == nullptr ? 0 : std::strtoll(row_[column], nullptr, 10);
    }
    std::string text(unsigned column) const {
        return row_[column] == nullptr ? std::string{} : std::string{row_[column], mysql_fetch_lengths(rows_)[column]};
    }

private:
    MYSQL_RES* rows_;
    MYSQL_ROW row_ = nullptr;
};

[[noreturn]] inline void fail(MYSQL* db) {
    constexpr int er_no_such_table = 1146;
    const auto code = static_cast<int>(mysql_errno(db));
    std::string text = mysql_error(db);
    if (code == er_no_such_table && text.find("txhooks_job") != std::string::npos)
        text += "; make it with Outbox::create_table(), or with the DDL of schema()";
    throw EngineError{code, mysql_sqlstate(db), text.c_str()};
}

}  // namespace txhooks::mariadb::detail

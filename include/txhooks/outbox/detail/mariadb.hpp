// SPDX-License-Identifier: MIT
#pragma once

// SQL as text and its rows, over MariaDB's client.

#include <txhooks/errors.hpp>
#include <txhooks/outbox/detail/hex.hpp>

#include <mysql.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

namespace txhooks::mariadb::detail {

// Literals that mean the same in every sql_mode and character set.
inline std::string hex(std::string_view bytes) {
    return "X'" + txhooks::detail::hex(bytes) + '\'';
}
inline std::string hex_or_null(std::string_view bytes) {
    return bytes.empty() ? "NULL" : hex(bytes);
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

// SPDX-License-Identifier: MIT
#pragma once

/// Jobs that survive the process, over `SQLite::Database` (SQLiteCpp) and types derived from it. Several processes on one
/// file need WAL mode and a busy timeout (`setBusyTimeout`). Times are the host's clock. An `Outbox` keeps its statements
/// prepared in the connection as long as it lives.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/outbox/detail/sqlite.hpp>

#include <concepts>
#include <exception>

namespace txhooks {
namespace sqlite::detail {

struct SqliteCppJobDriver : SqliteCppDriver {
    static std::exception_ptr job_error(int code, const char* text) noexcept {
        try {
            return std::make_exception_ptr(SQLite::Exception{text, code});
        } catch (...) {
            return std::current_exception();
        }
    }
};

}  // namespace sqlite::detail

template <std::derived_from<SQLite::Database> Backend>
class JobStore<Backend> : public sqlite::detail::JobTable<sqlite::detail::SqliteCppJobDriver> {
    using JobTable::JobTable;
};

}  // namespace txhooks

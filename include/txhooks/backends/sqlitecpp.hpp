// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on `SQLite::Database` (SQLiteCpp) and types derived from it:
///
///     txhooks::HookedConnection<SQLite::Database> db{"app.db", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
///     db.atomic({.begin = txhooks::sqlite::Begin::immediate}, [&] { ... });
///
/// Nest another block instead of a `SQLite::Savepoint`: hooks follow blocks, and would run after it was rolled back.
///
/// A borrowed database must outlive its wrapper: prepared statements are kept in it, and SQLiteCpp 3.2 aborts when it
/// closes a database that has some. Errors of SQLite are thrown as `SQLite::Exception`.

#include <txhooks/backends/detail/sqlite.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/Database.h>
#include <SQLiteCpp/Exception.h>

#include <concepts>
#include <exception>

namespace txhooks {
namespace sqlite::detail {

struct SqliteCppDriver {
    using Handle = SQLite::Database&;
    static sqlite3* handle(SQLite::Database& db) noexcept { return db.getHandle(); }
    static std::exception_ptr error(sqlite3* db, int code, Outcome) noexcept {
        try {
            return std::make_exception_ptr(SQLite::Exception{db, code});
        } catch (...) {
            return std::current_exception();
        }
    }
    static int code(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const SQLite::Exception& e) {
            return e.getErrorCode();
        } catch (...) {
            return SQLITE_OK;  // not one of SQLite's
        }
    }
};

template <std::derived_from<SQLite::Database> Backend>
struct DriverOf<Backend> {
    using type = SqliteCppDriver;
};

}  // namespace sqlite::detail

template <std::derived_from<SQLite::Database> Backend>
class BackendAdapter<Backend> : public sqlite::SavepointWitness<sqlite::detail::SqliteCppDriver> {
    using SavepointWitness::SavepointWitness;
};

}  // namespace txhooks

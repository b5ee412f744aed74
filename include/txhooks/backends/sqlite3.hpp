// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on a `sqlite3*`, from SQLite 3.34 on:
///
///     txhooks::HookedConnection db{handle};
///     db.atomic({.begin = txhooks::sqlite::Begin::immediate}, [&] { ... });
///
/// The handle is borrowed: close it after this object is gone, because prepared statements are kept in it. They are not
/// the application's to finalize: where it finalizes all there are (a loop of `sqlite3_next_stmt`) while this object
/// lives, call `reset()` before, which gives them back; they are prepared anew when next used.
/// Errors of SQLite are thrown as `EngineError` with the extended result code.

#include <txhooks/backends/detail/sqlite.hpp>
#include <txhooks/txhooks.hpp>

#include <sqlite3.h>

#include <exception>

namespace txhooks {
namespace sqlite::detail {

struct CDriver {
    using Handle = sqlite3*;
    static sqlite3* handle(sqlite3* db) noexcept { return db; }
    static std::exception_ptr error(sqlite3* db, int, Outcome outcome) noexcept {
        return std::make_exception_ptr(EngineError{sqlite3_extended_errcode(db), "", sqlite3_errmsg(db), outcome});
    }
    static int code(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const EngineError& e) {
            return e.code();
        } catch (...) {
            return SQLITE_OK;  // not one of SQLite's
        }
    }
};

template <>
struct DriverOf<sqlite3*> {
    using type = CDriver;
};

}  // namespace sqlite::detail

template <>
class BackendAdapter<sqlite3*> : public sqlite::SavepointWitness<sqlite::detail::CDriver> {
    using SavepointWitness::SavepointWitness;
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include "support/sqlite_database.hpp"

#include <sqlite3.h>

#include <optional>
#include <string>
#include <utility>

namespace support {

/// A SQLite file as others see it, for `adapter_check`.
class SqliteOthers {
public:
    explicit SqliteOthers(std::string path) : path_{std::move(path)} {}

    long look(const std::string& query) const { return std::stol(values(Handle{path_}, query)); }

    /// A reader keeps COMMIT from its lock.
    void make_busy(bool busy) {
        reading_.reset();
        reader_.reset();
        if (not busy) return;
        reader_.emplace(path_);
        reading_.emplace(*reader_, "SELECT name FROM sqlite_schema");
    }

private:
    std::string path_;
    std::optional<Handle> reader_;
    std::optional<Unfinished> reading_;
};

/// From now on COMMIT is a rollback, or no longer.
inline void refuse_commit(sqlite3* db, bool refuse) {
    sqlite3_commit_hook(db, refuse ? +[](void*) { return 1; } : nullptr, nullptr);
}

/// A handle of SQLite's own, for `adapter_check`.
class SqliteSession : public SqliteOthers {
public:
    explicit SqliteSession(const std::string& path) : SqliteOthers{path}, handle_{path} {
        run(handle_, "PRAGMA foreign_keys = ON");
    }

    sqlite3* backend() { return handle_; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        run(handle_, sql);
    }
    void refuse_commit(bool refuse) { support::refuse_commit(handle_, refuse); }

private:
    Handle handle_;
};

}  // namespace support

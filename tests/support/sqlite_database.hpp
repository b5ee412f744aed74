// SPDX-License-Identifier: MIT
#pragma once

#include "support/catch.hpp"
#include "support/sqlite_files.hpp"

#include <sqlite3.h>

#include <stdexcept>
#include <string>

namespace support {

/// Runs `sql` and returns SQLite's extended result code.
inline int attempt(sqlite3* db, const std::string& sql) {
    const int rc = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
    return rc == SQLITE_OK ? rc : sqlite3_extended_errcode(db);
}

inline void run(sqlite3* db, const std::string& sql) {
    if (attempt(db, sql) != SQLITE_OK) throw std::runtime_error{sql + ": " + sqlite3_errmsg(db)};
}

/// The first column of every row of `sql`: "1,2,3".
inline std::string values(sqlite3* db, const std::string& sql) {
    std::string all;
    const auto add = [](void* to, int, char** columns, char**) {
        std::string& text = *static_cast<std::string*>(to);
        if (not text.empty()) text += ',';
        text += columns[0] == nullptr ? "null" : columns[0];
        return 0;
    };
    if (sqlite3_exec(db, sql.c_str(), add, &all, nullptr) != SQLITE_OK)
        throw std::runtime_error{sql + ": " + sqlite3_errmsg(db)};
    return all;
}

/// A connection of SQLite's own. That it can be closed at the end is checked: nobody left a statement in it.
class Handle {
public:
    explicit Handle(const std::string& path, const char* vfs = nullptr,
                    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
        if (sqlite3_open_v2(path.c_str(), &db_, flags, vfs) == SQLITE_OK) return;
        sqlite3_close(db_);
        throw std::runtime_error{"cannot open " + path};
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { CHECK(sqlite3_close(db_) == SQLITE_OK); }

    sqlite3* get() const { return db_; }
    operator sqlite3*() const { return db_; }

private:
    sqlite3* db_ = nullptr;
};

/// A statement that was begun and not finished: stepped to its first row.
class Unfinished {
public:
    Unfinished(sqlite3* db, const char* sql) {
        if (sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr) != SQLITE_OK)
            throw std::runtime_error{sqlite3_errmsg(db)};
        const int rc = sqlite3_step(statement_);
        if (rc != SQLITE_ROW) {
            sqlite3_finalize(statement_);
            throw std::runtime_error{std::string{"no row: "} + sqlite3_errmsg(db)};
        }
    }
    Unfinished(const Unfinished&) = delete;
    Unfinished& operator=(const Unfinished&) = delete;
    ~Unfinished() { finish(); }

    int step() { return sqlite3_step(statement_); }
    void finish() {
        sqlite3_finalize(statement_);
        statement_ = nullptr;
    }

private:
    sqlite3_stmt* statement_ = nullptr;
};

/// What a fresh connection sees in `t`: nothing proves more.
inline std::string truth(const DatabaseFile& file, const char* name = "main.db") {
    const Handle fresh{file.path(name)};
    return values(fresh, "SELECT n FROM t ORDER BY n");
}

}  // namespace support

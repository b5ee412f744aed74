// SPDX-License-Identifier: MIT

#include "support/sqlite_session.hpp"

#include <SQLiteCpp/Database.h>
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/sql_adapter.hpp>
#include <txhooks/testing/adapter_check.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace {

struct SqliteCpp : support::SqliteOthers {
    explicit SqliteCpp(const std::string& path)
        : SqliteOthers{path}, db{path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE} {
        db.exec("PRAGMA foreign_keys = ON");
    }

    SQLite::Database& backend() { return db; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        db.exec(sql);
    }
    void refuse_commit(bool refuse) { support::refuse_commit(db.getHandle(), refuse); }

    SQLite::Database db;
};

// As users write theirs, from two functions, or one.
struct Own : txhooks::SqlAdapter<Own> {
    explicit Own(sqlite3* handle) : db{handle} {}
    void execute(const char* sql) { support::run(db, sql); }
    txhooks::ConnectionState state() const noexcept {
        return sqlite3_get_autocommit(db) != 0 ? txhooks::ConnectionState::idle : txhooks::ConnectionState::open;
    }
    sqlite3* db;
};

struct OwnWithoutState : txhooks::SqlAdapterWithoutState<OwnWithoutState> {
    explicit OwnWithoutState(sqlite3* handle) : db{handle} {}
    void execute(const char* sql) { support::run(db, sql); }
    sqlite3* db;
};

template <class A>
struct With : support::SqliteSession {
    using Adapter = A;
    using SqliteSession::SqliteSession;
};

template <class Session>
bool passes(const char* name, std::vector<std::string_view> cannot = {}) {
    const support::DatabaseFile file;
    cannot.insert(cannot.end(), {"reply to COMMIT lost", "killed before COMMIT", "killed during COMMIT"});
    return txhooks::testing::adapter_check(name, [&] { return Session{file.path()}; }, cannot).passed();
}

}  // namespace

TEST_CASE("sqlite3 keeps the promise, whatever its witness") {
    CHECK(passes<support::SqliteSession>("sqlite3"));
    // The hook that refuses takes its slot.
    CHECK(passes<With<txhooks::sqlite::Counting<sqlite3*>>>("sqlite3, Counting", {"refused COMMIT"}));
}

TEST_CASE("SQLiteCpp keeps the promise") {
    CHECK(passes<SqliteCpp>("SQLiteCpp"));
}

TEST_CASE("SqlAdapter keeps the promise; without state(), but for what that would tell") {
    CHECK(passes<With<Own>>("SqlAdapter on sqlite3"));
    CHECK(passes<With<OwnWithoutState>>("SqlAdapterWithoutState on sqlite3",
                                        {"raw BEGIN before", "deferred constraint", "busy COMMIT"}));
}

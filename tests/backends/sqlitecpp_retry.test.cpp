// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/sqlite_files.hpp"

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/retry.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <chrono>
#include <exception>
#include <string>

using namespace support;
using txhooks::retry;
using txhooks::RetryPolicy;

TEST_CASE("sqlitecpp retry: knows the exceptions of SQLiteCpp that are worth another attempt", "[retry]") {
    const DatabaseFile file;
    const int flags = SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE;
    txhooks::HookedConnection<SQLite::Database> db{file.path(), flags};
    SQLite::Database other{file.path(), flags};
    other.exec("PRAGMA journal_mode = WAL");
    other.exec("CREATE TABLE t (n INTEGER PRIMARY KEY)");
    int calls = 0;
    std::string log;
    RetryPolicy policy{.before_retry =
                           [&](unsigned, const std::exception_ptr& error) {
                               try {
                                   std::rethrow_exception(error);
                               } catch (const SQLite::Exception& e) {
                                   log += std::to_string(e.getExtendedErrorCode()) + ' ';
                               }
                           },
                       .sleep = [](std::chrono::nanoseconds) {}};
    const auto insert = [&](SQLite::Database& sql) {
        db.on_commit([&log, n = ++calls] { log += "hook " + std::to_string(n); });
        const int last = sql.execAndGet("SELECT ifnull(max(n), 0) FROM t");
        if (calls == 1) other.exec("INSERT INTO t VALUES (1)");
        sql.exec("INSERT INTO t VALUES (" + std::to_string(last + 10) + ")");
    };
    SECTION("a snapshot that is out of date") {
        retry(db, policy, insert);
        CHECK(log == "517 hook 2");
        CHECK(other.execAndGet("SELECT max(n) FROM t").getInt() == 11);
    }
    SECTION("a writer in the way of BEGIN IMMEDIATE") {
        other.exec("BEGIN IMMEDIATE");
        policy.sleep = [&](std::chrono::nanoseconds) { other.exec("COMMIT"); };
        retry(db, policy, {.begin = txhooks::sqlite::Begin::immediate}, [&] { db.on_commit([&] { log += "hook"; }); });
        CHECK(log == "5 hook");
    }
    SECTION("but nothing else") {
        CHECK_THROWS_AS(retry(db, policy, [&] { db.exec("INSERT INTO nowhere VALUES (1)"); }), SQLite::Exception);
        CHECK(log.empty());
    }
}

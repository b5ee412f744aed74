// SPDX-License-Identifier: MIT
//
// What the witnesses of the SQLite adapters cost. Prints ratios: the least time of each way over the least time of the
// first, from interleaved repetitions. To be read by people; nothing here fails.

#include "support/sqlite_files.hpp"

#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/backends/sqlitecpp.hpp>

#include <SQLiteCpp/SQLiteCpp.h>
#include <SQLiteCpp/Savepoint.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <vector>

using txhooks::Atomic;
using txhooks::HookedConnection;
using txhooks::sqlite::Begin;

namespace {

struct Contender {
    const char* name;
    std::function<void()> run;
    double least = std::numeric_limits<double>::infinity();
};

// Many short repetitions, so that some of them are undisturbed.
void compare(const char* what, int repetitions, int times, std::vector<Contender> contenders) {
    for (Contender& each : contenders) each.run();
    for (int repetition = 0; repetition < repetitions; ++repetition) {
        for (Contender& each : contenders) {
            const auto begin = std::chrono::steady_clock::now();
            for (int time = 0; time < times; ++time) each.run();
            const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
            each.least = std::min(each.least, took.count() / times);
        }
    }
    std::printf("%s\n", what);
    for (const Contender& each : contenders)
        std::printf("  %-50s %10.3f us  x %.2f\n", each.name, each.least, each.least / contenders.front().least);
}

void bulk_update() {
    const support::DatabaseFile file;
    SQLite::Database sql{file.path(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    sql.exec("PRAGMA journal_mode = WAL");
    sql.exec("PRAGMA synchronous = NORMAL");
    sql.exec("CREATE TABLE t (n INTEGER PRIMARY KEY, value INTEGER, text TEXT)");
    sql.exec(
        "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 10000) "
        "SELECT n, 0, hex(randomblob(50)) FROM c");
    HookedConnection<sqlite3*> savepoint{sql.getHandle()};
    HookedConnection<sqlite3*, txhooks::sqlite::Counting<sqlite3*>> counting{sql.getHandle()};
    SQLite::Statement update{sql, "UPDATE t SET value = value + 1"};
    unsigned long hooks = 0;

    const auto work = [&] {
        update.exec();
        update.reset();
    };
    const auto in_block = [&](auto& db, Begin begin) {
        return [&, begin] {
            Atomic tx{db, {.begin = begin}};
            work();
            db.on_commit([&] { ++hooks; });
            tx.commit();
        };
    };
    compare("UPDATE of 10,000 rows in a WAL file, one hook", 25, 1,
            {{"sqlite3_exec BEGIN and COMMIT, no hook",
              [&] {
                  sqlite3_exec(sql.getHandle(), "BEGIN", nullptr, nullptr, nullptr);
                  work();
                  sqlite3_exec(sql.getHandle(), "COMMIT", nullptr, nullptr, nullptr);
              }},
             {"savepoint, deferred", in_block(savepoint, Begin::deferred)},
             {"savepoint, immediate", in_block(savepoint, Begin::immediate)},
             {"counting, deferred", in_block(counting, Begin::deferred)},
             {"counting, immediate", in_block(counting, Begin::immediate)}});
}

void small_blocks() {
    SQLite::Database sql{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    sql.exec("CREATE TABLE t (n INTEGER PRIMARY KEY, value INTEGER)");
    HookedConnection db{sql};
    HookedConnection<SQLite::Database&, txhooks::sqlite::Counting<SQLite::Database>> counting{sql};
    SQLite::Statement insert{sql, "INSERT OR REPLACE INTO t VALUES (1, 2)"};
    unsigned long hooks = 0;

    const auto nothing = [] {};
    const auto one_insert = [&] {
        insert.exec();
        insert.reset();
    };
    const auto theirs = [&](auto work) {
        return [&, work] {
            SQLite::Transaction transaction{sql};
            work();
            transaction.commit();
        };
    };
    const auto ours = [&](auto& connection, auto work, Begin begin) {
        return [&, work, begin] {
            Atomic tx{connection, {.begin = begin}};
            work();
            connection.on_commit([&] { ++hooks; });
            tx.commit();
        };
    };
    const auto each = [&](const char* what, auto work) {
        compare(what, 100, 1'000,
                {{"SQLite::Transaction, no hook", theirs(work)},
                 {"savepoint, deferred", ours(db, work, Begin::deferred)},
                 {"savepoint, immediate", ours(db, work, Begin::immediate)},
                 {"counting, deferred", ours(counting, work, Begin::deferred)},
                 {"counting, immediate", ours(counting, work, Begin::immediate)}});
    };
    each("empty block in memory, one hook", nothing);
    each("one INSERT in memory, one hook", one_insert);

    // Both inside a transaction, which is not measured.
    Atomic tx{db};
    compare("nested block in memory", 100, 1'000,
            {{"SQLite::Savepoint",
              [&] {
                  SQLite::Savepoint savepoint{sql, "mine"};
                  savepoint.release();
              }},
             {"nested Atomic", [&] {
                  Atomic inner{db};
                  inner.commit();
              }}});
    tx.commit();
}

}  // namespace

int main() {
    bulk_update();
    small_blocks();
}

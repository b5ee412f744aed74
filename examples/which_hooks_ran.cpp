// SPDX-License-Identifier: MIT
//
// A transaction that somebody else has ended: which hooks run, what the caller is told, and what is true. The same block
// on three engines, each of which undoes it in its own way, while nobody looks at the error: a conflict clause of SQLite,
// a deadlock of MariaDB, a session of PostgreSQL that is killed.
//
// Whether a rollback hook runs depends on what the adapter can prove: a file that on_rollback() would remove stays, where
// nothing says that its row is gone; a cache entry that unless_committed() forgets goes in any case.
//
// The servers are those of our tests: the environment says where they are.

#include <txhooks/backends/libpq.hpp>
#include <txhooks/backends/mariadb.hpp>
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/txhooks.hpp>

#include <libpq-fe.h>
#include <mysql.h>
#include <sqlite3.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

struct Close {
    void operator()(sqlite3* db) const noexcept { sqlite3_close(db); }
    void operator()(PGconn* db) const noexcept { PQfinish(db); }
    void operator()(MYSQL* db) const noexcept { mysql_close(db); }
    void operator()(PGresult* result) const noexcept { PQclear(result); }
    void operator()(MYSQL_RES* result) const noexcept { mysql_free_result(result); }
};
template <class T>
using Owned = std::unique_ptr<T, Close>;

// ---- On each engine: does a statement and returns the first value of its answer, or "-"; an error is nobody's business

std::string ask(sqlite3* db, const std::string& sql) {
    std::string value = "-";
    const auto keep = [](void* to, int, char** columns, char**) {
        *static_cast<std::string*>(to) = columns[0];
        return 0;
    };
    sqlite3_exec(db, sql.c_str(), keep, &value, nullptr);
    return value;
}

std::string ask(PGconn* db, const std::string& sql) {
    const Owned<PGresult> result{PQexec(db, sql.c_str())};
    return PQntuples(result.get()) != 0 ? PQgetvalue(result.get(), 0, 0) : "-";
}

std::string ask(MYSQL* db, const std::string& sql) {
    if (mysql_real_query(db, sql.data(), sql.size()) != 0) return "-";
    const Owned<MYSQL_RES> result{mysql_store_result(db)};
    const MYSQL_ROW row = result ? mysql_fetch_row(result.get()) : nullptr;
    return row != nullptr ? row[0] : "-";
}

// ---- The block

bool all_right = true;

// A block with a row and a hook of each kind, in which `meet` happens. `others` is a second connection.
template <class Db, class Handle, class Meet>
void play(const char* title, Db& db, Handle* others, Meet meet, const std::string& expected) {
    std::printf("%s\n", title);
    std::string ran;
    try {
        db.atomic([&](Handle* handle) {
            db.before_commit([&] { ran += " before_commit"; });
            db.on_commit([&] { ran += " on_commit"; });
            db.on_rollback([&] { ran += " on_rollback"; });
            db.unless_committed([&] { ran += " unless_committed"; });
            ask(handle, "INSERT INTO txhooks_example VALUES (1)");
            meet(handle);
        });
        std::printf("    told:  nothing, it is committed\n");
    } catch (const std::exception& e) {
        std::printf("    told:  %s\n", e.what());
    }
    const bool there = ask(others, "SELECT count(*) FROM txhooks_example") == "1";
    std::printf("    ran:  %s\n    truth: %s\n", ran.c_str(), there ? "others see the row" : "nobody sees the row");
    const bool committed = ran.find("on_commit") != std::string::npos;
    const bool undone = ran.find("on_rollback") != std::string::npos;
    if (ran == expected and not(committed and not there) and not(undone and there)) return;
    std::printf("    WRONG: expected%s\n", expected.c_str());
    all_right = false;
}

// ---- SQLite: a conflict clause

template <class Adapter>
void on_sqlite(const char* title, const std::string& expected) {
    const auto open = [] {
        sqlite3* db = nullptr;
        sqlite3_open_v2("file:txhooks_example?mode=memory&cache=shared", &db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nullptr);
        return Owned<sqlite3>{db};
    };
    const Owned<sqlite3> handle = open();
    const Owned<sqlite3> others = open();
    ask(others.get(), "CREATE TABLE txhooks_example (id INTEGER PRIMARY KEY)");
    txhooks::HookedConnection<sqlite3*, Adapter> db{handle.get()};
    play(
        title, db, others.get(), [](sqlite3* h) { ask(h, "INSERT OR ROLLBACK INTO txhooks_example VALUES (1)"); },
        expected);
}

// ---- PostgreSQL: the session is killed

void on_postgres(const char* title, bool noticed, const std::string& expected) {
    const Owned<PGconn> handle{PQconnectdb("")};
    const Owned<PGconn> others{PQconnectdb("")};
    if (PQstatus(handle.get()) != CONNECTION_OK) throw std::runtime_error{PQerrorMessage(handle.get())};
    PQsetNoticeProcessor(others.get(), [](void*, const char*) {}, nullptr);
    ask(others.get(), "DROP TABLE IF EXISTS txhooks_example");
    ask(others.get(), "CREATE TABLE txhooks_example (id int PRIMARY KEY)");
    txhooks::HookedConnection<PGconn*> db{handle.get()};
    const auto killed = [&](PGconn* conn) {
        const std::string id = std::to_string(PQbackendPID(conn));
        ask(others.get(), "SELECT pg_terminate_backend(" + id + ")");
        while (ask(others.get(), "SELECT count(*) FROM pg_stat_activity WHERE pid = " + id) != "0") continue;
        if (noticed) ask(conn, "SELECT 1");
    };
    play(title, db, others.get(), killed, expected);
    ask(others.get(), "DROP TABLE txhooks_example");
}

// ---- MariaDB: a deadlock

Owned<MYSQL> open_mariadb() {
    const char* const folder = std::getenv("TXHOOKS_MARIADB");  // NOLINT(concurrency-mt-unsafe): nobody sets one
    if (folder == nullptr) throw std::runtime_error{"TXHOOKS_MARIADB does not name the folder of a server"};
    const std::string option_file = folder + std::string{"/client.cnf"};
    Owned<MYSQL> db{mysql_init(nullptr)};
    mysql_options(db.get(), MYSQL_READ_DEFAULT_FILE, option_file.c_str());
    mysql_options(db.get(), MYSQL_READ_DEFAULT_GROUP, "client");
    if (mysql_real_connect(db.get(), nullptr, nullptr, nullptr, nullptr, 0, nullptr, 0) == nullptr)
        throw std::runtime_error{mysql_error(db.get())};
    return db;
}

void on_mariadb(const char* title, const std::string& expected) {
    const Owned<MYSQL> handle = open_mariadb();
    const Owned<MYSQL> rival = open_mariadb();
    const Owned<MYSQL> others = open_mariadb();
    ask(others.get(), "CREATE OR REPLACE TABLE txhooks_example (id INT PRIMARY KEY)");
    ask(others.get(), "CREATE OR REPLACE TABLE txhooks_example_lock AS SELECT seq AS n FROM seq_1_to_100");
    ask(others.get(), "ALTER TABLE txhooks_example_lock ADD PRIMARY KEY (n)");
    txhooks::HookedConnection<MYSQL*> db{handle.get()};
    const auto deadlock = [&](MYSQL* ours) {
        ask(rival.get(), "BEGIN");
        ask(rival.get(), "DELETE FROM txhooks_example_lock WHERE n = 1");
        ask(rival.get(), "DELETE FROM txhooks_example_lock WHERE n > 2");  // who has done less is the victim
        ask(ours, "DELETE FROM txhooks_example_lock WHERE n = 2");
        std::thread waits{[&] { ask(rival.get(), "DELETE FROM txhooks_example_lock WHERE n = 2"); }};
        const char* const waiting = "SHOW STATUS WHERE variable_name = 'Innodb_row_lock_current_waits' AND value = '0'";
        while (ask(others.get(), waiting) != "-") std::this_thread::sleep_for(std::chrono::milliseconds{1});
        ask(ours, "DELETE FROM txhooks_example_lock WHERE n = 1");
        waits.join();
        ask(rival.get(), "ROLLBACK");
    };
    play(title, db, others.get(), deadlock, expected);
    ask(others.get(), "DROP TABLE txhooks_example, txhooks_example_lock");
}

}  // namespace

int main() {
    try {
        on_sqlite<txhooks::BackendAdapter<sqlite3*>>("SQLite, ON CONFLICT ROLLBACK", " unless_committed");
        on_sqlite<txhooks::sqlite::Counting<sqlite3*>>("SQLite, the same, watched by sqlite::Counting",
                                                       " unless_committed on_rollback");
        on_mariadb("MariaDB, the victim of a deadlock", " unless_committed");
        on_postgres("PostgreSQL, a killed session, and a statement has met that", true,
                    " unless_committed on_rollback");
        on_postgres("PostgreSQL, the same, and nobody knows before COMMIT", false, " before_commit unless_committed");
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
        return EXIT_FAILURE;
    }
    return all_right ? EXIT_SUCCESS : EXIT_FAILURE;
}

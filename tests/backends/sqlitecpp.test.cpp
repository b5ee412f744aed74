// SPDX-License-Identifier: MIT
//
// What is SQLiteCpp's own: types, lifetimes, exceptions, and its transaction classes. What SQLite does is tested on the
// C handle, in sqlite3*.test.cpp.

#include "support/catch.hpp"
#include "support/sqlite_scene.hpp"
#include "support/vfs.hpp"

#include <txhooks/backends/sqlitecpp.hpp>

#include <SQLiteCpp/SQLiteCpp.h>
#include <SQLiteCpp/Savepoint.h>

#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace support;
using txhooks::Atomic;
using txhooks::HookedConnection;

namespace {

const int read_write = SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE;

using DefaultAdapter = txhooks::BackendAdapter<SQLite::Database>;
using CountingAdapter = txhooks::sqlite::Counting<SQLite::Database>;

template <class A>
using Owned = HookedConnection<SQLite::Database, A>;
template <class A>
using Borrowed = HookedConnection<SQLite::Database&, A>;

// An exception in a few words, those of SQLiteCpp too.
std::string in_words(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const SQLite::Exception& e) {
        return "SQLite::Exception " + code_name(e.getExtendedErrorCode());
    } catch (const txhooks::Error& e) {
        const std::string text = name_of(error);
        return e.cause() ? text.substr(0, text.find(" <- ")) + " <- " + in_words(e.cause()) : text;
    } catch (const std::exception& e) {
        return e.what();
    }
}

template <class Fn>
std::string end_of(Fn&& fn) {
    try {
        if constexpr (std::is_same_v<decltype(fn()), txhooks::Outcome>) {
            return name(fn());
        } else {
            fn();
            return "returned";
        }
    } catch (...) {
        return in_words(std::current_exception());
    }
}

// A database file with a table `t`, and one hook for each of its rows.
struct Diary {
    DatabaseFile file;
    std::string hooks;

    Diary() { run(Handle{file.path()}, "CREATE TABLE t (n INTEGER PRIMARY KEY)"); }

    template <class Db>
    void row(Db& db, int n) {
        run(db.backend().getHandle(), "INSERT INTO t VALUES (" + std::to_string(n) + ")");
        db.on_commit([this, n] { hooks += (hooks.empty() ? "" : ",") + std::to_string(n); });
    }
    std::string truth() const { return support::truth(file); }
};

template <class Db>
void all_verbs(Db& db, Diary& diary) {
    Atomic tx{db};
    diary.row(db, 1);
    {
        Atomic inner{db};
        diary.row(db, 2);
        inner.rollback();
    }
    {
        Atomic inner{db};
        diary.row(db, 3);
        inner.commit();
    }
    tx.commit();
    Atomic again{db, {.begin = Begin::immediate}};
    diary.row(db, 4);
    again.rollback();
}

}  // namespace

// ---- Types and lifetimes

TEMPLATE_TEST_CASE("sqlitecpp: an owned database is a SQLite::Database and closes by itself", "[S53][S59]",
                   DefaultAdapter, CountingAdapter) {
    Diary diary;
    {
        Owned<TestType> db{diary.file.path(), read_write};
        STATIC_REQUIRE(std::is_base_of_v<SQLite::Database, Owned<TestType>>);
        all_verbs(db, diary);
        CHECK(db.execAndGet("SELECT count(*) FROM t").getInt() == 2);
        SQLite::Statement query{db, "SELECT n FROM t ORDER BY n"};
        CHECK(query.executeStep());
        CHECK(&db.backend() == &static_cast<SQLite::Database&>(db));
    }
    CHECK(diary.hooks == "1,3");
    CHECK(diary.truth() == "1,3");
}

TEMPLATE_TEST_CASE("sqlitecpp: a borrowed database can be closed when its wrapper is gone", "[S53][S59]",
                   DefaultAdapter, CountingAdapter) {
    Diary diary;
    std::optional<SQLite::Database> existing{std::in_place, diary.file.path(), read_write};
    {
        Borrowed<TestType> db{*existing};
        CHECK(&db.backend() == &*existing);
        all_verbs(db, diary);
    }
    CHECK(sqlite3_next_stmt(existing->getHandle(), nullptr) == nullptr);
    existing.reset();
    CHECK(diary.hooks == "1,3");
    CHECK(diary.truth() == "1,3");
}

TEST_CASE("sqlitecpp: a database is borrowed without naming its type", "[S53]") {
    Diary diary;
    SQLite::Database existing{diary.file.path(), read_write};
    HookedConnection db{existing};
    STATIC_REQUIRE(std::is_same_v<decltype(db), HookedConnection<SQLite::Database&>>);
    all_verbs(db, diary);
    CHECK(diary.hooks == "1,3");
    CHECK(diary.truth() == "1,3");
}

TEST_CASE("sqlitecpp: an open database is taken over", "[S53]") {
    Diary diary;
    SQLite::Database open{diary.file.path(), read_write};
    sqlite3* const handle = open.getHandle();
    HookedConnection<SQLite::Database> db{std::move(open)};
    CHECK(db.getHandle() == handle);
    all_verbs(db, diary);
    CHECK(diary.hooks == "1,3");
    CHECK(diary.truth() == "1,3");
}

TEST_CASE("sqlitecpp: types derived from SQLite::Database are wrapped too", "[S53]") {
    struct AppDatabase : SQLite::Database {
        explicit AppDatabase(const std::string& path) : Database{path, read_write} {}
        void add(int n) { exec("INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    };
    Diary diary;
    {
        HookedConnection<AppDatabase> db{diary.file.path()};
        db.atomic({.begin = Begin::immediate}, [&](AppDatabase& app) {
            app.add(1);
            db.on_commit([&] { diary.hooks += '1'; });
        });
    }
    {
        AppDatabase app{diary.file.path()};
        HookedConnection db{app};
        STATIC_REQUIRE(std::is_same_v<decltype(db), HookedConnection<AppDatabase&>>);
        HookedConnection<AppDatabase&, txhooks::sqlite::Counting<AppDatabase>> counted{app};
        counted.atomic([&] {
            app.add(2);
            counted.on_commit([&] { diary.hooks += '2'; });
        });
    }
    CHECK(diary.hooks == "12");
    CHECK(diary.truth() == "1,2");
}

TEST_CASE("sqlitecpp: atomic(fn) gives fn the database", "[S30]") {
    Diary diary;
    HookedConnection<SQLite::Database> db{diary.file.path(), read_write};
    CHECK(db.atomic([](SQLite::Database& inside) { return inside.exec("INSERT INTO t VALUES (1), (2)"); }) == 2);
    CHECK(diary.truth() == "1,2");
}

TEST_CASE("sqlitecpp: a service needs no template parameter", "[S54]") {
    struct Service {
        txhooks::Connection& db;
        void work(SQLite::Database& sql, int n, std::string& hooks) {
            Atomic tx{db};
            sql.exec("INSERT INTO t VALUES (" + std::to_string(n) + ")");
            db.on_commit([n, &hooks] { hooks += std::to_string(n); });
            tx.commit();
        }
    };
    Diary diary;
    HookedConnection<SQLite::Database> db{diary.file.path(), read_write};
    Service service{db};
    db.atomic([&] {
        service.work(db, 1, diary.hooks);
        CHECK(diary.hooks.empty());
    });
    service.work(db, 2, diary.hooks);
    CHECK(diary.hooks == "12");
    CHECK(diary.truth() == "1,2");
}

// ---- Exceptions

TEMPLATE_TEST_CASE("sqlitecpp: what SQLite reports is thrown as SQLite::Exception", "[S46][S47]", DefaultAdapter,
                   CountingAdapter) {
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    db.exec("PRAGMA foreign_keys = ON");
    db.exec("CREATE TABLE child (parent INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED)");
    Atomic tx{db};
    db.exec("INSERT INTO child VALUES (1)");
    try {
        tx.commit();
        FAIL("committed");
    } catch (const SQLite::Exception& e) {
        CHECK(e.getErrorCode() == SQLITE_CONSTRAINT);
        CHECK(e.getExtendedErrorCode() == SQLITE_CONSTRAINT_FOREIGNKEY);
        CHECK(e.what() == std::string{"FOREIGN KEY constraint failed"});
    }
    CHECK(tx.active());
    diary.row(db, 1);
    CHECK(end_of([&] { return tx.commit(); }) == "committed");
    CHECK(diary.hooks == "1");
    CHECK(diary.truth() == "1");
}

TEMPLATE_TEST_CASE("sqlitecpp: a busy BEGIN throws SQLite::Exception and opens nothing", "[S40]", DefaultAdapter,
                   CountingAdapter) {
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    SQLite::Database other{diary.file.path(), read_write};
    {
        SQLite::Transaction theirs{other, SQLite::TransactionBehavior::IMMEDIATE};
        CHECK(end_of([&] { db.atomic({.begin = Begin::immediate}, [&] { diary.row(db, 1); }); }) ==
              "SQLite::Exception BUSY");
    }
    CHECK(db.usable());
    CHECK(end_of([&] { db.atomic({.begin = Begin::immediate}, [&] { diary.row(db, 2); }); }) == "returned");
    CHECK(diary.hooks == "2");
    CHECK(diary.truth() == "2");
}

TEMPLATE_TEST_CASE("sqlitecpp: a busy COMMIT can be tried again", "[S47]", DefaultAdapter, CountingAdapter) {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate);
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    SQLite::Database other{diary.file.path(), read_write};
    std::optional<SQLite::Statement> reader{std::in_place, other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader->executeStep());
    REQUIRE(reader->executeStep());

    Atomic tx{db, {.begin = mode}};
    diary.row(db, 1);
    for (int time = 0; time < 3; ++time) CHECK(end_of([&] { return tx.commit(); }) == "SQLite::Exception BUSY");
    reader.reset();
    CHECK(end_of([&] { return tx.commit(); }) == "committed");
    CHECK(diary.hooks == "1");
    CHECK(diary.truth() == "1");
}

TEST_CASE("sqlitecpp: a veto by the user's commit hook is a rollback with SQLite's exception", "[S46]") {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    Diary diary;
    HookedConnection<SQLite::Database> db{diary.file.path(), read_write};
    Atomic tx{db, {.begin = mode}};
    diary.row(db, 1);
    sqlite3_commit_hook(db.getHandle(), [](void*) { return 1; }, nullptr);
    CHECK(end_of([&] { return tx.commit(); }) == "SQLite::Exception CONSTRAINT_COMMITHOOK");
    sqlite3_commit_hook(db.getHandle(), nullptr, nullptr);
    CHECK(end_of([&] { return tx.commit(); }) == "UsageError");
    CHECK(db.usable());
    CHECK(diary.hooks.empty());
    CHECK(diary.truth().empty());
    db.atomic([&] { diary.row(db, 2); });
    CHECK(diary.hooks == "2");
    CHECK(diary.truth() == "2");
}

TEMPLATE_TEST_CASE("sqlitecpp: an I/O error at COMMIT is in doubt, with SQLite's exception as its cause", "[S48]",
                   DefaultAdapter, CountingAdapter) {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    FaultyVfs vfs;
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write, 0, vfs.name()};
    CHECK(end_of([&] {
              db.atomic({.begin = mode}, [&] {
                  diary.row(db, 1);
                  vfs.fail(FaultyVfs::Call::sync, FaultyVfs::File::database, SQLITE_IOERR_FSYNC);
              });
          }) == "CommitUnknown unknown <- SQLite::Exception IOERR_FSYNC");
    vfs.fault = nullptr;
    CHECK_FALSE(db.usable());
    CHECK(diary.hooks.empty());
    CHECK(diary.truth().empty());
    db.reset();
    db.atomic([&] { diary.row(db, 2); });
    CHECK(diary.hooks == "2");
    CHECK(diary.truth() == "2");
}

TEMPLATE_TEST_CASE("sqlitecpp: a transaction that ended behind the block's back runs no hook", "[S50]", DefaultAdapter,
                   CountingAdapter) {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    const bool knows = std::is_same_v<TestType, CountingAdapter>;
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    Atomic tx{db, {.begin = mode}};
    diary.row(db, 1);
    SECTION("rolled back, and another was begun") {
        db.exec("ROLLBACK; BEGIN");
        CHECK(end_of([&] { return tx.commit(); }) ==
              (knows ? "TransactionLost rolled_back" : "TransactionLost unknown <- SQLite::Exception ERROR"));
        CHECK(diary.truth().empty());
    }
    SECTION("committed") {
        db.exec("COMMIT");
        CHECK(end_of([&] { return tx.commit(); }) == (knows ? "TransactionLost committed" : "TransactionLost unknown"));
        CHECK(diary.truth() == "1");
    }
    SECTION("rolled back by a conflict clause") {
        CHECK(end_of([&] { db.exec("INSERT OR ROLLBACK INTO t VALUES (1)"); }) ==
              "SQLite::Exception CONSTRAINT_PRIMARYKEY");
        CHECK(end_of([&] { db.on_commit([&] { diary.hooks += 'x'; }); }) ==
              (knows ? "TransactionLost rolled_back" : "TransactionLost unknown"));
        CHECK_FALSE(tx.active());
        CHECK(diary.truth().empty());
    }
    CHECK(diary.hooks.empty());
}

// ---- SQLiteCpp's own transactions

TEMPLATE_TEST_CASE("sqlitecpp: a SQLite::Transaction inside a block throws and harms nothing", "[S50]", DefaultAdapter,
                   CountingAdapter) {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    Atomic tx{db, {.begin = mode}};
    diary.row(db, 1);
    CHECK(end_of([&] { SQLite::Transaction theirs{db}; }) == "SQLite::Exception ERROR");
    diary.row(db, 2);
    CHECK(end_of([&] { return tx.commit(); }) == "committed");
    CHECK(diary.hooks == "1,2");
    CHECK(diary.truth() == "1,2");
}

TEMPLATE_TEST_CASE("sqlitecpp: a SQLite::Savepoint inside a block works", "[S43]", DefaultAdapter, CountingAdapter) {
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    Atomic tx{db};
    diary.row(db, 1);
    {
        SQLite::Savepoint theirs{db, "mine"};
        db.exec("INSERT INTO t VALUES (50)");
    }  // rolls back
    {
        SQLite::Savepoint theirs{db, "mine"};
        Atomic inner{db};
        diary.row(db, 2);
        inner.commit();
        theirs.release();
    }
    CHECK(end_of([&] { return tx.commit(); }) == "committed");
    CHECK(diary.hooks == "1,2");
    CHECK(diary.truth() == "1,2");
}

TEMPLATE_TEST_CASE("sqlitecpp: hooks follow blocks, and not a SQLite::Savepoint", "[S26][S33]", DefaultAdapter,
                   CountingAdapter) {
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    db.atomic([&] {
        SQLite::Savepoint theirs{db, "mine"};
        diary.row(db, 1);
    });  // it rolls back, which nobody sees: the hook runs without its row
    CHECK(diary.hooks == "1");
    CHECK(diary.truth().empty());

    diary.hooks.clear();
    db.atomic([&] {
        Atomic inner{db};  // the cure
        diary.row(db, 2);
        inner.rollback();
    });
    CHECK(diary.hooks.empty());
    CHECK(diary.truth().empty());
}

TEMPLATE_TEST_CASE("sqlitecpp: inside a SQLite::Transaction neither a block nor a hook can be had", "[S8][S41]",
                   DefaultAdapter, CountingAdapter) {
    Diary diary;
    Owned<TestType> db{diary.file.path(), read_write};
    {
        SQLite::Transaction theirs{db};
        db.exec("INSERT INTO t VALUES (1)");
        CHECK_FALSE(db.usable());
        CHECK(end_of([&] { db.on_commit([&] { diary.hooks += '1'; }); }) == "UsageError");
        CHECK(end_of([&] { Atomic tx{db}; }) == "UsageError");
        theirs.commit();
    }
    CHECK(db.usable());
    db.atomic([&] { diary.row(db, 2); });
    CHECK(diary.hooks == "2");
    CHECK(diary.truth() == "1,2");
}

TEMPLATE_TEST_CASE("sqlitecpp: two wrappers of one database keep out of each other's transactions", "[S8][S41]",
                   DefaultAdapter, CountingAdapter) {
    Diary diary;
    SQLite::Database shared{diary.file.path(), read_write};
    Borrowed<TestType> db{shared};
    HookedConnection other{shared};
    db.atomic([&] {
        diary.row(db, 1);
        CHECK(end_of([&] { other.on_commit([&] { diary.hooks += 'x'; }); }) == "UsageError");
        CHECK(end_of([&] { Atomic tx{other}; }) == "UsageError");
    });
    other.atomic([&] {
        diary.row(other, 2);
        CHECK(end_of([&] { Atomic tx{db}; }) == "UsageError");
    });
    CHECK(diary.hooks == "1,2");
    CHECK(diary.truth() == "1,2");
}

TEST_CASE("sqlitecpp: last_insert_rowid and changes are the user's", "[S53]") {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    Diary diary;
    HookedConnection<SQLite::Database> db{diary.file.path(), read_write};
    db.atomic({.begin = mode}, [&] {
        db.exec("INSERT INTO t VALUES (41), (42)");
        db.atomic([&] {});
        CHECK(db.getLastInsertRowid() == 42);
        CHECK(db.getChanges() == 2);
    });
    CHECK(db.getLastInsertRowid() == 42);
    CHECK(db.getChanges() == 2);
    CHECK(db.getTotalChanges() == 2);
}

// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/sqlite_scene.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

using namespace support;
using txhooks::Atomic;
using txhooks::HookedConnection;
using Lines = std::vector<std::string>;

namespace {

// Every statement that SQLite runs from here on.
class Statements {
public:
    explicit Statements(sqlite3* db) : db_{db} {
        sqlite3_trace_v2(
            db, SQLITE_TRACE_STMT,
            [](unsigned, void* to, void*, void* sql) {
                static_cast<Lines*>(to)->push_back(static_cast<const char*>(sql));
                return 0;
            },
            &lines);
    }
    ~Statements() { sqlite3_trace_v2(db_, 0, nullptr, nullptr); }
    Statements(const Statements&) = delete;
    Statements& operator=(const Statements&) = delete;

    Lines lines;

private:
    sqlite3* db_;
};

int statements_in(sqlite3* db) {
    int n = 0;
    for (sqlite3_stmt* at = sqlite3_next_stmt(db, nullptr); at != nullptr; at = sqlite3_next_stmt(db, at)) ++n;
    return n;
}

template <class W>
Lines between_begin_and_end(Lines middle, bool commits) {
    Lines all;
    if (W::counts)
        all = {W::begin == Begin::deferred    ? "BEGIN"
               : W::begin == Begin::immediate ? "BEGIN IMMEDIATE"
                                              : "BEGIN EXCLUSIVE"};
    else if (W::begin == Begin::deferred)
        all = {"SAVEPOINT txhooks_0"};
    else
        all = {W::begin == Begin::immediate ? "BEGIN IMMEDIATE" : "BEGIN EXCLUSIVE", "SAVEPOINT txhooks_0"};
    all.insert(all.end(), middle.begin(), middle.end());
    if (not W::counts) all.push_back(commits ? "RELEASE txhooks_0" : "ROLLBACK TO txhooks_0");
    if (not commits)
        all.push_back("ROLLBACK");
    else if (W::counts or W::begin != Begin::deferred)
        all.push_back("COMMIT");
    return all;
}

}  // namespace

// ---- What is sent

TEMPLATE_LIST_TEST_CASE("sqlite3: a block sends its own verbs and nothing else", "[S2][S11][S43]", EveryWay) {
    Scene<TestType> scene;
    for (int time = 0; time < 2; ++time) {  // the second time with the statements that were kept
        const Statements sent{scene.handle};
        Atomic tx{scene.db, scene.options};
        scene.hook(1);
        run(scene.handle, "DELETE FROM t");
        tx.commit();
        CHECK(sent.lines == between_begin_and_end<TestType>({"DELETE FROM t"}, true));
    }
    for (int time = 0; time < 2; ++time) {
        const Statements sent{scene.handle};
        Atomic tx{scene.db, scene.options};
        scene.hook(1);
        tx.rollback();
        CHECK(sent.lines == between_begin_and_end<TestType>({}, false));
    }
    CHECK(scene.hooks == "1,1");
}

TEMPLATE_LIST_TEST_CASE("sqlite3: nested blocks are savepoints, numbered by depth", "[S33][S43]", EveryWay) {
    Scene<TestType> scene;
    const Statements sent{scene.handle};
    {
        Atomic tx{scene.db, scene.options};
        {
            Atomic inner{scene.db};
            Atomic innermost{scene.db};
            innermost.commit();
            inner.commit();
        }
        {
            Atomic joined{scene.db, {.join = true}};
            joined.commit();
        }
        {
            Atomic inner{scene.db};
            inner.rollback();
        }
        tx.commit();
    }
    CHECK(sent.lines == between_begin_and_end<TestType>(
                            {"SAVEPOINT txhooks_1", "SAVEPOINT txhooks_2", "RELEASE txhooks_2", "RELEASE txhooks_1",
                             "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "RELEASE txhooks_1"},
                            true));
}

TEMPLATE_LIST_TEST_CASE("sqlite3: nests deeper than the statements it keeps", "[S26][S33][S43]", EveryWay) {
    Scene<TestType> scene;
    constexpr int depth = 9;
    // Level `undone` is rolled back, and with it the deeper ones.
    const auto descend = [&](auto& self, int level, int undone) -> void {
        if (level == depth) return;
        Atomic inner{scene.db};
        scene.row(level);
        self(self, level + 1, undone);
        scene.row(20 + level);
        if (level == undone)
            inner.rollback();
        else
            inner.commit();
    };
    for (int time = 0; time < 2; ++time) {
        scene.hooks.clear();
        run(scene.handle, "DELETE FROM t");
        Atomic tx{scene.db, scene.options};
        descend(descend, 1, 6);
        tx.commit();
        CHECK(scene.hooks == "1,2,3,4,5,25,24,23,22,21");
        CHECK(scene.truth() == "1,2,3,4,5,21,22,23,24,25");
    }
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: a nested block that the user's savepoints surround keeps to itself", "[S33][S43]",
                        EveryWay) {
    Scene<TestType> scene;
    Atomic tx{scene.db, scene.options};
    run(scene.handle, "SAVEPOINT s");
    {
        Atomic inner{scene.db};
        run(scene.handle, "SAVEPOINT s");
        scene.row(1);
        inner.rollback();  // the user's inner savepoint dies with it
    }
    {
        Atomic inner{scene.db};
        run(scene.handle, "SAVEPOINT s");
        scene.row(2);
        inner.commit();
    }
    CHECK(attempt(scene.handle, "RELEASE s") == SQLITE_OK);  // the outer one lives
    CHECK(attempt(scene.handle, "RELEASE s") == SQLITE_ERROR);
    run(scene.handle, "SAVEPOINT unended");
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: hooks follow blocks, and not the user's own savepoints", "[S26][S33]", EveryWay) {
    Scene<TestType> scene;
    scene.db.atomic(scene.options, [&] {
        run(scene.handle, "SAVEPOINT mine");
        scene.row(1);
        run(scene.handle, "ROLLBACK TO mine; RELEASE mine");  // nobody sees that: the hook runs without its row
        scene.row(2);
    });
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "2");

    scene.hooks.clear();
    scene.db.atomic(scene.options, [&] {
        Atomic inner{scene.db};  // the cure
        scene.row(3);
        inner.rollback();
        scene.row(4);
    });
    CHECK(scene.hooks == "4");
    CHECK(scene.truth() == "2,4");
}

// ---- What is left alone

TEMPLATE_LIST_TEST_CASE("sqlite3: does not disturb last_insert_rowid(), changes() and total_changes()", "[S53]",
                        EveryWay) {
    Scene<TestType> scene;
    const auto counters = [&] {
        return std::vector<long long>{sqlite3_last_insert_rowid(scene.handle), sqlite3_changes(scene.handle),
                                      sqlite3_total_changes(scene.handle)};
    };
    run(scene.handle, "INSERT INTO t VALUES (41), (42)");
    const auto outside = counters();
    REQUIRE(outside == std::vector<long long>{42, 2, 2});
    {
        Atomic tx{scene.db, scene.options};
        CHECK(counters() == outside);
        run(scene.handle, "INSERT INTO t VALUES (51), (52), (53)");
        const auto inside = counters();
        REQUIRE(inside == std::vector<long long>{53, 3, 5});
        {
            Atomic inner{scene.db};
            CHECK(counters() == inside);
            inner.commit();
        }
        {
            Atomic inner{scene.db};
            inner.rollback();
        }
        CHECK(counters() == inside);
        tx.commit();
        CHECK(counters() == inside);
    }
}

TEMPLATE_LIST_TEST_CASE("sqlite3: works in every journal mode", "[S11][S25][S26]", EveryWay) {
    const char* const mode = GENERATE("DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL");
    CAPTURE(mode);
    Scene<TestType> scene{mode};
    {
        Atomic tx{scene.db, scene.options};
        scene.row(1);
        CHECK(sqlite3_get_autocommit(scene.handle) == 0);
        CHECK_FALSE(scene.db.usable());
        tx.commit();
        CHECK(sqlite3_get_autocommit(scene.handle) != 0);
        CHECK(scene.db.usable());
    }
    {
        Atomic tx{scene.db, scene.options};
        scene.row(2);
        tx.rollback();
        CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    }
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: deferred blocks work under query_only", "[S11]", DeferredWays) {
    Scene<TestType> scene;
    run(scene.handle, "PRAGMA query_only = 1");
    {
        Atomic tx{scene.db, scene.options};
        CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == SQLITE_READONLY);
        {
            Atomic inner{scene.db};
            scene.hook(1);
            inner.commit();
        }
        {
            Atomic inner{scene.db};
            scene.hook(2);
            inner.rollback();
        }
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(scene.hooks == "1");
    run(scene.handle, "PRAGMA query_only = 0");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: under query_only SQLite refuses to begin a locking block", "[S40]", LockingWays) {
    Scene<TestType> scene;
    run(scene.handle, "PRAGMA query_only = 1");
    CHECK(ending([&] { Atomic tx{scene.db, scene.options}; }) == "EngineError READONLY rolled_back");
    CHECK(scene.db.usable());
    run(scene.handle, "PRAGMA query_only = 0");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: works on a database that is read only", "[S11]", EveryWay) {
    Scene<TestType> scene;
    run(scene.handle, "INSERT INTO t VALUES (7)");
    Handle read_only{scene.file.path(), nullptr, SQLITE_OPEN_READONLY};
    std::string hooks;
    {
        typename Scene<TestType>::Db db{read_only.get()};
        {
            Atomic tx{db, {.begin = TestType::begin}};
            CHECK(values(read_only, "SELECT n FROM t") == "7");
            CHECK(attempt(read_only, "INSERT INTO t VALUES (1)") == SQLITE_READONLY);
            db.on_commit([&] { hooks += '1'; });
            CHECK(ending([&] { return tx.commit(); }) == "committed");
        }
        {
            Atomic tx{db, {.begin = TestType::begin}};
            db.on_commit([&] { hooks += '2'; });
            tx.rollback();
        }
        CHECK(db.usable());
    }
    CHECK(hooks == "1");
}

TEST_CASE("sqlite3: the user's commit hook and rollback hook stay in place and are called", "[S53]") {
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    Scene<Way<Witness, Begin::deferred>> scene;
    Lines called;
    sqlite3_commit_hook(
        scene.handle,
        [](void* to) {
            static_cast<Lines*>(to)->push_back("commit");
            return 0;
        },
        &called);
    sqlite3_rollback_hook(scene.handle, [](void* to) { static_cast<Lines*>(to)->push_back("rollback"); }, &called);
    {
        Atomic tx{scene.db, {.begin = mode}};
        scene.row(1);
        {
            Atomic inner{scene.db};
            scene.row(2);
            inner.rollback();
        }
        CHECK(called.empty());
        tx.commit();
    }
    CHECK(called == Lines{"commit"});
    {
        Atomic tx{scene.db, {.begin = mode}};
        scene.row(3);
        tx.rollback();
    }
    CHECK(called == Lines{"commit", "rollback"});
    CHECK(sqlite3_commit_hook(scene.handle, nullptr, nullptr) == &called);
    CHECK(sqlite3_rollback_hook(scene.handle, nullptr, nullptr) == &called);
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
}

TEST_CASE("sqlite3: the counters take both hook slots with the first block and leave them empty", "[S59]") {
    const DatabaseFile file;
    const Handle handle{file.path()};
    Lines called;
    sqlite3_commit_hook(
        handle,
        [](void* to) {
            static_cast<Lines*>(to)->push_back("commit");
            return 0;
        },
        &called);
    sqlite3_rollback_hook(handle, [](void* to) { static_cast<Lines*>(to)->push_back("rollback"); }, &called);
    {
        HookedConnection<sqlite3*, Counting> db{handle.get()};
        db.atomic([&] { run(handle, "CREATE TABLE t (n)"); });
    }
    CHECK(called.empty());
    CHECK(sqlite3_commit_hook(handle, nullptr, nullptr) == nullptr);
    CHECK(sqlite3_rollback_hook(handle, nullptr, nullptr) == nullptr);
}

// ---- Lifetime

TEMPLATE_LIST_TEST_CASE("sqlite3: keeps statements, which are gone with the wrapper", "[S59]", EveryWay) {
    const DatabaseFile file;
    sqlite3* handle = nullptr;
    REQUIRE(sqlite3_open(file.path().c_str(), &handle) == SQLITE_OK);
    {
        typename Scene<TestType>::Db db{handle};
        CHECK(statements_in(handle) == 0);  // prepared when first used
        const auto all_verbs = [&] {
            Atomic tx{db, {.begin = TestType::begin}};
            {
                Atomic inner{db};
                inner.commit();
            }
            {
                Atomic inner{db};
                inner.rollback();
            }
            tx.commit();
            Atomic again{db, {.begin = TestType::begin}};
        };
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        all_verbs();
        const int kept = statements_in(handle);
        CHECK(kept > 0);
        all_verbs();
        CHECK(statements_in(handle) == kept);
    }
    CHECK(statements_in(handle) == 0);
    CHECK(sqlite3_close(handle) == SQLITE_OK);
}

TEMPLATE_LIST_TEST_CASE("sqlite3: an application that finalizes every statement calls reset() before", "[S49][S59]",
                        EveryWay) {
    Scene<TestType> scene;
    const auto finalize_all = [&] {
        while (sqlite3_stmt* const next = sqlite3_next_stmt(scene.handle, nullptr)) sqlite3_finalize(next);
    };
    CHECK(scene.goes_on());
    REQUIRE(statements_in(scene.handle) > 0);
    scene.db.reset();
    CHECK(statements_in(scene.handle) == 0);  // none of ours is left for the loop to free
    sqlite3_stmt* theirs = nullptr;
    REQUIRE(sqlite3_prepare_v2(scene.handle, "SELECT n FROM t", -1, &theirs, nullptr) == SQLITE_OK);
    finalize_all();
    run(scene.handle, "DELETE FROM t");
    CHECK(scene.goes_on());

    {
        Atomic tx{scene.db, scene.options};
        CHECK(ending([&] { scene.db.reset(); }) == "UsageError");  // not in a block
        tx.commit();
    }
    scene.db.reset();
    finalize_all();
}

TEMPLATE_LIST_TEST_CASE("sqlite3: a wrapper that dies with a block open rolls back and lets the handle close",
                        "[S57][S59]", EveryWay) {
    const DatabaseFile file;
    const Handle handle{file.path()};
    run(handle, "CREATE TABLE t (n)");
    Lines told;
    {
        alignas(Atomic<typename Scene<TestType>::Db>) std::byte room[sizeof(Atomic<typename Scene<TestType>::Db>)];
        Atomic<typename Scene<TestType>::Db>* tx = nullptr;
        {
            typename Scene<TestType>::Db db{handle.get()};
            db.set_error_sink(
                [](void* to, const char* what, const std::exception_ptr&) { static_cast<Lines*>(to)->push_back(what); },
                &told);
            tx = std::construct_at(reinterpret_cast<Atomic<typename Scene<TestType>::Db>*>(room), db,
                                   typename Scene<TestType>::Db::Options{.begin = TestType::begin});
            run(handle, "INSERT INTO t VALUES (1)");
            db.on_commit([&] { told.push_back("the hook ran"); });
        }
        CHECK_FALSE(tx->active());
        std::destroy_at(tx);
    }
    CHECK(told == Lines{"txhooks: a connection was destroyed with an atomic block open; it is rolled back"});
    CHECK(sqlite3_get_autocommit(handle) != 0);
    CHECK(truth(file).empty());
}

TEST_CASE("sqlite3: a handle closed with a block open runs no hook", "[S59]") {
    const DatabaseFile file;
    {
        const Handle handle{file.path()};
        run(handle, "CREATE TABLE t (n)");
        HookedConnection<sqlite3*, Counting> db{handle.get()};
        db.atomic([&] { run(handle, "INSERT INTO t VALUES (1)"); });
        run(handle, "BEGIN; INSERT INTO t VALUES (2)");
        // The wrapper dies first, and then the handle with the user's own transaction in it: the counters, which SQLite
        // would call from sqlite3_close, are gone.
    }
    CHECK(truth(file) == "1");
}

TEST_CASE("sqlite3: a null handle is refused", "[S53]") {
    sqlite3* const none = nullptr;
    CHECK(ending([&] { HookedConnection<sqlite3*> db{none}; }) == "UsageError");
    CHECK(ending([&] { HookedConnection<sqlite3*, Counting> db{none}; }) == "UsageError");
}

TEST_CASE("sqlite3: is deduced from a handle and gives it back", "[S53][S30]") {
    const DatabaseFile file;
    const Handle handle{file.path()};
    HookedConnection db{handle.get()};
    STATIC_REQUIRE(std::is_same_v<decltype(db), HookedConnection<sqlite3*>>);
    CHECK(db.backend() == handle.get());
    CHECK(db.atomic([](sqlite3* inside) { return inside; }) == handle.get());
}

// ---- Whose transaction it is

TEMPLATE_LIST_TEST_CASE("sqlite3: a transaction begun by raw SQL is neither joined nor taken for idle", "[S8][S41]",
                        EveryWay) {
    Scene<TestType> scene;
    const char* const begin = GENERATE("BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT mine");
    run(scene.handle, begin);
    CHECK_FALSE(scene.db.usable());
    const Statements sent{scene.handle};
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Atomic tx{scene.db, scene.options}; }) == "UsageError");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    CHECK(sent.lines.empty());
    CHECK(sqlite3_get_autocommit(scene.handle) == 0);
    run(scene.handle, "INSERT INTO t VALUES (1)");
    run(scene.handle, "COMMIT");
    scene.hook(1);
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: two wrappers on one handle keep out of each other's transactions", "[S8][S41]",
                        EveryWay) {
    Scene<TestType> scene;
    HookedConnection<sqlite3*> other{scene.handle.get()};
    std::string others;
    {
        Atomic tx{scene.db, scene.options};
        scene.row(1);
        CHECK_FALSE(other.usable());
        CHECK(ending([&] { other.on_commit([&] { others += '1'; }); }) == "UsageError");
        CHECK(ending([&] { Atomic inner{other}; }) == "UsageError");
        CHECK(ending([&] { other.set_rollback(true); }) == "UsageError");
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    {
        Atomic tx{other};
        run(scene.handle, "INSERT INTO t VALUES (2)");
        other.on_commit([&] { others += '2'; });
        CHECK(ending([&] { scene.hook(3); }) == "UsageError");
        CHECK(ending([&] { Atomic inner{scene.db, scene.options}; }) == "UsageError");
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(scene.hooks == "1");
    CHECK(others == "2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: a raw BEGIN inside a block fails and changes nothing", "[S50]", EveryWay) {
    Scene<TestType> scene;
    Atomic tx{scene.db, scene.options};
    scene.row(1);
    CHECK(attempt(scene.handle, "BEGIN") == SQLITE_ERROR);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
}

TEMPLATE_LIST_TEST_CASE("sqlite3: set_rollback rolls back silently", "[S36]", EveryWay) {
    Scene<TestType> scene;
    {
        Atomic tx{scene.db, scene.options};
        scene.row(1);
        {
            Atomic inner{scene.db};
            scene.row(2);
            scene.db.set_rollback(true);
            CHECK(ending([&] { return inner.commit(); }) == "rolled_back");
        }
        scene.row(3);
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(scene.hooks == "1,3");
    {
        Atomic tx{scene.db, scene.options};
        scene.row(4);
        scene.db.set_rollback(true);
        CHECK(ending([&] { return tx.commit(); }) == "rolled_back");
    }
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3");
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: a nested block takes no begin mode", "[S38]", EveryWay) {
    Scene<TestType> scene;
    Atomic tx{scene.db, scene.options};
    scene.row(1);
    CHECK(ending([&] { Atomic inner{scene.db, {.begin = Begin::immediate}}; }) == "UsageError");
    CHECK(ending([&] { Atomic inner{scene.db, {.begin = Begin::exclusive}}; }) == "UsageError");
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
}

TEMPLATE_LIST_TEST_CASE("sqlite3: a hook may use the connection and open blocks of its own", "[S13][S16]", EveryWay) {
    Scene<TestType> scene;
    Atomic tx{scene.db, scene.options};
    scene.row(1);
    scene.db.on_commit([&] {
        CHECK(sqlite3_get_autocommit(scene.handle) != 0);
        CHECK(scene.truth() == "1,3");
        Atomic inner{scene.db, {.durable = true, .begin = TestType::begin}};
        scene.row(2);
        inner.commit();
    });
    scene.row(3);
    tx.commit();
    CHECK(scene.hooks == "1,2,3");
    CHECK(scene.truth() == "1,2,3");
    CHECK(scene.goes_on());
}

// ---- Verbs that fail

TEST_CASE("sqlite3: a BEGIN whose witness cannot be set is rolled back", "[S40]") {
    Scene<Way<Witness, Begin::deferred>> scene;
    const auto mode = GENERATE(Begin::deferred, Begin::immediate, Begin::exclusive);
    sqlite3_set_authorizer(
        scene.handle,
        [](void*, int what, const char*, const char*, const char*, const char*) {
            return what == SQLITE_SAVEPOINT ? SQLITE_DENY : SQLITE_OK;
        },
        nullptr);
    CHECK_THAT(ending([&] { Atomic tx{scene.db, {.begin = mode}}; }), Catch::Matchers::StartsWith("EngineError"));
    sqlite3_set_authorizer(scene.handle, nullptr, nullptr);
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK(scene.db.usable());
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3: the number of a savepoint that failed is not used again in its transaction",
                        "[S40][S43]", EveryWay) {
    Scene<TestType> scene;
    Atomic tx{scene.db, scene.options};
    sqlite3_set_authorizer(
        scene.handle,
        [](void*, int what, const char*, const char*, const char*, const char*) {
            return what == SQLITE_SAVEPOINT ? SQLITE_DENY : SQLITE_OK;
        },
        nullptr);
    CHECK_THAT(ending([&] { Atomic inner{scene.db}; }), Catch::Matchers::StartsWith("EngineError"));
    sqlite3_set_authorizer(scene.handle, nullptr, nullptr);
    const Statements sent{scene.handle};
    {
        Atomic inner{scene.db};
        scene.row(1);
        inner.commit();
    }
    CHECK(sent.lines == Lines{"SAVEPOINT txhooks_2", "INSERT INTO t VALUES (1)", "RELEASE txhooks_2"});
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
}

// ---- Errors

TEST_CASE("sqlite3: errors carry SQLite's extended code and text", "[S46]") {
    Scene<Way<Witness, Begin::deferred>> scene;
    run(scene.handle, "PRAGMA foreign_keys = ON");
    run(scene.handle, "CREATE TABLE child (parent INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED)");
    const bool extended = GENERATE(false, true);
    sqlite3_extended_result_codes(scene.handle, extended ? 1 : 0);
    Atomic tx{scene.db};
    run(scene.handle, "INSERT INTO child VALUES (1)");
    try {
        tx.commit();
        FAIL("committed");
    } catch (const txhooks::EngineError& e) {
        CHECK(e.code() == SQLITE_CONSTRAINT_FOREIGNKEY);
        CHECK(e.what() == std::string{"FOREIGN KEY constraint failed"});
        CHECK(e.sqlstate() == std::string{});
        CHECK(e.outcome() == txhooks::Outcome::still_open);
        CHECK(e.cause() == nullptr);
    }
    tx.rollback();
}

TEST_CASE("sqlite3: an error of BEGIN carries SQLite's code and text", "[S40]") {
    Scene<Way<Witness, Begin::immediate>> scene;
    const Handle other{scene.file.path()};
    run(other, "BEGIN IMMEDIATE");
    try {
        Atomic tx{scene.db, scene.options};
        FAIL("begun");
    } catch (const txhooks::EngineError& e) {
        CHECK(e.code() == SQLITE_BUSY);
        CHECK(e.what() == std::string{"database is locked"});
        CHECK(e.outcome() == txhooks::Outcome::rolled_back);
    }
    run(other, "ROLLBACK");
}

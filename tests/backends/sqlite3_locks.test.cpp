// SPDX-License-Identifier: MIT
//
// Other connections, locks, and attached databases.

#include "support/catch.hpp"
#include "support/sqlite_scene.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <string>

using namespace support;
using txhooks::Atomic;

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a BEGIN that is busy opens no block", "[S40]", LockingWays) {
    const char* const mode = GENERATE("DELETE", "WAL");
    Scene<TestType> scene{mode};
    const Handle other{scene.file.path()};
    run(other, "BEGIN IMMEDIATE");
    CHECK(ending([&] { Atomic tx{scene.db, scene.options}; }) == "EngineError BUSY rolled_back");
    CHECK(ending([&] { scene.db.atomic(scene.options, [&] { scene.row(1); }); }) == "EngineError BUSY rolled_back");
    CHECK_FALSE(scene.db.in_atomic_block());
    CHECK(scene.db.usable());
    CHECK(scene.hooks.empty());
    scene.hook(2);
    CHECK(scene.hooks == "2");
    run(other, "ROLLBACK");
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a deferred block meets the lock in its first write and goes on", "[S33]",
                        DeferredWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    run(other, "BEGIN IMMEDIATE");
    Atomic tx{scene.db, scene.options};
    CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == SQLITE_BUSY);
    run(other, "ROLLBACK");
    scene.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a reader keeps an exclusive block from beginning", "[S40]", ExclusiveWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);
    CHECK(ending([&] { Atomic tx{scene.db, scene.options}; }) == "EngineError BUSY rolled_back");
    CHECK(scene.db.usable());
    reader.finish();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: nobody can write while a locking block is open", "[S38]", LockingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    for (int time = 0; time < 2; ++time) {
        Atomic tx{scene.db, scene.options};
        CHECK(attempt(other, "INSERT INTO t VALUES (1)") == SQLITE_BUSY);
        if (TestType::begin == Begin::exclusive) CHECK(attempt(other, "SELECT n FROM t") == SQLITE_BUSY);
        tx.commit();
    }
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a deferred block locks nothing before it needs to", "[S38]", DeferredWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Atomic tx{scene.db, scene.options};
    CHECK(attempt(other, "INSERT INTO t VALUES (1)") == SQLITE_OK);
    scene.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "1,2");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a database attached after the first block is locked by the next", "[S38]",
                        LockingWays) {
    Scene<TestType> scene;
    for (int time = 0; time < 3; ++time) {
        Atomic tx{scene.db, scene.options};
        tx.commit();
    }
    run(scene.handle, "ATTACH '" + scene.file.path("late.db") + "' AS late");
    run(scene.handle, "CREATE TABLE late.t (n INTEGER PRIMARY KEY)");
    const Handle other{scene.file.path("late.db")};
    Atomic tx{scene.db, scene.options};
    CHECK(attempt(other, "INSERT INTO t VALUES (1)") == SQLITE_BUSY);
    run(scene.handle, "INSERT INTO late.t VALUES (2)");
    scene.hook(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "2");
    CHECK(truth(scene.file, "late.db") == "2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a locking block works again after a database was detached", "[S38]",
                        LockingWays) {
    Scene<TestType> scene;
    run(scene.handle, "ATTACH '" + scene.file.path("late.db") + "' AS late");
    {
        Atomic tx{scene.db, scene.options};
        tx.commit();
    }
    run(scene.handle, "DETACH late");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: attached databases are committed and rolled back with the main one",
                        "[S11][S25]", EveryWay) {
    const char* const mode = GENERATE("DELETE", "WAL");
    Scene<TestType> scene{mode};
    run(scene.handle, "ATTACH '" + scene.file.path("aux.db") + "' AS aux");
    run(scene.handle, std::string{"PRAGMA aux.journal_mode = "} + mode);
    run(scene.handle, "CREATE TABLE aux.t (n INTEGER PRIMARY KEY)");
    {
        Atomic tx{scene.db, scene.options};
        scene.row(1);
        run(scene.handle, "INSERT INTO aux.t VALUES (1)");
        {
            Atomic inner{scene.db};
            scene.row(2);
            run(scene.handle, "INSERT INTO aux.t VALUES (2)");
            inner.rollback();
        }
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    {
        Atomic tx{scene.db, scene.options};
        scene.row(3);
        run(scene.handle, "INSERT INTO aux.t VALUES (3)");
        tx.rollback();
    }
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(truth(scene.file, "aux.db") == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a busy COMMIT of attached databases can be tried again", "[S47]", SharingWays) {
    Scene<TestType> scene;
    run(scene.handle, "ATTACH '" + scene.file.path("aux.db") + "' AS aux");
    run(scene.handle, "CREATE TABLE aux.t (n INTEGER PRIMARY KEY)");
    const Handle other{scene.file.path("aux.db")};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);

    Atomic tx{scene.db, scene.options};
    scene.row(1);
    run(scene.handle, "INSERT INTO aux.t VALUES (1)");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(truth(scene.file, "aux.db") == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a deferred block that read too early cannot write in WAL mode", "[S25]",
                        DeferredWays) {
    Scene<TestType> scene{"WAL"};
    const Handle other{scene.file.path()};
    SECTION("its write fails for good, and the block is rolled back with the exception") {
        CHECK(ending([&] {
                  scene.db.atomic(scene.options, [&] {
                      CHECK(values(scene.handle, "SELECT n FROM t").empty());
                      run(other, "INSERT INTO t VALUES (7)");
                      scene.row(1);
                  });
              }) == "INSERT INTO t VALUES (1): database is locked");
        CHECK(scene.hooks.empty());
    }
    SECTION("who swallows the error commits a block that wrote nothing") {
        Atomic tx{scene.db, scene.options};
        CHECK(values(scene.handle, "SELECT n FROM t").empty());
        run(other, "INSERT INTO t VALUES (7)");
        CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == SQLITE_BUSY_SNAPSHOT);
        CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == SQLITE_BUSY_SNAPSHOT);
        CHECK(tx.active());
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(scene.truth() == "7");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a locking block that reads first can write in WAL mode", "[S38]", LockingWays) {
    Scene<TestType> scene{"WAL"};
    const Handle other{scene.file.path()};
    Atomic tx{scene.db, scene.options};
    CHECK(values(scene.handle, "SELECT n FROM t").empty());
    CHECK(attempt(other, "INSERT INTO t VALUES (7)") == SQLITE_BUSY);
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a reader does not make COMMIT busy in WAL mode, and sees it later", "[S11]",
                        EveryWay) {
    Scene<TestType> scene{"WAL"};
    const Handle other{scene.file.path()};
    run(other, "BEGIN");
    CHECK(values(other, "SELECT n FROM t").empty());
    Atomic tx{scene.db, scene.options};
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(values(other, "SELECT n FROM t").empty());
    run(other, "COMMIT");
    CHECK(values(other, "SELECT n FROM t") == "1");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a hook finds its row visible to others", "[S13]", EveryWay) {
    Scene<TestType> scene;
    std::string before;
    std::string in_hook;
    Atomic tx{scene.db, scene.options};
    scene.row(1);
    before = scene.hooks;
    scene.db.on_commit([&] { in_hook = scene.truth(); });
    tx.commit();
    CHECK(before.empty());
    CHECK(in_hook == "1");
}

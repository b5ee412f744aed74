// SPDX-License-Identifier: MIT
//
// Other connections, locks, and attached databases.

#include "support/catch.hpp"
#include "support/sqlite_story.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <string>

using namespace support;
using txhooks::Atomic;

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a BEGIN that is busy opens no block", "[S40]", LockingWays) {
    const char* const mode = GENERATE("DELETE", "WAL");
    Story<TestType> story{mode};
    const Handle other{story.file.path()};
    run(other, "BEGIN IMMEDIATE");
    CHECK(ending([&] { Atomic tx{story.db, story.options}; }) == "EngineError BUSY rolled_back");
    CHECK(ending([&] { story.db.atomic(story.options, [&] { story.row(1); }); }) == "EngineError BUSY rolled_back");
    CHECK_FALSE(story.db.in_atomic_block());
    CHECK(story.db.usable());
    CHECK(story.hooks.empty());
    story.hook(2);
    CHECK(story.hooks == "2");
    run(other, "ROLLBACK");
    CHECK(story.truth().empty());
    CHECK(story.goes_on());
    CHECK(story.told.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a deferred block meets the lock in its first write and goes on", "[S33]",
                        DeferredWays) {
    Story<TestType> story;
    const Handle other{story.file.path()};
    run(other, "BEGIN IMMEDIATE");
    Atomic tx{story.db, story.options};
    CHECK(attempt(story.handle, "INSERT INTO t VALUES (1)") == SQLITE_BUSY);
    run(other, "ROLLBACK");
    story.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(story.hooks == "2");
    CHECK(story.truth() == "2");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a reader keeps an exclusive block from beginning", "[S40]", ExclusiveWays) {
    Story<TestType> story;
    const Handle other{story.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);
    CHECK(ending([&] { Atomic tx{story.db, story.options}; }) == "EngineError BUSY rolled_back");
    CHECK(story.db.usable());
    reader.finish();
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: nobody can write while a locking block is open", "[S38]", LockingWays) {
    Story<TestType> story;
    const Handle other{story.file.path()};
    for (int time = 0; time < 2; ++time) {
        Atomic tx{story.db, story.options};
        CHECK(attempt(other, "INSERT INTO t VALUES (1)") == SQLITE_BUSY);
        if (TestType::begin == Begin::exclusive) CHECK(attempt(other, "SELECT n FROM t") == SQLITE_BUSY);
        tx.commit();
    }
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a deferred block locks nothing before it needs to", "[S38]", DeferredWays) {
    Story<TestType> story;
    const Handle other{story.file.path()};
    Atomic tx{story.db, story.options};
    CHECK(attempt(other, "INSERT INTO t VALUES (1)") == SQLITE_OK);
    story.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(story.hooks == "2");
    CHECK(story.truth() == "1,2");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a database attached after the first block is locked by the next", "[S38]",
                        LockingWays) {
    Story<TestType> story;
    for (int time = 0; time < 3; ++time) {
        Atomic tx{story.db, story.options};
        tx.commit();
    }
    run(story.handle, "ATTACH '" + story.file.path("late.db") + "' AS late");
    run(story.handle, "CREATE TABLE late.t (n INTEGER PRIMARY KEY)");
    const Handle other{story.file.path("late.db")};
    Atomic tx{story.db, story.options};
    CHECK(attempt(other, "INSERT INTO t VALUES (1)") == SQLITE_BUSY);
    run(story.handle, "INSERT INTO late.t VALUES (2)");
    story.hook(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(story.hooks == "2");
    CHECK(truth(story.file, "late.db") == "2");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a locking block works again after a database was detached", "[S38]",
                        LockingWays) {
    Story<TestType> story;
    run(story.handle, "ATTACH '" + story.file.path("late.db") + "' AS late");
    {
        Atomic tx{story.db, story.options};
        tx.commit();
    }
    run(story.handle, "DETACH late");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: attached databases are committed and rolled back with the main one",
                        "[S11][S25]", EveryWay) {
    const char* const mode = GENERATE("DELETE", "WAL");
    Story<TestType> story{mode};
    run(story.handle, "ATTACH '" + story.file.path("aux.db") + "' AS aux");
    run(story.handle, std::string{"PRAGMA aux.journal_mode = "} + mode);
    run(story.handle, "CREATE TABLE aux.t (n INTEGER PRIMARY KEY)");
    {
        Atomic tx{story.db, story.options};
        story.row(1);
        run(story.handle, "INSERT INTO aux.t VALUES (1)");
        {
            Atomic inner{story.db};
            story.row(2);
            run(story.handle, "INSERT INTO aux.t VALUES (2)");
            inner.rollback();
        }
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    {
        Atomic tx{story.db, story.options};
        story.row(3);
        run(story.handle, "INSERT INTO aux.t VALUES (3)");
        tx.rollback();
    }
    CHECK(story.hooks == "1");
    CHECK(story.truth() == "1");
    CHECK(truth(story.file, "aux.db") == "1");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a busy COMMIT of attached databases can be tried again", "[S47]", SharingWays) {
    Story<TestType> story;
    run(story.handle, "ATTACH '" + story.file.path("aux.db") + "' AS aux");
    run(story.handle, "CREATE TABLE aux.t (n INTEGER PRIMARY KEY)");
    const Handle other{story.file.path("aux.db")};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);

    Atomic tx{story.db, story.options};
    story.row(1);
    run(story.handle, "INSERT INTO aux.t VALUES (1)");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(story.hooks == "1");
    CHECK(story.truth() == "1");
    CHECK(truth(story.file, "aux.db") == "1");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a deferred block that read too early cannot write in WAL mode", "[S25]",
                        DeferredWays) {
    Story<TestType> story{"WAL"};
    const Handle other{story.file.path()};
    SECTION("its write fails for good, and the block is rolled back with the exception") {
        CHECK(ending([&] {
                  story.db.atomic(story.options, [&] {
                      CHECK(values(story.handle, "SELECT n FROM t").empty());
                      run(other, "INSERT INTO t VALUES (7)");
                      story.row(1);
                  });
              }) == "INSERT INTO t VALUES (1): database is locked");
        CHECK(story.hooks.empty());
    }
    SECTION("who swallows the error commits a block that wrote nothing") {
        Atomic tx{story.db, story.options};
        CHECK(values(story.handle, "SELECT n FROM t").empty());
        run(other, "INSERT INTO t VALUES (7)");
        CHECK(attempt(story.handle, "INSERT INTO t VALUES (1)") == SQLITE_BUSY_SNAPSHOT);
        CHECK(attempt(story.handle, "INSERT INTO t VALUES (1)") == SQLITE_BUSY_SNAPSHOT);
        CHECK(tx.active());
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(story.truth() == "7");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a locking block that reads first can write in WAL mode", "[S38]", LockingWays) {
    Story<TestType> story{"WAL"};
    const Handle other{story.file.path()};
    Atomic tx{story.db, story.options};
    CHECK(values(story.handle, "SELECT n FROM t").empty());
    CHECK(attempt(other, "INSERT INTO t VALUES (7)") == SQLITE_BUSY);
    story.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(story.hooks == "1");
    CHECK(story.truth() == "1");
    CHECK(story.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a reader does not make COMMIT busy in WAL mode, and sees it later", "[S11]",
                        EveryWay) {
    Story<TestType> story{"WAL"};
    const Handle other{story.file.path()};
    run(other, "BEGIN");
    CHECK(values(other, "SELECT n FROM t").empty());
    Atomic tx{story.db, story.options};
    story.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(story.hooks == "1");
    CHECK(values(other, "SELECT n FROM t").empty());
    run(other, "COMMIT");
    CHECK(values(other, "SELECT n FROM t") == "1");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 locks: a hook finds its row visible to others", "[S13]", EveryWay) {
    Story<TestType> story;
    std::string before;
    std::string in_hook;
    Atomic tx{story.db, story.options};
    story.row(1);
    before = story.hooks;
    story.db.on_commit([&] { in_hook = story.truth(); });
    tx.commit();
    CHECK(before.empty());
    CHECK(in_hook == "1");
}

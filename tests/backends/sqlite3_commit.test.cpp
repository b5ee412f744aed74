// SPDX-License-Identifier: MIT
//
// How a COMMIT can end in SQLite, and what must follow. Every case of both witnesses ends with what a fresh connection
// sees: a hook ran if and only if its row is there.

#include "support/catch.hpp"
#include "support/sqlite_scene.hpp"
#include "support/vfs.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <optional>
#include <string>
#include <vector>

using namespace support;
using txhooks::Atomic;
using Call = FaultyVfs::Call;
using File = FaultyVfs::File;
using Lines = std::vector<std::string>;

namespace {

int veto(void*) {
    return 1;
}
int interrupt(void*) {
    return 1;
}
int interrupt_once(void* calls) {
    return ++*static_cast<int*>(calls) == 1 ? 1 : 0;
}
int wal_hook_fails(void*, sqlite3*, const char*, int) {
    return SQLITE_FULL;
}

void add_deferred_foreign_key(sqlite3* db) {
    run(db, "PRAGMA foreign_keys = ON");
    run(db, "CREATE TABLE child (parent INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED)");
}

}  // namespace

// ---- Still open: nothing is decided, commit() may be called again

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a busy COMMIT can be tried again and runs the hooks once", "[S47]",
                        SharingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    CHECK(tx.active());
    CHECK(scene.db.pending_hooks() == 1);
    CHECK(scene.hooks.empty());
    scene.row(2);

    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: nested blocks work between two attempts at a busy COMMIT", "[S47][S33]",
                        SharingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(2);
        inner.rollback();
    }
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(3);
        inner.commit();
    }
    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a busy COMMIT can be rolled back instead", "[S47]", SharingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);

    SECTION("by rollback()") {
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        scene.row(1);
        CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
        CHECK(ending([&] { tx.rollback(); }) == "returned");
        CHECK(scene.sink.empty());
    }
    SECTION("by the destructor, which reports a block that nobody ended") {
        {
            typename Scene<TestType>::Tx tx{scene.db, scene.options};
            scene.row(1);
            CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
        }
        CHECK(scene.sink.lines() == Lines{"txhooks: an Atomic was destroyed without commit() or rollback(), so it was "
                                          "rolled back; call commit() at the end of its block"});
    }
    SECTION("by atomic(fn), which does it alone") {
        CHECK(ending([&] { scene.db.atomic(scene.options, [&] { scene.row(1); }); }) == "EngineError BUSY still_open");
        CHECK(scene.sink.empty());
    }
    reader.finish();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a raw COMMIT that is busy ends nothing", "[S50]", SharingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    REQUIRE(reader.step() == SQLITE_ROW);

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    CHECK(attempt(scene.handle, "COMMIT") == SQLITE_BUSY);
    scene.row(2);
    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a violated deferred foreign key can be repaired and committed", "[S47]",
                        EveryWay) {
    Scene<TestType> scene;
    add_deferred_foreign_key(scene.handle);

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    run(scene.handle, "INSERT INTO child VALUES (1)");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError CONSTRAINT_FOREIGNKEY still_open");
    CHECK(tx.active());
    CHECK(ending([&] { return tx.commit(); }) == "EngineError CONSTRAINT_FOREIGNKEY still_open");
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: atomic(fn) rolls a violated deferred foreign key back", "[S47][S30]",
                        EveryWay) {
    Scene<TestType> scene;
    add_deferred_foreign_key(scene.handle);

    CHECK(ending([&] {
              scene.db.atomic(scene.options, [&] {
                  scene.row(1);
                  run(scene.handle, "INSERT INTO child VALUES (2)");
              });
          }) == "EngineError CONSTRAINT_FOREIGNKEY still_open");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(values(scene.handle, "SELECT count(*) FROM child") == "0");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: the violated foreign key of a nested block is the outermost's to repair",
                        "[S47][S33]", EveryWay) {
    Scene<TestType> scene;
    add_deferred_foreign_key(scene.handle);

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    {
        typename Scene<TestType>::Tx inner{scene.db};
        run(scene.handle, "INSERT INTO child VALUES (1)");
        CHECK(ending([&] { return inner.commit(); }) == "committed");
    }
    CHECK(ending([&] { return tx.commit(); }) == "EngineError CONSTRAINT_FOREIGNKEY still_open");
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an interrupted COMMIT leaves the block open", "[S47]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    sqlite3_progress_handler(scene.handle, 1, &interrupt, nullptr);
    CHECK(ending([&] { return tx.commit(); }) == "EngineError INTERRUPT still_open");
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK(tx.active());
    CHECK(scene.hooks.empty());
    scene.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an interrupted COMMIT of a block that has written nothing runs no hook",
                        "[S46][S47]", EveryWay) {
    Scene<TestType> scene;
    run(scene.handle, "INSERT INTO t VALUES (1)");
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    CHECK(values(scene.handle, "SELECT n FROM t") == "1");
    scene.hook(1);
    int calls = 0;
    sqlite3_progress_handler(scene.handle, 1, &interrupt_once, &calls);
    const std::string end = ending([&] { return tx.commit(); });
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK(scene.hooks.empty());
    if (not TestType::counts and TestType::begin == Begin::deferred) {
        // Not to be told from one that was undone, so it is.
        CHECK(end == "EngineError INTERRUPT rolled_back");
        CHECK_FALSE(tx.active());
    } else {
        CHECK(end == "EngineError INTERRUPT still_open");
        CHECK(ending([&] { return tx.commit(); }) == "committed");
        CHECK(scene.hooks == "1");
    }
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an interrupted COMMIT in atomic(fn) is rolled back", "[S47][S30]", EveryWay) {
    Scene<TestType> scene;
    int calls = 0;
    CHECK(ending([&] {
              scene.db.atomic(scene.options, [&] {
                  scene.row(1);
                  sqlite3_progress_handler(scene.handle, 1, &interrupt_once, &calls);
              });
          }) == "EngineError INTERRUPT still_open");
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK(calls > 1);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

// ---- Rolled back: the engine's exception as it was

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a veto by the user's commit hook is a rollback", "[S46]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(2);
        inner.commit();
    }
    sqlite3_commit_hook(scene.handle, &veto, nullptr);
    // The counters were evicted: what happens now would not be seen by them.
    const char* const expected =
        TestType::counts ? "TransactionLost unknown" : "EngineError CONSTRAINT_COMMITHOOK rolled_back";
    CHECK(ending([&] { return tx.commit(); }) == expected);
    CHECK_FALSE(tx.active());
    sqlite3_commit_hook(scene.handle, nullptr, nullptr);

    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a veto while statements are read is a rollback too", "[S46]", WitnessWays) {
    Scene<TestType> scene;
    run(scene.handle, "INSERT INTO t VALUES (7), (8)");
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    Unfinished reader{scene.handle, "SELECT n FROM t"};
    sqlite3_commit_hook(scene.handle, &veto, nullptr);
    CHECK(ending([&] { return tx.commit(); }) == "EngineError CONSTRAINT_COMMITHOOK rolled_back");
    sqlite3_commit_hook(scene.handle, nullptr, nullptr);
    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "7,8");
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
}

TEST_CASE("sqlite3 commit: a veto whose ROLLBACK fails breaks the connection until it is ended by hand", "[S48][S49]") {
    Scene<Way<Witness, Begin::deferred>> scene;
    Atomic tx{scene.db};
    scene.row(1);
    sqlite3_commit_hook(scene.handle, &veto, nullptr);
    sqlite3_set_authorizer(
        scene.handle,
        [](void*, int what, const char*, const char*, const char*, const char*) {
            return what == SQLITE_TRANSACTION ? SQLITE_DENY : SQLITE_OK;
        },
        nullptr);
    CHECK_THAT(ending([&] { return tx.commit(); }), Catch::Matchers::StartsWith("CommitUnknown unknown"));
    sqlite3_commit_hook(scene.handle, nullptr, nullptr);
    sqlite3_set_authorizer(scene.handle, nullptr, nullptr);
    CHECK_FALSE(tx.active());
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");

    run(scene.handle, "ROLLBACK");
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a disk that is full at COMMIT runs no hook", "[S46][S48]", EveryWay) {
    FaultyVfs vfs;
    Scene<TestType> scene{"DELETE", vfs.name()};
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    vfs.fail(Call::write, File::database, SQLITE_FULL);
    // Counting saw the rollback; an error code alone proves nothing.
    CHECK(ending([&] { return tx.commit(); }) ==
          (TestType::counts ? "EngineError FULL rolled_back" : "CommitUnknown unknown <- EngineError FULL unknown"));
    vfs.fault = nullptr;
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    if (not TestType::counts) {
        CHECK_FALSE(scene.db.usable());
        scene.db.reset();
    }
    CHECK(scene.goes_on());
}

// ---- Committed, whatever COMMIT says

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an error of the write-ahead log hook comes after the commit", "[S44][S48]",
                        EveryWay) {
    Scene<TestType> scene{"WAL"};
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    sqlite3_wal_hook(scene.handle, &wal_hook_fails, nullptr);
    const std::string end = ending([&] { return tx.commit(); });
    sqlite3_wal_hook(scene.handle, nullptr, nullptr);

    CHECK(scene.truth() == "1");
    if (TestType::counts) {
        CHECK(end == "committed");
        CHECK(scene.hooks == "1");
        CHECK(scene.sink.lines() == Lines{"txhooks: COMMIT reported an error, but the transaction is committed: "
                                          "EngineError FULL committed"});
    } else {
        CHECK(end == "CommitUnknown unknown <- EngineError FULL unknown");
        CHECK(scene.hooks.empty());
        CHECK_FALSE(scene.db.usable());
        CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
        scene.db.reset();
    }
    CHECK(scene.goes_on());
}

// ---- In doubt

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an I/O error at COMMIT is in doubt and breaks the connection", "[S48]",
                        EveryWay) {
    struct Case {
        const char* journal_mode;
        Call call;
        File file;
        int code;
        const char* name;
    };
    const auto each = GENERATE(Case{"DELETE", Call::sync, File::database, SQLITE_IOERR_FSYNC, "IOERR_FSYNC"},
                               Case{"DELETE", Call::sync, File::journal, SQLITE_IOERR_FSYNC, "IOERR_FSYNC"},
                               Case{"DELETE", Call::remove, File::journal, SQLITE_IOERR_DELETE, "IOERR_DELETE"},
                               Case{"DELETE", Call::write, File::database, SQLITE_IOERR_WRITE, "IOERR_WRITE"},
                               Case{"WAL", Call::sync, File::wal, SQLITE_IOERR_FSYNC, "IOERR_FSYNC"},
                               Case{"WAL", Call::write, File::wal, SQLITE_IOERR_WRITE, "IOERR_WRITE"});
    CAPTURE(each.journal_mode, each.name, static_cast<int>(each.file));
    FaultyVfs vfs;
    Scene<TestType> scene{each.journal_mode, vfs.name()};
    run(scene.handle, "PRAGMA synchronous = FULL");

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    vfs.fail(each.call, each.file, each.code);
    CHECK(ending([&] { return tx.commit(); }) ==
          std::string{"CommitUnknown unknown <- EngineError "} + each.name + " unknown");
    vfs.fault = nullptr;

    CHECK_FALSE(tx.active());
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    CHECK(ending([&] { typename Scene<TestType>::Tx again{scene.db}; }) == "ConnectionBroken");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);

    scene.db.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: atomic(fn) reports an I/O error at COMMIT as in doubt", "[S48][S30]",
                        EveryWay) {
    FaultyVfs vfs;
    Scene<TestType> scene{"DELETE", vfs.name()};
    CHECK(ending([&] {
              scene.db.atomic(scene.options, [&] {
                  scene.row(1);
                  vfs.fail(Call::sync, File::database, SQLITE_IOERR_FSYNC);
              });
          }) == "CommitUnknown unknown <- EngineError IOERR_FSYNC unknown");
    vfs.fault = nullptr;
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a commit torn over two attached databases is in doubt", "[S48]", EveryWay) {
    FaultyVfs vfs;
    Scene<TestType> scene{"WAL", vfs.name()};
    run(scene.handle, "ATTACH '" + scene.file.path("aux.db") + "' AS aux");
    run(scene.handle, "PRAGMA aux.journal_mode = WAL");
    run(scene.handle, "PRAGMA aux.synchronous = FULL");
    run(scene.handle, "CREATE TABLE aux.t (n INTEGER PRIMARY KEY)");
    run(scene.handle, "PRAGMA synchronous = FULL");

    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    run(scene.handle, "INSERT INTO aux.t VALUES (1)");
    int syncs = 0;
    vfs.fault = [&](Call call, File file) {
        return call == Call::sync and file == File::wal and ++syncs == 2 ? SQLITE_IOERR_FSYNC : SQLITE_OK;
    };
    CHECK(ending([&] { return tx.commit(); }) == "CommitUnknown unknown <- EngineError IOERR_FSYNC unknown");
    vfs.fault = nullptr;
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "1");
    CHECK(truth(scene.file, "aux.db").empty());
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a file that is busy while it is synced leaves the block open", "[S47]",
                        EveryWay) {
    FaultyVfs vfs;
    Scene<TestType> scene{"DELETE", vfs.name()};
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    vfs.fail(Call::sync, File::journal, SQLITE_BUSY);
    const std::string end = ending([&] { return tx.commit(); });
    vfs.fault = nullptr;
    CHECK(end == "EngineError BUSY still_open");
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a kind of BUSY that undid the block is not taken for one that left it open",
                        "[S46][S48]", EveryWay) {
    FaultyVfs vfs;
    Scene<TestType> scene{"DELETE", vfs.name()};
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    vfs.fail(Call::sync, File::journal, SQLITE_BUSY_TIMEOUT);
    CHECK(ending([&] { return tx.commit(); }) != "committed");
    vfs.fault = nullptr;
    if (tx.active()) tx.commit();  // SQLite up to 3.40 has undone it
    CHECK(scene.hooks == scene.truth());
    CHECK(scene.idle());
}

// ---- Unfinished statements

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an unfinished INSERT ... RETURNING makes COMMIT busy until it is reset",
                        "[S47]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    Unfinished insert{scene.handle, "INSERT INTO t VALUES (1), (2) RETURNING n"};
    scene.hook(1);
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    insert.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an unfinished statement that never writes can make COMMIT busy too", "[S47]",
                        EveryWay) {
    for (const bool writes : {false, true})
        for (const char* const sql : {"PRAGMA journal_mode", "EXPLAIN INSERT INTO t VALUES (2)"}) {
            INFO(sql << (writes ? " after a write" : ""));
            Scene<TestType> scene;
            run(scene.handle, "INSERT INTO t VALUES (7)");
            {
                typename Scene<TestType>::Tx tx{scene.db, scene.options};
                if (writes) scene.row(1);
                CHECK(values(scene.handle, "SELECT n FROM t") == (writes ? "1,7" : "7"));
                Unfinished counts_as_a_write{scene.handle, sql};
                scene.hook(2);
                CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
                CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db}; }) == "EngineError BUSY still_open");
                CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
                CHECK(scene.hooks.empty());
                counts_as_a_write.finish();
                CHECK(ending([&] { return tx.commit(); }) == "committed");
                CHECK(scene.hooks == (writes ? "1,2" : "2"));
            }
            CHECK(scene.truth() == (writes ? "1,7" : "7"));
            CHECK(scene.sink.empty());
            CHECK(scene.goes_on());
        }
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a busy COMMIT of a block that never wrote is rolled back by atomic(fn)",
                        "[S47][S30]", EveryWay) {
    Scene<TestType> scene;
    {
        std::optional<Unfinished> explained;
        CHECK(ending([&] {
                  scene.db.atomic(scene.options, [&] {
                      explained.emplace(scene.handle, "EXPLAIN INSERT INTO t VALUES (2)");
                      scene.hook(1);
                  });
              }) == "EngineError BUSY still_open");
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a busy COMMIT on a read-only database leaves the block open", "[S47]",
                        EveryWay) {
    const DatabaseFile file;
    run(Handle{file.path()}, "CREATE TABLE t (n INTEGER PRIMARY KEY)");
    const Handle handle{file.path(), nullptr, SQLITE_OPEN_READONLY};
    typename Scene<TestType>::Db db{handle.get()};
    int ran = 0;
    Atomic tx{db, {.begin = TestType::begin}};
    CHECK(values(handle, "SELECT n FROM t").empty());
    db.on_commit([&] { ++ran; });
    Unfinished explained{handle, "EXPLAIN INSERT INTO t VALUES (1)"};
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    explained.finish();
    CHECK(ran == 0);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(ran == 1);
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a RELEASE or COMMIT that SQLite does not even prepare leaves the block open",
                        "[S47]", EveryWay) {
    for (const bool writes : {false, true}) {
        INFO((writes ? "after a write" : "before any write"));
        Scene<TestType> scene;  // in its first block nothing but BEGIN has been prepared yet
        {
            typename Scene<TestType>::Tx tx{scene.db, scene.options};
            if (writes) scene.row(1);
            scene.hook(2);
            const int before = sqlite3_limit(scene.handle, SQLITE_LIMIT_SQL_LENGTH, 1);
            CHECK(ending([&] { return tx.commit(); }) == "EngineError TOOBIG still_open");
            sqlite3_limit(scene.handle, SQLITE_LIMIT_SQL_LENGTH, before);
            CHECK(scene.hooks.empty());
            CHECK(ending([&] { return tx.commit(); }) == "committed");
            CHECK(scene.hooks == (writes ? "1,2" : "2"));
        }
        CHECK(scene.truth() == (writes ? "1" : ""));
        CHECK(scene.sink.empty());
        CHECK(scene.goes_on());
    }
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a block with an unfinished INSERT ... RETURNING can be rolled back", "[S25]",
                        EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    Unfinished insert{scene.handle, "INSERT INTO t VALUES (1), (2) RETURNING n"};
    scene.hook(1);
    CHECK(ending([&] { tx.rollback(); }) == "returned");
    insert.finish();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a nested block cannot be opened over an unfinished INSERT ... RETURNING",
                        "[S40]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    Unfinished insert{scene.handle, "INSERT INTO t VALUES (1), (2) RETURNING n"};
    scene.hook(1);
    CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db}; }) == "EngineError BUSY still_open");
    insert.finish();
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(3);
        inner.commit();
    }
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,2,3");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an unfinished INSERT ... RETURNING in a nested block dooms the outer one",
                        "[S51]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    typename Scene<TestType>::Tx inner{scene.db};
    Unfinished insert{scene.handle, "INSERT INTO t VALUES (2), (3) RETURNING n"};
    scene.hook(2);
    CHECK(ending([&] { return inner.commit(); }) == "EngineError BUSY still_open");
    CHECK(ending([&] { return tx.commit(); }) == "TransactionAborted rolled_back <- EngineError BUSY still_open");
    insert.finish();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a RELEASE that fails undoes its own block only", "[S51]", EveryWay) {
    Scene<TestType> scene;
    {
        // The statements of this level are prepared now: only RELEASE is interrupted below.
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        typename Scene<TestType>::Tx inner{scene.db};
        inner.rollback();
        tx.rollback();
    }
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(2);
        int calls = 0;
        sqlite3_progress_handler(scene.handle, 1, &interrupt_once, &calls);
        CHECK(ending([&] { return inner.commit(); }) == "EngineError INTERRUPT still_open");
        sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
        CHECK(calls > 1);
        CHECK_FALSE(inner.active());
    }
    scene.row(3);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a ROLLBACK TO that fails dooms the outer block", "[S49]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    typename Scene<TestType>::Tx inner{scene.db};
    scene.row(2);
    sqlite3_progress_handler(scene.handle, 1, &interrupt, nullptr);
    CHECK(ending([&] { inner.rollback(); }) == "EngineError INTERRUPT still_open");
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK(ending([&] { typename Scene<TestType>::Tx another{scene.db}; }) ==
          "TransactionAborted rolled_back <- EngineError INTERRUPT still_open");
    CHECK(ending([&] { return tx.commit(); }) == "TransactionAborted rolled_back <- EngineError INTERRUPT still_open");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a ROLLBACK that fails breaks the connection until it is ended by hand",
                        "[S49]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    sqlite3_progress_handler(scene.handle, 1, &interrupt, nullptr);
    CHECK(ending([&] { tx.rollback(); }) == "EngineError INTERRUPT still_open");
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK_FALSE(tx.active());
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");  // the engine is in the transaction still
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");

    run(scene.handle, "ROLLBACK");
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a rollback that is interrupted once is a rollback", "[S25]", WitnessWays) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    int calls = 0;
    sqlite3_progress_handler(scene.handle, 1, &interrupt_once, &calls);
    CHECK(ending([&] { tx.rollback(); }) == "returned");
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK(calls > 1);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: an unfinished SELECT stands in nobody's way", "[S11][S25]", EveryWay) {
    Scene<TestType> scene;
    run(scene.handle, "INSERT INTO t VALUES (7), (8), (9)");
    {
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        Unfinished select{scene.handle, "SELECT n FROM t"};
        scene.row(1);
        {
            typename Scene<TestType>::Tx inner{scene.db};
            scene.row(2);
            CHECK(ending([&] { return inner.commit(); }) == "committed");
        }
        {
            typename Scene<TestType>::Tx inner{scene.db};
            scene.row(3);
            CHECK(ending([&] { inner.rollback(); }) == "returned");
        }
        CHECK(ending([&] { return tx.commit(); }) == "committed");
        CHECK(scene.hooks == "1,2");
    }
    {
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        Unfinished select{scene.handle, "SELECT n FROM t"};
        scene.row(4);
        CHECK(ending([&] { tx.rollback(); }) == "returned");
    }
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2,7,8,9");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 commit: a SELECT still being read after the commit does not stop the next block",
                        "[S8][S41]", EveryWay) {
    Scene<TestType> scene{"WAL"};
    run(scene.handle, "INSERT INTO t VALUES (7), (8), (9)");
    Unfinished select{scene.handle, "SELECT n FROM t"};
    scene.hook(0);
    CHECK(scene.hooks == "0");
    CHECK(ending([&] { scene.db.atomic(scene.options, [&] { scene.row(1); }); }) == "returned");
    CHECK(scene.hooks == "0,1");
    CHECK(select.step() == SQLITE_ROW);
    select.finish();
    CHECK(scene.truth() == "1,7,8,9");
}

TEMPLATE_LIST_TEST_CASE("sqlite3: an unfinished INSERT ... RETURNING outside a block is a transaction of its own",
                        "[S8][S41]", EveryWay) {
    Scene<TestType> scene;
    Unfinished insert{scene.handle, "INSERT INTO t VALUES (1), (2) RETURNING n"};
    REQUIRE(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { typename Scene<TestType>::Tx tx{scene.db, scene.options}; }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    insert.finish();
    scene.hook(1);
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

// SPDX-License-Identifier: MIT
//
// Hooks of every kind on SQLite: which of them run at which end of a block, and what is true then. The rows are those of
// the table in tests/README.md.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/sqlite_scene.hpp"
#include "support/vfs.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <string>
#include <vector>

using namespace support;

namespace {

void refuse(int expected, sqlite3* db, const std::string& sql) {
    const int got = attempt(db, sql);
    if (got != expected) throw std::runtime_error{sql + " gave " + code_name(got)};
}

template <class S>
auto sql(const std::string& text) {
    return [text](S& scene) { run(scene.handle, text); };
}

// As an application with a C handle should: the engine's error as an exception.
constexpr auto execute = [](auto& scene, const std::string& statement) {
    if (attempt(scene.handle, statement) != SQLITE_OK)
        throw txhooks::EngineError{sqlite3_extended_errcode(scene.handle), "", sqlite3_errmsg(scene.handle)};
};

// The transaction ends behind the block's back. The savepoint does not say how, and does not see at once that another one
// has begun: by then hooks have run before its COMMIT.
template <class W>
std::vector<End<Scene<W>>> losses() {
    using S = Scene<W>;
    const auto lost = [](const char* fate) { return std::string{"TransactionLost "} + (W::counts ? fate : "unknown"); };
    const auto undone = [](bool at_once) { return W::counts ? "u1 r1" : at_once ? "u1" : "b1 u1"; };
    const char* const seen_late = W::counts ? "u1" : "b1 u1";
    return {
        {"ROLLBACK", sql<S>("ROLLBACK"), lost("rolled_back"), undone(true), ""},
        {"COMMIT", sql<S>("COMMIT"), lost("committed"), "u1", "1"},
        {"ROLLBACK; BEGIN", sql<S>("ROLLBACK; BEGIN; INSERT INTO t VALUES (50)"), lost("rolled_back"), undone(false),
         ""},
        {"COMMIT; BEGIN", sql<S>("COMMIT; BEGIN; INSERT INTO t VALUES (50)"), lost("committed"), seen_late, "1"},
        {"ON CONFLICT ROLLBACK",
         [](S& scene) { refuse(SQLITE_CONSTRAINT_PRIMARYKEY, scene.handle, "INSERT OR ROLLBACK INTO t VALUES (1)"); },
         lost("rolled_back"), undone(true), ""},
        {"RAISE(ROLLBACK)",
         [](S& scene) {
             run(scene.handle,
                 "CREATE TEMP TRIGGER no BEFORE INSERT ON t WHEN new.n = 13 BEGIN SELECT RAISE(ROLLBACK, 'no'); END");
             refuse(SQLITE_CONSTRAINT_TRIGGER, scene.handle, "INSERT INTO t VALUES (13)");
         },
         lost("rolled_back"), undone(true), ""},
        {"a full disk",
         [](S& scene) {
             run(scene.handle, "CREATE TABLE big (b)");
             run(scene.handle, "PRAGMA max_page_count = 10");
             refuse(SQLITE_FULL, scene.handle, "INSERT INTO big VALUES (randomblob(1000000))");
             run(scene.handle, "PRAGMA max_page_count = 1000000");
         },
         lost("rolled_back"), undone(true), ""},
        {"ROLLBACK, and a row that stands alone", sql<S>("ROLLBACK; INSERT INTO t VALUES (50)"),
         "TransactionLost unknown", "u1", "50"},
    };
}

}  // namespace

TEMPLATE_LIST_TEST_CASE(
    "sqlite3 ends: a loss runs rollback hooks if it is proven to be one, and those unless committed",
    "[S50][S63][S68][S69][S70]", SharingWays) {
    for (const End<Scene<TestType>>& loss : losses<TestType>()) {
        {
            Scene<TestType> scene;
            check_end(scene, loss);
            CHECK(scene.goes_on());
        }
        Scene<TestType> scene;
        check_destroyed(scene, loss);
        CHECK(scene.goes_on());
    }
}

// ---- COMMIT

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: a COMMIT that fails, and what was then rolled back, runs rollback hooks",
                        "[S46][S47][S65][S68][S69]", SharingWays) {
    using S = Scene<TestType>;
    const auto commit_meets = [](const End<S>& end) {
        S scene;
        run(scene.handle, "PRAGMA foreign_keys = ON");
        run(scene.handle, "CREATE TABLE child (parent INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED)");
        check_end(scene, end);
        sqlite3_commit_hook(scene.handle, nullptr, nullptr);
        CHECK(scene.goes_on());
    };
    S scene;
    {
        const Handle other{scene.file.path()};
        const Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
        check_end(scene, End<S>{"busy", [](S&) {}, "EngineError BUSY still_open", "b1 u1 r1", ""});
    }
    CHECK(scene.goes_on());
    commit_meets({"a deferred constraint", sql<S>("INSERT INTO child VALUES (13)"),
                  "EngineError CONSTRAINT_FOREIGNKEY still_open", "b1 u1 r1", ""});
    // Where the counters were evicted nobody counts.
    commit_meets({"a veto", [](S& s) { sqlite3_commit_hook(s.handle, [](void*) { return 1; }, nullptr); },
                  TestType::counts ? "TransactionLost unknown" : "EngineError CONSTRAINT_COMMITHOOK rolled_back",
                  TestType::counts ? "b1 u1" : "b1 u1 r1", ""});
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: in doubt what was registered unless committed runs, with the connection broken",
                        "[S48][S69][S72]", SharingWays) {
    using Call = FaultyVfs::Call;
    using File = FaultyVfs::File;
    struct Case {
        const char* name;
        Call call;
        File file;
        int code;
        const char* told;
        const char* ran;
    };
    const auto each = GENERATE(
        Case{"a full disk", Call::write, File::database, SQLITE_FULL,
             TestType::counts ? "EngineError FULL rolled_back" : "CommitUnknown unknown",
             TestType::counts ? "b1 u1 r1" : "b1 u1"},
        Case{"an I/O error", Call::sync, File::database, SQLITE_IOERR_FSYNC, "CommitUnknown unknown", "b1 u1"});
    CAPTURE(each.name);
    FaultyVfs vfs;
    Scene<TestType> scene{"DELETE", vfs.name()};
    std::string in_the_hook;
    Kinds<Scene<TestType>> kinds{scene};
    CHECK(without_cause(ending([&] {
              scene.db.atomic(scene.options, [&] {
                  kinds.row(1);
                  scene.db.unless_committed([&] { in_the_hook = ending([&] { scene.hook(2); }); });
                  vfs.fail(each.call, each.file, each.code);
              });
          })) == each.told);
    vfs.fault = nullptr;
    CHECK(kinds.ran() == each.ran);
    CHECK(in_the_hook == (kinds.ran() == "b1 u1" ? "ConnectionBroken" : "returned"));
    CHECK(scene.truth().empty());
    kinds.check_promise();
    if (not scene.db.usable()) scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: a COMMIT that reports an error of the write-ahead log hook has committed",
                        "[S44][S48][S69][S73]", DeferredWays) {
    Scene<TestType> scene{"WAL"};
    Kinds<Scene<TestType>> kinds{scene};
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  sqlite3_wal_hook(
                      scene.handle, [](void*, sqlite3*, const char*, int) { return SQLITE_FULL; }, nullptr);
              });
          })) == (TestType::counts ? "returned" : "CommitUnknown unknown"));
    sqlite3_wal_hook(scene.handle, nullptr, nullptr);
    CHECK(kinds.ran() == (TestType::counts ? "b1 c1" : "b1 u1"));
    CHECK(scene.truth() == "1");
    kinds.check_promise();
}

// ---- ROLLBACK

TEMPLATE_LIST_TEST_CASE(
    "sqlite3 ends: a ROLLBACK that fails proves nothing, a ROLLBACK TO that fails waits for the end",
    "[S49][S68][S69][S70]", SharingWays) {
    const bool nested = GENERATE(false, true);
    CAPTURE(nested);
    Scene<TestType> scene;
    Kinds<Scene<TestType>> kinds{scene};
    const auto interrupt = [&](bool on) {
        sqlite3_progress_handler(scene.handle, 1, on ? +[](void*) { return 1; } : nullptr, nullptr);
    };
    {
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        kinds.row(1);
        if (nested) {
            typename Scene<TestType>::Tx inner{scene.db};
            kinds.row(2);
            interrupt(true);
            CHECK(ending([&] { inner.rollback(); }) == "EngineError INTERRUPT still_open");
            interrupt(false);
            CHECK(kinds.ran().empty());
            CHECK(without_cause(ending([&] { return tx.commit(); })) == "TransactionAborted rolled_back");
            CHECK(kinds.ran() == "u2 r2 u1 r1");
        } else {
            interrupt(true);
            CHECK(ending([&] { tx.rollback(); }) == "EngineError INTERRUPT still_open");
            interrupt(false);
            CHECK(kinds.ran() == "u1");
            CHECK(values(scene.handle, "SELECT n FROM t") == "1");  // for all that is known it might yet be committed
            run(scene.handle, "ROLLBACK");
            scene.db.reset();
        }
    }
    CHECK(scene.truth().empty());
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: a savepoint that is rolled back runs its own, where the block goes on",
                        "[S26][S64][S68][S70][S72]", SharingWays) {
    check_savepoint_rolled_back<Scene<TestType>>();
}

// ---- Before COMMIT

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: what is written before COMMIT is committed with the rest", "[S61][S64]",
                        SharingWays) {
    check_rows_before_commit<Scene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: a hook before COMMIT that throws rolls the block back", "[S62][S68][S69]",
                        SharingWays) {
    check_throw_before_commit<Scene<TestType>>(execute, "EngineError CONSTRAINT_PRIMARYKEY rolled_back");
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: a transaction that is ended before COMMIT by a hook is lost, and not done again",
                        "[S50][S63][S69][retry]", SharingWays) {
    using S = Scene<TestType>;
    const bool rolls_back = GENERATE(false, true);
    CAPTURE(rolls_back);
    const auto end = [&](S& scene) {
        rolls_back ? refuse(SQLITE_CONSTRAINT_PRIMARYKEY, scene.handle, "INSERT OR ROLLBACK INTO t VALUES (1)")
                   : run(scene.handle, "COMMIT");
    };
    const std::string fate = not TestType::counts ? "unknown" : rolls_back ? "rolled_back" : "committed";
    check_end_before_commit<S>({"", end, "TransactionLost " + fate,
                                fate == "rolled_back" ? "b1 u2 r2 u1 r1" : "b1 u2 u1", rolls_back ? "" : "1"});
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: retry does a block again whose hook before COMMIT meets a transient error",
                        "[S62][S76][retry]", SharingWays) {
    check_retry_before_commit<Scene<TestType>>([](auto&) { throw txhooks::EngineError{SQLITE_BUSY, "", "busy"}; });
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: retry does a block again whose COMMIT is busy, with its hooks before that",
                        "[S47][S65][S76][retry]", SharingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    Kinds<Scene<TestType>> kinds{scene};
    txhooks::RetryPolicy policy = noting(kinds);
    policy.before_retry = [&](unsigned failed, const std::exception_ptr&) {
        kinds.note("again");
        if (failed == 2) reader.finish();
    };
    int calls = 0;
    txhooks::retry(scene.db, policy, scene.options, [&] { kinds.row(++calls); });
    CHECK(kinds.ran() == "b1 u1 r1 again b2 u2 r2 again b3 c3");
    CHECK(scene.truth() == "3");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: when COMMIT is tried again, only what was registered since runs before it",
                        "[S47][S65]", SharingWays) {
    Scene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    Kinds<Scene<TestType>> kinds{scene};
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    kinds.row(1);
    scene.db.before_commit([&] { scene.insert(7); });
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    CHECK(kinds.ran() == "b1");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    kinds.row(2);
    {
        typename Scene<TestType>::Tx inner{scene.db};
        kinds.row(3);
        inner.rollback();
    }
    CHECK(ending([&] { return tx.commit(); }) == "EngineError BUSY still_open");
    CHECK(kinds.ran() == "b1 u3 r3 b2");
    reader.finish();
    kinds.row(4);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(kinds.ran() == "b1 u3 r3 b2 b4 c1 c2 c4");
    CHECK(scene.truth() == "1,2,4,7");
    kinds.check_promise();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: what a hook before COMMIT has violated can be repaired by one of the next try",
                        "[S47][S61][S65]", SharingWays) {
    Scene<TestType> scene;
    run(scene.handle, "PRAGMA foreign_keys = ON");
    run(scene.handle, "CREATE TABLE child (parent INTEGER REFERENCES t(n) DEFERRABLE INITIALLY DEFERRED)");
    Kinds<Scene<TestType>> kinds{scene};
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    kinds.row(1);
    scene.db.before_commit([&] { run(scene.handle, "INSERT INTO child VALUES (2)"); });
    CHECK(ending([&] { return tx.commit(); }) == "EngineError CONSTRAINT_FOREIGNKEY still_open");
    CHECK(tx.active());
    scene.db.before_commit([&] { kinds.row(2); });
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(kinds.ran() == "b1 b2 c1 c2");
    CHECK(scene.truth() == "1,2");
    CHECK(values(scene.handle, "SELECT count(*) FROM child") == "1");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: on a database that is read-only a hook before COMMIT may read", "[S61][S62]",
                        DeferredWays) {
    Scene<TestType> scene;
    run(scene.handle, "INSERT INTO t VALUES (7)");
    run(scene.handle, "PRAGMA query_only = ON");
    Kinds<Scene<TestType>> kinds{scene};
    std::string seen;
    scene.db.atomic([&] {
        kinds.hooks(7);
        scene.db.before_commit([&] { seen = values(scene.handle, "SELECT n FROM t"); });
    });
    CHECK(seen == "7");
    CHECK(kinds.ran() == "b7 c7");
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  kinds.hooks(8);
                  scene.db.before_commit([&] { execute(scene, "INSERT INTO t VALUES (8)"); });
              });
          }) == "EngineError READONLY rolled_back");
    CHECK(kinds.ran() == "b7 c7 b8 u8 r8");
    kinds.check_promise();
    run(scene.handle, "PRAGMA query_only = OFF");
    CHECK(scene.goes_on());
}

// ---- For tests

TEMPLATE_LIST_TEST_CASE("sqlite3 ends: in a RolledBack and a CapturedHooks each kind has its place", "[S76][S77]",
                        DeferredWays) {
    check_scopes<Scene<TestType>>();
}

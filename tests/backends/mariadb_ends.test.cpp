// SPDX-License-Identifier: MIT
//
// Hooks of every kind on MariaDB: which of them run at which end of a block, and what is true then. The rows are those of
// the table in tests/README.md. What became of a lost transaction the adapter does not know, so none is proven undone.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/mariadb_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace support;

namespace {

constexpr const char* lost = "TransactionLost unknown";

// As an application with a C handle should: the server's error as an exception.
constexpr auto execute = [](auto& scene, const std::string& statement) {
    if (attempt(scene.handle, statement) != 0)
        throw txhooks::EngineError{static_cast<int>(mysql_errno(scene.handle)), mysql_sqlstate(scene.handle),
                                   mysql_error(scene.handle)};
};

void end_session(MYSQL* other, MYSQL* db) {
    const std::string id = std::to_string(mysql_thread_id(db));
    run(other, "KILL " + id);
    while (values(other, "SELECT count(*) FROM information_schema.processlist WHERE id = " + id) != "0")
        std::this_thread::yield();
}

// Two that wait for each other, of which `db` is the victim, with the smaller work. Made before the block.
class Deadlock {
public:
    explicit Deadlock(MYSQL* other) : other_{other} {
        run(other_, "CREATE OR REPLACE TABLE d (n INT PRIMARY KEY, x INT)");
        run(other_, "INSERT INTO d SELECT seq, 0 FROM seq_1_to_100");
    }

    // Returns the number of the error.
    unsigned meet(MYSQL* db) {
        run(other_, "BEGIN");
        run(other_, "UPDATE d SET x = 1 WHERE n = 1");
        run(other_, "UPDATE d SET x = 1 WHERE n > 2");
        run(db, "UPDATE d SET x = 2 WHERE n = 2");
        std::thread waiting{[this] { run(other_, "UPDATE d SET x = 1 WHERE n = 2"); }};
        while (values(looks_on_,
                      "SHOW GLOBAL STATUS WHERE variable_name = 'Innodb_row_lock_current_waits' AND value = '0'") != "")
            std::this_thread::sleep_for(std::chrono::milliseconds{1});
        const unsigned code = attempt(db, "UPDATE d SET x = 2 WHERE n = 1");
        waiting.join();
        run(other_, "ROLLBACK");
        return code;
    }

private:
    MYSQL* other_;
    Handle looks_on_;
};

// While it lives every COMMIT of others waits.
class NobodyCommits {
public:
    NobodyCommits() { run(lock_, "FLUSH TABLES WITH READ LOCK"); }

private:
    Handle lock_;
};

template <class S>
auto sql(std::vector<std::string> statements) {
    return [statements = std::move(statements)](S& scene) {
        for (const std::string& one : statements) attempt(scene.handle, one);
    };
}

// Where the next statement of ours is the first to find that the transaction is another, hooks have run before COMMIT.
template <class Adapter>
std::vector<End<Scene<Adapter>>> ends() {
    using S = Scene<Adapter>;
    return {
        {"ROLLBACK", sql<S>({"ROLLBACK"}), lost, "u1", ""},
        {"COMMIT", sql<S>({"COMMIT"}), lost, "u1", "1"},
        {"ROLLBACK; BEGIN", sql<S>({"ROLLBACK", "BEGIN", "INSERT INTO t VALUES (50)"}), lost, "b1 u1", ""},
        {"COMMIT; BEGIN", sql<S>({"COMMIT", "BEGIN", "INSERT INTO t VALUES (50)"}), lost, "b1 u1", "1"},
        {"ROLLBACK AND CHAIN", sql<S>({"ROLLBACK AND CHAIN"}), lost, "b1 u1", ""},
        {"DDL", sql<S>({"CREATE OR REPLACE TABLE d (n INT)"}), lost, "u1", "1"},
        {"DDL that fails", sql<S>({"CREATE TABLE t (n INT)"}), lost, "u1", "1"},
        {"mysql_reset_connection", [](S& scene) { REQUIRE(mysql_reset_connection(scene.handle) == 0); }, lost, "b1 u1",
         ""},
        {"the session is ended, and a statement meets that",
         [](S& scene) {
             end_session(scene.other, scene.handle);
             attempt(scene.handle, "DO 0");
         },
         lost, "u1", ""},
        {"the session is ended, and nobody has noticed", [](S& scene) { end_session(scene.other, scene.handle); },
         "CommitUnknown unknown", "b1 u1", ""},
        {"a statement has failed, and nobody looked", sql<S>({"INSERT INTO t VALUES (1)"}), "returned", "b1 c1", "1"},
    };
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb ends: a loss runs what was registered unless committed, and no rollback hook",
                        "[S44][S48][S50][S69]", EveryWay) {
    using S = Scene<TestType>;
    for (const End<S>& end : ends<TestType>()) {
        for (const bool destroyed : {false, true}) {
            if (destroyed and end.told != lost) continue;
            S scene{Login{.reconnect = true}};
            destroyed ? check_destroyed(scene, end) : check_end(scene, end);
            if (not scene.db.usable()) {
                while (mariadb_reconnect(scene.handle) != 0) continue;
                scene.db.reset();
            }
            CHECK(scene.goes_on());
        }
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: the victim of a deadlock has lost its transaction, whoever saw the error",
                        "[S50][S69][M02]", EveryWay) {
    const bool throws = GENERATE(false, true);
    CAPTURE(throws);
    Scene<TestType> scene;
    Deadlock deadlock{scene.other};
    Kinds<Scene<TestType>> kinds{scene};
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  CHECK(deadlock.meet(scene.handle) == 1213);
                  if (throws) throw Oops{};
              });
          })) == (throws ? "oops" : lost));
    CHECK(kinds.ran() == "u1");
    CHECK(scene.truth().empty());
    CHECK(scene.sink.lines() == (throws ? Log{std::string{"txhooks: while rolling back a block: "} + lost} : Log{}));
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a driver that reconnects has lost the transaction", "[S50][S69][M04]",
                        EveryWay) {
    Scene<TestType> scene{Login{.reconnect = true}};
    check_end<Scene<TestType>>(scene, {"reconnect",
                                       [](auto& s) {
                                           end_session(s.other, s.handle);
                                           while (attempt(s.handle, "DO 0") != 0) continue;
                                       },
                                       lost, "u1", ""});
    CHECK(scene.goes_on());
}

// ---- COMMIT

TEMPLATE_LIST_TEST_CASE("mariadb ends: what COMMIT itself refuses was rolled back, an interrupted compound is in doubt",
                        "[S46][S48][S68][S69][M09]", EveryWay) {
    const bool interrupted = GENERATE(false, true);
    CAPTURE(interrupted);
    const bool in_doubt = interrupted and not std::is_same_v<TestType, Plain>;
    Scene<TestType> scene;
    Kinds<Scene<TestType>> kinds{scene};
    std::optional<NobodyCommits> lock;
    const std::string told = ending([&] {
        scene.db.atomic([&] {
            kinds.row(1);
            run(scene.handle, interrupted ? "SET max_statement_time = 0.1" : "SET lock_wait_timeout = 0");
            lock.emplace();
        });
    });
    lock.reset();
    CHECK(without_cause(told) == (in_doubt      ? "CommitUnknown unknown"
                                  : interrupted ? "EngineError 1969 rolled_back"
                                                : "EngineError 1205 rolled_back"));
    CHECK(kinds.ran() == (in_doubt ? "b1 u1" : "b1 u1 r1"));
    CHECK(scene.truth().empty());
    kinds.check_promise();
    run(scene.handle, "SET max_statement_time = 0");
    if (in_doubt) scene.db.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a connection that is lost while a block ends proves nothing",
                        "[S48][S49][S69][S72][M20]", EveryWay) {
    enum class Verb { commit, rollback, rollback_to };
    const Verb verb = GENERATE(Verb::commit, Verb::rollback, Verb::rollback_to);
    const Cut how = GENERATE(Cut::request, Cut::reply);
    CAPTURE(static_cast<int>(verb), static_cast<int>(how));
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    Scene<TestType> scene{Login{.port = proxy.port()}};
    Kinds<Scene<TestType>> kinds{scene};
    std::string told;
    {
        typename Scene<TestType>::Tx tx{scene.db};
        kinds.row(1);
        typename Scene<TestType>::Tx inner{scene.db};
        kinds.row(2);
        if (verb == Verb::rollback_to) {
            proxy.arm("ROLLBACK TO", how);
            CHECK(ending([&] { inner.rollback(); }) != "returned");
            told = ending([&] { tx.commit(); });
        } else {
            inner.commit();
            proxy.arm(verb == Verb::commit ? "COMMIT" : "ROLLBACK", how);
            told = ending([&] { verb == Verb::commit ? static_cast<void>(tx.commit()) : tx.rollback(); });
        }
    }
    if (verb == Verb::commit) CHECK(without_cause(told) == "CommitUnknown unknown");
    if (verb == Verb::rollback) CHECK(told == "EngineError 2013 unknown");
    if (verb == Verb::rollback_to) CHECK(told == lost);
    CHECK(kinds.ran() == (verb == Verb::commit ? "b1 b2 u2 u1" : "u2 u1"));
    CHECK(scene.truth() == (verb == Verb::commit and how == Cut::reply ? "1,2" : ""));
    kinds.check_promise();
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
}

// ---- ROLLBACK

TEMPLATE_LIST_TEST_CASE("mariadb ends: a savepoint that is rolled back runs its own, where the block goes on",
                        "[S26][S64][S68][S70][S72]", EveryWay) {
    check_savepoint_rolled_back<Scene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a nested block whose savepoint the user ended is lost with all around it",
                        "[S50][S69]", EveryWay) {
    Scene<TestType> scene;
    Kinds<Scene<TestType>> kinds{scene};
    {
        typename Scene<TestType>::Tx tx{scene.db};
        kinds.row(1);
        run(scene.handle, "SAVEPOINT mine");
        typename Scene<TestType>::Tx inner{scene.db};
        kinds.row(2);
        run(scene.handle, "RELEASE SAVEPOINT mine");
        CHECK(without_cause(ending([&] { inner.rollback(); })) == lost);
        CHECK(ending([&] { return tx.commit(); }) == lost);
    }
    CHECK(kinds.ran() == "u2 u1");
    CHECK(scene.truth().empty());
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a row in a table without transactions stays, although a ROLLBACK has succeeded",
                        "[S68][M08]", EveryWay) {
    Scene<TestType> scene;
    run(scene.other, "ALTER TABLE t ENGINE = MyISAM");
    Kinds<Scene<TestType>> kinds{scene};
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  throw Oops{};
              });
          }) == "oops");
    CHECK(kinds.ran() == "u1 r1");
    CHECK(mysql_warning_count(scene.handle) == 1);
    CHECK(scene.truth() == "1");
}

// ---- Before COMMIT

TEMPLATE_LIST_TEST_CASE("mariadb ends: what is written before COMMIT is committed with the rest", "[S61][S64]",
                        EveryWay) {
    check_rows_before_commit<Scene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a hook before COMMIT that throws rolls the block back", "[S62][S68][S69]",
                        EveryWay) {
    check_throw_before_commit<Scene<TestType>>(execute, "EngineError 1062 rolled_back");
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a transaction that is ended before COMMIT by a hook is lost, and not done again",
                        "[S50][S63][S69][retry]", EveryWay) {
    using S = Scene<TestType>;
    SECTION("a raw COMMIT") {
        check_end_before_commit<S>({"", sql<S>({"COMMIT"}), lost, "b1 u2 u1", "1"});
    }
    SECTION("DDL") {
        check_end_before_commit<S>({"", sql<S>({"CREATE OR REPLACE TABLE d (n INT)"}), lost, "b1 u2 u1", "1"});
    }
    SECTION("another one was begun: seen by COMMIT") {
        check_end_before_commit<S>({"", sql<S>({"ROLLBACK", "BEGIN"}), lost, "b1 b2 u2 u1", ""});
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: what a hook writes before a COMMIT that finds the session reset stands alone",
                        "[S50][S63][S69][M12]", EveryWay) {
    Scene<TestType> scene;
    Kinds<Scene<TestType>> kinds{scene};
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  scene.db.before_commit([&] { scene.insert(7); });
                  REQUIRE(mysql_reset_connection(scene.handle) == 0);
              });
          })) == lost);
    CHECK(kinds.ran() == "b1 u1");
    CHECK(scene.truth() == "7");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: retry does a block again whose hook before COMMIT meets a transient error",
                        "[S62][S76][retry]", EveryWay) {
    check_retry_before_commit<Scene<TestType>>(
        [](auto& scene) { execute(scene, "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'as if'"); });
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: retry does a block again whose hook before COMMIT is the victim of a deadlock",
                        "[S50][S62][S69][S76][retry][M02]", EveryWay) {
    Scene<TestType> scene;
    Deadlock deadlock{scene.other};
    Kinds<Scene<TestType>> kinds{scene};
    int calls = 0;
    txhooks::retry(scene.db, noting(kinds), [&] {
        kinds.row(++calls);
        scene.db.before_commit([&] {
            if (calls == 1 and deadlock.meet(scene.handle) == 1213)
                throw txhooks::EngineError{1213, "40001", "deadlock"};
        });
    });
    // The adapter says nothing of a loss, but to `retry` the error proves that the transaction was rolled back.
    CHECK(kinds.ran() == "b1 r1 u1 again b2 c2");
    CHECK(scene.truth() == "2");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb ends: a hook before COMMIT stands in the isolation of its block, and in its read-only",
                        "[S38][S61][S62]", EveryWay) {
    using txhooks::mariadb::Isolation;
    Scene<TestType> scene;
    run(scene.other, "INSERT INTO t VALUES (7)");
    Kinds<Scene<TestType>> kinds{scene};
    const typename Scene<TestType>::Db::Options options{
        .begin = {.isolation = Isolation::serializable, .read_only = true}};
    run(scene.other, "SET innodb_lock_wait_timeout = 0");
    unsigned refused = 0;
    scene.db.atomic(options, [&] {
        kinds.hooks(7);
        scene.db.before_commit([&] {
            CHECK(values(scene.handle, "SELECT n FROM t") == "7");
            refused = attempt(scene.other, "DELETE FROM t");
        });
    });
    CHECK(refused == 1205);
    CHECK(kinds.ran() == "b7 c7");
    CHECK(ending([&] {
              scene.db.atomic(options, [&] {
                  kinds.hooks(8);
                  scene.db.before_commit([&] { execute(scene, "INSERT INTO t VALUES (8)"); });
              });
          }) == "EngineError 1792 rolled_back");
    CHECK(kinds.ran() == "b7 c7 b8 u8 r8");
    CHECK(scene.truth() == "7");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

// ---- For tests

TEMPLATE_LIST_TEST_CASE("mariadb ends: in a RolledBack and a CapturedHooks each kind has its place", "[S76][S77]",
                        EveryWay) {
    check_scopes<Scene<TestType>>();
}

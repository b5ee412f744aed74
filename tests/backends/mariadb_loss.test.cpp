// SPDX-License-Identifier: MIT
//
// Transactions that end behind the block's back, by each way MariaDB has for that. A lost transaction runs no hook; the
// caller is told, and the connection goes on.

#include "support/catch.hpp"
#include "support/mariadb_scene.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <poll.h>

#include <chrono>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace support;

namespace {

// One way to end a transaction that has row 1.
struct Ender {
    const char* name;
    void (*end)(MYSQL* db, MYSQL* other);
    const char* truth;  // what others see when all is over
    bool plain;         // the client knows at the next call that it is in no transaction
};

// `db` has updated row 2, and waits for row 1, which `other` holds: `db` is the one that is rolled back.
template <class Update>
void deadlock(MYSQL* db, MYSQL* other, Update update) {
    run(other, "CREATE OR REPLACE TABLE d (n INT PRIMARY KEY, x INT)");
    run(other, "INSERT INTO d SELECT seq, 0 FROM seq_1_to_100");
    run(other, "BEGIN");
    run(other, "UPDATE d SET x = 1 WHERE n = 1");
    run(other, "UPDATE d SET x = 1 WHERE n > 2");
    run(db, "UPDATE d SET x = 2 WHERE n = 2");
    std::thread waiting{[other] { run(other, "UPDATE d SET x = 1 WHERE n = 2"); }};
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    const unsigned code = update(db, "UPDATE d SET x = 2 WHERE n = 1");
    waiting.join();
    run(other, "ROLLBACK");
    if (code != 1213) throw std::runtime_error{"no deadlock, but " + std::to_string(code)};
}

unsigned prepared(MYSQL* db, const char* sql) {
    MYSQL_STMT* const statement = mysql_stmt_init(db);
    unsigned code = 0;
    if (mysql_stmt_prepare(statement, sql, std::char_traits<char>::length(sql)) != 0 or
        mysql_stmt_execute(statement) != 0)
        code = mysql_stmt_errno(statement);
    mysql_stmt_close(statement);
    return code;
}

void expect(unsigned code, MYSQL* db, const std::string& sql) {
    const unsigned got = attempt(db, sql);
    if (got != code) throw std::runtime_error{sql + " gave " + std::to_string(got)};
}

void set_up_snapshot_conflict(MYSQL* db, MYSQL* other) {
    run(other, "CREATE OR REPLACE TABLE d (n INT PRIMARY KEY, x INT)");
    run(other, "INSERT INTO d VALUES (1, 0)");
    run(db, "SET innodb_snapshot_isolation = ON");
    values(db, "SELECT x FROM d");
    run(other, "UPDATE d SET x = 1");
}

const std::vector<Ender>& enders() {
    static const std::vector<Ender> all{
        {"ROLLBACK", [](MYSQL* db, MYSQL*) { run(db, "ROLLBACK"); }, "", true},
        {"COMMIT", [](MYSQL* db, MYSQL*) { run(db, "COMMIT"); }, "1", true},
        {"mysql_commit", [](MYSQL* db, MYSQL*) { mysql_commit(db); }, "1", true},
        {"mysql_refresh: the client is not told",
         [](MYSQL* db, MYSQL*) { REQUIRE(mysql_refresh(db, REFRESH_STATUS) == 0); }, "1", false},
        {"COMMIT, prepared", [](MYSQL* db, MYSQL*) { REQUIRE(prepared(db, "COMMIT") == 0); }, "1", true},
        {"EXECUTE IMMEDIATE 'ROLLBACK'", [](MYSQL* db, MYSQL*) { run(db, "EXECUTE IMMEDIATE 'ROLLBACK'"); }, "", true},
        {"COMMIT, completion_type CHAIN",
         [](MYSQL* db, MYSQL*) {
             run(db, "SET completion_type = CHAIN");
             run(db, "COMMIT");
         },
         "1", false},
        {"a deadlock", [](MYSQL* db, MYSQL* other) { deadlock(db, other, &attempt); }, "", true},
        {"a deadlock in a prepared statement that is closed: nothing tells the client",
         [](MYSQL* db, MYSQL* other) { deadlock(db, other, &prepared); }, "", false},
        {"a deadlock, BEGIN",
         [](MYSQL* db, MYSQL* other) {
             deadlock(db, other, &attempt);
             run(db, "BEGIN");
         },
         "", false},
        {"a snapshot conflict",
         [](MYSQL* db, MYSQL* other) {
             set_up_snapshot_conflict(db, other);
             expect(1020, db, "UPDATE d SET x = 2");
         },
         "", true},
        {"mysql_reset_connection: the client is not told",
         [](MYSQL* db, MYSQL*) { REQUIRE(mysql_reset_connection(db) == 0); }, "", false},
        {"mysql_change_user",
         [](MYSQL* db, MYSQL*) {
             REQUIRE(mysql_change_user(db, "txhooks", mariadb().password().c_str(), "txhooks") == 0);
         },
         "", true},
        {"ROLLBACK; BEGIN",
         [](MYSQL* db, MYSQL*) {
             run(db, "ROLLBACK");
             run(db, "BEGIN");
         },
         "", false},
        {"ROLLBACK; BEGIN; INSERT",
         [](MYSQL* db, MYSQL*) {
             run(db, "ROLLBACK");
             run(db, "BEGIN");
             run(db, "INSERT INTO t VALUES (50)");
         },
         "", false},
        {"ROLLBACK; SET autocommit = 0; INSERT",
         [](MYSQL* db, MYSQL*) {
             run(db, "ROLLBACK");
             run(db, "SET autocommit = 0");
             run(db, "INSERT INTO t VALUES (50)");
         },
         "", false},
        {"COMMIT; BEGIN; INSERT",
         [](MYSQL* db, MYSQL*) {
             run(db, "COMMIT");
             run(db, "BEGIN");
             run(db, "INSERT INTO t VALUES (50)");
         },
         "1", false},
        {"ROLLBACK AND CHAIN", [](MYSQL* db, MYSQL*) { run(db, "ROLLBACK AND CHAIN"); }, "", false},
        {"COMMIT AND CHAIN", [](MYSQL* db, MYSQL*) { run(db, "COMMIT AND CHAIN"); }, "1", false},
        {"BEGIN NOT ATOMIC COMMIT; START TRANSACTION",
         [](MYSQL* db, MYSQL*) { run(db, "BEGIN NOT ATOMIC COMMIT; START TRANSACTION; END"); }, "1", false},
        {"BEGIN NOT ATOMIC ROLLBACK; START TRANSACTION; an error",
         [](MYSQL* db, MYSQL*) {
             expect(1644, db, "BEGIN NOT ATOMIC ROLLBACK; START TRANSACTION; SIGNAL SQLSTATE '45000'; END");
         },
         "", false},
        {"a procedure that rolls back",
         [](MYSQL* db, MYSQL* other) {
             run(other, "CREATE OR REPLACE PROCEDURE rolls_back() ROLLBACK");
             run(db, "CALL rolls_back()");
         },
         "", true},
        {"ROLLBACK; XA",
         [](MYSQL* db, MYSQL*) {
             run(db, "ROLLBACK");
             run(db, "XA START 'x'");
             run(db, "INSERT INTO t VALUES (50)");
             run(db, "XA END 'x'");
             run(db, "XA ROLLBACK 'x'");
         },
         "", true},
    };
    return all;
}

// Statements that commit by themselves (M01c), with what others do before, and what undoes their effect on the session.
struct Committer {
    const char* sql;
    unsigned error = 0;
    const char* before = "DO 0";
    const char* after = "DO 0";
    bool leaves_transaction = false;
};

const std::vector<Committer>& committers() {
    static const std::vector<Committer> all{
        {"CREATE OR REPLACE TABLE d2 (n INT)"},
        {"CREATE TABLE t (n INT)", 1050},
        {"CREATE TABLE IF NOT EXISTS t (n INT)"},
        {"CREATE OR REPLACE TABLE d2 AS SELECT 1 AS n"},
        {"ALTER TABLE d ADD COLUMN y INT"},
        {"ALTER TABLE d ADD COLUMN x INT", 1060},
        {"ALTER TABLE nowhere ADD COLUMN x INT", 1146},
        {"BEGIN NOT ATOMIC CREATE OR REPLACE TEMPORARY TABLE tmp (n INT); ALTER TABLE tmp ADD COLUMN x INT; END"},
        {"DROP TABLE d"},
        {"DROP TABLE nowhere", 1051},
        {"RENAME TABLE d TO d3", 0, "DROP TABLE IF EXISTS d3"},
        {"RENAME TABLE nowhere TO d3", 1146, "DROP TABLE IF EXISTS d3"},
        {"TRUNCATE TABLE d"},
        {"TRUNCATE TABLE nowhere", 1146},
        {"CREATE INDEX i ON d (x)"},
        {"DROP INDEX i ON d", 0, "CREATE INDEX i ON d (x)"},
        {"DROP INDEX nowhere ON d", 1091},
        {"CREATE OR REPLACE VIEW v AS SELECT 1"},
        {"ALTER VIEW v AS SELECT 2", 0, "CREATE OR REPLACE VIEW v AS SELECT 1"},
        {"DROP VIEW v", 0, "CREATE OR REPLACE VIEW v AS SELECT 1"},
        {"DROP VIEW nowhere", 4092},
        {"CREATE OR REPLACE PROCEDURE q() SELECT 1"},
        {"DROP PROCEDURE nowhere", 1305},  // the number of a savepoint that is not there
        {"CREATE OR REPLACE FUNCTION f() RETURNS INT RETURN 1"},
        {"CREATE OR REPLACE TRIGGER r BEFORE INSERT ON d FOR EACH ROW SET NEW.x = 1"},
        {"CREATE OR REPLACE SEQUENCE s"},
        {"CREATE OR REPLACE DATABASE txhooks_other"},
        {"CREATE DATABASE txhooks", 1007},
        {"ALTER DATABASE txhooks_other COMMENT = 'x'", 0, "CREATE OR REPLACE DATABASE txhooks_other"},
        {"DROP DATABASE IF EXISTS txhooks_other"},
        {"DROP DATABASE nowhere", 1008},
        {"BEGIN", 0, "DO 0", "DO 0", true},
        {"START TRANSACTION READ ONLY", 0, "DO 0", "DO 0", true},
        {"LOCK TABLES d READ", 0, "DO 0", "UNLOCK TABLES"},
        {"LOCK TABLES nowhere READ", 1146},
        {"ANALYZE TABLE d"},
        {"OPTIMIZE TABLE d"},
        {"CHECK TABLE d"},
        {"REPAIR TABLE d"},
        {"FLUSH TABLES"},
        {"FLUSH STATUS"},
        {"FLUSH PRIVILEGES"},
        {"FLUSH TABLES WITH READ LOCK", 0, "DO 0", "UNLOCK TABLES"},
        {"CREATE OR REPLACE USER txhooks_other"},
        {"CREATE USER txhooks@localhost", 1396},
        {"GRANT SELECT ON txhooks.* TO txhooks"},
        {"REVOKE ALL ON txhooks.* FROM nobody_there", 1141},
        {"SET PASSWORD FOR txhooks = ''"},
        {"SET PASSWORD FOR nobody_there = ''", 1133},
        {"RESET QUERY CACHE"},
        {"CALL commits()"},
        {"CALL commits_and_fails()", 1644},
        {"EXECUTE IMMEDIATE 'CREATE OR REPLACE TABLE d2 (n INT)'"},
        {"EXECUTE IMMEDIATE 'CREATE TABLE t (n INT)'", 1050},
        {"BEGIN NOT ATOMIC SET autocommit = 0; SET autocommit = 1; END"},
    };
    return all;
}

void prepare(MYSQL* other, const Committer& committer) {
    run(other, "CREATE OR REPLACE TABLE d (x INT)");
    run(other, "CREATE OR REPLACE PROCEDURE commits() COMMIT");
    run(other, "CREATE OR REPLACE PROCEDURE commits_and_fails() BEGIN COMMIT; SIGNAL SQLSTATE '45000'; END");
    run(other, "CREATE USER IF NOT EXISTS txhooks");
    run(other, committer.before);
}

void clean(MYSQL* db) {
    run(db, "SET completion_type = NO_CHAIN");
    run(db, "SET autocommit = 1");
}

constexpr const char* lost = "TransactionLost unknown";

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb loss: commit() reports a transaction that has ended and runs no hook",
                        "[S50][M02][M07][M11][M12][M15][M16]", EveryWay) {
    Scene<TestType> scene;
    for (const Ender& ender : enders()) {
        CAPTURE(ender.name);
        run(scene.other, "DELETE FROM t");
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        ender.end(scene.handle, scene.other);
        CHECK(without_cause(ending([&] { return tx.commit(); })) == lost);
        CHECK_FALSE(tx.active());
        CHECK(ending([&] { return tx.commit(); }) == "UsageError");
        CHECK(scene.hooks.empty());
        CHECK(scene.truth() == ender.truth);
        CHECK(scene.idle());
        clean(scene.handle);
        CHECK(scene.goes_on());
        scene.hooks.clear();
    }
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: rollback() reports a transaction that has ended", "[S50]", EveryWay) {
    Scene<TestType> scene;
    for (const Ender& ender : enders()) {
        CAPTURE(ender.name);
        run(scene.other, "DELETE FROM t");
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        ender.end(scene.handle, scene.other);
        CHECK(without_cause(ending([&] { tx.rollback(); })) == lost);
        CHECK_FALSE(tx.active());
        CHECK(scene.hooks.empty());
        CHECK(scene.truth() == ender.truth);
        CHECK(scene.idle());
        clean(scene.handle);
        CHECK(scene.goes_on());
        scene.hooks.clear();
    }
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: atomic(fn) and the destructor report it too", "[S50][S30]", EveryWay) {
    Scene<TestType> scene;
    const std::string to_sink = std::string{"txhooks: while rolling back a block: "} + lost;
    for (const Ender& ender : enders()) {
        CAPTURE(ender.name);
        run(scene.other, "DELETE FROM t");
        CHECK(without_cause(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      ender.end(scene.handle, scene.other);
                  });
              })) == lost);
        CHECK(scene.sink.empty());
        CHECK(scene.truth() == ender.truth);
        clean(scene.handle);

        run(scene.other, "DELETE FROM t");
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      ender.end(scene.handle, scene.other);
                      throw std::runtime_error{"fn's own"};
                  });
              }) == "fn's own");
        REQUIRE(scene.sink.lines().size() == 1);
        CHECK(without_cause(scene.sink.lines().front()) == to_sink);
        CHECK(scene.truth() == ender.truth);
        clean(scene.handle);

        run(scene.other, "DELETE FROM t");
        scene.sink.clear();
        {
            typename Scene<TestType>::Tx tx{scene.db};
            scene.row(1);
            ender.end(scene.handle, scene.other);
        }
        REQUIRE_FALSE(scene.sink.empty());
        CHECK(without_cause(scene.sink.lines().front()) == to_sink);
        CHECK(scene.hooks.empty());
        CHECK(scene.truth() == ender.truth);
        clean(scene.handle);
        scene.sink.clear();
        CHECK(scene.goes_on());
        scene.hooks.clear();
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: on_commit and nested blocks notice it where the client can know", "[S50][S9]",
                        EveryWay) {
    Scene<TestType> scene;
    for (const Ender& ender : enders()) {
        CAPTURE(ender.name);
        run(scene.other, "DELETE FROM t");
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        ender.end(scene.handle, scene.other);
        CHECK(ending([&] { scene.hook(2); }) == (ender.plain ? lost : "returned"));
        if (ender.plain) {
            CHECK_FALSE(tx.active());
            CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db}; }) == lost);
            CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db, {.join = true}}; }) == lost);
        }
        CHECK(without_cause(ending([&] { return tx.commit(); })) == lost);
        CHECK(scene.hooks.empty());
        CHECK(scene.truth() == ender.truth);
        clean(scene.handle);
        CHECK(scene.goes_on());
        scene.hooks.clear();
    }
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a ROLLBACK that was sent and whose answer is unread is not taken for COMMIT's",
                        "[S50][M07]", EveryWay) {
    Scene<TestType> scene;
    {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        REQUIRE(mysql_send_query(scene.handle, "ROLLBACK", 8) == 0);
        pollfd answer{mysql_get_socket(scene.handle), POLLIN, 0};
        REQUIRE(poll(&answer, 1, 10'000) == 1);
        CHECK(ending([&] { return tx.commit(); }) == "UsageError");
        if (GENERATE(true, false)) {
            CHECK(mysql_read_query_result(scene.handle) == 0);
            CHECK(ending([&] { return tx.commit(); }) == lost);
        }
        CHECK(scene.hooks.empty());
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a savepoint of no transaction is no nested block", "[S40][S50]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    deadlock(scene.handle, scene.other, &prepared);
    // The SAVEPOINT succeeds: only its answer says that there is no transaction.
    CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db}; }) == lost);
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { return tx.commit(); }) == lost);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a transaction lost in a nested block is lost for all of them", "[S50]",
                        EveryWay) {
    Scene<TestType> scene;
    for (const bool commits : {true, false}) {
        for (const Ender& ender : enders()) {
            CAPTURE(ender.name, commits);
            run(scene.other, "DELETE FROM t");
            typename Scene<TestType>::Tx tx{scene.db};
            scene.row(1);
            {
                typename Scene<TestType>::Tx inner{scene.db};
                scene.hook(2);
                ender.end(scene.handle, scene.other);
                CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) ==
                      lost);
                CHECK_FALSE(inner.active());
                CHECK_FALSE(tx.active());
            }
            CHECK(ending([&] { scene.hook(3); }) == lost);
            CHECK(ending([&] { return tx.commit(); }) == lost);
            CHECK(scene.hooks.empty());
            CHECK(scene.truth() == ender.truth);
            CHECK(scene.idle());
            clean(scene.handle);
            CHECK(scene.goes_on());
            scene.hooks.clear();
        }
    }
    CHECK(scene.sink.empty());
}

namespace {

// `fn(scene, tx, committer)` executes the committer in the block `tx`, which has a row and a hook, and ends it.
template <class Adapter, class Fn>
void with_each_committer(const Fn& fn) {
    Scene<Adapter> scene;
    for (const Committer& committer : committers()) {
        CAPTURE(committer.sql);
        prepare(scene.other, committer);
        run(scene.other, "DELETE FROM t");
        typename Scene<Adapter>::Tx tx{scene.db};
        scene.row(1);
        fn(scene, tx, committer);
        CHECK(scene.hooks.empty());
        CHECK(scene.truth() == "1");
        CHECK(scene.idle());
        run(scene.handle, committer.after);
        CHECK(scene.goes_on());
        scene.hooks.clear();
    }
    CHECK(scene.sink.empty());
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb loss: statements that commit by themselves, also when they fail", "[S50][M01]",
                        EveryWay) {
    with_each_committer<TestType>([](auto& scene, auto& tx, const Committer& committer) {
        CHECK(attempt(scene.handle, committer.sql) == committer.error);
        CHECK(scene.truth() == "1");
        CHECK(ending([&] { scene.hook(2); }) == (committer.leaves_transaction ? "returned" : lost));
        CHECK(without_cause(ending([&] { return tx.commit(); })) == lost);
    });
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: rollback() and the end of a nested block report such a statement as well",
                        "[S50][M01]", EveryWay) {
    enum class Way { rollback, nested_commit, nested_rollback };
    const Way way = GENERATE(Way::rollback, Way::nested_commit, Way::nested_rollback);
    CAPTURE(static_cast<int>(way));
    with_each_committer<TestType>([way](auto& scene, auto& tx, const Committer& committer) {
        if (way == Way::rollback) {
            CHECK(attempt(scene.handle, committer.sql) == committer.error);
        } else {
            typename Scene<TestType>::Tx inner{scene.db};
            scene.hook(2);
            CHECK(attempt(scene.handle, committer.sql) == committer.error);
            CHECK(without_cause(ending([&] {
                      way == Way::nested_commit ? static_cast<void>(inner.commit()) : inner.rollback();
                  })) == lost);
        }
        CHECK(without_cause(ending([&] { way == Way::rollback ? tx.rollback() : static_cast<void>(tx.commit()); })) ==
              lost);
    });
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a procedure that commits ends the block, and commits piece by piece outside one",
                        "[S1][S13][S50][M01]", EveryWay) {
    Scene<TestType> scene;
    run(scene.other,
        "CREATE OR REPLACE PROCEDURE piecewise(n INT) BEGIN INSERT INTO t VALUES (n); COMMIT; "
        "INSERT INTO t VALUES (n + 1); SIGNAL SQLSTATE '45000'; END");
    {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        CHECK(attempt(scene.handle, "CALL piecewise(10)") == 1644);
        CHECK(ending([&] { scene.hook(2); }) == lost);
        CHECK(ending([&] { return tx.commit(); }) == lost);
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "1,10,11");

    CHECK(attempt(scene.handle, "CALL piecewise(20)") == 1644);
    scene.hook(3);
    CHECK(scene.hooks == "3");
    scene.db.atomic([&] {
        scene.row(4);
        scene.db.on_commit([&] { CHECK(attempt(scene.handle, "CALL piecewise(30)") == 1644); });
    });
    CHECK(scene.hooks == "3,4");
    CHECK(scene.truth() == "1,4,10,11,20,21,30,31");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: statements that end no transaction, also when they fail", "[S50][M10][M14][M16]",
                        EveryWay) {
    Scene<TestType> scene;
    run(scene.other, "CREATE OR REPLACE TABLE d (x INT)");
    struct Harmless {
        const char* sql;
        unsigned error = 0;
    };
    const std::vector<Harmless> all{
        {"CREATE TEMPORARY TABLE temporary (n INT)"},
        {"DROP TEMPORARY TABLE temporary"},
        {"USE txhooks"},
        {"UNLOCK TABLES"},
        {"PREPARE p FROM 'SELECT 1'"},
        {"EXECUTE p"},
        {"HANDLER d OPEN"},
        {"HANDLER d CLOSE"},
        {"SET autocommit = 1"},
        {"SET @x = 1"},
        {"SHOW TABLES"},
        {"SELECT nonsense", 1054},
        {"nonsense", 1064},
        {"SELECT * FROM nowhere", 1146},
        {"INSERT INTO t VALUES (1)", 1062},
        {"SIGNAL SQLSTATE '45000'", 1644},
        {"CALL nowhere()", 1305},
        {"KILL QUERY CONNECTION_ID()", 1317},
        {"XA START 'x'", 1400},
        {"XA END 'x'", 1399},
        {"XA PREPARE 'x'", 1399},
        {"XA COMMIT 'x'", 1400},
        {"XA COMMIT 'x' ONE PHASE", 1400},
        {"XA ROLLBACK 'x'", 1400},
        {"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", 1568},
        {"SET STATEMENT max_statement_time = 0.01 FOR SELECT SLEEP(10)", 1969},
        {"SET STATEMENT max_statement_time = 0.02 FOR INSERT INTO t SELECT 1000 + seq FROM seq_1_to_10000000", 1969},
        {"SAVEPOINT mine"},
        {"BEGIN NOT ATOMIC SAVEPOINT m; INSERT INTO t VALUES (7); ROLLBACK TO SAVEPOINT m; RELEASE SAVEPOINT m; END"},
        {"RELEASE SAVEPOINT nowhere", 1305},
    };
    for (const Harmless& harmless : all) {
        CAPTURE(harmless.sql);
        run(scene.other, "DELETE FROM t");
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        CHECK(attempt(scene.handle, harmless.sql) == harmless.error);
        scene.row(2);
        {
            typename Scene<TestType>::Tx inner{scene.db};
            CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == 1062);
            scene.row(3);
            inner.commit();
        }
        CHECK(ending([&] { return tx.commit(); }) == "committed");
        CHECK(scene.hooks == "1,2,3");
        CHECK(scene.truth() == "1,2,3");
        scene.hooks.clear();
    }
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: what was written after it stands alone, and its hooks do not run", "[S50][M02]",
                        EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    deadlock(scene.handle, scene.other, &prepared);
    scene.insert(2);  // commits by itself
    CHECK(ending([&] { scene.hook(2); }) == lost);
    CHECK(ending([&] { return tx.commit(); }) == lost);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a lock that is waited for too long undoes the statement, or all of it",
                        "[S50][M03][M21]", EveryWay) {
    static const MariadbServer strict{"innodb_rollback_on_timeout=ON"};
    const bool all = GENERATE(false, true);
    Scene<TestType> scene{Login{.server = all ? strict : mariadb()}};
    run(scene.other, "INSERT INTO t VALUES (50)");
    run(scene.other, "BEGIN");
    run(scene.other, "DELETE FROM t WHERE n = 50");
    run(scene.handle, "SET innodb_lock_wait_timeout = 0");

    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    CHECK(attempt(scene.handle, "UPDATE t SET n = 51 WHERE n = 50") == 1205);
    CHECK(ending([&] { scene.row(2); }) == (all ? lost : "returned"));
    CHECK(ending([&] { return tx.commit(); }) == (all ? lost : "committed"));
    run(scene.other, "ROLLBACK");
    CHECK(scene.hooks == (all ? "" : "1,2"));
    CHECK(scene.truth() == (all ? "2,50" : "1,2,50"));
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a nested block whose savepoint the user released is not trusted any more",
                        "[S50]", EveryWay) {
    const bool commits = GENERATE(true, false);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    run(scene.handle, "SAVEPOINT mine");
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(2);
        run(scene.handle, "RELEASE SAVEPOINT mine");
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) == lost);
    }
    CHECK(ending([&] { return tx.commit(); }) == lost);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: XA left open behind the block's back breaks the connection until it is ended",
                        "[S49][S50][M16]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    run(scene.handle, "ROLLBACK");
    run(scene.handle, "XA START 'x'");
    scene.insert(2);
    CHECK(without_cause(ending([&] { return tx.commit(); })) == lost);
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    CHECK(scene.hooks.empty());
    run(scene.handle, "XA END 'x'");
    run(scene.handle, "XA PREPARE 'x'");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    run(scene.handle, "XA COMMIT 'x'");
    scene.db.reset();
    CHECK(scene.truth() == "2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: what is prepared by XA behind the block's back is somebody else's to end",
                        "[S49][S50][M16]", EveryWay) {
    const std::string first = GENERATE("COMMIT", "ROLLBACK");
    const bool commits = GENERATE(true, false);
    const bool prepares = GENERATE(true, false);
    CAPTURE(first, commits, prepares);
    Scene<TestType> scene;
    {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        run(scene.handle, first);
        run(scene.handle, "XA START 'x'");
        scene.insert(2);
        run(scene.handle, "XA END 'x'");
        if (prepares) run(scene.handle, "XA PREPARE 'x'");
        // No ROLLBACK can end it, and says so.
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(tx.commit()) : tx.rollback(); })) ==
              (commits ? lost : "EngineError 1399 still_open"));
        CHECK_FALSE(tx.active());
    }
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (first == "COMMIT" ? "1" : ""));
    CHECK(values(scene.other, "XA RECOVER") == (prepares ? "1" : ""));
    run(scene.handle, prepares ? "XA COMMIT 'x'" : "XA COMMIT 'x' ONE PHASE");
    CHECK(scene.truth() == (first == "COMMIT" ? "1,2" : "2"));
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: savepoints of the user's that share a name do not disturb the blocks",
                        "[S43][M06]", EveryWay) {
    Scene<TestType> scene;
    const auto set_and_write = [&](int n) {
        run(scene.handle, "SAVEPOINT mine");
        scene.insert(n);
    };
    {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        set_and_write(50);
        {
            typename Scene<TestType>::Tx inner{scene.db};
            scene.row(2);
            set_and_write(51);  // the other one is gone
            run(scene.handle, "ROLLBACK TO SAVEPOINT mine");
            inner.commit();
        }
        CHECK(attempt(scene.handle, "ROLLBACK TO SAVEPOINT mine") == 1305);
        scene.row(3);
        {
            typename Scene<TestType>::Tx inner{scene.db};
            set_and_write(52);
            scene.hook(4);
            inner.rollback();
        }
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(scene.hooks == "1,2,3");
    CHECK(scene.truth() == "1,2,3,50");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb loss: a table without transactions keeps its rows, and the server warns", "[M08]",
                        EveryWay) {
    const bool nested = GENERATE(false, true);
    Scene<TestType> scene;
    run(scene.other, "CREATE OR REPLACE TABLE m (n INT) ENGINE = MyISAM");
    const bool overwritten = nested and std::is_same_v<TestType, Plain>;  // by the answer to RELEASE
    const auto rolled_back = [&] {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(2);
        run(scene.handle, "INSERT INTO m VALUES (1)");
        tx.rollback();
        CHECK(mysql_warning_count(scene.handle) == (overwritten ? 0 : 1));
    };
    if (nested)
        scene.db.atomic([&] {
            scene.row(1);
            rolled_back();
        });
    else
        rolled_back();
    CHECK(scene.hooks == (nested ? "1" : ""));
    CHECK(scene.truth() == (nested ? "1" : ""));
    CHECK(values(scene.other, "SELECT n FROM m") == "1");
    CHECK(scene.goes_on());
}

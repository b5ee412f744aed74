// SPDX-License-Identifier: MIT
#pragma once

// What both drivers of PostgreSQL must do alike, for a PostgresScene and a PqxxScene.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/retry.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace support {

// ---- Ways to end a transaction, and what is none

/// Strings of statements, one after the other, that end a transaction which has row 1. Some of them fail.
struct SqlEnder {
    std::vector<std::string> strings;
    txhooks::Outcome fate;  // of the transaction
    std::string truth;      // the rows that stay

    std::string name() const { return '[' + join(strings, "][") + ']'; }
};

/// What they need.
inline constexpr const char* enders_tables =
    "CREATE TABLE later (n int PRIMARY KEY, m int REFERENCES later DEFERRABLE INITIALLY DEFERRED DEFAULT 99);"
    "CREATE PROCEDURE piecewise(n int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (n); COMMIT; "
    "INSERT INTO t VALUES (n + 1); COMMIT; PERFORM 1 / 0; END $$";

inline const std::vector<SqlEnder>& sql_enders() {
    using enum txhooks::Outcome;
    static const std::vector<SqlEnder> all{
        {{"COMMIT"}, committed, "1"},
        {{"END"}, committed, "1"},
        {{"ROLLBACK"}, rolled_back, ""},
        {{"ABORT"}, rolled_back, ""},
        {{"COMMIT AND CHAIN"}, committed, "1"},
        {{"ROLLBACK AND CHAIN"}, rolled_back, ""},
        {{"COMMIT; BEGIN"}, committed, "1"},
        {{"COMMIT", "START TRANSACTION"}, committed, "1"},
        {{"ROLLBACK; BEGIN"}, rolled_back, ""},
        {{"ROLLBACK", "BEGIN"}, rolled_back, ""},
        {{"ROLLBACK; BEGIN; INSERT INTO t VALUES (2)"}, rolled_back, ""},
        {{"INSERT INTO t VALUES (2); COMMIT AND CHAIN; INSERT INTO t VALUES (3)"}, committed, "1,2"},
        {{"INSERT INTO t VALUES (2); ROLLBACK AND CHAIN; INSERT INTO t VALUES (3)"}, rolled_back, ""},
        {{"INSERT INTO t VALUES (2); COMMIT; SELECT 1 / 0"}, committed, "1,2"},
        {{"ROLLBACK; BEGIN; SELECT 1 / 0"}, rolled_back, ""},
        {{"COMMIT; BEGIN; SELECT 1 / 0"}, committed, "1"},
        {{"ROLLBACK", "INSERT INTO t VALUES (2)"}, rolled_back, "2"},
        {{"COMMIT; BEGIN; ROLLBACK; BEGIN"}, committed, "1"},
        {{"SELECT 1 / 0", "COMMIT"}, rolled_back, ""},
        {{"SELECT 1 / 0", "ROLLBACK; BEGIN"}, rolled_back, ""},
        {{"SELECT 1 / 0", "ROLLBACK AND CHAIN"}, rolled_back, ""},
        {{"INSERT INTO later VALUES (13)", "COMMIT"}, rolled_back, ""},
        {{"INSERT INTO later VALUES (13)", "COMMIT", "BEGIN"}, rolled_back, ""},
        {{"INSERT INTO later VALUES (13); COMMIT", "INSERT INTO t VALUES (2)", "BEGIN"}, rolled_back, "2"},
        {{"SAVEPOINT s", "COMMIT AND CHAIN"}, committed, "1"},
        {{"SAVEPOINT s", "ROLLBACK"}, rolled_back, ""},
        {{"SAVEPOINT s; ROLLBACK; BEGIN"}, unknown, ""},
        {{"SAVEPOINT s", "ROLLBACK", "START TRANSACTION"}, unknown, ""},
        {{"SAVEPOINT s; ROLLBACK TO s; COMMIT; BEGIN"}, unknown, "1"},
        {{"SAVEPOINT s; ROLLBACK TO s; RELEASE s; COMMIT; BEGIN"}, committed, "1"},
        {{"SAVEPOINT s; RELEASE s", "ROLLBACK AND CHAIN"}, rolled_back, ""},
        {{"SAVEPOINT s; ROLLBACK TO s; RELEASE s", "ROLLBACK AND CHAIN"}, rolled_back, ""},
        {{"PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"}, unknown, "1"},
        {{"PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'", "BEGIN"}, unknown, ""},
        {{"SELECT 1 / 0", "PREPARE TRANSACTION 'p'"}, rolled_back, ""},
        {{"COMMIT", "CALL piecewise(10)"}, committed, "1,10,11"},
    };
    return all;
}

/// What ends no transaction, and leaves none failed.
inline const std::vector<std::vector<std::string>>& harmless_sql() {
    static const std::vector<std::vector<std::string>> all{
        {"SAVEPOINT s; ROLLBACK TO s; RELEASE s"},
        {"SAVEPOINT s; RELEASE s"},
        {"SAVEPOINT s", "INSERT INTO t VALUES (5)", "ROLLBACK TO s"},
        {"SAVEPOINT s; INSERT INTO t VALUES (5); ROLLBACK TO s"},
        {"SAVEPOINT s; SAVEPOINT r", "SELECT 1 / 0", "ROLLBACK TO r", "ROLLBACK TO s", "RELEASE s"},
        {"SAVEPOINT s", "SELECT no_such_function()", "ROLLBACK TO s"},
        {"SAVEPOINT s; SAVEPOINT s; ROLLBACK TO s; RELEASE s; ROLLBACK TO s"},
        {"BEGIN"},
        {"START TRANSACTION"},
        {"SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = 0"},
        {"CREATE TABLE u (n int); TRUNCATE u; DROP TABLE u"},
        {"DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN END $$"},
        {"DECLARE c CURSOR FOR SELECT 1; FETCH c; CLOSE c"},
        {"LISTEN a; NOTIFY a; UNLISTEN a; DISCARD PLANS"},
        {"PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p"},
        {""},
    };
    return all;
}

template <class Scene>
void check_harmless_sql() {
    const auto strings = GENERATE(from_range(harmless_sql()));
    CAPTURE(strings.front());
    Scene scene;
    typename Scene::Tx tx{scene.db};
    scene.row(1);
    for (const std::string& sql : strings) scene.attempt(sql);
    scene.row(2);
    {
        typename Scene::Tx inner{scene.db};
        scene.row(3);
        for (const std::string& sql : strings) scene.attempt(sql);
        inner.commit();
    }
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2,3");
    CHECK(scene.truth() == "1,2,3");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

template <class Scene>
void check_prepared_transaction() {
    enum class Way { commit, rollback, nested, destructor };
    const Way way = GENERATE(Way::commit, Way::rollback, Way::nested, Way::destructor);
    const bool commits = GENERATE(true, false);
    const bool begins_another = GENERATE(true, false);
    CAPTURE(static_cast<int>(way), commits, begins_another);
    Scene scene;
    const auto prepare = [&] {
        scene.run("PREPARE TRANSACTION 'doubt'");
        if (begins_another) scene.run("BEGIN; INSERT INTO t VALUES (2)");
    };
    {
        typename Scene::Tx tx{scene.db};
        scene.row(1);
        if (way == Way::nested) {
            typename Scene::Tx inner{scene.db};
            prepare();
            CHECK(without_cause(ending([&] { inner.commit(); })) == "TransactionLost unknown");
        } else {
            prepare();
        }
        if (way == Way::rollback) CHECK(without_cause(ending([&] { tx.rollback(); })) == "TransactionLost unknown");
        if (way == Way::commit or way == Way::nested)
            CHECK(without_cause(ending([&] { tx.commit(); })) == "TransactionLost unknown");
    }
    CHECK(scene.sink.lines().size() == (way == Way::destructor ? 2 : 0));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(run(scene.others, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'doubt'") == "1");
    run(scene.others, commits ? "COMMIT PREPARED 'doubt'" : "ROLLBACK PREPARED 'doubt'");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (commits ? "1" : ""));
    CHECK(scene.goes_on());
}

// ---- COMMIT

template <class Scene>
void check_swallowed_error() {
    struct Row {
        const char* sql;
        const char* state;
    };
    const auto row = GENERATE(values<Row>({{"INSERT INTO t VALUES (1)", "23505"}, {"SELECT 1 / 0", "22012"}}));
    Scene scene;
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  CHECK(scene.attempt(row.sql) == row.state);
                  scene.hook(2);
              });
          }) == "TransactionAborted rolled_back");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

template <class Scene>
void check_commit_that_fails() {
    Scene scene;
    scene.run(
        "CREATE TABLE later (n int UNIQUE DEFERRABLE INITIALLY DEFERRED, m int REFERENCES t DEFERRABLE INITIALLY "
        "DEFERRED)");
    struct Row {
        std::string sql;
        std::string state;
    };
    const auto row = GENERATE(values<Row>({
        {"INSERT INTO later VALUES (1, 13)", "23503"},
        {"INSERT INTO later VALUES (1), (1)", "23505"},
        {"INSERT INTO later VALUES (1), (1); CREATE TABLE u (n int)", "23505"},
    }));
    SECTION("by a guard") {
        typename Scene::Tx tx{scene.db};
        scene.row(1);
        scene.run(row.sql);
        CHECK(ending([&] { tx.commit(); }) == Scene::error(row.state));
        CHECK_FALSE(tx.active());
    }
    SECTION("by a function") {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      scene.db.atomic([&] { scene.run(row.sql); });
                  });
              }) == Scene::error(row.state));
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

template <class Scene>
void check_two_serializable_blocks() {
    Scene one;
    typename Scene::Session two{one};
    const typename Scene::Db::Options serializable{.begin = {.isolation = txhooks::postgres::Isolation::serializable}};
    bool second_hook = false;
    {
        typename Scene::Tx first{one.db, serializable};
        typename Scene::Tx second{two.db, serializable};
        one.run("SELECT count(*) FROM t");
        two.run("SELECT count(*) FROM t");
        one.row(1);
        two.run("INSERT INTO t VALUES (2)");
        two.db.on_commit([&] { second_hook = true; });
        CHECK(ending([&] { return first.commit(); }) == "committed");
        CHECK(ending([&] { second.commit(); }) == Scene::error("40001"));
        CHECK_FALSE(second.active());
    }
    CHECK(one.hooks == "1");
    CHECK_FALSE(second_hook);
    CHECK(one.truth() == "1");
    CHECK(two.db.usable());
    CHECK(one.goes_on());
}

template <class Scene>
void check_procedure_in_a_block() {
    const char* const call = GENERATE("CALL twice(10)", "DO $$ BEGIN INSERT INTO t VALUES (10); COMMIT; END $$",
                                      "DO $$ BEGIN INSERT INTO t VALUES (10); ROLLBACK; END $$");
    Scene scene;
    scene.run(
        "CREATE PROCEDURE twice(n int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (n); COMMIT; INSERT INTO t "
        "VALUES (n + 1); END $$");
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  CHECK(scene.attempt(call) == "2D000");
              });
          }) == "TransactionAborted rolled_back");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

template <class Scene>
void check_procedure_outside_a_block() {
    Scene scene;
    scene.run(
        "CREATE PROCEDURE piecewise(n int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (n); COMMIT; INSERT INTO "
        "t VALUES (n + 1); PERFORM 1 / 0; END $$");
    CHECK(scene.attempt("CALL piecewise(10)") == "22012");
    CHECK(scene.truth() == "10");
    scene.hook(1);
    CHECK(scene.hooks == "1");
    scene.db.atomic([&] {
        scene.row(2);
        scene.db.on_commit([&] { CHECK(scene.attempt("CALL piecewise(20)") == "22012"); });
    });
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "2,10,20");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

/// A trigger that does `what` at COMMIT, after a row has been put into `late`.
inline std::string at_commit(const std::string& what) {
    return "CREATE TABLE late (n int); CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + what +
           "; RETURN NULL; END $$; CREATE CONSTRAINT TRIGGER act AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED "
           "FOR EACH ROW EXECUTE FUNCTION act()";
}

/// Signals the session `pid` from another one ("cancel", "terminate") when it waits for `event`.
inline std::thread signal_when(PGconn* others, const std::string& event, const std::string& how, int pid) {
    return std::thread{[=] {
        const std::string id = std::to_string(pid);
        const std::string asked =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = '" + event + "' AND pid = " + id;
        while (run(others, asked) != "1") std::this_thread::sleep_for(std::chrono::milliseconds{2});
        run(others, "SELECT pg_" + how + "_backend(" + id + ")");
    }};
}

/// How a block ends whose session meets `how` while it is in its COMMIT.
template <class Scene>
std::string commit_that_meets(Scene& scene, const std::string& how) {
    scene.run(at_commit("PERFORM pg_sleep(30)"));
    std::thread other;
    const std::string told = ending([&] {
        scene.db.atomic([&] {
            scene.row(1);
            scene.run("INSERT INTO late VALUES (1)");
            other = signal_when(scene.others, "PgSleep", how, scene.pid());
        });
    });
    other.join();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    return told;
}

template <class Scene>
void check_cancelled_commit() {
    Scene scene;
    CHECK(commit_that_meets(scene, "cancel") == Scene::error("57014"));
    CHECK(scene.goes_on());
}

/// Returns what is told of it.
template <class Scene>
std::string check_session_ended_in_commit() {
    Scene scene;
    const std::string told = commit_that_meets(scene, "terminate");
    CHECK(without_cause(told) == "CommitUnknown unknown");
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    scene.reconnect();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
    return told;
}

// ---- What it costs

template <class Scene>
void check_round_trips() {
    TcpProxy proxy{postgres_port()};
    Scene scene{"host=127.0.0.1 port=" + std::to_string(proxy.port())};
    scene.db.atomic([] {});
    std::vector<std::size_t> trips;
    const auto took = [&] { trips.push_back(proxy.round_trips()); };
    took();
    trips.clear();
    {
        typename Scene::Tx tx{scene.db};
        took();
        {
            typename Scene::Tx inner{scene.db};
            took();
            scene.hook(1);
            took();
            inner.commit();
            took();
        }
        {
            typename Scene::Tx inner{scene.db};
            took();
            inner.rollback();
            took();
        }
        tx.commit();
        took();
    }
    {
        typename Scene::Tx tx{scene.db};
        took();
        tx.rollback();
        took();
    }
    CHECK(trips == std::vector<std::size_t>{1, 1, 0, 1, 1, 1, 1, 1, 1});
}

// ---- retry()

/// A statement that fails with `state`.
inline std::string fails_with(const std::string& state) {
    return "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '" + state + "'; END $$";
}

/// Tries again at once, and notes why.
inline txhooks::RetryPolicy at_once(Log& errors) {
    return {
        .before_retry = [&errors](unsigned, const std::exception_ptr& error) { errors.push_back(name_of(error)); },
        .sleep = [](std::chrono::nanoseconds) {},
    };
}

template <class Scene>
void check_retried_deadlock() {
    Scene scene;
    scene.run("CREATE TABLE locks (n int); INSERT INTO locks VALUES (1), (2)");
    std::atomic<int> ready{0};
    struct Side {
        std::string told;
        Log errors;
        int hooks = 0;
    } sides[2];
    const auto play = [&](int n) {
        Side& side = sides[n];
        typename Scene::Session session{scene};
        session.run("SET deadlock_timeout = '20ms'");
        side.told = ending([&] {
            txhooks::retry(session.db, at_once(side.errors), [&] {
                session.db.on_commit([&side] { ++side.hooks; });
                session.execute("INSERT INTO t VALUES (" + std::to_string(n) + ")");
                session.execute("UPDATE locks SET n = n WHERE n = " + std::to_string(1 + n));
                ++ready;
                while (ready < 2) std::this_thread::yield();
                session.execute("UPDATE locks SET n = n WHERE n = " + std::to_string(2 - n));
            });
        });
    };
    std::thread other{play, 0};
    play(1);
    other.join();
    for (const Side& side : sides) {
        CHECK(side.told == "returned");
        CHECK(side.hooks == 1);
    }
    Log errors = sides[0].errors;
    errors.insert(errors.end(), sides[1].errors.begin(), sides[1].errors.end());
    REQUIRE_FALSE(errors.empty());
    for (const std::string& error : errors) CHECK(error == Scene::error("40P01"));
    CHECK(scene.truth() == "0,1");
}

template <class Scene>
void check_what_is_transient() {
    struct Row {
        const char* state;
        std::size_t retries;
    };
    const auto row = GENERATE(values<Row>({
        {"40001", 4},
        {"40P01", 4},
        {"40003", 0},
        {"23505", 0},
        {"55P03", 0},
        {"57014", 0},
        {"57P01", 0},
        {"08006", 0},
    }));
    CAPTURE(row.state);
    Scene scene;
    Log errors;
    CHECK(ending([&] {
              txhooks::retry(scene.db, at_once(errors), [&] {
                  scene.row(1);
                  scene.execute(fails_with(row.state));
              });
          }) == Scene::error(row.state));
    CHECK(errors.size() == row.retries);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

template <class Scene>
void check_two_threads_that_read_and_write() {
    using namespace std::chrono_literals;
    constexpr int each = 40;
    Scene scene;
    scene.run("CREATE TABLE counter AS SELECT 0 AS n");
    struct Side {
        std::string told;
        int hooks = 0;
    } sides[2];
    const auto work = [&](Side& side) {
        typename Scene::Session session{scene};
        side.told = ending([&] {
            for (int i = 0; i != each; ++i)
                txhooks::retry(session.db, {.attempts = 1'000'000, .first_delay = 10us, .longest_delay = 2ms},
                               {.begin = {.isolation = txhooks::postgres::Isolation::serializable}}, [&] {
                                   session.db.on_commit([&side] { ++side.hooks; });
                                   const std::string n = session.run("SELECT n FROM counter");
                                   session.execute("UPDATE counter SET n = " + n + " + 1");
                               });
        });
    };
    std::thread other{[&] { work(sides[0]); }};
    work(sides[1]);
    other.join();
    for (const Side& side : sides) {
        CHECK(side.told == "returned");
        CHECK(side.hooks == each);
    }
    CHECK(scene.run("SELECT n FROM counter") == std::to_string(2 * each));
}

}  // namespace support

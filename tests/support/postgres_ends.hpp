// SPDX-License-Identifier: MIT
#pragma once

// How blocks with hooks of every kind end on PostgreSQL, for a PostgresScene and a PqxxScene. The rows are those of the
// table in tests/README.md.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/retry.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// Whether the driver shows how each statement ended. Else the end of a block is the first to see that.
template <class Scene>
bool shows_statements() {
    return Scene::loss(txhooks::Outcome::committed) == "TransactionLost committed";
}

/// Another session by the same connection, without a word to the block.
template <class Scene>
void reconnect_behind_its_back(Scene& scene) {
    if constexpr (requires { scene.handle; })
        PQreset(scene.handle);
    else
        scene.db.disconnect();
}

template <class Scene>
void end_session(Scene& scene) {
    const std::string id = std::to_string(scene.pid());
    run(scene.others, "SELECT pg_terminate_backend(" + id + ")");
    while (run(scene.others, "SELECT count(*) FROM pg_stat_activity WHERE pid = " + id) != "0")
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
}

/// A row of `later` that fails at COMMIT: 13.
inline constexpr const char* deferred_constraint =
    "CREATE TABLE later (n int PRIMARY KEY, m int REFERENCES later DEFERRABLE INITIALLY DEFERRED DEFAULT 99)";

/// The ends that need nobody else.
template <class Scene>
std::vector<End<Scene>> postgres_ends() {
    using enum txhooks::Outcome;
    const bool shown = shows_statements<Scene>();
    const auto sql = [](std::vector<std::string> strings) {
        return [strings = std::move(strings)](Scene& scene) {
            for (const std::string& one : strings) scene.attempt(one);
        };
    };
    const auto lost = [&](txhooks::Outcome fate) { return Scene::loss(fate); };
    const std::string undone = shown ? "u1 r1" : "b1 u1";
    const std::string not_proven = shown ? "u1" : "b1 u1";
    return {
        {"ROLLBACK", sql({"ROLLBACK"}), lost(rolled_back), undone, ""},
        {"COMMIT", sql({"COMMIT"}), lost(committed), not_proven, "1"},
        {"ROLLBACK; BEGIN", sql({"ROLLBACK; BEGIN; INSERT INTO t VALUES (50)"}), lost(rolled_back), undone, ""},
        {"COMMIT; BEGIN", sql({"COMMIT; BEGIN; INSERT INTO t VALUES (50)"}), lost(committed), not_proven, "1"},
        {"ROLLBACK AND CHAIN", sql({"ROLLBACK AND CHAIN"}), lost(rolled_back), undone, ""},
        {"COMMIT AND CHAIN", sql({"COMMIT AND CHAIN"}), lost(committed), not_proven, "1"},
        {"PREPARE TRANSACTION, then committed", sql({"PREPARE TRANSACTION 'ends'", "COMMIT PREPARED 'ends'"}),
         lost(unknown), not_proven, "1"},
        {"PREPARE TRANSACTION, then rolled back", sql({"PREPARE TRANSACTION 'ends'", "ROLLBACK PREPARED 'ends'"}),
         lost(unknown), not_proven, ""},
        {"a raw COMMIT that fails", sql({"INSERT INTO later VALUES (13)", "COMMIT"}), lost(rolled_back), undone, ""},
        {"a raw COMMIT of a failed transaction", sql({"SELECT 1 / 0", "COMMIT"}), lost(rolled_back), undone, ""},
        {"the session is ended, and a statement meets that",
         [](Scene& scene) {
             end_session(scene);
             scene.attempt("SELECT 1");
         },
         lost(rolled_back), shown ? "u1 r1" : "u1", ""},
        {"a reconnect", [](Scene& scene) { reconnect_behind_its_back(scene); }, lost(unknown), "u1", ""},
        {"the session is ended, and nobody has noticed", [](Scene& scene) { end_session(scene); },
         "CommitUnknown unknown", "b1 u1", ""},
        {"a statement has failed, and nobody looked", sql({"SELECT 1 / 0"}), "TransactionAborted rolled_back",
         shown ? "u1 r1" : "b1 u1 r1", ""},
        {"a deferred constraint", sql({"INSERT INTO later VALUES (13)"}), Scene::error("23503"), "b1 u1 r1", ""},
    };
}

template <class Scene>
void check_postgres_ends() {
    for (const End<Scene>& end : postgres_ends<Scene>()) {
        Scene scene;
        scene.run(deferred_constraint);
        check_end(scene, end);
        if (not scene.db.usable()) scene.reconnect();
        CHECK(scene.goes_on());
        if (end.told.rfind("TransactionLost", 0) != 0) continue;
        scene.run("DELETE FROM t");
        check_destroyed(scene, end);
        if (not scene.db.usable()) scene.reconnect();
        CHECK(scene.goes_on());
    }
}

// ---- What somebody else does

template <class Scene>
void check_ends_of_conflicts() {
    using Options = typename Scene::Db::Options;
    Scene scene;
    Kinds<Scene> kinds{scene};
    typename Scene::Session other{scene};
    const auto block = [&](const Options& options, auto act) {
        return ending([&] {
            scene.db.atomic(options, [&] {
                kinds.row(1);
                act();
            });
        });
    };
    SECTION("the victim of a deadlock") {
        scene.run("CREATE TABLE locks (n int); INSERT INTO locks VALUES (1), (2); SET deadlock_timeout = '10ms'");
        other.run("SET deadlock_timeout = '1h'; BEGIN; UPDATE locks SET n = n WHERE n = 1");
        std::thread waiting;
        CHECK(block({}, [&] {
                  scene.run("UPDATE locks SET n = n WHERE n = 2");
                  waiting = std::thread{[&] { other.run("UPDATE locks SET n = n WHERE n = 2"); }};
                  while (run(scene.others, "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0")
                      std::this_thread::sleep_for(std::chrono::milliseconds{1});
                  scene.execute("UPDATE locks SET n = n WHERE n = 1");
              }) == Scene::error("40P01"));
        waiting.join();
        other.run("ROLLBACK");
        CHECK(kinds.ran() == "u1 r1");
    }
    SECTION("a COMMIT that fails to serialize") {
        CHECK(block({.begin = {.isolation = txhooks::postgres::Isolation::serializable}}, [&] {
                  other.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t");
                  scene.run("SELECT count(*) FROM t");
                  other.run("INSERT INTO t VALUES (2); COMMIT; DELETE FROM t WHERE n = 2");
              }) == Scene::error("40001"));
        CHECK(kinds.ran() == "b1 u1 r1");
    }
    CHECK(scene.truth().empty());
    kinds.check_promise();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

/// Cancelled or ended while COMMIT is at work.
template <class Scene>
void check_ends_of_signals() {
    const std::string how = GENERATE("cancel", "terminate");
    CAPTURE(how);
    Scene scene;
    scene.run(at_commit("PERFORM pg_sleep(30)"));
    Kinds<Scene> kinds{scene};
    std::thread other;
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  scene.run("INSERT INTO late VALUES (1)");
                  other = signal_when(scene.others, "PgSleep", how, scene.pid());
              });
          })) == (how == "cancel" ? Scene::error("57014") : "CommitUnknown unknown"));
    other.join();
    CHECK(kinds.ran() == (how == "cancel" ? "b1 u1 r1" : "b1 u1"));
    CHECK(scene.truth().empty());
    kinds.check_promise();
    if (not scene.db.usable()) scene.reconnect();
    CHECK(scene.goes_on());
}

/// The connection is lost while COMMIT, ROLLBACK or ROLLBACK TO is under way.
template <class Scene>
void check_ends_of_cuts() {
    enum class Verb { commit, rollback, rollback_to };
    const Verb verb = GENERATE(Verb::commit, Verb::rollback, Verb::rollback_to);
    const Cut how = GENERATE(Cut::request, Cut::reply);
    CAPTURE(static_cast<int>(verb), static_cast<int>(how));
    TcpProxy proxy{postgres_port()};
    Scene scene{"host=127.0.0.1 port=" + std::to_string(proxy.port())};
    Kinds<Scene> kinds{scene};
    std::string told;
    {
        typename Scene::Tx tx{scene.db};
        kinds.row(1);
        typename Scene::Tx inner{scene.db};
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
    if (verb == Verb::rollback) CHECK(told != "returned");
    if (verb == Verb::rollback_to) CHECK(told == "TransactionLost unknown");
    CHECK(kinds.ran() == (verb == Verb::commit ? "b1 b2 u2 u1" : "u2 u1"));
    CHECK(scene.truth() == (verb == Verb::commit and how == Cut::reply ? "1,2" : ""));
    kinds.check_promise();
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
}

// ---- Before COMMIT

inline constexpr auto execute_on_postgres = [](auto& scene, const std::string& sql) { scene.execute(sql); };

template <class Scene>
void check_ends_before_commit_on_postgres() {
    using enum txhooks::Outcome;
    const bool shown = shows_statements<Scene>();
    const auto sql = [](const char* text) { return [text](Scene& scene) { scene.attempt(text); }; };
    SECTION("a raw COMMIT") {
        check_end_before_commit<Scene>(
            {"", sql("COMMIT"), Scene::loss(committed), shown ? "b1 u2 u1" : "b1 b2 u2 u1", "1"});
    }
    SECTION("a raw ROLLBACK") {
        check_end_before_commit<Scene>(
            {"", sql("ROLLBACK"), Scene::loss(rolled_back), shown ? "b1 u2 r2 u1 r1" : "b1 b2 u2 u1", ""});
    }
    SECTION("a statement that fails, and nobody looked") {
        check_end_before_commit<Scene>({"", sql("SELECT 1 / 0"), "TransactionAborted rolled_back",
                                        shown ? "b1 u2 r2 u1 r1" : "b1 b2 u2 r2 u1 r1", ""});
    }
}

template <class Scene>
void check_constraint_before_commit() {
    Scene scene;
    scene.run(deferred_constraint);
    Kinds<Scene> kinds{scene};
    typename Scene::Tx tx{scene.db};
    kinds.row(1);
    scene.db.before_commit([&] { scene.run("INSERT INTO later VALUES (13)"); });
    CHECK(ending([&] { return tx.commit(); }) == Scene::error("23503"));
    CHECK_FALSE(tx.active());
    CHECK(kinds.ran() == "b1 u1 r1");
    CHECK(scene.truth().empty());
    kinds.check_promise();
    CHECK(scene.goes_on());
}

/// Two that read what the other writes: one of them is done again, with what stands before its COMMIT.
template <class Scene>
void check_serialization_before_commit() {
    Scene scene;
    typename Scene::Session other{scene};
    Kinds<Scene> kinds{scene};
    int calls = 0;
    txhooks::retry(scene.db, noting(kinds), {.begin = {.isolation = txhooks::postgres::Isolation::serializable}}, [&] {
        kinds.row(++calls);
        scene.db.before_commit([&] {
            scene.run("SELECT count(*) FROM t");
            if (calls == 1) other.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t");
            if (calls == 1) other.run("INSERT INTO t VALUES (7); COMMIT");
        });
    });
    CHECK(kinds.ran() == "b1 u1 r1 again b2 c2");
    CHECK(scene.truth() == "2,7");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

template <class Scene>
void check_options_before_commit() {
    using txhooks::postgres::Isolation;
    Scene scene;
    scene.run("INSERT INTO t VALUES (7)");
    Kinds<Scene> kinds{scene};
    std::string seen;
    const typename Scene::Db::Options options{.begin = {.isolation = Isolation::serializable, .read_only = true}};
    scene.db.atomic(options, [&] {
        kinds.hooks(7);
        scene.db.before_commit(
            [&] { seen = scene.run("SELECT current_setting('transaction_isolation') || max(n) FROM t"); });
    });
    CHECK(seen == "serializable7");
    CHECK(kinds.ran() == "b7 c7");
    CHECK(ending([&] {
              scene.db.atomic(options, [&] {
                  kinds.hooks(8);
                  scene.db.before_commit([&] { scene.execute("INSERT INTO t VALUES (8)"); });
              });
          }) == Scene::error("25006"));
    CHECK(kinds.ran() == "b7 c7 b8 u8 r8");
    CHECK(scene.truth() == "7");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

}  // namespace support

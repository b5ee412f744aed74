// SPDX-License-Identifier: MIT
//
// What COMMIT can come to on a live server: hooks run if and only if the rows are there.

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/doubt.hpp>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <tuple>

using namespace support;
using txhooks::Atomic;
using txhooks::Outcome;

namespace {

// Signals the session of the scene from another one: pg_cancel_backend, pg_terminate_backend.
template <class Scene>
void signal(Scene& scene, const std::string& how, int pid) {
    run(scene.others, "SELECT pg_" + how + "_backend(" + std::to_string(pid) + ")");
}

void wait_for_end(PGconn* others, int pid) {
    while (run(others, "SELECT count(*) FROM pg_stat_activity WHERE pid = " + std::to_string(pid)) != "0")
        std::this_thread::yield();
}

}  // namespace

// ---- COMMIT is answered

TEMPLATE_LIST_TEST_CASE("libpq commit: a block in which an error was swallowed is rolled back", "[S34][S45][P01]",
                        EveryWitness) {
    check_swallowed_error<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a COMMIT answered by ROLLBACK has rolled back", "[S45][P01]", EveryWitness) {
    PostgresScene<TestType> scene;
    auto& adapter = scene.db.adapter();
    adapter.begin({});
    scene.run("INSERT INTO t VALUES (1)");
    scene.attempt("SELECT 1 / 0");
    const txhooks::CommitResult result = adapter.commit();
    CHECK(result.outcome == Outcome::rolled_back);
    if (std::is_same_v<TestType, EventWitness>)
        CHECK_FALSE(result.error);
    else  // the check before it fails first
        CHECK(name_of(result.error) == "EngineError 25P02 rolled_back");
    CHECK_FALSE(result.lost);
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a COMMIT that fails has rolled back, and the connection goes on",
                        "[S46][P02][P03]", EveryWitness) {
    check_commit_that_fails<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq commit: of two serializable blocks that cannot both be, one hook runs", "[S46][P03]",
                        EveryWitness) {
    check_two_serializable_blocks<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq commit: of two blocks in a deadlock one is committed, and its hook alone runs",
                        "[S34][P03]", EveryWitness) {
    const bool swallows = GENERATE(true, false);
    PostgresScene<TestType> one{};
    one.run("CREATE TABLE locks (n int); INSERT INTO locks VALUES (1), (2)");
    std::atomic<int> ready{0};
    struct Side {
        std::string told;
        bool hook = false;
    } sides[2];
    const auto play = [&](int side) {
        PostgresHandle handle{one.server()};
        run(handle, "SET deadlock_timeout = '20ms'");
        txhooks::HookedConnection<PGconn*, TestType> db{static_cast<PGconn*>(handle)};
        const auto lock = [&](int n) {
            const std::string state = attempt(handle, "UPDATE locks SET n = n WHERE n = " + std::to_string(n));
            if (not state.empty() and not swallows) throw std::runtime_error{state};
        };
        sides[side].told = ending([&] {
            db.atomic([&] {
                run(handle, "INSERT INTO t VALUES (" + std::to_string(side) + ")");
                db.on_commit([&sides, side] { sides[side].hook = true; });
                lock(1 + side);
                ++ready;
                while (ready < 2) std::this_thread::yield();
                lock(2 - side);
            });
        });
    };
    std::thread other{play, 0};
    play(1);
    other.join();
    const std::string victim = swallows ? "TransactionAborted rolled_back" : "40P01";
    const int winner = sides[0].told == "returned" ? 0 : 1;
    CHECK(sides[winner].told == "returned");
    CHECK(sides[1 - winner].told == victim);
    CHECK(sides[winner].hook);
    CHECK_FALSE(sides[1 - winner].hook);
    CHECK(one.truth() == std::to_string(winner));
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a procedure that commits cannot commit a block", "[S34][P10]", EveryWitness) {
    check_procedure_in_a_block<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq commit: outside a block a procedure commits piece by piece, and hooks run at once",
                        "[S1][S13][P10]", EveryWitness) {
    check_procedure_outside_a_block<PostgresScene<TestType>>();
}

// ---- Something is still going on

TEMPLATE_LIST_TEST_CASE("libpq commit: a block is not committed while something is unfinished", "[S47][P11][P19]",
                        EveryWitness) {
    enum class What { copy_in, copy_out, unread, pipeline };
    const What what = GENERATE(What::copy_in, What::copy_out, What::unread, What::pipeline);
    CAPTURE(static_cast<int>(what));
    PostgresScene<TestType> scene;
    const auto start = [&] {
        if (what == What::copy_in) PQclear(PQexec(scene.handle, "COPY t FROM STDIN"));
        if (what == What::copy_out) PQclear(PQexec(scene.handle, "COPY (SELECT generate_series(1, 20000)) TO STDOUT"));
        if (what == What::unread) PQsendQuery(scene.handle, "INSERT INTO t VALUES (2); SELECT generate_series(1, 9)");
        if (what == What::pipeline) {
            PQenterPipelineMode(scene.handle);
            PQsendQueryParams(scene.handle, "INSERT INTO t VALUES (2)", 0, nullptr, nullptr, nullptr, nullptr, 0);
            PQsendQueryParams(scene.handle, "SELECT 1", 0, nullptr, nullptr, nullptr, nullptr, 0);
        }
    };
    const auto finish = [&] {
        if (what == What::copy_in) {
            PQputCopyData(scene.handle, "2\n", 2);
            PQputCopyEnd(scene.handle, nullptr);
        }
        char* line = nullptr;
        while (what == What::copy_out and PQgetCopyData(scene.handle, &line, 0) > 0) PQfreemem(line);
        if (what == What::pipeline) {
            PQpipelineSync(scene.handle);
            while (PQexitPipelineMode(scene.handle) == 0) PQclear(PQgetResult(scene.handle));
        }
        while (PGresult* const result = PQgetResult(scene.handle)) PQclear(result);
    };
    const std::string rows = what == What::copy_out ? "1" : "1,2";
    SECTION("and is, once that is finished") {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(1);
        start();
        CHECK(ending([&] { tx.commit(); }) == "UsageError");
        CHECK(ending([&] { typename PostgresScene<TestType>::Tx inner{scene.db}; }) == "UsageError");
        scene.hook(2);
        CHECK(tx.active());
        finish();
        CHECK(ending([&] { return tx.commit(); }) == "committed");
        CHECK(scene.hooks == "1,2");
        CHECK(scene.truth() == rows);
    }
    SECTION("so a function is rolled back") {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      start();
                  });
              }) == "UsageError");
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
    }
    SECTION("so a nested block is rolled back, and the one around it goes on") {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      CHECK(ending([&] {
                                scene.db.atomic([&] {
                                    scene.hook(3);
                                    start();
                                });
                            }) == "UsageError");
                  });
              }) == "returned");
        CHECK(scene.hooks == "1");
        CHECK(scene.truth() == "1");
    }
    SECTION("nor opened") {
        start();
        CHECK(ending([&] { scene.hook(1); }) == "UsageError");
        CHECK(ending([&] { typename PostgresScene<TestType>::Tx tx{scene.db}; }) == "UsageError");
        finish();
        CHECK(scene.hooks.empty());
    }
    CHECK(PQpipelineStatus(scene.handle) == PQ_PIPELINE_OFF);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a pipeline in which a statement failed is rolled back", "[S34][P19]",
                        EveryWitness) {
    PostgresScene<TestType> scene;
    const bool leaves = GENERATE(true, false);
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  PQenterPipelineMode(scene.handle);
                  for (const char* sql : {"INSERT INTO t VALUES (2)", "SELECT 1 / 0", "COMMIT"})
                      PQsendQueryParams(scene.handle, sql, 0, nullptr, nullptr, nullptr, nullptr, 0);
                  PQpipelineSync(scene.handle);
                  while (leaves and PQexitPipelineMode(scene.handle) == 0) PQclear(PQgetResult(scene.handle));
              });
          })) == (leaves ? "TransactionAborted rolled_back" : "UsageError"));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

// ---- Cancelled and killed

TEMPLATE_LIST_TEST_CASE("libpq commit: a COMMIT that is cancelled has rolled back", "[S46][P15]", EveryWitness) {
    check_cancelled_commit<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a statement timeout does not end a COMMIT", "[S44][P15]", EveryWitness) {
    PostgresScene<TestType> scene;
    scene.run(at_commit("PERFORM pg_sleep(0.2)"));
    scene.run("SET statement_timeout = '50ms'");
    scene.db.atomic([&] {
        scene.row(1);
        scene.run("INSERT INTO late VALUES (1)");
    });
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    scene.run("SET statement_timeout = 0");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a session that is ended during COMMIT leaves it in doubt", "[S48][P04]",
                        EveryWitness) {
    CHECK(check_session_ended_in_commit<PostgresScene<TestType>>() ==
          "CommitUnknown unknown <- EngineError 57P01 unknown");
}

// It may be seen that the server closed the connection before it is seen why. The first is what is seen then.
TEMPLATE_LIST_TEST_CASE("libpq commit: a session that was ended before COMMIT leaves it in doubt", "[S48][P04][P07]",
                        EveryWitness) {
    PostgresScene<TestType> scene;
    const int pid = scene.pid();
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    signal(scene, "terminate", pid);
    wait_for_end(scene.others, pid);
    scene.hook(2);  // nothing shows it yet
    CHECK_THAT(ending([&] { tx.commit(); }),
               Catch::Matchers::Equals("CommitUnknown unknown <- EngineError without SQLSTATE unknown") ||
                   Catch::Matchers::Equals("CommitUnknown unknown <- EngineError 57P01 unknown"));
    CHECK_FALSE(tx.active());
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(ending([&] { typename PostgresScene<TestType>::Tx again{scene.db}; }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    PQreset(scene.handle);
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    scene.db.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a session that was idle for too long has not read the COMMIT",
                        "[S46][S48][P07][doubt]", EveryWitness) {
    const bool resolves = GENERATE(false, true);
    PostgresScene<TestType> scene;
    scene.run(marker_table);
    const int pid = scene.pid();
    txhooks::Doubt doubt;
    typename PostgresScene<TestType>::Tx tx{scene.db, {.resolve = resolves ? &doubt : nullptr}};
    scene.row(1);
    scene.run("SET LOCAL idle_in_transaction_session_timeout = 1");
    wait_for_end(scene.others, pid);
    const std::string told = ending([&] { tx.commit(); });
    CHECK_THAT(told, Catch::Matchers::Equals("CommitUnknown unknown <- EngineError without SQLSTATE unknown") ||
                         Catch::Matchers::Equals("EngineError 25P03 rolled_back"));
    CHECK_FALSE(tx.active());
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(doubt.in_doubt() == (resolves and told != "EngineError 25P03 rolled_back"));
    doubt.discard();
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    scene.reconnect();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq commit: a session whose end a statement has met is lost and rolled back",
                        "[S50][S49][P04][P07]", EveryWitness) {
    PostgresScene<TestType> scene;
    signal(scene, "terminate", PQbackendPID(scene.handle));
    PQreset(scene.handle);
    const bool nested = GENERATE(true, false);
    {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(1);
        {
            typename PostgresScene<TestType>::Tx inner{scene.db, {.join = not nested}};
            scene.row(2);
            signal(scene, "terminate", PQbackendPID(scene.handle));
            CHECK(scene.attempt("INSERT INTO t VALUES (3)") != "");
            CHECK(ending([&] { scene.hook(3); }) == "TransactionLost rolled_back");
            CHECK(ending([&] { inner.commit(); }) == "TransactionLost rolled_back");
        }
        CHECK(ending([&] { tx.commit(); }) == "TransactionLost rolled_back");
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(ending([&] { scene.hook(4); }) == "ConnectionBroken");
    PQreset(scene.handle);
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq commit: ends of sessions that race with COMMIT run no hook without its row",
                        "[S48][P04][P15]", EveryWitness) {
    const std::string how = GENERATE("terminate", "cancel");
    PostgresScene<TestType> scene;
    scene.run(at_commit("PERFORM pg_sleep(0.0004)"));
    std::atomic<int> target{0};  // the session whose COMMIT is about to be sent
    std::atomic<bool> over{false};
    std::atomic<unsigned> patience{0};  // microseconds
    std::thread killer{[&] {
        while (not over) {
            const int pid = target.exchange(0);
            if (pid == 0) continue;
            const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds{patience};
            while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
            signal(scene, how, pid);
        }
    }};
    PostgresHandle eyes{scene.server()};
    std::map<std::string, int> counts;
    std::string expected_hooks;
    for (int n = 1; n <= 150; ++n) {
        const std::string told = ending([&] {
            scene.db.atomic([&] {
                scene.row(n);
                scene.run("INSERT INTO late VALUES (1)");
                target = PQbackendPID(scene.handle);
            });
        });
        while (target != 0) std::this_thread::yield();
        if (PQstatus(scene.handle) == CONNECTION_OK) {  // a signal still under way must not hit the next block
            attempt(scene.handle, "SELECT pg_sleep(0.002)");
            attempt(scene.handle, "SELECT 1");
        }
        if (PQstatus(scene.handle) != CONNECTION_OK) PQreset(scene.handle);
        if (not scene.db.usable()) scene.db.reset();
        const bool there = run(eyes, "SELECT count(*) FROM t WHERE n = " + std::to_string(n)) == "1";
        ++counts[without_cause(told) + (there ? ", there" : ", not there")];
        patience = told == "returned" ? patience * 3 / 4 : patience + 100;  // stay where either may win
        if (told == "returned") expected_hooks += (expected_hooks.empty() ? "" : ",") + std::to_string(n);
    }
    over = true;
    killer.join();
    std::string report;
    for (const auto& [what, times] : counts) report += what + ": " + std::to_string(times) + "; ";
    INFO(how << ": " << report);
    CHECK(scene.hooks == expected_hooks);
    CHECK(counts["returned, not there"] == 0);
    CHECK(counts["EngineError 57014 rolled_back, there"] == 0);
    CHECK(counts["returned, there"] > 0);
    if (how == "terminate") CHECK(counts["CommitUnknown unknown, not there"] > 0);
    if (how == "cancel") CHECK(counts["EngineError 57014 rolled_back, not there"] > 0);
}

// ---- On a server of its own

namespace {

class OwnServer {
public:
    explicit OwnServer(const std::string& settings = "")
        : folder_{std::string{std::getenv("TXHOOKS_POSTGRES")} + "-own"} {
        run("start", " --watch " + std::to_string(getpid()) + settings);
        before_ = std::getenv("TXHOOKS_POSTGRES");
        setenv("TXHOOKS_POSTGRES", folder_.c_str(), 1);
    }
    OwnServer(const OwnServer&) = delete;
    OwnServer& operator=(const OwnServer&) = delete;
    ~OwnServer() {
        setenv("TXHOOKS_POSTGRES", before_.c_str(), 1);
        run("stop");
    }

    /// As after a crash: what it had not written is lost, and its sessions have ended without a word.
    void restart() { run("restart", " QUIT"); }

private:
    void run(const std::string& verb, const std::string& more = "") const {
        const std::string command = "'" TXHOOKS_SERVER_SCRIPTS "/postgres' " + verb + " '" + folder_ + '\'' + more;
        if (std::system(command.c_str()) != 0) throw std::runtime_error{command + " failed"};
    }

    std::string folder_;
    std::string before_;
};

}  // namespace

TEST_CASE("libpq commit: a server that is shut down before COMMIT leaves it in doubt", "[S48][P14][doubt]") {
    OwnServer server;
    PostgresScene<> scene;
    scene.run(marker_table);
    txhooks::Doubt doubt;
    {
        Atomic tx{scene.db, {.resolve = &doubt}};
        scene.row(1);
        server.restart();
        CHECK(without_cause(ending([&] { tx.commit(); })) == "CommitUnknown unknown");
    }
    CHECK(scene.hooks.empty());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    PQreset(scene.others);
    CHECK(scene.truth().empty());
    run(scene.others, "INSERT INTO t VALUES (50)");
    PQreset(scene.handle);
    scene.db.reset();
    CHECK(name(doubt.resolve(scene.db)) == "rolled_back");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "50");
    CHECK(scene.goes_on());
}

TEST_CASE("libpq commit: what is committed without a flush may be gone after a crash", "[S44][P14]") {
    OwnServer server{" wal_writer_delay=10s"};
    PostgresScene<> scene;
    scene.db.atomic([&] { scene.row(1); });
    bool lost = false;
    for (int n = 2; n < 7 and not lost; ++n) {  // once in ten seconds it is written after all
        scene.hooks.clear();
        scene.db.atomic([&] {
            scene.run("SET LOCAL synchronous_commit = off");
            scene.row(n);
        });
        CHECK(scene.hooks == std::to_string(n));
        const std::string before = scene.truth();
        server.restart();
        PQreset(scene.others);
        PQreset(scene.handle);
        scene.db.reset();
        lost = scene.truth() + ',' + std::to_string(n) == before;
    }
    CHECK(lost);
    CHECK(scene.goes_on());
}

TEST_CASE("libpq commit: a COMMIT that waits for a standby", "[S44][S48][P06]") {
    OwnServer server{" synchronous_standby_names=nobody synchronous_commit=local"};
    PostgresScene<> scene;
    scene.run("SET synchronous_commit = on");
    const int pid = PQbackendPID(scene.handle);
    const auto commit_and = [&](const char* how) {
        std::thread other;
        const std::string told = ending([&] {
            scene.db.atomic([&] {
                scene.row(1);
                other = signal_when(scene.others, "SyncRep", how, pid);
            });
        });
        other.join();
        return told;
    };
    SECTION("is committed here when that is cancelled") {
        CHECK(commit_and("cancel") == "returned");
        CHECK(scene.hooks == "1");
    }
    SECTION("is in doubt when the session is ended, and committed here") {
        CHECK(without_cause(commit_and("terminate")) == "CommitUnknown unknown");
        CHECK(scene.hooks.empty());
    }
    CHECK(scene.truth() == "1");
}

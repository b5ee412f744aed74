// SPDX-License-Identifier: MIT
//
// What COMMIT can come to through libpqxx: hooks run if and only if the rows are there.

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/pqxx_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include <pqxx/pqxx>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <tuple>

using namespace support;
using txhooks::Atomic;

// ---- The server says no

TEST_CASE("libpqxx commit: of two serializable blocks that cannot both be, one hook runs", "[S46][P03]") {
    check_two_serializable_blocks<PqxxScene>();
}

TEST_CASE("libpqxx commit: what fails in COMMIT is a rollback, whatever it is called", "[S46][P02]") {
    const std::string state = GENERATE("23514", "25P02", "3B001", "40P01", "57014", "XX000");
    PqxxScene scene;
    scene.run(at_commit("RAISE EXCEPTION USING ERRCODE = '" + state + "'"));
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  scene.run("INSERT INTO late VALUES (1)");
              });
          }) == state);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("libpqxx commit: an error that says it does not know leaves COMMIT in doubt", "[S48]") {
    PqxxScene scene;
    scene.run(at_commit("RAISE EXCEPTION USING ERRCODE = '40003'"));  // statement_completion_unknown
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  scene.run("INSERT INTO late VALUES (1)");
              });
          })) == "CommitUnknown unknown");
    CHECK(scene.hooks.empty());
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a COMMIT that is cancelled has rolled back", "[S46][P15]") {
    check_cancelled_commit<PqxxScene>();
}

TEST_CASE("libpqxx commit: a session that is ended in its COMMIT leaves it in doubt", "[S48][P04]") {
    check_session_ended_in_commit<PqxxScene>();
}

TEST_CASE("libpqxx commit: a session that was idle for too long takes the block along", "[S48][P07]") {
    PqxxScene scene;
    const int pid = scene.db.backendpid();
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  scene.run("SET idle_in_transaction_session_timeout = '20ms'");
                  while (run(scene.others,
                             "SELECT count(*) FROM pg_stat_activity WHERE pid = " + std::to_string(pid)) != "0")
                      std::this_thread::sleep_for(std::chrono::milliseconds{2});
              });
          })) == "CommitUnknown unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    scene.reconnect();
    CHECK(scene.goes_on());
}

// ---- A transaction that has failed

TEST_CASE("libpqxx commit: a failed transaction that is not ours is a loss", "[S50][P08]") {
    const bool committed = GENERATE(true, false);
    const bool commits = GENERATE(true, false);
    PqxxScene scene;
    {
        Atomic tx{scene.db};
        scene.row(1);
        scene.run(committed ? "COMMIT; BEGIN" : "ROLLBACK; BEGIN");
        CHECK(scene.attempt("SELECT 1 / 0") == "22012");
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(tx.commit()) : tx.rollback(); })) ==
              "TransactionLost unknown");
        CHECK_FALSE(tx.active());
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (committed ? "1" : ""));
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: in a failed transaction no block can be opened", "[S34][P09]") {
    PqxxScene scene;
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  scene.attempt("SELECT 1 / 0");
                  CHECK(ending([&] { Atomic inner{scene.db}; }) == "TransactionAborted rolled_back <- 25P02");
              });
          }) == "TransactionAborted rolled_back");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a nested block in which an error was swallowed is rolled back alone", "[S26][S34][P09]") {
    PqxxScene scene;
    scene.db.atomic([&] {
        scene.row(1);
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(2);
                      CHECK(scene.attempt("INSERT INTO t VALUES (1)") == "23505");
                  });
              }) == "TransactionAborted rolled_back <- 25P02");
        scene.row(3);
    });
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3");
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a procedure that commits cannot commit a block", "[S34][P10]") {
    check_procedure_in_a_block<PqxxScene>();
}

// ---- The transaction object

TEST_CASE("libpqxx commit: commit() and abort() of the transaction object commit nothing", "[S50][P18]") {
    const bool commits = GENERATE(true, false);
    const auto end_it = [&](pqxx::transaction_base& tx) { commits ? tx.commit() : tx.abort(); };
    PqxxScene scene;
    SECTION("of a function") {
        CHECK(ending([&] {
                  scene.db.atomic([&](pqxx::transaction_base& tx) {
                      scene.row(1);
                      end_it(tx);
                  });
              }) == "usage_error");
    }
    SECTION("of a guard") {
        Atomic tx{scene.db};
        scene.row(1);
        end_it(scene.db.adapter().session());
        CHECK(ending([&] { tx.commit(); }) == "usage_error");
        CHECK(tx.active());
        tx.rollback();
    }
    SECTION("of a nested block") {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      scene.db.atomic([&](pqxx::transaction_base& tx) { end_it(tx); });
                  });
              }) == "usage_error");
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: there is a transaction object in a block, and only there", "[S42]") {
    PqxxScene scene;
    CHECK(ending([&] { scene.db.adapter().session(); }) == "UsageError");
    {
        Atomic tx{scene.db};
        scene.row(1);
        tx.commit();
        CHECK(ending([&] { scene.db.adapter().session(); }) == "UsageError");
    }
    scene.db.atomic([&] { scene.db.on_commit([&] { pqxx::work{scene.db}.exec("SELECT 1"); }); });
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a pipeline that is unfinished stops the commit", "[S47][P19]") {
    PqxxScene scene;
    Atomic tx{scene.db};
    scene.row(1);
    {
        pqxx::pipeline pipe{scene.db.adapter().session()};
        pipe.insert("INSERT INTO t VALUES (2)");
        CHECK(ending([&] { tx.commit(); }) == "usage_error");
        CHECK(tx.active());
        pipe.complete();
    }
    scene.hook(2);
    tx.commit();
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a rollback that a stream is in the way of leaves the connection broken, and nothing behind",
          "[S49][P11]") {
    PqxxScene scene;
    {
        Atomic tx{scene.db};
        scene.row(1);
        {
            pqxx::stream_to rows{scene.db.adapter().session(), "t"};
            rows << std::make_tuple(2);
            CHECK(ending([&] { tx.rollback(); }) == "usage_error");
            CHECK_FALSE(tx.active());
            CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
            rows.complete();
        }
        CHECK(ending([&] { Atomic again{scene.db}; }) == "ConnectionBroken");
    }
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a block whose session has ended cannot be rolled back, and says so", "[S49][P04]") {
    PqxxScene scene;
    {
        Atomic tx{scene.db};
        scene.row(1);
        run(scene.others, "SELECT pg_terminate_backend(" + std::to_string(scene.db.backendpid()) + ", 5000)");
        CHECK(ending([&] { tx.rollback(); }) == "broken_connection");
    }
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { Atomic again{scene.db}; }) == "ConnectionBroken");
    scene.reconnect();
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx commit: a connection that is made when it is first used", "[S53]") {
    PqxxScene scene;
    txhooks::HookedConnection<pqxx::lazyconnection> db{scene.server()};
    int ran = 0;
    db.atomic([&](auto& tx) {
        tx.exec("INSERT INTO t VALUES (1)");
        db.on_commit([&] { ++ran; });
    });
    CHECK(ran == 1);
    CHECK(scene.truth() == "1");
}

TEST_CASE("libpqxx commit: a block whose transaction object is closed while a stream is open can be reset",
          "[S49][P11]") {
    PqxxScene scene;
    Atomic tx{scene.db};
    scene.row(1);
    {
        pqxx::stream_to rows{scene.db.adapter().session(), "t"};
        CHECK(ending([&] { tx.rollback(); }) == "usage_error");
        rows.complete();
    }
    scene.db.adapter().session().abort();
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

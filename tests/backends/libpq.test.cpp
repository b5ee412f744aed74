// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <libpq-events.h>

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

using namespace support;
using txhooks::Atomic;
using txhooks::HookedConnection;
using txhooks::postgres::Begin;
using txhooks::postgres::Isolation;

TEMPLATE_LIST_TEST_CASE("libpq: a hook runs if and only if its row is there", "[S11][S12][S25][S26][S33]",
                        EveryWitness) {
    PostgresScene<TestType> scene;
    scene.row(1);
    CHECK(scene.hooks == "1");
    {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(2);
        {
            typename PostgresScene<TestType>::Tx inner{scene.db};
            scene.row(3);
            {
                typename PostgresScene<TestType>::Tx innermost{scene.db};
                scene.row(4);
                innermost.rollback();
            }
            scene.row(5);
            inner.commit();
        }
        CHECK(scene.hooks == "1");
        CHECK(scene.truth() == "1");
        CHECK(tx.commit() == txhooks::Outcome::committed);
    }
    CHECK(scene.hooks == "1,2,3,5");
    CHECK(scene.truth() == "1,2,3,5");
    CHECK(ending([&] {
              scene.db.atomic([&](PGconn* conn) {
                  run(conn, "INSERT INTO t VALUES (6)");
                  scene.hook(6);
                  throw std::runtime_error{"no"};
              });
          }) == "no");
    CHECK(scene.hooks == "1,2,3,5");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq: a hook may query and open blocks", "[S13][S16]", EveryWitness) {
    PostgresScene<TestType> scene;
    std::string seen;
    scene.db.atomic([&] {
        scene.row(1);
        scene.db.on_commit([&] {
            seen = scene.run("SELECT count(*) FROM t");
            scene.db.atomic({.durable = true}, [&] { scene.row(2); });
        });
    });
    CHECK(seen == "1");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq: a statement that fails in a savepoint fails only that", "[S26][P09]", EveryWitness) {
    PostgresScene<TestType> scene;
    scene.db.atomic([&] {
        scene.row(1);
        CHECK(ending([&] { scene.db.atomic([&] { scene.row(1); }); }).find("duplicate key") != std::string::npos);
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(2);
                      scene.attempt("SELECT 1 / 0");  // and nobody looks
                  });
              }) == "TransactionAborted rolled_back");
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.attempt("SELECT 1 / 0");
                      Atomic deeper{scene.db};
                  });
              }) == "TransactionAborted rolled_back");
        scene.row(3);
    });
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

// ---- Begin options

TEMPLATE_LIST_TEST_CASE("libpq: an outermost block begins as it is asked to", "[S38]", EveryWitness) {
    struct Row {
        Begin begin;
        std::string isolation = "read committed";
        std::string read_only = "off";
        std::string deferrable = "off";
    };
    const auto row = GENERATE(values<Row>({
        {{}},
        {{.isolation = Isolation::read_committed}},
        {{.isolation = Isolation::repeatable_read}, "repeatable read"},
        {{.isolation = Isolation::serializable}, "serializable"},
        {{.read_only = true}, "read committed", "on"},
        {{.deferrable = true}, "read committed", "off", "on"},
        {{.isolation = Isolation::serializable, .read_only = true, .deferrable = true}, "serializable", "on", "on"},
    }));
    PostgresScene<TestType> scene;
    scene.db.atomic({.begin = row.begin}, [&] {
        CHECK(scene.run("SHOW transaction_isolation") == row.isolation);
        CHECK(scene.run("SHOW transaction_read_only") == row.read_only);
        CHECK(scene.run("SHOW transaction_deferrable") == row.deferrable);
        scene.hook(1);
    });
    CHECK(scene.hooks == "1");
    CHECK(scene.goes_on());
}

TEST_CASE("libpq: what is not given stays as the session has it", "[S38]") {
    PostgresScene<> scene;
    scene.run("SET default_transaction_isolation = serializable; SET default_transaction_read_only = on");
    scene.db.atomic([&] {
        CHECK(scene.run("SHOW transaction_isolation") == "serializable");
        CHECK(scene.run("SHOW transaction_read_only") == "on");
    });
    scene.db.atomic({.begin = {.isolation = Isolation::read_committed}},
                    [&] { CHECK(scene.run("SHOW transaction_isolation") == "read committed"); });
}

TEST_CASE("libpq: begin options on a nested block are refused", "[S38]") {
    PostgresScene<> scene;
    Atomic tx{scene.db};
    CHECK(ending([&] { Atomic inner{scene.db, {.begin = {.read_only = true}}}; }) == "UsageError");
    CHECK(ending([&] { Atomic inner{scene.db, {.begin = {}}}; }).starts_with("returned"));
    scene.row(1);
    tx.commit();
    CHECK(scene.hooks == "1");
}

TEMPLATE_LIST_TEST_CASE("libpq: a write in a read-only block fails, and nothing is committed", "[S45]", EveryWitness) {
    PostgresScene<TestType> scene;
    CHECK(ending([&] {
              scene.db.atomic({.begin = {.read_only = true}}, [&] {
                  scene.hook(1);
                  CHECK(scene.attempt("INSERT INTO t VALUES (1)") == "25006");
              });
          }) == "TransactionAborted rolled_back");
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
}

// ---- What is not ours

TEMPLATE_LIST_TEST_CASE("libpq: nothing is opened in a transaction that somebody else began", "[S8][S41]",
                        EveryWitness) {
    PostgresScene<TestType> scene;
    HookedConnection<PGconn*, TestType> another{static_cast<PGconn*>(scene.handle)};
    std::optional<Atomic<HookedConnection<PGconn*, TestType>>> theirs;
    SECTION("by raw SQL") {
        scene.run("BEGIN; INSERT INTO t VALUES (1)");
    }
    SECTION("by raw SQL, and it has failed") {
        scene.attempt("BEGIN; SELECT 1 / 0");
    }
    SECTION("by another HookedConnection") {
        theirs.emplace(another);
    }
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Atomic tx{scene.db}; }) == "UsageError");
    CHECK(PQtransactionStatus(scene.handle) != PQTRANS_IDLE);
    CHECK(scene.hooks.empty());
    if (theirs) theirs->rollback();
    if (PQtransactionStatus(scene.handle) != PQTRANS_IDLE) scene.run("ROLLBACK");
    CHECK(scene.goes_on());
}

TEST_CASE("libpq: a pipeline outside of blocks may be a transaction of its own", "[S8][P19]") {
    PostgresScene<> scene;
    REQUIRE(PQenterPipelineMode(scene.handle) == 1);
    PQsendQueryParams(scene.handle, "INSERT INTO t VALUES (1)", 0, nullptr, nullptr, nullptr, nullptr, 0);
    PQsendFlushRequest(scene.handle);
    PQflush(scene.handle);
    while (PGresult* const result = PQgetResult(scene.handle)) PQclear(result);
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK_FALSE(scene.db.usable());
    PQsendQueryParams(scene.handle, "SELECT 1 / 0", 0, nullptr, nullptr, nullptr, nullptr, 0);
    PQpipelineSync(scene.handle);
    while (PQexitPipelineMode(scene.handle) == 0) PQclear(PQgetResult(scene.handle));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpq: a null handle is refused", "[S53]") {
    CHECK(ending([] { HookedConnection db{static_cast<PGconn*>(nullptr)}; }) == "UsageError");
    STATIC_REQUIRE(
        std::is_same_v<decltype(HookedConnection{static_cast<PGconn*>(nullptr)}), HookedConnection<PGconn*>>);
}

TEST_CASE("libpq: a connection that could not be opened is broken", "[S9]") {
    const PostgresScene<> scene;
    PGconn* const nowhere = PQconnectdb("host=/nowhere/at/all");
    REQUIRE(PQstatus(nowhere) == CONNECTION_BAD);
    HookedConnection db{nowhere};
    CHECK_FALSE(db.usable());
    CHECK(ending([&] { Atomic tx{db}; }) == "ConnectionBroken");
    CHECK(ending([&] { db.on_commit([] {}); }) == "ConnectionBroken");
    CHECK(ending([&] { db.reset(); }) == "UsageError");
    PQfinish(nowhere);
}

TEST_CASE("libpq: an error of PostgreSQL says what the engine said") {
    PostgresScene<> scene;
    scene.run("CREATE TABLE later (n int, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)");
    try {
        scene.db.atomic([&] { scene.run("INSERT INTO later VALUES (1), (1)"); });
        FAIL("it was committed");
    } catch (const txhooks::EngineError& e) {
        CHECK(e.code() == PGRES_FATAL_ERROR);
        CHECK(std::string{e.sqlstate()} == "23505");
        CHECK(std::string{e.what()} ==
              "ERROR:  duplicate key value violates unique constraint \"later_n_key\"\nDETAIL:  Key (n)=(1) already "
              "exists.");
        CHECK(e.outcome() == txhooks::Outcome::rolled_back);
    }
    CHECK(scene.goes_on());
}

// ---- The handle's life

TEMPLATE_LIST_TEST_CASE("libpq: the handle may be closed before the hooked connection", "[S59]", EveryWitness) {
    PostgresHandle handle;
    HookedConnection<PGconn*, TestType> db{static_cast<PGconn*>(handle)};
    SECTION("with no block open") {
        handle.close();
        CHECK_FALSE(db.usable());
        CHECK(ending([&] { db.on_commit([] {}); }) == "ConnectionBroken");
        CHECK(ending([&] { Atomic tx{db}; }) == "ConnectionBroken");
    }
    SECTION("with a block open") {
        Sink sink{db};
        bool ran = false;
        Atomic tx{db};
        db.on_commit([&] { ran = true; });
        handle.close();
        CHECK(ending([&] { tx.commit(); }) == "TransactionLost unknown");
        CHECK(sink.sentences() == Log{"txhooks: ROLLBACK failed; the connection is broken until reset()"});
        CHECK_FALSE(ran);
        CHECK(ending([&] { db.reset(); }) == "UsageError");
    }
}

TEMPLATE_LIST_TEST_CASE("libpq: hooked connections on one handle come and go in any order", "[S59]", EveryWitness) {
    PostgresScene<TestType> scene;
    using Db = HookedConnection<PGconn*, TestType>;
    for (int time = 0; time < 3; ++time) {
        std::optional<Db> first{static_cast<PGconn*>(scene.handle)};
        std::optional<Db> second{static_cast<PGconn*>(scene.handle)};
        std::optional<Db> third{static_cast<PGconn*>(scene.handle)};
        (time == 0 ? first : time == 1 ? second : third).reset();
        for (std::optional<Db>* db : {&first, &second, &third}) {
            if (not*db) continue;
            Atomic tx{**db};
            scene.run("ROLLBACK; BEGIN");
            CHECK(ending([&] { tx.commit(); }) == "TransactionLost rolled_back");
        }
    }
    CHECK(scene.goes_on());
}

TEST_CASE("libpq: a handle that was hooked can be used and closed after that", "[S59]") {
    PostgresHandle handle;
    Result result;
    {
        HookedConnection db{static_cast<PGconn*>(handle)};
        db.atomic([&] { result.reset(PQexec(handle, "SELECT 42")); });
    }
    CHECK(run(handle, "SELECT 1") == "1");
    PQreset(handle);
    CHECK(run(handle, "BEGIN; COMMIT; SELECT 2") == "2");
    const Result copy{PQcopyResult(result.get(), PG_COPYRES_TUPLES | PG_COPYRES_EVENTS)};
    handle.close();
    CHECK(std::string{PQgetvalue(result.get(), 0, 0)} == "42");
    CHECK(std::string{PQgetvalue(copy.get(), 0, 0)} == "42");
}

TEMPLATE_LIST_TEST_CASE("libpq: PQreset outside a block changes nothing", "[S49]", EveryWitness) {
    PostgresScene<TestType> scene;
    scene.db.atomic([&] { scene.row(1); });
    PQreset(scene.handle);
    scene.db.atomic([&] { scene.row(2); });
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq: a connection in nonblocking mode is waited for all the same", "[S13]", EveryWitness) {
    PostgresScene<TestType> scene;
    REQUIRE(PQsetnonblocking(scene.handle, 1) == 0);
    CHECK(scene.goes_on());
    CHECK(PQisnonblocking(scene.handle) == 1);
}

namespace {

int count_events(PGEventId id, void*, void* counts) {
    ++static_cast<std::vector<int>*>(counts)->at(static_cast<std::size_t>(id));
    return 1;
}
int refuse_results(PGEventId id, void*, void* refuses) {
    return id == PGEVT_RESULTCREATE and * static_cast<bool*>(refuses) ? 0 : 1;
}

}  // namespace

TEST_CASE("libpq: event procedures of the user's are left alone", "[S59]") {
    const bool first = GENERATE(true, false);
    std::vector<int> counts(6);
    int theirs = 0;
    {
        PostgresHandle handle;
        const auto add = [&] {
            REQUIRE(PQregisterEventProc(handle, count_events, "theirs", &counts) == 1);
            REQUIRE(PQsetInstanceData(handle, count_events, &theirs) == 1);
        };
        if (first) add();
        {
            HookedConnection db{static_cast<PGconn*>(handle)};
            if (not first) add();
            db.atomic([&] { run(handle, "SELECT 1"); });
            CHECK(counts[PGEVT_RESULTCREATE] == 3);
            CHECK(PQinstanceData(handle, count_events) == &theirs);
        }
        run(handle, "SELECT 1");
        CHECK(counts[PGEVT_RESULTCREATE] == 4);
        CHECK(counts[PGEVT_RESULTDESTROY] == 4);
        CHECK(PQinstanceData(handle, count_events) == &theirs);
        PQreset(handle);
    }
    CHECK(counts[PGEVT_CONNRESET] == 1);
    CHECK(counts[PGEVT_CONNDESTROY] == 1);
}

TEST_CASE("libpq: an event procedure of the user's that fails changes nothing", "[S44]") {
    PostgresScene<> scene;
    bool refuses = false;
    REQUIRE(PQregisterEventProc(scene.handle, refuse_results, "theirs", &refuses) == 1);
    Atomic tx{scene.db};
    scene.row(1);
    refuses = true;
    // Up to libpq 14 it makes an error of the COMMIT that took place.
    const std::string told = ending([&] { return tx.commit(); });
    refuses = false;
    CHECK(told ==
          (PQlibVersion() >= 150000 ? "committed" : "CommitUnknown unknown <- EngineError without SQLSTATE unknown"));
    CHECK(scene.truth() == "1");
}

// ---- What it costs

TEMPLATE_LIST_TEST_CASE("libpq: begin, commit, rollback and both ends of a nested block are a round trip each", "[S13]",
                        EveryWitness) {
    check_round_trips<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq: only the sentinel takes a second transaction id, for a block that writes", "[S43]",
                        EveryWitness) {
    PostgresScene<TestType> scene;
    scene.db.atomic([&] {
        scene.run("SELECT n FROM t");
        CHECK(scene.run("SELECT pg_current_xact_id_if_assigned()") == "");
        scene.row(1);
        const bool one = scene.run("SELECT xmin::text = pg_current_xact_id()::text FROM t") == "t";
        CHECK(one != std::is_same_v<TestType, Sentinel>);
    });
    CHECK(scene.hooks == "1");
}

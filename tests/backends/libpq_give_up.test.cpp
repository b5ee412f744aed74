// SPDX-License-Identifier: MIT
//
// A rollback gives up whatever is still going on, and never waits for it.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

using namespace support;

namespace {

void send(PGconn* conn, const std::string& sql) {
    PQsendQueryParams(conn, sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0);
}

// What is going on when the block is given up. Some of it waits for row 77, which another connection holds.
struct Unfinished {
    const char* name;
    void (*start)(PGconn*);
};

const std::vector<Unfinished>& what_can_be_ended() {
    static const std::vector<Unfinished> all{
        {"waits for a lock", [](PGconn* conn) { PQsendQuery(conn, "UPDATE t SET n = n WHERE n = 77; SELECT 1"); }},
        {"a pipeline that waits for a lock",
         [](PGconn* conn) {
             PQenterPipelineMode(conn);
             for (int i = 0; i != 3; ++i) {  // each a unit of its own, so that one cancel is not enough
                 send(conn, "SELECT 1");
                 send(conn, "UPDATE t SET n = n WHERE n = 77");
                 PQpipelineSync(conn);
             }
         }},
        {"a COPY out that waits for a lock",
         [](PGconn* conn) {
             PQclear(PQexec(conn,
                            "CREATE FUNCTION pg_temp.locks(i int) RETURNS int LANGUAGE sql VOLATILE AS "
                            "'UPDATE t SET n = n WHERE n = 77 AND i = 9 RETURNING n'"));
             PQclear(PQexec(conn,
                            "COPY (SELECT repeat('x', 10000), pg_temp.locks(i) FROM generate_series(1, 10) i) "
                            "TO STDOUT"));
         }},
        {"a COPY in that waits for a lock",
         [](PGconn* conn) {
             PQclear(PQexec(conn,
                            "CREATE FUNCTION pg_temp.locks() RETURNS trigger LANGUAGE plpgsql AS "
                            "'BEGIN UPDATE t SET n = n WHERE n = 77; RETURN NEW; END'; "
                            "CREATE TEMP TABLE u (n int); CREATE TRIGGER locks BEFORE INSERT ON u "
                            "FOR EACH ROW EXECUTE FUNCTION pg_temp.locks()"));
             PQclear(PQexec(conn, "COPY u FROM STDIN"));
             PQputCopyData(conn, "1\n", 2);
         }},
        {"much to read",
         [](PGconn* conn) { PQsendQuery(conn, "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"); }},
        {"a sleep", [](PGconn* conn) { PQsendQuery(conn, "SELECT pg_sleep(1000)"); }},
    };
    return all;
}

// libpq does not have them, but lets the user begin them; version 18 gives up the connection then.
const std::vector<Unfinished>& copies_in_a_pipeline() {
    static const std::vector<Unfinished> all{
        {"a COPY in a pipeline: in",
         [](PGconn* conn) {
             PQenterPipelineMode(conn);
             send(conn, "COPY t FROM STDIN");
         }},
        {"a COPY in a pipeline: in, its result read",
         [](PGconn* conn) {
             PQenterPipelineMode(conn);
             send(conn, "COPY t FROM STDIN");
             PQsendFlushRequest(conn);
             PQflush(conn);
             PQclear(PQgetResult(conn));
         }},
        {"a COPY in a pipeline: in, synchronized",
         [](PGconn* conn) {
             PQenterPipelineMode(conn);
             send(conn, "COPY t FROM STDIN");
             PQpipelineSync(conn);
             send(conn, "SELECT 1");
             PQpipelineSync(conn);
         }},
        {"a COPY in a pipeline: out",
         [](PGconn* conn) {
             PQenterPipelineMode(conn);
             send(conn, "COPY (SELECT generate_series(1, 20000)) TO STDOUT");
         }},
        {"a COPY in a pipeline: out, and more",
         [](PGconn* conn) {
             PQenterPipelineMode(conn);
             send(conn, "SELECT 1");
             send(conn, "COPY (SELECT generate_series(1, 20000)) TO STDOUT");
             send(conn, "SELECT 1");
             PQpipelineSync(conn);
         }},
    };
    return all;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq: a rollback gives up what is still going on, and does not wait for it",
                        "[S25][S26][S31][P11][P19]", EveryWitness) {
    enum class Way { rollback, destructor, nested, nested_destructor };
    const Unfinished what = GENERATE(from_range(what_can_be_ended()));
    const Way way = GENERATE(Way::rollback, Way::destructor, Way::nested, Way::nested_destructor);
    CAPTURE(what.name, static_cast<int>(way));
    PostgresScene<TestType> scene;
    run(scene.others, "INSERT INTO t VALUES (77)");
    PostgresHandle holder{scene.server()};
    run(holder, "BEGIN; UPDATE t SET n = n WHERE n = 77");
    const auto before = std::chrono::steady_clock::now();
    {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(1);
        if (way == Way::rollback or way == Way::destructor) {
            what.start(scene.handle);
            if (way == Way::rollback) CHECK(ending([&] { tx.rollback(); }) == "returned");
        } else {
            {
                typename PostgresScene<TestType>::Tx inner{scene.db};
                scene.row(2);
                what.start(scene.handle);
                if (way == Way::nested) CHECK(ending([&] { inner.rollback(); }) == "returned");
            }
            CHECK(ending([&] { return tx.commit(); }) == "committed");
        }
    }
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds{5});
    const bool nested = way == Way::nested or way == Way::nested_destructor;
    CHECK(scene.hooks == (nested ? "1" : ""));
    CHECK(scene.truth() == (nested ? "1,77" : "77"));
    CHECK(PQpipelineStatus(scene.handle) == PQ_PIPELINE_OFF);
    run(holder, "ROLLBACK");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq: a rollback gives up a COPY in a pipeline, or the connection",
                        "[S25][S31][S49][P11][P19]", EveryWitness) {
    enum class Way { rollback, destructor, nested, function };
    const Unfinished what = GENERATE(from_range(copies_in_a_pipeline()));
    const Way way = GENERATE(Way::rollback, Way::destructor, Way::nested, Way::function);
    CAPTURE(what.name, static_cast<int>(way));
    PostgresScene<TestType> scene;
    const auto before = std::chrono::steady_clock::now();
    if (way == Way::function) {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      what.start(scene.handle);
                  });
              }) == "UsageError");
    } else {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(1);
        if (way == Way::nested) {
            typename PostgresScene<TestType>::Tx inner{scene.db};
            what.start(scene.handle);
            ending([&] { inner.rollback(); });
        } else {
            what.start(scene.handle);
        }
        if (way != Way::destructor) ending([&] { tx.rollback(); });
    }
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds{5});
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    if (not scene.db.usable()) {
        CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
        scene.reconnect();
    }
    CHECK(PQpipelineStatus(scene.handle) == PQ_PIPELINE_OFF);
    CHECK(scene.goes_on());
}

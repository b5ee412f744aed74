// SPDX-License-Identifier: MIT
//
// retry() where other sessions are in the way.

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/retry.hpp>

#include <string>

using namespace support;
using txhooks::EngineError;
using txhooks::retry;
using txhooks::postgres::Isolation;

namespace {

template <class Adapter>
struct World : PostgresScene<Adapter> {
    using PostgresScene<Adapter>::PostgresScene;
    using Options = typename PostgresScene<Adapter>::Db::Options;

    Log errors;
    int calls = 0;
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq retry: a COMMIT that cannot be serialized", "[retry][S46][P03]", EveryWitness) {
    World<TestType> w;
    const typename World<TestType>::Options serializable{.begin = {.isolation = Isolation::serializable}};
    PostgresHandle other{w.server()};
    retry(w.db, at_once(w.errors), serializable, [&] {
        w.run("SELECT count(*) FROM t");
        if (++w.calls == 1) {
            run(other, "BEGIN ISOLATION LEVEL SERIALIZABLE");
            run(other, "SELECT count(*) FROM t");
        }
        w.row(w.calls);
        if (w.calls == 1) {
            run(other, "INSERT INTO t VALUES (9)");
            run(other, "COMMIT");
        }
    });
    CHECK(w.errors == Log{"EngineError 40001 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2,9");
    CHECK(w.sink.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq retry: a statement that cannot be serialized, in a nested block too", "[retry][P03]",
                        EveryWitness) {
    const bool nested = GENERATE(true, false);
    World<TestType> w;
    const typename World<TestType>::Options repeatable{.begin = {.isolation = Isolation::repeatable_read}};
    PostgresHandle other{w.server()};
    run(other, "CREATE TABLE counter AS SELECT 0 AS n");
    retry(w.db, at_once(w.errors), repeatable, [&] {
        w.row(++w.calls);
        if (w.calls == 1) run(other, "UPDATE counter SET n = n + 1");
        const auto count = [&] { execute(w.handle, "UPDATE counter SET n = n + 1"); };
        if (nested)
            w.db.atomic(count);
        else
            count();
    });
    CHECK(w.errors == Log{"EngineError 40001 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2");
    CHECK(run(other, "SELECT n FROM counter") == "2");
    CHECK(w.sink.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq retry: both sides of a deadlock are done in the end", "[retry][P03]", EveryWitness) {
    check_retried_deadlock<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq retry: gives up with the last error, and takes no other for transient", "[retry]",
                        EveryWitness) {
    check_what_is_transient<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq retry: what a raw COMMIT has made durable is not done twice", "[retry][S50][P08]",
                        EveryWitness) {
    const std::string sql = GENERATE("COMMIT", "COMMIT; BEGIN", "COMMIT AND CHAIN");
    World<TestType> w;
    CHECK(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(++w.calls);
                  execute(w.handle, sql);
                  execute(w.handle, fails_with("40001"));
              });
          }) == "EngineError 40001 rolled_back");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(w.truth() == "1");
    CHECK(w.sink.lines() == Log{"txhooks: while rolling back a block: TransactionLost committed"});
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq retry: what a raw ROLLBACK has undone is done again", "[retry][S50][P08]",
                        EveryWitness) {
    const std::string sql = GENERATE("ROLLBACK", "ROLLBACK; BEGIN", "ROLLBACK AND CHAIN");
    World<TestType> w;
    retry(w.db, at_once(w.errors), [&] {
        w.row(++w.calls);
        if (w.calls > 1) return;
        execute(w.handle, sql);
        execute(w.handle, fails_with("40P01"));
    });
    CHECK(w.errors == Log{"EngineError 40P01 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2");
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq retry: a COMMIT without an answer is not sent again", "[retry][S48][P05]",
                        EveryWitness) {
    const Cut how = GENERATE(Cut::request, Cut::reply);
    TcpProxy proxy{postgres_port()};
    World<TestType> w{"host=127.0.0.1 port=" + std::to_string(proxy.port())};
    CHECK(without_cause(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(++w.calls);
                  proxy.arm("COMMIT", how);
              });
          })) == "CommitUnknown unknown");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(ending([&] { retry(w.db, at_once(w.errors), [&] { ++w.calls; }); }) == "ConnectionBroken");
    CHECK(w.calls == 1);
}

TEMPLATE_LIST_TEST_CASE("libpq retry: a session that was ended is not tried again", "[retry][P04]", EveryWitness) {
    World<TestType> w;
    CHECK(without_cause(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(++w.calls);
                  run(w.others, "SELECT pg_terminate_backend(" + std::to_string(PQbackendPID(w.handle)) + ")");
                  throw EngineError{0, "40001", "whatever it was that failed"};
              });
          })) == "EngineError 40001 rolled_back");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(w.truth().empty());
    CHECK_FALSE(w.db.usable());
}

TEMPLATE_LIST_TEST_CASE("libpq retry: two threads that read and then write lose nothing", "[retry][P03]",
                        EveryWitness) {
    check_two_threads_that_read_and_write<PostgresScene<TestType>>();
}

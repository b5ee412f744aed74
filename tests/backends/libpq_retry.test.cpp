// SPDX-License-Identifier: MIT
//
// retry() where other sessions are in the way.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/retry.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

using namespace support;
using namespace std::chrono_literals;
using txhooks::EngineError;
using txhooks::retry;
using txhooks::RetryPolicy;
using txhooks::postgres::Isolation;

namespace {

using Strings = std::vector<std::string>;

// As an application with a C handle should: the server's error as an exception.
void execute(PGconn* conn, const std::string& sql) {
    const Result result{PQexec(conn, sql.c_str())};
    if (PQresultStatus(result.get()) != PGRES_FATAL_ERROR) return;
    throw EngineError{PGRES_FATAL_ERROR, sqlstate(result.get()).c_str(), PQresultErrorMessage(result.get())};
}

// A statement that fails with `state`.
std::string fails_with(const char* state) {
    return std::string{"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '"} + state + "'; END $$";
}

// Tries again at once, and notes why.
RetryPolicy at_once(std::vector<std::string>& errors) {
    return {
        .before_retry = [&errors](unsigned, const std::exception_ptr& error) { errors.push_back(describe(error)); },
        .sleep = [](std::chrono::nanoseconds) {},
    };
}

template <class Adapter>
struct World : PostgresScene<Adapter> {
    using PostgresScene<Adapter>::PostgresScene;
    using Options = typename PostgresScene<Adapter>::Db::Options;

    std::vector<std::string> errors;
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
    CHECK(w.errors == Strings{"EngineError 40001 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2,9");
    CHECK(w.told.empty());
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
    CHECK(w.errors == Strings{"EngineError 40001 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2");
    CHECK(run(other, "SELECT n FROM counter") == "2");
    CHECK(w.told.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq retry: both sides of a deadlock are done in the end", "[retry][P03]", EveryWitness) {
    World<TestType> w;
    w.run("CREATE TABLE locks (n int); INSERT INTO locks VALUES (1), (2)");
    std::atomic<int> ready{0};
    struct Side {
        std::string told;
        std::vector<std::string> errors;
        int hooks = 0;
    } sides[2];
    const auto play = [&](int n) {
        Side& side = sides[n];
        PostgresHandle handle{w.server()};
        run(handle, "SET deadlock_timeout = '20ms'");
        txhooks::HookedConnection<PGconn*, TestType> db{static_cast<PGconn*>(handle)};
        side.told = ending([&] {
            retry(db, at_once(side.errors), [&] {
                db.on_commit([&side] { ++side.hooks; });
                execute(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")");
                execute(handle, "UPDATE locks SET n = n WHERE n = " + std::to_string(1 + n));
                ++ready;
                while (ready < 2) std::this_thread::yield();
                execute(handle, "UPDATE locks SET n = n WHERE n = " + std::to_string(2 - n));
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
    Strings errors = sides[0].errors;
    errors.insert(errors.end(), sides[1].errors.begin(), sides[1].errors.end());
    REQUIRE_FALSE(errors.empty());
    for (const std::string& error : errors) CHECK(error == "EngineError 40P01 rolled_back");
    CHECK(w.truth() == "0,1");
}

TEMPLATE_LIST_TEST_CASE("libpq retry: gives up with the last error, and takes no other for transient", "[retry]",
                        EveryWitness) {
    struct Row {
        const char* state;
        std::size_t retries;
    };
    const auto row = GENERATE(values<Row>({{"40001", 4},
                                           {"40P01", 4},
                                           {"40003", 0},
                                           {"23505", 0},
                                           {"55P03", 0},
                                           {"57014", 0},
                                           {"57P01", 0},
                                           {"08006", 0}}));
    World<TestType> w;
    CHECK(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(1);
                  execute(w.handle, fails_with(row.state));
              });
          }) == std::string{"EngineError "} + row.state + " rolled_back");
    CHECK(w.errors.size() == row.retries);
    CHECK(w.hooks.empty());
    CHECK(w.truth().empty());
    CHECK(w.goes_on());
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
    CHECK(w.told == Strings{"txhooks: while rolling back a block: TransactionLost committed"});
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
    CHECK(w.errors == Strings{"EngineError 40P01 rolled_back"});
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
    constexpr int each = 40;
    World<TestType> w;
    w.run("CREATE TABLE counter AS SELECT 0 AS n");
    struct Side {
        std::string told;
        int hooks = 0;
    } sides[2];
    const auto work = [&](Side& side) {
        PostgresHandle handle{w.server()};
        txhooks::HookedConnection<PGconn*, TestType> db{static_cast<PGconn*>(handle)};
        side.told = ending([&] {
            for (int i = 0; i != each; ++i)
                retry(db, {.attempts = 1'000'000, .first_delay = 10us, .longest_delay = 2ms},
                      {.begin = {.isolation = Isolation::serializable}}, [&] {
                          db.on_commit([&side] { ++side.hooks; });
                          const std::string n = run(handle, "SELECT n FROM counter");
                          execute(handle, "UPDATE counter SET n = " + n + " + 1");
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
    CHECK(w.run("SELECT n FROM counter") == std::to_string(2 * each));
}

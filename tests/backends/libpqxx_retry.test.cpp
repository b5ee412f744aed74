// SPDX-License-Identifier: MIT
//
// retry() through libpqxx, where other sessions are in the way.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/pqxx_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>
#include <txhooks/retry.hpp>

#include <pqxx/pqxx>

#include <atomic>
#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

using namespace support;
using namespace std::chrono_literals;
using txhooks::retry;
using txhooks::RetryPolicy;
using txhooks::postgres::Isolation;

namespace {

using Strings = std::vector<std::string>;

// Tries again at once, and notes why.
RetryPolicy at_once(Strings& errors) {
    return {
        .before_retry = [&errors](unsigned, const std::exception_ptr& error) { errors.push_back(sqlstate_of(error)); },
        .sleep = [](std::chrono::nanoseconds) {},
    };
}

// A statement that fails with `state`.
std::string fails_with(const std::string& state) {
    return "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '" + state + "'; END $$";
}

}  // namespace

TEST_CASE("libpqxx retry: what cannot be serialized, at COMMIT or before", "[retry][S46][P03]") {
    const bool nested = GENERATE(true, false);
    PqxxScene scene;
    PostgresHandle other{scene.server()};
    Strings errors;
    int calls = 0;
    retry(scene.db, at_once(errors), {.begin = {.isolation = Isolation::serializable}},
          [&](pqxx::transaction_base& tx) {
              tx.exec("SELECT count(*) FROM t");
              if (++calls == 1) {
                  run(other, "BEGIN ISOLATION LEVEL SERIALIZABLE");
                  run(other, "SELECT count(*) FROM t");
                  run(other, "INSERT INTO t VALUES (9)");
                  if (nested) run(other, "COMMIT");
              }
              const auto insert = [&] { scene.row(calls); };
              if (nested)
                  scene.db.atomic(insert);
              else
                  insert();
              if (calls == 1 and not nested) run(other, "COMMIT");
          });
    CHECK(errors == Strings{"40001"});
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "2,9");
    CHECK(scene.told.empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx retry: both sides of a deadlock are done in the end", "[retry][P03]") {
    PqxxScene scene;
    PostgresHandle setup{scene.server()};
    run(setup, "CREATE TABLE locks (n int); INSERT INTO locks VALUES (1), (2)");
    std::atomic<int> ready{0};
    struct Side {
        std::string told;
        Strings errors;
        int hooks = 0;
    } sides[2];
    const auto play = [&](int n) {
        Side& side = sides[n];
        PqxxScene::Db db{scene.server()};
        side.told = outcome_of([&] {
            retry(db, at_once(side.errors), [&](auto& tx) {
                db.on_commit([&side] { ++side.hooks; });
                tx.exec("SET LOCAL deadlock_timeout = '20ms'; INSERT INTO t VALUES (" + std::to_string(n) + ")");
                tx.exec("UPDATE locks SET n = n WHERE n = " + std::to_string(1 + n));
                ++ready;
                while (ready < 2) std::this_thread::yield();
                tx.exec("UPDATE locks SET n = n WHERE n = " + std::to_string(2 - n));
            });
        });
    };
    std::thread other{play, 0};
    play(1);
    other.join();
    Strings errors;
    for (const Side& side : sides) {
        CHECK(side.told == "returned");
        CHECK(side.hooks == 1);
        errors.insert(errors.end(), side.errors.begin(), side.errors.end());
    }
    REQUIRE_FALSE(errors.empty());
    for (const std::string& error : errors) CHECK(error == "40P01");
    CHECK(scene.truth() == "0,1");
}

TEST_CASE("libpqxx retry: gives up with the last error, and takes no other for transient", "[retry]") {
    struct Row {
        std::string state;
        std::size_t retries;
    };
    const auto row = GENERATE(values<Row>({{"40001", 4}, {"40P01", 4}, {"23505", 0}, {"55P03", 0}, {"57014", 0}}));
    PqxxScene scene;
    Strings errors;
    CHECK(outcome_of([&] {
              retry(scene.db, at_once(errors), [&](pqxx::transaction_base& tx) {
                  scene.row(1);
                  tx.exec(fails_with(row.state));
              });
          }) == row.state);
    CHECK(errors.size() == row.retries);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx retry: a transaction that ended behind the block's back is not done again", "[retry][S50][P08]") {
    const std::string sql = GENERATE("COMMIT", "COMMIT; BEGIN", "ROLLBACK", "ROLLBACK; BEGIN");
    PqxxScene scene;
    Strings errors;
    int calls = 0;
    CHECK(outcome_of([&] {
              retry(scene.db, at_once(errors), [&](pqxx::transaction_base& tx) {
                  scene.row(++calls);
                  tx.exec(sql);
                  tx.exec(fails_with("40001"));
              });
          }) == "40001");
    CHECK(calls == 1);
    CHECK(errors.empty());
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (sql[0] == 'C' ? "1" : ""));
    CHECK(scene.told == Strings{"txhooks: while rolling back a block"});
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx retry: two threads that read and then write lose nothing", "[retry][P03]") {
    constexpr int each = 40;
    PqxxScene scene;
    PostgresHandle setup{scene.server()};
    run(setup, "CREATE TABLE counter AS SELECT 0 AS n");
    struct Side {
        std::string told;
        int hooks = 0;
    } sides[2];
    const auto work = [&](Side& side) {
        PqxxScene::Db db{scene.server()};
        side.told = outcome_of([&] {
            for (int i = 0; i != each; ++i)
                retry(db, {.attempts = 1'000'000, .first_delay = 10us, .longest_delay = 2ms},
                      {.begin = {.isolation = Isolation::serializable}}, [&](auto& tx) {
                          db.on_commit([&side] { ++side.hooks; });
                          const int n = tx.exec("SELECT n FROM counter")[0][0].template as<int>();
                          tx.exec("UPDATE counter SET n = " + std::to_string(n + 1));
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
    CHECK(run(setup, "SELECT n FROM counter") == std::to_string(2 * each));
}

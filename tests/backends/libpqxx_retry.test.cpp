// SPDX-License-Identifier: MIT
//
// retry() through libpqxx, where other sessions are in the way.

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"
#include "support/pqxx_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>
#include <txhooks/retry.hpp>

#include <pqxx/pqxx>

#include <string>

using namespace support;
using txhooks::retry;
using txhooks::postgres::Isolation;

TEST_CASE("libpqxx retry: what cannot be serialized, at COMMIT or before", "[retry][S46][P03]") {
    const bool nested = GENERATE(true, false);
    PqxxScene scene;
    PostgresHandle other{scene.server()};
    Log errors;
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
    CHECK(errors == Log{"40001"});
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "2,9");
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx retry: both sides of a deadlock are done in the end", "[retry][P03]") {
    check_retried_deadlock<PqxxScene>();
}

TEST_CASE("libpqxx retry: gives up with the last error, and takes no other for transient", "[retry]") {
    check_what_is_transient<PqxxScene>();
}

TEST_CASE("libpqxx retry: a transaction that ended behind the block's back is not done again", "[retry][S50][P08]") {
    const std::string sql = GENERATE("COMMIT", "COMMIT; BEGIN", "ROLLBACK", "ROLLBACK; BEGIN");
    PqxxScene scene;
    Log errors;
    int calls = 0;
    CHECK(ending([&] {
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
    CHECK(scene.sink.lines() == Log{"txhooks: while rolling back a block: TransactionLost unknown"});
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx retry: two threads that read and then write lose nothing", "[retry][P03]") {
    check_two_threads_that_read_and_write<PqxxScene>();
}

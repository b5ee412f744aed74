// SPDX-License-Identifier: MIT
//
// The same as libpq_ends.test.cpp. libpqxx does not show how statements end: what they did to the transaction is seen
// when the block ends.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/postgres_ends.hpp"
#include "support/pqxx_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include <string>

using namespace support;

TEST_CASE("libpqxx ends: rollback hooks run where it is proven that nothing is there, else the others",
          "[S45][S46][S48][S50][S68][S69][S70]") {
    check_postgres_ends<PqxxScene>();
}

TEST_CASE("libpqxx ends: who loses against another transaction was rolled back", "[S46][S68][P03]") {
    check_ends_of_conflicts<PqxxScene>();
}

TEST_CASE("libpqxx ends: a COMMIT that is cancelled was rolled back, a session ended in it is in doubt",
          "[S46][S48][S68][S69][P04][P15]") {
    check_ends_of_signals<PqxxScene>();
}

TEST_CASE("libpqxx ends: a connection that is lost while a block ends proves nothing", "[S48][S49][S69][S72][P05]") {
    check_ends_of_cuts<PqxxScene>();
}

TEST_CASE("libpqxx ends: a savepoint that is rolled back runs its own, where the block goes on",
          "[S26][S64][S68][S70][S72]") {
    check_savepoint_rolled_back<PqxxScene>();
}

TEST_CASE("libpqxx ends: what is written before COMMIT is committed with the rest", "[S61][S64]") {
    check_rows_before_commit<PqxxScene>();
}

TEST_CASE("libpqxx ends: a hook before COMMIT that throws rolls the block back", "[S62][S68][S69]") {
    check_throw_before_commit<PqxxScene>(execute_on_postgres, "23505");
}

TEST_CASE("libpqxx ends: a transaction that a hook before COMMIT has ended or failed runs no further one",
          "[S50][S63][S69][retry]") {
    check_ends_before_commit_on_postgres<PqxxScene>();
}

TEST_CASE("libpqxx ends: a deferred constraint that a hook before COMMIT violates is met by COMMIT",
          "[S46][S61][P02]") {
    check_constraint_before_commit<PqxxScene>();
}

TEST_CASE("libpqxx ends: retry does a block again whose hook before COMMIT meets a transient error",
          "[S62][S76][retry]") {
    check_retry_before_commit<PqxxScene>([](auto& scene) { scene.execute(fails_with("40001")); });
}

TEST_CASE("libpqxx ends: retry does a block again that a hook before COMMIT brings into a conflict",
          "[S46][S61][S76][retry][P03]") {
    check_serialization_before_commit<PqxxScene>();
}

TEST_CASE("libpqxx ends: a hook before COMMIT stands in the isolation of its block, and in its read-only",
          "[S38][S61][S62]") {
    check_options_before_commit<PqxxScene>();
}

TEST_CASE("libpqxx ends: in a RolledBack and a CapturedHooks each kind has its place", "[S76][S77]") {
    check_scopes<PqxxScene>();
}

TEST_CASE("libpqxx ends: what a hook writes before a COMMIT that finds the transaction gone stands alone",
          "[S50][S63][S69]") {
    PqxxScene scene;
    Kinds<PqxxScene> kinds{scene};
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  scene.db.before_commit([&] { scene.insert(7); });
                  scene.run("ROLLBACK");
              });
          })) == "TransactionLost unknown");
    CHECK(kinds.ran() == "b1 u1");
    CHECK(scene.truth() == "7");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

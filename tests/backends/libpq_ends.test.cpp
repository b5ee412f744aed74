// SPDX-License-Identifier: MIT
//
// Hooks of every kind on PostgreSQL: which of them run at which end of a block, and what is true then.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/postgres_ends.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <string>

using namespace support;

TEMPLATE_LIST_TEST_CASE("libpq ends: rollback hooks run where it is proven that nothing is there, else the others",
                        "[S45][S46][S48][S50][S68][S69][S70]", EveryWitness) {
    check_postgres_ends<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: who loses against another transaction was rolled back", "[S46][S68][P03]",
                        EveryWitness) {
    check_ends_of_conflicts<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a COMMIT that is cancelled was rolled back, a session ended in it is in doubt",
                        "[S46][S48][S68][S69][P04][P15]", EveryWitness) {
    check_ends_of_signals<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a connection that is lost while a block ends proves nothing",
                        "[S48][S49][S69][S72][P05]", EveryWitness) {
    check_ends_of_cuts<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a savepoint that is rolled back runs its own, where the block goes on",
                        "[S26][S64][S68][S70][S72]", EveryWitness) {
    check_savepoint_rolled_back<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: what is written before COMMIT is committed with the rest", "[S61][S64]",
                        EveryWitness) {
    check_rows_before_commit<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a hook before COMMIT that throws rolls the block back", "[S62][S68][S69]",
                        EveryWitness) {
    check_throw_before_commit<PostgresScene<TestType>>(execute_on_postgres, "EngineError 23505 rolled_back");
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a transaction that a hook before COMMIT has ended or failed runs no further one",
                        "[S50][S63][S69][retry]", EveryWitness) {
    check_ends_before_commit_on_postgres<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a deferred constraint that a hook before COMMIT violates is met by COMMIT",
                        "[S46][S61][P02]", EveryWitness) {
    check_constraint_before_commit<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: retry does a block again whose hook before COMMIT meets a transient error",
                        "[S62][S76][retry]", EveryWitness) {
    check_retry_before_commit<PostgresScene<TestType>>([](auto& scene) { scene.execute(fails_with("40001")); });
}

TEMPLATE_LIST_TEST_CASE("libpq ends: retry does a block again that a hook before COMMIT brings into a conflict",
                        "[S46][S61][S76][retry][P03]", EveryWitness) {
    check_serialization_before_commit<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: a hook before COMMIT stands in the isolation of its block, and in its read-only",
                        "[S38][S61][S62]", EveryWitness) {
    check_options_before_commit<PostgresScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("libpq ends: in a RolledBack and a CapturedHooks each kind has its place", "[S76][S77]",
                        EveryWitness) {
    check_scopes<PostgresScene<TestType>>();
}

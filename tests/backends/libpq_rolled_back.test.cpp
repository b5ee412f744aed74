// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/sample_service.hpp"

TEMPLATE_LIST_TEST_CASE("RolledBack: a service on PostgreSQL tells the world the same as with real commits",
                        "[rolled_back][libpq]", support::EveryWitness) {
    support::check_rolled_back<support::PostgresScene<TestType>>();
}

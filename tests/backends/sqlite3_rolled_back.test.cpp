// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/sample_service.hpp"
#include "support/sqlite_scene.hpp"

TEMPLATE_LIST_TEST_CASE("RolledBack: a service on SQLite tells the world the same as with real commits",
                        "[rolled_back][sqlite3]", support::DeferredWays) {
    support::check_rolled_back<support::Scene<TestType>>();
}

// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/mariadb_scene.hpp"
#include "support/sample_service.hpp"

TEMPLATE_LIST_TEST_CASE("RolledBack: a service on MariaDB tells the world the same as with real commits",
                        "[rolled_back][mariadb]", support::EveryWay) {
    support::check_rolled_back<support::Scene<TestType>>();
}

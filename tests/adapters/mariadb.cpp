// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/mariadb_scene.hpp"

#include <sys/socket.h>

#include <txhooks/backends/mariadb.hpp>
#include <txhooks/testing/adapter_check.hpp>

#include <chrono>
#include <string>
#include <thread>

using txhooks::testing::adapter_check;

namespace {

template <class A>
struct Session {
    using Adapter = A;

    MYSQL* backend() { return handle; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        support::run(handle, sql);
    }
    long look(const std::string& query) { return std::stol(support::values(others, query)); }

    void lose_reply() { ::shutdown(mysql_get_socket(handle), SHUT_RD); }
    void kill() const {
        support::Handle killer;
        support::attempt(killer, "KILL CONNECTION " + id);
        const std::string count = "SELECT count(*) FROM information_schema.processlist WHERE id = " + id;
        while (support::values(killer, count) != "0") std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }

    support::Handle others;
    support::Handle handle;
    std::string id = std::to_string(mysql_thread_id(handle));
};

}  // namespace

TEST_CASE("libmariadb keeps the promise, with compounds and without") {
    CHECK(adapter_check("libmariadb", [] { return Session<support::Compounds>(); },
                        {"busy COMMIT", "refused COMMIT", "deferred constraint"})
              .passed());
    CHECK(adapter_check("libmariadb, Plain", [] { return Session<support::Plain>(); },
                        {"busy COMMIT", "refused COMMIT", "deferred constraint", "reply to COMMIT lost"})
              .passed());
}

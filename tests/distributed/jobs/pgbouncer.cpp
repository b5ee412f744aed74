// SPDX-License-Identifier: MIT

// A session is somebody else's after each transaction. The pooler is killed, and the server behind it.

#include "distributed/postgres_pair.hpp"
#include "outbox/crash/postgres.hpp"

#include <string>

namespace crash {
namespace {

class Pooled final : public PostgresSession {
public:
    explicit Pooled(const std::string&, std::int64_t process = 0) : PostgresSession{process, ""} {}
};

void crash_either() {
    static bool pooler = false;
    pooler = not pooler;
    distributed::kill_process(std::stoi(support::postgres_file(pooler ? "pooler.pid" : "server/data/postmaster.pid")));
    distributed::until([] { return support::attempt(distributed::connect(), "SELECT 1").empty(); });
}

[[maybe_unused]] const bool there = add_engine<Pooled>(
    "pgbouncer", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, Nature{}, crash_either);

}  // namespace
}  // namespace crash

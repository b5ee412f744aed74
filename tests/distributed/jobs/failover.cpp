// SPDX-License-Identifier: MIT

// The primary is killed, its standby takes its place and gets one of its own, again and again.

#include "distributed/postgres_pair.hpp"
#include "outbox/crash/postgres.hpp"

#include <signal.h>

namespace crash {
namespace {

void crash_primary() {
    distributed::fail_over(SIGKILL);
    distributed::await_standby();
}

[[maybe_unused]] const bool there = add_engine<Postgres>(
    "failover", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, Nature{}, crash_primary);

}  // namespace
}  // namespace crash

// SPDX-License-Identifier: MIT

// The primary is killed, its standby takes its place and gets one of its own, again and again. Every other time the
// standby has missed what the primary did last: nobody may have been told that it was committed, but of settlements.

#include "distributed/postgres_pair.hpp"
#include "outbox/crash/postgres.hpp"

#include <signal.h>

namespace crash {
namespace {

void crash_primary() {
    static bool cut_off = false;
    cut_off = not cut_off;
    if (cut_off) {
        distributed::cut_off_standby();
        sleep(milliseconds{200});
    }
    distributed::fail_over(SIGKILL);
    distributed::await_standby();
}

[[maybe_unused]] const bool there = add_engine<Postgres>(
    "failover", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, Nature{}, crash_primary);

}  // namespace
}  // namespace crash

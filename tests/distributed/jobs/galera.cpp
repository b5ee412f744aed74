// SPDX-License-Identifier: MIT

// Each process has its connection to one of two nodes, to the other one if its own is not there. Locks are those of a
// node; what two of them have changed at once one of them finds out at COMMIT, or before.

#include "distributed/until.hpp"
#include "outbox/crash/mariadb.hpp"
#include "support/mariadb_server.hpp"

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>

namespace crash {
namespace {

std::string folder_of(std::int64_t node) {
    return std::getenv("TXHOOKS_GALERA") + std::string{"/"} + std::to_string(node % 2 + 1);
}

bool is_synced(MYSQL* db) {
    return support::values(db,
                           "SELECT variable_value FROM information_schema.global_status WHERE variable_name = "
                           "'WSREP_LOCAL_STATE_COMMENT'") == "Synced";
}

class Galera final : public MariadbSession {
public:
    explicit Galera(const std::string&, std::int64_t process = 0)
        : MariadbSession{support::MariadbServer::in(folder_of(node_for(process))), process} {
        // The judge sees what was committed on the other node as well.
        if (process == 0) run("SET wsrep_sync_wait = 1");
    }

    void make_time_zone() {
        for (const int node : {0, 1}) MariadbSession{support::MariadbServer::in(folder_of(node)), 0}.make_time_zone();
    }

    static Trouble trouble(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::EngineError& e) {
            // 1047, 1180: of a node that is not, or no longer, in the cluster.
            if (e.code() == 1047 or e.code() == 1180) return Trouble::expected;
        } catch (...) {
            // The same as everywhere.
        }
        return MariadbSession::trouble(error);
    }

private:
    static std::int64_t node_for(std::int64_t process) {
        try {
            MariadbSession session{support::MariadbServer::in(folder_of(process)), 0};
            if (is_synced(session.handle())) return process;
        } catch (const std::exception&) {
            // It is not there.
        }
        return process + 1;
    }
};

void crash_node() {
    static std::int64_t node = 0;
    ++node;
    int pid = 0;
    std::ifstream{folder_of(node) + "/pid"} >> pid;
    distributed::kill_process(pid);
    distributed::until([] {
        try {
            MariadbSession session{support::MariadbServer::in(folder_of(node)), 0};
            return is_synced(session.handle());
        } catch (const std::exception&) {
            return false;
        }
    });
    sleep(milliseconds{8000});  // they meet only while both are there
}

[[maybe_unused]] const bool there =
    add_engine<Galera>("galera", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"},
                       Nature{.refuses = true, .locks_for_all = false, .forgets = false}, crash_node);

}  // namespace
}  // namespace crash

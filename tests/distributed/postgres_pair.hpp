// SPDX-License-Identifier: MIT
#pragma once

// The primary and the standby that support/servers/postgres_pair has started.

#include "support/postgres_scene.hpp"
#include "until.hpp"

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace distributed {

inline std::string primary() {
    return std::getenv("TXHOOKS_POSTGRES");
}

inline support::PostgresHandle connect_to_standby() {
    return support::PostgresHandle{support::postgres_server(
        "host=" + primary() + "/../standby port=" + support::postgres_file("../standby/port"))};
}

/// To whoever is the primary, as soon as it answers.
inline support::PostgresHandle connect(const std::string& more = "") {
    std::optional<support::PostgresHandle> handle;
    until([&] {
        try {
            handle.emplace(support::postgres_server(more));
        } catch (const std::runtime_error&) {}
        return handle.has_value();
    });
    return std::move(*handle);
}

/// It receives nothing more. What waits for it waits until it has taken over.
inline void cut_off_standby() {
    const support::PostgresHandle on_standby = connect_to_standby();
    support::run(on_standby, "ALTER SYSTEM SET primary_conninfo = ''");
    support::run(on_standby, "SELECT pg_reload_conf()");
    until([&] { return support::run(on_standby, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"; });
}

inline void fail_over(int how) {
    const auto before = std::filesystem::read_symlink(primary());
    end_process(std::stoi(support::postgres_file("data/postmaster.pid")), how);
    until([&] { return std::filesystem::read_symlink(primary()) != before; });
}

/// A new one takes the place of the one that has become the primary.
inline void await_standby() {
    const support::PostgresHandle others = connect();
    until([&] {
        return support::run(others, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1";
    });
}

}  // namespace distributed

// SPDX-License-Identifier: MIT
#pragma once

// The jobs of `Sending` on a server of PostgreSQL, for a scene of either driver.

#include "outbox/commit_scene.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <string>

namespace support {

template <class OnPostgres>
std::string stored(const OnPostgres& scene, const std::string& name) {
    return run(scene.others,
               "SELECT string_agg(convert_from(payload, 'UTF8'), ',' ORDER BY id) FROM txhooks_job WHERE name = '" +
                   name + "'");
}
template <class OnPostgres>
void change(const OnPostgres& scene, const std::string& sql) {
    run(scene.others, sql);
}

inline std::string through(TcpProxy& proxy) {
    return "host=127.0.0.1 port=" + std::to_string(proxy.port());
}

}  // namespace support

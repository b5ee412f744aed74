// SPDX-License-Identifier: MIT

#include "postgres.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace crash {
namespace {

void crash_server() {
    const std::string command =
        std::string{"'" TXHOOKS_SERVER_SCRIPTS "/postgres' restart '"} + std::getenv("TXHOOKS_POSTGRES") + "' KILL";
    if (std::system(command.c_str()) != 0) throw std::runtime_error{command + " failed"};
}

[[maybe_unused]] const bool there = add_engine<Postgres>(
    "postgres", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, Nature{}, crash_server);

}  // namespace
}  // namespace crash

// SPDX-License-Identifier: MIT

#include "mariadb.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace crash {
namespace {

class Mariadb final : public MariadbSession {
public:
    explicit Mariadb(const std::string&, std::int64_t process = 0) : MariadbSession{support::mariadb(), process} {}
};

// What is committed is with the operating system, which does not crash here.
void crash_server() {
    const std::string command = std::string{"'" TXHOOKS_SERVER_SCRIPTS "/mariadb' restart '"} +
                                std::getenv("TXHOOKS_MARIADB") + "' KILL innodb-flush-log-at-trx-commit=2";
    if (std::system(command.c_str()) != 0) throw std::runtime_error{command + " failed"};
}

[[maybe_unused]] const bool there = add_engine<Mariadb>(
    "mariadb", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, Nature{}, crash_server);

}  // namespace
}  // namespace crash

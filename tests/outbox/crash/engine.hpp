// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace crash {

using Rows = std::vector<std::vector<std::string>>;

/// A connection, as the judge uses it.
class Session {
public:
    virtual ~Session() = default;
    virtual void run(const std::string& sql) = 0;
    virtual Rows rows(const std::string& sql) = 0;
    std::int64_t number(const std::string& sql) { return std::stoll(rows(sql).at(0).at(0)); }
};

/// What a process is started with.
struct Start {
    std::string role;
    std::string folder;
    std::int64_t process = 0;
    std::uint64_t seed = 0;
};

/// An engine, of which this program has several. Each of them is one file, which adds itself.
struct Engine {
    const char* name;
    std::vector<std::string> roles;  // of the processes
    bool refuses;                    // a claim or settlement that another transaction hindered is a fault
    std::function<std::unique_ptr<Session>(const std::string& folder)> connect;
    std::function<void(Session&)> create_tables;
    std::function<int(const Start&)> be;
    std::function<void()> crash;  // the server, which is there again afterwards; null: there is none
};

inline std::vector<Engine>& engines() {
    static std::vector<Engine> all;
    return all;
}

}  // namespace crash

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

/// What an error says. A fault: that neither a server was killed nor another transaction in the way.
enum class Trouble : std::int64_t { expected, in_the_way, fault };

/// What is to be expected of an engine.
struct Nature {
    bool refuses = false;       // a claim or a settlement, which another transaction is in the way of
    bool locks_for_all = true;  // nobody gets at what an open transaction has taken
    bool forgets = true;        // what was settled last, when it crashes
};

/// An engine, of which this program has several. Each of them is one file, which adds itself.
struct Engine {
    const char* name;
    std::vector<std::string> roles;  // of the processes
    Nature nature;
    std::function<std::unique_ptr<Session>(const std::string& folder)> connect;
    std::function<void(Session&)> create_tables;
    std::function<int(const Start&)> be;
    std::function<void()> crash;  // a server; all is there again afterwards. Null: there is none
};

inline std::vector<Engine>& engines() {
    static std::vector<Engine> all;
    return all;
}

}  // namespace crash

// SPDX-License-Identifier: MIT
#pragma once

// What the adapters for PostgreSQL share.

#include <cstdio>
#include <cstring>
#include <string_view>

namespace txhooks::postgres {

enum class Isolation : unsigned char { of_session, read_committed, repeatable_read, serializable };

/// How an outermost block begins. What is not given is as the session has it.
struct Begin {
    Isolation isolation = Isolation::of_session;
    bool read_only = false;
    /// With serializable and read_only: wait for a snapshot that cannot fail.
    bool deferrable = false;

    friend bool operator==(const Begin&, const Begin&) = default;
};

namespace detail {

// Calls `execute` with `plain`, a string of statements that starts with BEGIN, and the options put in there.
template <class Execute>
void begin(const char* plain, const Begin& options, Execute execute) {
    if (options == Begin{}) return execute(plain);
    static constexpr const char* isolation[] = {"", " ISOLATION LEVEL READ COMMITTED",
                                                " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE"};
    char sql[160];
    std::snprintf(sql, sizeof sql, "BEGIN%s%s%s%s", isolation[static_cast<unsigned>(options.isolation)],
                  options.read_only ? " READ ONLY" : "", options.deferrable ? " DEFERRABLE" : "",
                  plain + std::strlen("BEGIN"));
    execute(sql);
}

// A serialization failure, or the victim of a deadlock.
inline bool is_transient(std::string_view sqlstate) noexcept {
    return sqlstate == "40001" or sqlstate == "40P01";
}

}  // namespace detail
}  // namespace txhooks::postgres

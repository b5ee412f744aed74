// SPDX-License-Identifier: MIT
#pragma once

// What the adapters for PostgreSQL share.

#include <txhooks/detail/doubt_state.hpp>
#include <txhooks/errors.hpp>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
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
    const auto level = static_cast<std::size_t>(options.isolation);
    if (level >= std::size(isolation)) throw UsageError{"txhooks: no such isolation level"};
    char sql[160];
    std::snprintf(sql, sizeof sql, "BEGIN%s%s%s%s", isolation[level], options.read_only ? " READ ONLY" : "",
                  options.deferrable ? " DEFERRABLE" : "", plain + std::strlen("BEGIN"));
    execute(sql);
}

// Writes the row of a Doubt, and `commit`, which ends in COMMIT: `before` is what comes first. Calls `send` with it
// all.
template <class Send>
auto commit_marked(std::string_view before, const char* marker, const char* commit, Send send) {
    char sql[300];
    std::snprintf(sql, sizeof sql, "%.*sINSERT INTO txhooks_commit (id, committed) VALUES ('%s', true); %s",
                  static_cast<int>(before.size()), before.data(), marker, commit);
    return send(sql);
}

// In place of that in a block that is read-only: commits it if it has written nothing, else divides by zero.
inline constexpr const char* commit_unmarked =
    "ROLLBACK TO txhooks_0; SELECT 1 / (pg_catalog.txid_current_if_assigned() IS NULL)::int; COMMIT";

// Whether that row was written; if not, it never will be. Writes also if it was, so that the answer waits for the
// standbys that a COMMIT waits for. `ask` runs a statement and returns its first value, or "".
template <class Ask>
bool was_committed(const char* marker, Ask ask) {
    const std::string kept = ask(
        "SELECT relpersistence = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass('txhooks_commit')");
    if (kept == "f")
        throw UsageError{
            "txhooks: txhooks_commit is UNLOGGED or temporary, and a missing row of such a table proves nothing; make "
            "it an ordinary one (ALTER TABLE txhooks_commit SET LOGGED)"};
    char sql[300];
    std::snprintf(sql, sizeof sql,
                  "WITH marker AS (INSERT INTO txhooks_commit (id, committed) VALUES ('%s', false) ON CONFLICT (id) DO "
                  "UPDATE SET committed = txhooks_commit.committed RETURNING committed) SELECT committed FROM marker",
                  marker);
    const std::string committed = ask(sql);
    if (committed.empty()) throw UsageError{txhooks::detail::marker_swallowed};
    return committed == "t";
}

inline constexpr std::string_view no_transaction = "25P01";
inline constexpr std::string_view read_only = "25006";

// Which process this is; the same for all where there is no fork().
inline long this_process() noexcept {
#if __has_include(<unistd.h>)
    return getpid();
#else
    return 0;
#endif
}

inline constexpr const char* after_fork =
    "txhooks: this block was begun in another process, before fork(), and nothing was sent to the server; end it "
    "there, leave this process with _exit() or exec, and give it a connection of its own";

// A serialization failure, or the victim of a deadlock.
inline bool is_transient(std::string_view sqlstate) noexcept {
    return sqlstate == "40001" || sqlstate == "40P01";
}

}  // namespace detail
}  // namespace txhooks::postgres

// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace random_programs {

/// What is counted. The outermost blocks first, by what was told of each in the end.
enum class Count : unsigned {
    committed,
    hook_error,
    rolled_back,
    aborted,
    unknown,
    resolved_committed,
    resolved_rolled_back,
    lost_committed,
    lost_rolled_back,
    lost_unknown,
    broken,
    refused,

    nested,
    still_open,
    recovered,
    reconnected,
    registered,
    ran,
    at_once,

    request_dropped,
    reply_dropped,
    cut,
    no_answer,
    killed,
    killed_at_commit,
    interrupted,
    verb_failed,
    lost_at_verb,
    raw_sql,
    ddl,
    unread,
    copied,
    copy_left,
    pipelined,
    pipeline_left,
    deadlock,
    serialization,
    lock_timeout,
    statement_timeout,
    duplicate,
    constraint,
    hook_threw,

    violations,
    end
};

inline constexpr std::array<const char*, static_cast<std::size_t>(Count::end)> count_names{
    "committed",
    "committed, HookError",
    "rolled back",
    "aborted",
    "unknown",
    "resolved to committed",
    "resolved to rolled back",
    "lost, committed",
    "lost, rolled back",
    "lost, unknown",
    "broken while rolling back",
    "refused to open",

    "nested blocks",
    "still open at commit()",
    "broken, then reset()",
    "sessions made anew",
    "hooks registered",
    "hooks ran",
    "hooks outside of blocks",

    "request dropped",
    "reply dropped",
    "cut after the request",
    "silence",
    "session killed",
    "session killed at the end",
    "statement interrupted",
    "verb failed",
    "session killed at a verb",
    "raw SQL ended it",
    "DDL",
    "results unread",
    "COPY",
    "COPY in progress at the end",
    "pipeline",
    "pipeline on at the end",
    "deadlock",
    "serialization failure",
    "lock timeout",
    "statement timeout",
    "duplicate key",
    "deferred constraint",
    "hook threw",

    "violations",
};

class Tally {
public:
    unsigned long& operator[](Count what) { return numbers_[static_cast<std::size_t>(what)]; }
    unsigned long operator[](Count what) const { return numbers_[static_cast<std::size_t>(what)]; }

    Tally& operator+=(const Tally& other) {
        for (std::size_t i = 0; i != numbers_.size(); ++i) numbers_[i] += other.numbers_[i];
        return *this;
    }

    /// The outermost blocks that were asked for.
    unsigned long blocks() const {
        unsigned long sum = 0;
        for (std::size_t i = 0; i <= static_cast<std::size_t>(Count::refused); ++i) sum += numbers_[i];
        return sum;
    }

private:
    std::array<unsigned long, static_cast<std::size_t>(Count::end)> numbers_{};
};

using Column = std::pair<std::string, Tally>;

inline void print(const std::vector<Column>& columns) {
    const auto line = [&](const char* name, auto number) {
        std::printf("%-28s", name);
        for (const Column& column : columns) std::printf("%20lu", number(column.second));
        std::printf("\n");
    };
    std::printf("%-28s", "");
    for (const Column& column : columns) std::printf("%20s", column.first.c_str());
    std::printf("\n");
    line("outermost blocks", [](const Tally& tally) { return tally.blocks(); });
    for (std::size_t i = 0; i != count_names.size(); ++i) {
        const auto what = static_cast<Count>(i);
        if (what == Count::nested or what == Count::request_dropped or what == Count::violations) std::printf("\n");
        if (what != Count::violations) line(count_names[i], [&](const Tally& tally) { return tally[what]; });
    }
    unsigned long violations = 0;
    for (const Column& column : columns) violations += column.second[Count::violations];
    std::printf("violations: %lu\n", violations);
}

}  // namespace random_programs

// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <iterator>
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

    commit_registered,
    commit_ran,
    commit_dropped,
    commit_undone,
    commit_lost,
    commit_unproven,
    before_registered,
    before_ran,
    before_committed,
    before_wrote,
    before_threw,
    before_failed,
    before_asked,
    before_left_open,
    rollback_registered,
    rollback_savepoint,
    rollback_transaction,
    rollback_lost,
    rollback_resolved,
    rollback_unproven,
    unless_registered,
    unless_savepoint,
    unless_transaction,
    unless_lost,
    unless_doubt,
    unless_broken,
    by_before,
    by_undone,
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
    undone_threw,
    committed_by_hand,

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

    "on_commit",
    "  ran",
    "  not: an earlier one threw",
    "  not: undone",
    "  not: lost",
    "  not: in doubt, or broken",
    "before_commit",
    "  ran",
    "  and it was committed",
    "  wrote a row of their own",
    "  threw",
    "  returned a failure",
    "  made it roll back otherwise",
    "  left a block open",
    "on_rollback",
    "  ran: savepoint",
    "  ran: transaction",
    "  ran: lost, rolled back",
    "  ran: doubt resolved",
    "  not: nothing is proven",
    "unless_committed",
    "  ran: savepoint",
    "  ran: transaction",
    "  ran: lost",
    "  ran: in doubt",
    "  ran: broken",
    "by hooks before COMMIT",
    "by hooks of what is undone",
    "outside of blocks",

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
    "hook threw after COMMIT",
    "hook of what is undone threw",
    "broken, committed by hand",

    "violations",
};

/// With the line that it stands under.
inline std::string full_name(Count what) {
    const auto at = static_cast<std::size_t>(what);
    const std::string name = count_names[at];
    if (not name.starts_with("  ")) return name;
    std::size_t verb = at;
    while (*count_names[verb] == ' ') --verb;
    return count_names[verb] + name.substr(1);
}

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

/// What so many blocks should have shown and did not, in a sentence, or "". `never`: what that server does not show.
inline std::string not_seen(const Tally& tally, const std::vector<Count>& never) {
    static constexpr unsigned long some = 2000;
    static constexpr unsigned long many = 20'000;
    static constexpr Count usual[] = {Count::committed,
                                      Count::hook_error,
                                      Count::rolled_back,
                                      Count::aborted,
                                      Count::unknown,
                                      Count::nested,
                                      Count::commit_ran,
                                      Count::commit_undone,
                                      Count::commit_lost,
                                      Count::before_ran,
                                      Count::before_committed,
                                      Count::before_wrote,
                                      Count::before_threw,
                                      Count::rollback_savepoint,
                                      Count::rollback_transaction,
                                      Count::rollback_unproven,
                                      Count::unless_savepoint,
                                      Count::unless_transaction,
                                      Count::unless_lost,
                                      Count::unless_doubt};
    std::string names;
    for (std::size_t i = 0; i != static_cast<std::size_t>(Count::violations); ++i) {
        const auto what = static_cast<Count>(i);
        const bool is_usual = std::find(std::begin(usual), std::end(usual), what) != std::end(usual);
        const bool is_never = std::find(never.begin(), never.end(), what) != never.end();
        if (is_never or tally[what] != 0 or tally.blocks() < (is_usual ? some : many)) continue;
        names += names.empty() ? "" : ", ";
        names += full_name(what);
    }
    if (names.empty()) return "";
    return "of " + std::to_string(tally.blocks()) + " blocks none showed: " + names;
}

using Column = std::pair<std::string, Tally>;

inline void print(const std::vector<Column>& columns) {
    const auto line = [&](const char* name, auto number) {
        std::printf("%-32s", name);
        for (const Column& column : columns) std::printf("%20lu", number(column.second));
        std::printf("\n");
    };
    std::printf("%-32s", "");
    for (const Column& column : columns) std::printf("%20s", column.first.c_str());
    std::printf("\n");
    line("outermost blocks", [](const Tally& tally) { return tally.blocks(); });
    for (std::size_t i = 0; i != count_names.size(); ++i) {
        const auto what = static_cast<Count>(i);
        if (what == Count::nested or what == Count::commit_registered or what == Count::request_dropped or
            what == Count::violations)
            std::printf("\n");
        if (what != Count::violations) line(count_names[i], [&](const Tally& tally) { return tally[what]; });
    }
    unsigned long violations = 0;
    for (const Column& column : columns) violations += column.second[Count::violations];
    std::printf("violations: %lu\n", violations);
}

}  // namespace random_programs

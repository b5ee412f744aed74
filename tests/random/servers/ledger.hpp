// SPDX-License-Identifier: MIT
#pragma once

#include "tally.hpp"

#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace random_programs {

/// A hook and the row that was written right before it was registered.
struct Pair {
    unsigned long row;
    bool throws = false;
    bool robust = false;
    unsigned ran = 0;
};

/// What is known of a transaction on the client's side.
struct Transaction {
    unsigned long mark = 0;              // the row of the outermost block itself, or 0
    std::deque<Pair> hooks;              // in order of registration
    std::vector<Pair*> ran;              // in that order
    std::vector<txhooks::Outcome> lost;  // every loss that was told
    Count told = Count::refused;
    txhooks::HookFailure policy = txhooks::HookFailure::stop;
    std::optional<txhooks::HookError> hook_error;
    bool raw = false;   // user code ended it
    bool calm = false;  // nothing was made to fail, and no statement failed
    std::string story;
};

/// What is wrong with a transaction that has ended, or "". `rows` are those that others see.
inline std::string wrong(const Transaction& t, const std::unordered_set<unsigned long>& rows) {
    std::vector<const Pair*> visible;
    for (const Pair& hook : t.hooks) {
        if (hook.ran > 1) return "the hook of row " + std::to_string(hook.row) + " ran twice";
        if (rows.contains(hook.row)) visible.push_back(&hook);
    }
    const bool marked = t.mark != 0;
    const bool mark_visible = rows.contains(t.mark);
    const bool committed =
        t.told == Count::committed or t.told == Count::hook_error or t.told == Count::resolved_committed;

    const bool alarmed = not t.lost.empty() or t.told == Count::unknown or t.told == Count::broken or
                         t.told == Count::refused or t.told == Count::resolved_committed or
                         t.told == Count::resolved_rolled_back;
    if (t.calm and alarmed) return "that was told for no reason";
    if (not committed or not t.lost.empty())
        if (not t.ran.empty()) return "a hook ran, for row " + std::to_string(t.ran.front()->row);
    if (not t.lost.empty()) {
        if (committed) return "committed and lost";
        for (const txhooks::Outcome outcome : t.lost) {
            if (outcome == txhooks::Outcome::unknown or not marked) continue;
            if ((outcome == txhooks::Outcome::committed) != mark_visible)
                return "what was told of the loss is not true";
        }
        return "";
    }
    if (t.told == Count::unknown or (t.told == Count::broken and t.raw)) return "";
    if (not committed) {
        if (marked and mark_visible) return "its own row is there";
        return visible.empty() ? "" : "row " + std::to_string(visible.front()->row) + " is there, its hook did not run";
    }

    if (marked and not mark_visible) return "its own row is not there";
    const auto fails = [](const Pair* hook) { return hook->ran != 0 and hook->throws and not hook->robust; };
    const auto first = std::find_if(visible.begin(), visible.end(), fails);
    const auto failed = static_cast<std::size_t>(std::count_if(visible.begin(), visible.end(), fails));
    const bool stops = t.policy == txhooks::HookFailure::stop and failed != 0;
    const auto end = stops ? first + 1 : visible.end();
    if (not std::equal(visible.begin(), end, t.ran.begin(), t.ran.end()))
        return "other hooks ran (" + std::to_string(t.ran.size()) + ") than those with a visible row (" +
               std::to_string(visible.size()) + "), or in another order";
    const bool tells = failed != 0 and t.policy != txhooks::HookFailure::report;
    if (tells != t.hook_error.has_value()) return "a wrong word about hooks that threw";
    if (tells and
        (t.hook_error->position() != static_cast<std::size_t>(first - visible.begin()) or
         t.hook_error->failed() != failed or t.hook_error->not_run() != static_cast<std::size_t>(visible.end() - end)))
        return "the HookError is wrong";
    return "";
}

}  // namespace random_programs

// SPDX-License-Identifier: MIT
#pragma once

#include "tally.hpp"

#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <exception>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace random_programs {

using Rows = std::unordered_set<unsigned long>;

/// What a hook was registered with.
enum class Kind : unsigned char { on_commit, before_commit, on_rollback, unless_committed };

/// A hook and the row that was written right before it was registered.
struct Hook {
    Kind kind;
    unsigned long row;
    unsigned place = 0;      // in order of registration
    bool by_undone = false;  // registered by a hook of what was undone
    bool by_before = false;  // by one before COMMIT
    bool throws = false;     // when it runs
    bool robust = false;
    unsigned ran = 0;
    bool threw = false;
    unsigned end = 0;         // the end of a block that ran it, because that was undone
    unsigned long wrote = 0;  // its own row, if it has written one

    bool after_undo() const { return kind == Kind::on_rollback or kind == Kind::unless_committed; }
};

/// What is known of a transaction on the client's side.
struct Transaction {
    unsigned long mark = 0;              // the row of the outermost block itself, or 0
    std::deque<Hook> hooks;              // in order of registration
    std::vector<Hook*> ran;              // those of on_commit, in that order
    std::vector<Hook*> before;           // those of before_commit
    std::vector<Hook*> undone;           // the others
    std::vector<txhooks::Outcome> lost;  // every loss that was told
    Count told = Count::refused;
    txhooks::HookFailure policy = txhooks::HookFailure::stop;
    std::optional<txhooks::HookError> hook_error;
    bool raw = false;     // user code ended it
    bool calm = false;    // nothing was made to fail, and no statement failed
    bool usable = false;  // the connection, after it
    std::string story;

    // The ends of its blocks have numbers: hooks that ran in the same one were undone together.
    unsigned ends = 0;
    unsigned end = 0;        // the one under way
    bool undoing = false;    // a hook of what was undone runs
    unsigned outermost = 0;  // that of the outermost block
    unsigned resolved = 0;   // the end of a doubt
    unsigned told_to_sink = 0;

    // Its hooks before COMMIT.
    bool in_before = false;     // one runs
    bool over = false;          // one has made COMMIT impossible
    bool failed = false;        // by its result
    bool left_open = false;     // by a guard
    std::exception_ptr thrown;  // by this

    bool is_committed() const {
        return told == Count::committed or told == Count::hook_error or told == Count::resolved_committed;
    }
};

inline std::string name(const Hook& hook) {
    static constexpr const char* verbs[] = {"on_commit", "before_commit", "on_rollback", "unless_committed"};
    return std::string{verbs[static_cast<std::size_t>(hook.kind)]} + " hook of row " + std::to_string(hook.row);
}

/// What is wrong with the hooks of `t` that are not for a commit, or "".
inline std::string wrong_elsewhere(const Transaction& t, const Rows& rows) {
    const auto in_order = [](const std::vector<Hook*>& hooks, const auto& fits) {
        return std::adjacent_find(hooks.begin(), hooks.end(),
                                  [&](const Hook* a, const Hook* b) { return not fits(a, b); }) == hooks.end();
    };
    if (not in_order(t.before, [](const Hook* a, const Hook* b) { return a->place < b->place; }))
        return "hooks before COMMIT ran in another order than they were registered in";
    for (auto a = t.undone.begin(); a != t.undone.end(); ++a)
        for (auto b = a + 1; b != t.undone.end(); ++b)
            if ((*a)->end == (*b)->end and (*a)->place < (*b)->place)
                return "the " + name(**a) + " ran before the " + name(**b) + ", which was registered later";

    const bool committed = t.is_committed();
    const bool lost = not t.lost.empty();
    const auto is_rolled_back = [](txhooks::Outcome outcome) { return outcome == txhooks::Outcome::rolled_back; };
    const bool proven_by_loss = lost and std::all_of(t.lost.begin(), t.lost.end(), is_rolled_back);
    const bool unproven_by_loss = lost and std::none_of(t.lost.begin(), t.lost.end(), is_rolled_back);
    const bool undone = t.told == Count::rolled_back or t.told == Count::aborted;
    const bool proven = lost ? proven_by_loss : t.told == Count::resolved_rolled_back or (undone and t.usable);
    const bool unproven = lost ? unproven_by_loss : t.told == Count::unknown;
    std::size_t ran_at_the_end = 0;
    std::size_t silent = 0;
    std::size_t threw = 0;
    for (const Hook& hook : t.hooks) {
        const bool there = rows.contains(hook.row);
        if (hook.after_undo() and hook.threw) ++threw;
        switch (hook.kind) {
            case Kind::on_commit:
                break;
            case Kind::before_commit:
                if (hook.wrote != 0 and hook.ran == 0) return "a hook before COMMIT wrote and did not run";
                if (committed and there != (hook.ran == 1))
                    return "committed: the " + name(hook) + (there ? " did not run" : " ran, and that is not there");
                if (hook.wrote == 0 or lost or t.raw) break;
                if (committed or (t.told == Count::unknown and t.mark != 0)) {
                    if (rows.contains(hook.wrote) != (committed or rows.contains(t.mark)))
                        return "what the " + name(hook) + " wrote does not share the fate of its transaction";
                } else if (t.told != Count::unknown and rows.contains(hook.wrote)) {
                    return "what the " + name(hook) + " wrote is there";
                }
                break;
            case Kind::on_rollback:
                if (hook.ran != 0 and there) return "the " + name(hook) + " ran, and that is there";
                if (hook.ran == 0 and committed and not there) return "the " + name(hook) + " did not run";
                if (hook.ran == 0 and not committed) ++silent;
                if (hook.ran != 0 and hook.end == t.outermost) ++ran_at_the_end;
                break;
            case Kind::unless_committed: {
                const bool ends = not committed or not there or t.told == Count::resolved_committed;
                if (ends != (hook.ran == 1))
                    return "the " + name(hook) + (ends ? " did not run" : " ran, and that is committed");
            }
        }
    }
    if (not committed) {
        if (proven and silent != 0) return "hooks of on_rollback did not run, and it is proven to be rolled back";
        if (unproven and ran_at_the_end != 0) return "hooks of on_rollback ran where nothing is proven";
        if (silent != 0 and ran_at_the_end != 0) return "some hooks of on_rollback ran, and some did not";
    }
    if (threw != t.told_to_sink) return "what hooks of what was undone threw is not what the sink was told";
    return "";
}

/// What is wrong with a transaction that has ended, or "". `rows` are those that others see.
inline std::string wrong(const Transaction& t, const Rows& rows) {
    std::vector<const Hook*> visible;  // those of on_commit
    const Hook* first_visible = nullptr;
    for (const Hook& hook : t.hooks) {
        if (hook.ran > 1) return "the " + name(hook) + " ran twice";
        if (not rows.contains(hook.row)) continue;
        if (first_visible == nullptr) first_visible = &hook;
        if (hook.kind == Kind::on_commit) visible.push_back(&hook);
    }
    const bool marked = t.mark != 0;
    const bool mark_visible = rows.contains(t.mark);
    const bool committed = t.is_committed();

    const bool alarmed = not t.lost.empty() or t.told == Count::unknown or t.told == Count::broken or
                         t.told == Count::refused or t.told == Count::resolved_committed or
                         t.told == Count::resolved_rolled_back;
    if (t.calm and alarmed) return "that was told for no reason";
    if (not committed or not t.lost.empty())
        if (not t.ran.empty()) return "a hook ran: the " + name(*t.ran.front());
    if (committed and not t.lost.empty()) return "committed and lost";
    if (committed and t.over) return "committed, though a hook before COMMIT did not let it";
    if (std::string what = wrong_elsewhere(t, rows); not what.empty()) return what;
    if (not t.lost.empty()) {
        for (const txhooks::Outcome outcome : t.lost) {
            if (outcome == txhooks::Outcome::unknown or not marked) continue;
            if ((outcome == txhooks::Outcome::committed) != mark_visible)
                return "what was told of the loss is not true";
        }
        return "";
    }
    if (t.told == Count::unknown) return "";
    if (not committed) {
        if (t.raw and not t.usable) return "";
        if (marked and mark_visible) return "its own row is there";
        return first_visible == nullptr ? "" : "rolled back, and there is the row of the " + name(*first_visible);
    }

    if (marked and not mark_visible) return "its own row is not there";
    const auto fails = [](const Hook* hook) { return hook->threw and not hook->robust; };
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

/// What became of its hooks.
inline void count(const Transaction& t, const Rows& rows, Tally& tally) {
    const bool lost = not t.lost.empty();
    const bool doubted =
        t.told == Count::unknown or t.told == Count::resolved_committed or t.told == Count::resolved_rolled_back;
    for (const Hook& hook : t.hooks) {
        const bool there = rows.contains(hook.row);
        if (hook.by_before) ++tally[Count::by_before];
        if (hook.by_undone) ++tally[Count::by_undone];
        if (hook.threw and hook.kind == Kind::on_commit) ++tally[Count::hook_threw];
        if (hook.threw and hook.after_undo()) ++tally[Count::undone_threw];
        switch (hook.kind) {
            case Kind::on_commit:
                ++tally[Count::commit_registered];
                ++tally[hook.ran != 0                                         ? Count::commit_ran
                        : lost                                                ? Count::commit_lost
                        : t.told == Count::unknown or t.told == Count::broken ? Count::commit_unproven
                        : t.is_committed() and there                          ? Count::commit_dropped
                                                                              : Count::commit_undone];
                break;
            case Kind::before_commit:
                ++tally[Count::before_registered];
                if (hook.ran != 0) ++tally[Count::before_ran];
                if (hook.ran != 0 and t.is_committed()) ++tally[Count::before_committed];
                if (hook.wrote != 0) ++tally[Count::before_wrote];
                break;
            case Kind::on_rollback:
                ++tally[Count::rollback_registered];
                if (hook.ran == 0) {
                    if (not t.is_committed()) ++tally[Count::rollback_unproven];
                    break;
                }
                ++tally[hook.end == t.resolved    ? Count::rollback_resolved
                        : hook.end != t.outermost ? Count::rollback_savepoint
                        : lost                    ? Count::rollback_lost
                                                  : Count::rollback_transaction];
                break;
            case Kind::unless_committed:
                ++tally[Count::unless_registered];
                if (hook.ran == 0) break;
                ++tally[hook.end != t.outermost   ? Count::unless_savepoint
                        : lost                    ? Count::unless_lost
                        : doubted                 ? Count::unless_doubt
                        : t.told == Count::broken ? Count::unless_broken
                                                  : Count::unless_transaction];
        }
    }
    if (t.thrown) ++tally[Count::before_threw];
    if (t.failed) ++tally[Count::before_failed];
    if (t.left_open) ++tally[Count::before_left_open];
    if (t.over and not t.thrown and not t.failed and not t.left_open) ++tally[Count::before_asked];
}

}  // namespace random_programs

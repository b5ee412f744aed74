// SPDX-License-Identifier: MIT
#pragma once

#include "support/exceptions.hpp"
#include "support/story.hpp"

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace support {

/// What all blocks, hooks and failures come to: RULES.md (S1, S2, S11 to S19, S25, S26, S33, S34, S36, S40, S44 to S51, S61
/// to S73) put as plainly as it can be, in one place, on an engine of its own. A connection that is told the same story must
/// answer the same; where the two differ, one of them is wrong.
///
/// It keeps a list of levels and a list of hooks, and asks the engine before each step; it has no guards, no sink, no
/// detached hooks, and does not care what anything costs.
class Rules {
    using Call = std::function<void()>;

public:
    txhooks::testing::FakeBackend engine;

    void put(char key) { engine.put(std::string{key}); }

    void on_commit(Call hook) { add(Kind::commit, std::move(hook)); }
    void before_commit(Call hook) { add(Kind::before_commit, std::move(hook)); }
    void on_rollback(Call hook) { add(Kind::rollback, std::move(hook)); }
    void unless_committed(Call hook) { add(Kind::unless_committed, std::move(hook)); }

    template <class Body>
    void block(const Step& step, Body body) {
        open(step.what == 'J');
        const std::size_t depth = levels_.size();
        try {
            body();
            if (step.ending == '~') {
                if (const std::exception_ptr error = roll_back()) std::rethrow_exception(error);
                return;
            }
            commit(step.ending == '?');
        } catch (...) {
            if (levels_.size() == depth) roll_back();
            throw;
        }
    }

    bool broken() const noexcept { return broken_; }

    /// Everything that verbs threw.
    const std::vector<std::string>& failures() const noexcept { return failures_; }

    /// What the sink is told of hooks that ran because something was not committed.
    const std::vector<std::string>& hooks_that_threw() const noexcept { return hooks_that_threw_; }

private:
    enum class Kind : unsigned char { commit, before_commit, rollback, unless_committed };
    struct Hook {
        Kind kind;
        Call call;
    };

    // Whether what the hooks waited for is proven to be undone, or nothing is proven.
    enum class Proven : unsigned char { undone, nothing };

    struct Level {
        char kind;
        unsigned number;
        std::size_t hooks;
    };

    void add(Kind kind, Call hook) {
        if (broken_) throw txhooks::ConnectionBroken{};
        if (not levels_.empty()) {
            if (is_lost()) throw txhooks::TransactionLost{*lost_};
            hooks_.push_back({kind, std::move(hook)});
        } else if (kind == Kind::commit or kind == Kind::before_commit) {
            hook();
        }
    }

    void open(bool join) {
        if (broken_) throw txhooks::ConnectionBroken{};
        if (levels_.empty()) {
            try {
                engine.begin();
            } catch (...) {
                note();
                clear_engine();
                throw;
            }
            levels_.push_back({'B', 0, 0});
            return;
        }
        if (is_lost()) throw txhooks::TransactionLost{*lost_};
        if (doomed_) throw txhooks::TransactionAborted{};
        if (join) return levels_.push_back({'J', 0, hooks_.size()});
        unsigned number = stray_;
        for (const Level& level : levels_) number = std::max(number, level.number);
        ++number;
        try {
            engine.savepoint(number);
        } catch (...) {
            note();
            stray_ = number;
            throw;
        }
        levels_.push_back({'S', number, hooks_.size()});
    }

    void commit(bool asked_to_roll_back) {
        const Level level = levels_.back();
        if (level.kind == 'B' and not asked_to_roll_back) run_before_commit();
        if (is_lost()) {
            const txhooks::TransactionLost error{*lost_};
            roll_back();
            throw error;
        }
        if (asked_to_roll_back) {
            if (const std::exception_ptr error = roll_back()) std::rethrow_exception(error);
            return;
        }
        if (doomed_) {
            roll_back();
            throw txhooks::TransactionAborted{};
        }
        if (level.kind == 'B') return commit_outermost();
        if (level.kind == 'S') {
            try {
                engine.release(level.number);
            } catch (...) {
                note();
                roll_back();
                throw;
            }
        }
        levels_.pop_back();
    }

    // As long as the block can end well. None runs twice.
    void run_before_commit() {
        for (std::size_t i = 0; i != hooks_.size() and not is_lost() and not doomed_; ++i) {
            if (hooks_[i].kind != Kind::before_commit) continue;
            if (const Call hook = std::exchange(hooks_[i].call, nullptr)) hook();
        }
    }

    void commit_outermost() {
        const txhooks::CommitResult result = engine.commit();
        if (result.error) failures_.push_back(name_of(result.error));
        switch (result.outcome) {
            case txhooks::Outcome::still_open:
                std::rethrow_exception(result.error);
            case txhooks::Outcome::rolled_back:
                undo(end(), Proven::undone);
                if (result.error) std::rethrow_exception(result.error);
                throw txhooks::TransactionAborted{};
            case txhooks::Outcome::unknown:
                broken_ = true;
                undo(end(), Proven::nothing);
                throw txhooks::CommitUnknown{result.error};
            case txhooks::Outcome::committed:
                break;
        }
        std::vector<Hook> hooks = end();
        hooks.erase(std::remove_if(hooks.begin(), hooks.end(), [](const Hook& h) { return h.kind != Kind::commit; }),
                    hooks.end());
        for (std::size_t i = 0; i != hooks.size(); ++i) {
            try {
                hooks[i].call();
            } catch (...) {
                throw txhooks::HookError{i, hooks.size() - i - 1, 1, std::current_exception()};
            }
        }
    }

    // Returns what an explicit rollback() throws.
    std::exception_ptr roll_back() {
        const Level level = levels_.back();
        const bool lost = is_lost();
        std::exception_ptr error;
        if (lost) error = std::make_exception_ptr(txhooks::TransactionLost{*lost_});
        levels_.pop_back();
        if (level.kind == 'B') {
            bool undone = lost and lost_ == txhooks::Outcome::rolled_back;
            if (lost) {
                clear_engine();
            } else {
                error = roll_back_engine();
                undone = not broken_;
            }
            undo(end(), undone ? Proven::undone : Proven::nothing);
        } else if (lost) {
            return error;
        } else if (level.kind == 'J') {
            doomed_ = true;
        } else {
            try {
                engine.rollback_to(level.number);
            } catch (...) {
                error = note();
                stray_ = std::max(stray_, level.number);
                doomed_ = true;
                return error;
            }
            doomed_ = false;
            const auto first = hooks_.begin() + static_cast<std::ptrdiff_t>(level.hooks);
            const std::vector<Hook> undone(first, hooks_.end());
            hooks_.erase(first, hooks_.end());
            undo(undone, Proven::undone);
        }
        return error;
    }

    // The last first. What they throw, nobody can be given.
    void undo(const std::vector<Hook>& hooks, Proven proven) {
        for (auto hook = hooks.rbegin(); hook != hooks.rend(); ++hook) {
            const bool waits =
                hook->kind == Kind::unless_committed or (hook->kind == Kind::rollback and proven == Proven::undone);
            if (not waits) continue;
            try {
                hook->call();
            } catch (...) {
                note();
                hooks_that_threw_.push_back(hook->kind == Kind::rollback
                                                ? "txhooks: a hook of on_rollback() threw"
                                                : "txhooks: a hook of unless_committed() threw");
            }
        }
    }

    std::exception_ptr roll_back_engine() {
        try {
            engine.rollback();
        } catch (...) {
            const std::exception_ptr error = note();
            if (engine.state() == txhooks::ConnectionState::idle) return nullptr;
            broken_ = true;
            return error;
        }
        return nullptr;
    }

    std::exception_ptr note() {
        failures_.push_back(name_of(std::current_exception()));
        return std::current_exception();
    }

    void clear_engine() {
        if (engine.state() != txhooks::ConnectionState::idle) roll_back_engine();
    }

    bool is_lost() {
        const txhooks::ConnectionState state = engine.state();
        if (not lost_ and (state == txhooks::ConnectionState::idle or state == txhooks::ConnectionState::lost))
            lost_ = engine.fate();
        return lost_.has_value();
    }

    // The transaction is over. Returns its hooks.
    std::vector<Hook> end() {
        levels_.clear();
        doomed_ = false;
        lost_.reset();
        stray_ = 0;
        return std::exchange(hooks_, {});
    }

    std::vector<Level> levels_;
    std::vector<Hook> hooks_;
    std::vector<std::string> failures_;
    std::vector<std::string> hooks_that_threw_;
    std::optional<txhooks::Outcome> lost_;
    bool doomed_ = false;
    bool broken_ = false;
    unsigned stray_ = 0;  // the highest number that the engine may still know from a failed statement
};

}  // namespace support

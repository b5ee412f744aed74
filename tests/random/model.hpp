// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"
#include "program.hpp"

#include <txhooks/error_sink.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace random_programs {

/// The rules as simply as they can be said, for programs in which nothing is made to fail: a list of hooks for every
/// open block, put at the end of the list of the block around it when it ends well. Predicts the whole history.
class Model {
public:
    Model(bool has_begin_modes, bool has_markers) : has_begin_modes_{has_begin_modes}, has_markers_{has_markers} {}

    std::vector<Event> history(const Program& program) {
        run(program.steps);
        return std::move(events_);
    }

private:
    using Thrown = std::optional<Told>;  // what is on its way up, if anything
    using Hooks = std::vector<const Hook*>;

    struct Level {
        const Block* block;
        bool joined = false;
        bool doomed = false;
        bool asked = false;  // to roll back
        Hooks hooks = {};
    };

    Thrown run(const Steps& steps) {
        for (const Step& step : steps)
            if (const Thrown thrown = run(step); thrown and not step.swallow) return thrown;
        return {};
    }

    Thrown run(const Step& step) {
        switch (step.kind) {
            case Step::Kind::hook:
                return add(*step.hook);
            case Step::Kind::block:
                return run(*step.block);
            case Step::Kind::throw_std:
                return Told::std_exception;
            case Step::Kind::throw_int:
                return Told::integer;
            case Step::Kind::ask:
            case Step::Kind::take_back:
                if (open_.empty()) return Told::misuse;
                open_[owner()].asked = step.kind == Step::Kind::ask;
                return {};
            case Step::Kind::policy:
                policy_ = static_cast<txhooks::HookFailure>(step.number);
                return {};
            case Step::Kind::out_of_order:
            case Step::Kind::foreign:
            case Step::Kind::trouble:
                return {};
        }
        return {};
    }

    // ---- Hooks

    Thrown add(const Hook& hook) {
        if (open_.empty()) {
            const Thrown thrown = closing_left_open([&] { return copy(hook); });
            return thrown ? thrown : closing_left_open([&] { return end_at_once(hook); });
        }
        const std::size_t level = open_.size() - 1;
        open_[level].hooks.push_back(&hook);
        const Thrown thrown = copy(hook);
        if (not thrown) return {};
        if (open_.size() > level + 1) roll_back(level + 1);  // the copying left a guard open
        std::erase(open_[level].hooks, &hook);
        return thrown;
    }

    // Outside of blocks. There is nothing that a failed result could roll back.
    Thrown end_at_once(const Hook& hook) {
        if (hook.waits_for_undo()) {
            destroy(hook);
            return {};
        }
        const Thrown thrown = call(hook);
        return thrown == Told::rolled_back ? Told::misuse : thrown;
    }

    // Outside of blocks.
    template <class Act>
    Thrown closing_left_open(Act act) {
        const bool closes = std::exchange(closes_left_open_, true);
        const Thrown thrown = act();
        if (not open_.empty()) roll_back(0);
        closes_left_open_ = closes;
        return thrown;
    }

    Thrown copy(const Hook& hook) {
        run(hook.copying);
        return hook.copy_throws ? Thrown{Told::std_exception} : Thrown{};
    }

    // Returns what leaves the hook: a failed result as what that tells.
    Thrown call(const Hook& hook) {
        const Thrown thrown = call_and_keep(hook);
        destroy(hook);
        return hook.robust ? Thrown{} : thrown;
    }

    Thrown call_and_keep(const Hook& hook) {
        events_.push_back({Event::What::ran, hook.id});
        if (const Thrown thrown = run(hook.steps)) return thrown;
        switch (hook.throws) {
            case Throws::nothing:
                return {};
            case Throws::std_exception:
                return Told::std_exception;
            case Throws::integer:
                return Told::integer;
            case Throws::failed_result:
                return Told::rolled_back;
        }
        return {};
    }

    void destroy(const Hook& hook) {
        if (not hook.tracked()) return;
        events_.push_back({Event::What::destroyed, hook.id});
        run(hook.farewell);
    }

    void destroy_all(const Hooks& hooks) {
        for (const Hook* hook : hooks) destroy(*hook);
    }

    // The only block that is open ends well, if nothing is thrown and it still can. Hooks that it gets meanwhile are
    // part of it.
    Thrown run_before_commit() {
        while (not open_[0].asked and not open_[0].doomed) {
            Hooks& hooks = open_[0].hooks;
            const auto next = std::find_if(hooks.begin(), hooks.end(),
                                           [](const Hook* hook) { return hook->kind == Kind::before_commit; });
            if (next == hooks.end()) break;
            const Hook& hook = **next;
            hooks.erase(next);
            const Thrown thrown = call(hook);
            const bool left_open = open_.size() != 1;
            if (left_open) roll_back(1);
            if (thrown) return thrown;
            if (left_open) return Told::misuse;
        }
        return {};
    }

    // Of a transaction that is committed. Returns how many came to their end, and what stopped them.
    std::pair<std::size_t, Thrown> call_all(const Hooks& hooks, txhooks::HookFailure policy) {
        bool failed = false;
        for (std::size_t i = 0; i != hooks.size(); ++i) {
            if (hooks[i]->waits_for_undo()) destroy(*hooks[i]);
            if (hooks[i]->kind != Kind::commit or not call(*hooks[i])) continue;
            failed = policy != txhooks::HookFailure::report;
            if (policy == txhooks::HookFailure::stop) return {i + 1, Told::hook_error};
        }
        return {hooks.size(), failed ? Thrown{Told::hook_error} : Thrown{}};
    }

    // ---- Blocks

    // The level that the current block is part of.
    std::size_t owner() const {
        std::size_t level = open_.size() - 1;
        while (open_[level].joined) --level;
        return level;
    }

    Thrown refusal(const Block& block) const {
        if (block.durable and block.join) return Told::misuse;
        const bool resolve = has_markers_ and block.resolve;
        if (open_.empty()) return resolve and block.detach ? Thrown{Told::misuse} : Thrown{};
        if (block.durable or block.detach or resolve) return Told::misuse;
        if (has_begin_modes_ and block.knows_begin_modes() and block.begin != 0) return Told::misuse;
        if (open_[owner()].doomed) return Told::aborted;
        return {};
    }

    Thrown run(const Block& block) {
        if (const Thrown refused = refusal(block)) return end(block, *refused);
        const std::size_t level = open_.size();
        const bool outermost = level == 0;
        open_.push_back({&block, block.join and not outermost});
        const Thrown thrown = run(block.steps);
        if (thrown) {
            roll_back(level);
            return end(block, *thrown);
        }
        const bool left_inside = open_.size() != level + 1;
        switch (block.end) {
            case Block::End::commit:
                return left_inside ? misuse(block, level) : commit(block, level);
            case Block::End::rollback:
                if (left_inside and block.is_guard()) return misuse(block, level);
                roll_back(level);
                return end(block, Told::rolled_back);
            case Block::End::leave_open:
                if (block.is_guard() and not left_inside and (not outermost or closes_left_open_)) return {};
                [[fallthrough]];
            case Block::End::abandon:
                roll_back(level);
                return end(block, block.is_guard() ? Told::rolled_back : Told::std_exception);
            case Block::End::throw_std:
                roll_back(level);
                return end(block, Told::std_exception);
            case Block::End::throw_int:
                roll_back(level);
                return end(block, Told::integer);
        }
        return {};
    }

    Thrown misuse(const Block& block, std::size_t level) {
        roll_back(level);
        return end(block, Told::misuse);
    }

    Thrown commit(const Block& block, std::size_t level) {
        if (level == 0) {
            if (const Thrown thrown = run_before_commit()) {
                roll_back(level);
                return end(block, *thrown);
            }
        }
        const bool asked = open_[level].asked;
        if (asked or open_[owner()].doomed) {
            roll_back(level);
            return end(block, asked ? Told::rolled_back : Told::aborted);
        }
        Hooks hooks = std::move(open_[level].hooks);
        open_.pop_back();
        if (level != 0) {
            Hooks& around = open_.back().hooks;
            around.insert(around.end(), hooks.begin(), hooks.end());
            return end(block, Told::committed);
        }
        if (block.detach) return finish_detached(block, hooks);
        const bool closes = std::exchange(closes_left_open_, true);
        const auto [called, thrown] = call_all(hooks, policy_);
        if (not open_.empty()) roll_back(0);  // a hook left a guard open
        destroy_all({hooks.begin() + static_cast<std::ptrdiff_t>(called), hooks.end()});
        if (not open_.empty()) roll_back(0);  // a destructor did
        closes_left_open_ = closes;
        return end(block, thrown.value_or(Told::committed));
    }

    // The others end with the block.
    Thrown finish_detached(const Block& block, Hooks hooks) {
        Hooks others;
        for (const Hook* hook : hooks)
            if (hook->kind != Kind::commit) others.push_back(hook);
        std::erase_if(hooks, [](const Hook* hook) { return hook->kind != Kind::commit; });
        bool closes = std::exchange(closes_left_open_, true);
        destroy_all(others);
        if (not open_.empty()) roll_back(0);
        closes_left_open_ = closes;
        end(block, Told::committed);
        closes = std::exchange(closes_left_open_, false);
        std::size_t called = 0;
        Thrown thrown;
        if (block.afterwards == Block::Afterwards::run) std::tie(called, thrown) = call_all(hooks, policy_);
        destroy_all({hooks.begin() + static_cast<std::ptrdiff_t>(called), hooks.end()});
        closes_left_open_ = closes;
        return thrown;
    }

    // Ends the block at `level` and those left open in it.
    void roll_back(std::size_t level) {
        Hooks hooks;
        const bool joined = open_[level].joined;
        for (std::size_t i = level; i != open_.size(); ++i)
            hooks.insert(hooks.end(), open_[i].hooks.begin(), open_[i].hooks.end());
        open_.resize(level);
        if (not joined) return undo(hooks);
        Hooks& around = open_.back().hooks;
        around.insert(around.end(), hooks.begin(), hooks.end());
        open_[owner()].doomed = true;
    }

    // The last first, and then all are destroyed. What they throw is nobody's; what they leave open is closed.
    void undo(const Hooks& hooks) {
        const bool closes = std::exchange(closes_left_open_, true);
        const std::size_t level = open_.size();
        for (auto hook = hooks.rbegin(); hook != hooks.rend(); ++hook) {
            if (not(*hook)->waits_for_undo()) continue;
            call_and_keep(**hook);
            if (open_.size() != level) roll_back(level);
        }
        destroy_all(hooks);
        if (open_.size() != level) roll_back(level);  // a destructor left a guard open
        closes_left_open_ = closes;
    }

    // Returns what the block throws.
    Thrown end(const Block& block, Told told) {
        events_.push_back({Event::What::ended, block.id, told});
        return told == Told::committed or told == Told::rolled_back ? Thrown{} : Thrown{told};
    }

    bool has_begin_modes_;
    bool has_markers_;
    txhooks::HookFailure policy_ = txhooks::HookFailure::stop;
    bool closes_left_open_ = false;  // hooks are being run or discarded: what they leave open will be closed
    std::vector<Level> open_;
    std::vector<Event> events_;
};

}  // namespace random_programs

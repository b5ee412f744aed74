// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>
#include <txhooks/options.hpp>

#include <cstddef>
#include <exception>

namespace txhooks::detail {

// Puts a Stage under a connection and takes it away: for <txhooks/testing/...>.
struct Stages {
    using Phase = Connection::Phase;

    // Opens `block`, hides it, and lets the outermost blocks to come be savepoints in it.
    static void push_base(Connection& db, Stage& stage, Block& block) {
        refuse_open_block(db);
        if (!db.has_savepoints())
            throw UsageError{"txhooks: this backend has no savepoints, so its blocks cannot be rolled back together"};
        Blocks::open(db, block, BlockOptions<>{});
        db.current_ = nullptr;
        push(db, stage);
        stage.base = &block;
    }

    // Lets the hooks of committed blocks stay in `hooks`.
    static void push_capture(Connection& db, Stage& stage, HookList& hooks) {
        refuse_open_block(db);
        push(db, stage);
        stage.captured = db.hooks_ = &hooks;
    }

    static void refuse_open_block(Connection& db) {
        Blocks::refuse_unless_alive(db);
        if (db.current_ != nullptr)
            throw UsageError{
                "txhooks: RolledBack and CapturedHooks stand around whole blocks; end the atomic block that is open "
                "first"};
    }

    static void push(Connection& db, Stage& stage) noexcept {
        const bool staged = db.stage_ != nullptr;
        stage = {db.stage_, staged ? db.stage_->base : nullptr, staged ? db.stage_->captured : nullptr};
        db.stage_ = &stage;
        db.phase_ = Phase::staged;
    }

    // Rolls back the blocks that are still open, and the base. Returns how many hooks were waiting in them.
    static std::size_t pop(Connection& db, Stage& stage, std::exception_ptr& error) noexcept {
        if (db.stage_ != &stage) die("txhooks: a scope of txhooks::testing ended before one that was opened in it");
        const std::size_t left = db.pending_hooks();
        if (db.current_ != nullptr) Blocks::roll_back_quietly(Blocks::outermost(db), nullptr);
        const bool broken = db.phase_ == Phase::broken;
        db.stage_ = stage.outer;
        db.hooks_ = Blocks::usual_hooks(db);
        db.phase_ = Blocks::rest(db);
        if (stage.base != nullptr && !(Blocks::is_based(db) && db.stage_->base == stage.base)) {
            stage.base->mark = db.hooks_->mark();  // it has no hooks of its own
            db.current_ = stage.base;
            db.phase_ = Phase::in_block;
            error = Blocks::roll_back(*stage.base, nullptr);
            if (broken) db.phase_ = Phase::broken;
        }
        return left;
    }

    static std::size_t size(const Connection& db, const HookList& hooks) noexcept {
        return hooks.size(hooks.start()) - (db.hooks_ == &hooks ? db.pending_hooks() : 0);
    }

    // Runs what a stage captured, as if it were not there.
    static void run(Connection& db, Stage& stage, HookList& hooks) {
        refuse_open_block(db);
        struct Uncaptured {
            Connection& db;
            Stage& stage;
            HookList& hooks;
            Uncaptured(Connection& on, Stage& under, HookList& captured) noexcept
                : db{on}, stage{under}, hooks{captured} {
                replace(&hooks, nullptr);
                db.hooks_ = Blocks::usual_hooks(db);
            }
            // In the stages inside `stage` too, which have it from there.
            void replace(const HookList* from, HookList* to) const noexcept {
                for (Stage* at = db.stage_; at != stage.outer; at = at->outer)
                    if (at->captured == from) at->captured = to;
            }
            ~Uncaptured() {
                replace(nullptr, &hooks);
                db.hooks_ = Blocks::usual_hooks(db);
            }
        } uncaptured{db, stage, hooks};
        Blocks::run(db, hooks, hooks.start());
    }
};

}  // namespace txhooks::detail

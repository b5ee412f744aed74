// SPDX-License-Identifier: MIT
#pragma once

// What scopes of txhooks::testing do to a connection.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/committing.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/detail/opening.hpp>

#include <cstddef>

namespace txhooks::detail {

inline void Blocks::refuse_open_block() {
    refuse_unless_alive();
    if (current_ != nullptr)
        throw UsageError{
            "txhooks: RolledBack and CapturedHooks stand around whole blocks; end the atomic block that is open "
            "first"};
}

inline void Blocks::push(Stage& stage) noexcept {
    stages_.push(stage);
    stages_changed();
}

inline void Blocks::stages_changed() noexcept {
    owner_ = &usual_owner();
    engine_at_rest_ = stages_.verbs() == nullptr ? ConnectionState::idle : ConnectionState::open;
    phase_ = phase_at_rest();
}

// Opens `base`, hides it, and lets `stage` be what ends the outermost blocks to come.
inline void Blocks::push(Stage& stage, Block& base) {
    refuse_open_block();
    if (!has_savepoints())
        throw UsageError{"txhooks: this backend has no savepoints, so its blocks cannot be rolled back together"};
    open<Blocks>(base, BlockOptions<>{});
    current_ = nullptr;
    push(stage);
}

// Rolls back the blocks that are still open. Returns how many hooks were waiting in them.
inline std::size_t Blocks::pop(Stage& stage) noexcept {
    die_if_verb_under_way();
    const auto refuse_inner = [&] {
        if (!stages_.is_top(stage)) die("txhooks: a scope of txhooks::testing ended before one that was opened in it");
    };
    refuse_inner();
    const std::size_t left = pending_hooks();
    roll_back_all();
    refuse_inner();  // by a rollback hook
    stages_.pop();
    stages_changed();
    return left;
}

inline Failure Blocks::undo_base(Block& base) noexcept {
    const bool broken = phase_ == Phase::broken;
    base.mark = owner_->list.mark();  // it has no hooks of its own
    current_ = &base;
    phase_ = Phase::in_block;
    const Failure failure = roll_back(base, nullptr);
    if (broken) phase_ = Phase::broken;
    return failure;
}

// Runs what `stage` has captured, as if it were not there.
inline void Blocks::run_captured(Stage& stage) {
    refuse_open_block();
    struct Uncaptured {
        Blocks& db;
        Stage& stage;
        HookOwner& owner;
        Uncaptured(Blocks& on, Stage& under) noexcept : db{on}, stage{under}, owner{*under.captured} { set(nullptr); }
        ~Uncaptured() { set(&owner); }
        void set(HookOwner* captured) const noexcept {
            stage.captured = captured;
            db.owner_ = &db.usual_owner();
        }
    } const uncaptured{*this, stage};
    run_of_others(uncaptured.owner);
}

inline void Blocks::discard_captured(HookOwner& captured) noexcept {
    if (!captured.list.busy()) discard(captured, captured.list.start(), false);
}

// Those of committed blocks; none once they are being run.
inline std::size_t Blocks::kept_hooks(const HookOwner& captured) const noexcept {
    const std::size_t all = captured.size();
    return all == 0 || owner_ != &captured ? all : all - pending_hooks();
}

}  // namespace txhooks::detail

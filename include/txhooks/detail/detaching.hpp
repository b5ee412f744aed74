// SPDX-License-Identifier: MIT
#pragma once

// Whose hooks those of the open transaction are, and what became of a COMMIT in doubt.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/standing.hpp>

namespace txhooks::detail {

inline HookOwner& Blocks::usual_owner() noexcept {
    HookOwner* const captured = stages_.captured();
    return captured != nullptr ? *captured : own_;
}

// While the block is open nobody else can run its hooks.
inline void Blocks::borrow(DetachedHooks& after, bool run_at_commit) {
    if (after.lent_)
        throw UsageError{
            "txhooks: the DetachedHooks or Doubt given to this block is that of another open block; give each its "
            "own"};
    if (after.busy() || after.size() != 0)
        throw UsageError{
            "txhooks: the DetachedHooks given to this block still holds hooks of an earlier one; run() or "
            "discard() them first"};
    owner_ = &after.lend();
    owner_->runs_at_commit = run_at_commit;
}

inline void Blocks::borrow(DoubtState& doubt) {
    borrow(doubt.hooks_, true);
    doubt.next_marker();
    doubt_ = &doubt;
}

inline void Blocks::refuse_doubt(const DoubtState& doubt, const DetachedHooks* detach) const {
    if (detach != nullptr)
        throw UsageError{"txhooks: resolve and detach exclude each other: the Doubt keeps the hooks of its block"};
    if (!has_markers())
        throw UsageError{
            "txhooks: this backend cannot mark a COMMIT, so a doubt about it cannot be resolved; open the block "
            "without .resolve"};
    if (doubt.in_doubt_ || doubt.hooks_.busy())
        throw UsageError{
            "txhooks: the Doubt given to this block still has an earlier COMMIT to resolve, or runs the hooks of "
            "one; resolve() or discard() it first, or give this block another"};
}

// The owner of the hooks of the transaction that ends. Those of the next belong where they usually do.
inline HookOwner& Blocks::take_owner() noexcept {
    HookOwner& owner = *owner_;
    owner_ = &usual_owner();
    doubt_ = nullptr;
    return owner;
}

// Gives the list back to who has lent it, with the hooks that wait in it. What these make room for is destroyed, and may
// destroy the connection.
inline void Blocks::leave(HookOwner& owner) noexcept {
    if (owner.lent_by == nullptr) return;
    owner.follow(own_);
    const CloseLeftOpen close{*this};
    owner.lent_by->take_back(owner);
}

// Whether the block that was to write `marker` was committed; if not, it never will be.
inline bool Blocks::was_committed(const char* marker) {
    refuse_unless_alive();
    if (current_ != nullptr) throw UsageError{"txhooks: resolve() in an atomic block; end that block first"};
    if (!has_markers())
        throw UsageError{"txhooks: this backend cannot look for the marker of a COMMIT; give resolve() another"};
    if (const ConnectionState state = verb_state(); state != ConnectionState::idle) refuse_engine(state);
    const InVerb under_way{*this};
    return verb_was_committed(marker);
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// The bad end of a block: rolled back, its hooks discarded. Whatever goes wrong meanwhile, the block has ended.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/detaching.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/detail/standing.hpp>

namespace txhooks::detail {

// Ends `block`, and the blocks still open in it, by rolling back. Returns what went wrong; whatever did, the block has
// ended and its hooks are discarded, or go with the block around it, which is doomed.
[[gnu::cold, gnu::noinline]] inline Failure Blocks::roll_back(Block& block, const std::exception_ptr& cause) noexcept {
    undoing(block);
    if (block.parent == nullptr) return undo_outermost();
    pop();
    if (phase_ == Phase::lost) return tell_loss();
    if (block.kind == Kind::joined) {
        doom(cause);
        return {};
    }
    return undo_savepoint(block, cause);
}

// What is done before anything is sent.
inline void Blocks::undoing(Block& block) noexcept {
    die_if_verb_under_way();
    block.taken = current_->taken;
    for (; current_ != &block; pop())
        if (current_->kind == Kind::pinned)
            die("txhooks: a block was destroyed while a hook was being copied into it, or discarded from it");
    note_loss_if_gone();
}

inline Failure Blocks::undo_savepoint(Block& block, const std::exception_ptr& cause) noexcept {
    Failure failure;
    try {
        const InVerb under_way{*this};
        verb_rollback_to(block.number);
    } catch (const TransactionLost& lost) {
        if (block.kind != Kind::half_released) {
            note_loss(lost.outcome());
            return tell_loss();
        }
        // It may have been released all the same: that it is gone proves nothing. A loss will show later.
        failure = lost.cause() ? Failure{true, false, lost.cause()} : Failure::current();
    } catch (...) {
        failure = Failure::current();
    }
    if (failure)
        not_undone_savepoint(block, cause ? cause : failure.error);
    else
        undone_savepoint(block);
    return failure;
}

inline void Blocks::undone_savepoint(const Block& block) noexcept {
    phase_ = Phase::in_block;
    doom_ = nullptr;
    discard(*owner_, block.mark);
}

inline void Blocks::not_undone_savepoint(const Block& block, const std::exception_ptr& cause) noexcept {
    keep_numbers_from(block.taken);
    note_loss_if_gone();
    if (phase_ != Phase::lost) doom(cause);
}

inline Failure Blocks::undo_outermost() noexcept {
    Failure failure;
    if (phase_ != Phase::lost) {
        try {
            const InVerb under_way{*this};
            if (OutermostVerbs* const instead = stages_.verbs())
                instead->rollback();
            else
                verb_rollback();
        } catch (const TransactionLost& lost) {
            note_loss(lost.outcome());
        } catch (...) {
            failure = Failure::current();
        }
        if (failure && verb_state() != ConnectionState::idle) phase_ = Phase::broken;
    }
    if (phase_ == Phase::lost) {
        const Failure loss = tell_loss();
        const Failure uncleared = clear_engine();
        undone_outermost();
        report_cleared(uncleared);
        return loss;
    }
    const bool broken = phase_ == Phase::broken;
    undone_outermost();
    if (broken || !failure) return failure;
    report(rolled_back_all_the_same, failure);
    return {};
}

// The transaction is over and nothing of it was committed, as far as is known.
inline void Blocks::undone_outermost() noexcept {
    Block& block = *current_;
    const HookArena::Mark mark = block.mark;
    HookOwner& owner = take_owner();
    end_outermost(block, phase_at_rest());
    doom_ = nullptr;
    DetachedHooks* const lender = owner.lent_by;
    if (lender != nullptr) lender->lent_ = false;
    discard(owner, mark);
    if (lender != nullptr)
        delete &owner;  // not given back: a capture may have destroyed the lender, or filled it anew
    else
        owner.list.trim();
}

// ---- The hooks of what is rolled back

// Around code of the user's that copies a hook into the current block, or destroys one of it: until it is done that
// block cannot end.
class Blocks::Pinned {
public:
    explicit Pinned(Blocks& db) noexcept { db.push_nested(block_, Kind::pinned); }
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
    ~Pinned() {
        Block** link = &block_.db->current_;
        while (*link != &block_) link = &(*link)->parent;  // over blocks that were left open
        *link = block_.parent;
    }

    void close_left_open() const noexcept { block_.db->close_left_open(&block_); }

private:
    Block block_;
};

inline void Blocks::discard(HookOwner& owner, HookArena::Mark mark) noexcept {
    if (owner.list.empty(mark)) return;
    const HookArena::Busy busy{own_.list};  // also while the hooks are those of others
    if (current_ == nullptr) return destroy(owner, mark);
    const Pinned pinned{*this};
    destroy(owner, mark);
}

inline void Blocks::destroy(HookOwner& owner, HookArena::Mark mark) noexcept {
    HookArena::Run run{owner.list, mark};
    const Block* const around = current_;
    run.discard();
    close_left_open(around);
}

// ---- Who ends a block badly

// For who has an exception to throw already, or cannot throw. Returns what went wrong.
[[gnu::cold, gnu::noinline]] inline Failure Blocks::roll_back_quietly(Block& block,
                                                                      const std::exception_ptr& cause) noexcept {
    const bool told = phase_ == Phase::lost && loss_told_;
    const Failure failure = roll_back(block, cause);
    if (!failure || told) return failure;
    loss_told_ = true;
    report(while_rolling_back, failure);
    return failure;
}

// Every block that is open.
inline Failure Blocks::roll_back_all() noexcept {
    return current_ == nullptr ? Failure{} : roll_back_quietly(outermost());
}

// Explicit rollback().
inline void Blocks::roll_back_loudly(Block& block) {
    Blocks& db = *block.db;
    db.refuse_verb_under_way();
    db.refuse_out_of_order(block);
    if (const Failure failure = db.roll_back(block, nullptr)) failure.rethrow();
}

inline void Blocks::refuse_out_of_order(const Block& block) const {
    if (current_ == &block) [[likely]]
        return;
    throw UsageError{current_->kind == Kind::pinned
                         ? "txhooks: this block cannot end while a hook is being copied into it, or discarded from it"
                         : "txhooks: this block still has an open block inside; end that one first"};
}

// The guard was destroyed with its block open.
[[gnu::cold, gnu::noinline]] inline void Blocks::abandon(Block& block) noexcept {
    Blocks& db = *block.db;
    const bool lost = db.phase_ == Phase::lost;
    db.roll_back_quietly(block);
    if (!lost && std::uncaught_exceptions() == 0)
        db.report(
            "txhooks: an Atomic was destroyed without commit() or rollback(), so it was rolled back; call commit() "
            "at the end of its block");
}

// The connection is being destroyed.
inline void Blocks::close() noexcept {
    if (own_.list.busy()) die("txhooks: a connection was destroyed while its hooks are being called");
    if (reporting_) die("txhooks: a connection was destroyed by its own error sink");
    if (stages_.any()) die("txhooks: a connection was destroyed in a scope of txhooks::testing");
    die_if_verb_under_way();
    if (current_ == nullptr) return;
    report("txhooks: a connection was destroyed with an atomic block open; it is rolled back");
    roll_back_all();  // unless the sink has
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// The bad end of a block: rolled back, its hooks discarded. Whatever goes wrong meanwhile, the block has ended.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/detaching.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/detail/failed_result.hpp>
#include <txhooks/detail/standing.hpp>

#include <exception>
#include <new>

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
            die("txhooks: a block was destroyed while one of its hooks was being copied, called or destroyed");
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
    discard(*owner_, block.mark, true);
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
        undone_outermost(lost_outcome_ == Outcome::rolled_back);
        report_cleared(uncleared);
        return loss;
    }
    const bool broken = phase_ == Phase::broken;
    undone_outermost(!broken);
    if (broken || !failure) return failure;
    report(rolled_back_all_the_same, failure);
    return {};
}

// The transaction is over and nothing of it was committed, as far as is known; `proven`: for certain.
inline void Blocks::undone_outermost(bool proven) noexcept {
    Block& block = *current_;
    const HookArena::Mark mark = block.mark;
    HookOwner& owner = take_owner();
    end_outermost(block, phase_at_rest());
    doom_ = nullptr;
    DetachedHooks* const lender = owner.lent_by;
    if (lender != nullptr) lender->lent_ = false;
    discard(owner, mark, proven);
    if (lender != nullptr)
        delete &owner;  // not given back: a capture may have destroyed the lender, or filled it anew
    else
        owner.list.trim();
}

// ---- The hooks of what is rolled back

// Around code of the user's that copies a hook into the current block, calls or destroys one of it: until it is done
// that block cannot end.
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

    bool left_open() const noexcept { return block_.db->current_ != &block_; }
    void close_left_open() const noexcept { block_.db->close_left_open(&block_); }

private:
    Block block_;
};

inline void Blocks::discard(HookOwner& owner, HookArena::Mark mark, bool proven) noexcept {
    if (owner.list.empty(mark)) return;
    const HookArena::Busy busy{own_.list};  // also while the hooks are those of others
    if (current_ == nullptr) return destroy(owner, mark, proven);
    const Pinned pinned{*this};
    destroy(owner, mark, proven);
}

inline void Blocks::destroy(HookOwner& owner, HookArena::Mark mark, bool proven) noexcept {
    HookArena::Run run{owner.list, mark};
    const Block* const around = current_;
    if (owner.list.has_others()) [[unlikely]]
        call_undone(owner, mark, proven);
    run.discard();
    close_left_open(around);
}

// They run where the enclosing block goes on, or outside of blocks.
[[gnu::cold, gnu::noinline]] inline void Blocks::call_undone(HookOwner& owner, HookArena::Mark mark,
                                                             bool proven) noexcept {
    if (verb_in_another_process()) return;
    const Block* const around = current_;
    HookArena::Undo hooks{owner.list, mark, proven};
    call_each(hooks, [&](const char* threw, const Failure& failure) {
        close_left_open(around);
        if (failure) report(threw, failure);
    });
}

// Those that do not wait for a commit end with their block, while the others are left with their owner.
inline void Blocks::discard_others(HookOwner& owner, HookArena::Mark mark) noexcept {
    if (!owner.list.has_others()) return;
    const HookArena::Busy busy{own_.list};
    owner.list.discard_others(mark, false);
    close_left_open(nullptr);
}

// ---- Who ends a block badly

// For who has an exception to throw already, or cannot throw. Returns what went wrong.
[[gnu::cold, gnu::noinline]] inline Failure Blocks::roll_back_quietly(Block& block,
                                                                      const std::exception_ptr& cause) noexcept {
    const bool told = phase_ == Phase::lost && loss_told_;
    const Failure failure = roll_back(block, cause);
    if (!failure || told) return failure;
    if (failure.lost) loss_told_ = true;  // else it may show a loss that is still to be told
    report(while_rolling_back, failure);
    return failure;
}

// Every block that is open. What became of a loss that nobody else knows, `rolled_back()` may tell once it is seen.
template <class RolledBack>
Failure Blocks::roll_back_all(const RolledBack& rolled_back) noexcept {
    note_loss_if_gone();
    if (phase_ == Phase::lost && lost_outcome_ == Outcome::unknown && rolled_back())
        lost_outcome_ = Outcome::rolled_back;
    return roll_back_all();
}
inline Failure Blocks::roll_back_all() noexcept {
    return current_ == nullptr ? Failure{} : roll_back_quietly(outermost());
}

[[noreturn, gnu::cold, gnu::noinline]] inline void roll_back_and_throw(Block& block, const std::exception_ptr& error) {
    const Failure failure = block.db != nullptr ? block.db->roll_back_quietly(block, error) : Failure{};
    try {
        std::rethrow_exception(error);
    } catch (FailedHook& failed) {
        if (failure) failed.rolling_back = failure;
        throw;
    }
}

// Does `act`. If that throws, the block is rolled back, if it is open still.
template <class Act>
decltype(auto) or_roll_back(Block& block, const Act& act) {
    union Thrown {  // where nothing is thrown it costs nothing
        std::exception_ptr error;
        Thrown() noexcept {}
        ~Thrown() {}
    } thrown;
    try {
        return act();
    } catch (...) {
        ::new (static_cast<void*>(&thrown.error)) std::exception_ptr(std::current_exception());
        if (!thrown.error) {  // of another language: only its handler can pass it on
            if (block.db != nullptr) block.db->roll_back_quietly(block);
            throw;
        }
    }
    const std::exception_ptr error{static_cast<std::exception_ptr&&>(thrown.error)};
    thrown.error.~exception_ptr();  // libc++ does not move it
    roll_back_and_throw(block, error);
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
    throw UsageError{
        current_->kind == Kind::pinned
            ? "txhooks: this block cannot end while one of its hooks is being copied, called or destroyed; in a hook "
              "before COMMIT throw, or call set_rollback(true)"
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
    die_if_in_scope();
    die_if_verb_under_way();
    if (current_ == nullptr) return;
    report("txhooks: a connection was destroyed with an atomic block open; it is rolled back");
    roll_back_all();  // unless the sink has
    die_if_in_scope();
}

inline void Blocks::die_if_in_scope() const noexcept {
    if (stages_.any()) die("txhooks: a connection was destroyed in a scope of txhooks::testing");
}

}  // namespace txhooks::detail

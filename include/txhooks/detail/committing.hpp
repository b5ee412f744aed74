// SPDX-License-Identifier: MIT
#pragma once

// The good end of a block: hooks before COMMIT, COMMIT or RELEASE, what that proves, and the run of the hooks.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/detaching.hpp>
#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/detail/standing.hpp>

namespace txhooks::detail {

template <class Verbs>
[[gnu::always_inline]] inline Outcome Blocks::commit(Block& block) {
    const bool plain = block.kind == Kind::outermost && !block.roll_back;
    if (!plain || current_ != &block || phase_ != Phase::in_block || !engine_is<Verbs>(ConnectionState::open))
        [[unlikely]]
        return commit_otherwise<Verbs>(block);
    phase_ = Phase::in_verb;
    if (CommitResult result = verbs<Verbs>().verb_commit();
        result.outcome != Outcome::committed || (result.lost | result.failed) || result.error) [[unlikely]]
        return ended(block, static_cast<CommitResult&&>(result));
    const HookArena::Mark mark = block.mark;
    end_outermost(block, Phase::idle);
    if (own_.list.empty(mark))
        own_.list.trim();
    else
        deliver(mark);
    return Outcome::committed;
}

[[noreturn, gnu::cold, gnu::noinline]] inline void Blocks::refuse_ended() {
    throw UsageError{"txhooks: commit() on an atomic block that has already ended"};
}

// A nested block, or an outermost one that cannot end well.
template <class Verbs>
[[gnu::noinline]] Outcome Blocks::commit_otherwise(Block& block) {
    if (!ending<Verbs>(block)) [[unlikely]]
        return commit_unsound(block);
    if (block.kind == Kind::special) return commit_special(block);
    if (block.kind == Kind::savepoint) release<Verbs>(block);
    pop();
    return Outcome::committed;
}

// Whether the block can end well.
template <class Verbs>
[[gnu::always_inline]] inline bool Blocks::ending(const Block& block) {
    refuse_out_of_order(block);
    return phase_ == Phase::in_block && !block.roll_back && engine_is<Verbs>(ConnectionState::open);
}

[[gnu::cold, gnu::noinline]] inline Outcome Blocks::commit_special(Block& block) {
    if (owner_->list.has_others() || last_before_commit_ != nullptr) {
        or_roll_back(block, [&] { run_before_commit(block); });
        if (!ending<Blocks>(block)) return commit_unsound(block);
    }
    const bool marked = doubt_ != nullptr && owner_->list.waits_for_outcome(block.mark);
    if (doubt_ != nullptr) doubt_->marked_ = marked;
    return ended(block, last_before_commit_ == nullptr ? verb_commit_special(marked) : verb_commit_of_last(marked));
}

// Runs the hooks that wait for COMMIT, as long as there is going to be one. They may do all that can be done in `block`,
// but end it.
inline void Blocks::run_before_commit(Block& block) {
    if (verb_in_another_process()) return;  // COMMIT will refuse
    const HookArena::Busy busy{own_.list};
    HookArena::Before hooks{owner_->list, block.mark};
    struct Close {
        const Pinned& pinned;
        bool& left_open;
        ~Close() {
            left_open = pinned.left_open();
            pinned.close_left_open();
        }
    };
    for (bool called = true; called && ending<Blocks>(block);) {
        const Pinned pinned{*this};
        bool left_open = false;
        {
            const Close close{pinned, left_open};
            called = hooks.next() || (last_before_commit_ != nullptr && last_before_commit_->last_before_commit());
        }
        if (left_open)
            throw UsageError{
                "txhooks: a hook of before_commit() returned with an atomic block open, so everything is rolled back; "
                "end "
                "every block that a hook opens before the hook returns",
                Outcome::rolled_back};
    }
}

// The same for who has to know what they throw before the block has ended: then that is still open.
inline void Blocks::run_before_commit() {
    if (may_wait_for_commit() && current_->kind == Kind::special) run_before_commit(*current_);
}

// Whether hooks may be there that wait for the COMMIT of the open block.
inline bool Blocks::may_wait_for_commit() const noexcept {
    return current_ != nullptr && (owner_->list.has_others() || last_before_commit_ != nullptr);
}

// At most one: of two, neither could be the last. Null: none any more.
inline void Blocks::set_last_before_commit(LastBeforeCommit* last) {
    if (last != nullptr && last_before_commit_ != nullptr)
        throw UsageError{
            "txhooks: this connection has an Outbox already; use that one, or destroy it first, when no block is open"};
    last_before_commit_ = last;
}

// For the open block.
inline void Blocks::ask_last_before_commit() {
    refuse_verb_under_way();  // that may be COMMIT
    outermost().kind = Kind::special;
}

inline CommitResult Blocks::verb_commit_special(bool marked) noexcept {
    const InVerb under_way{*this};
    if (OutermostVerbs* const instead = stages_.verbs()) return instead->commit();
    return marked ? verb_commit_marked(doubt_->marker_) : verb_commit();
}

[[gnu::noinline]] inline CommitResult Blocks::verb_commit_of_last(bool marked) noexcept {
    const char* const ahead = last_before_commit_->ahead_of_commit();
    if (ahead == nullptr) return verb_commit_special(marked);
    const InVerb under_way{*this};
    CommitResult result = verb_commit_behind(ahead, marked ? doubt_->marker_ : nullptr);
    if (result.outcome != Outcome::still_open && last_before_commit_ != nullptr)
        last_before_commit_->went_ahead_of_commit();
    return result;
}

template <class Verbs>
void Blocks::release(Block& block) {
    phase_ = Phase::in_verb;
    try {
        verbs<Verbs>().verb_release(block.number);
    } catch (const TransactionLost& lost) {
        phase_ = Phase::in_block;
        note_loss(lost.outcome());
        ended_lost(block, lost.cause());
    } catch (...) {
        phase_ = Phase::in_block;
        block.kind = Kind::half_released;
        roll_back_quietly(block, std::current_exception());
        throw;
    }
    phase_ = Phase::in_block;
}

// The block can only roll back: doomed, asked to, lost, or failed by the engine.
[[gnu::cold, gnu::noinline]] inline Outcome Blocks::commit_unsound(Block& block) {
    refuse_verb_under_way();
    note_loss_if_gone();
    if (phase_ == Phase::lost) ended_lost(block);
    const bool asked = block.roll_back;
    const std::exception_ptr cause = asked ? nullptr : doom_;
    const Failure failure = roll_back(block, cause);
    if (failure && (asked || failure.lost)) failure.rethrow();
    if (asked) return Outcome::rolled_back;
    if (failure) report(while_rolling_back, failure);
    throw TransactionAborted{cause};
}

// COMMIT was sent on the outermost block; this is what is proven.
[[gnu::cold, gnu::noinline]] inline Outcome Blocks::ended(Block& block, CommitResult result) {
    phase_ = Phase::in_block;
    if (result.lost) {
        note_loss(result.outcome);
        ended_lost(block, result.error);
    }
    const Failure failure{result.reported_error(), false, result.error};
    switch (result.outcome) {
        case Outcome::committed:
            return ended_well(block, failure);
        case Outcome::still_open:
            if (failure) failure.rethrow(Outcome::still_open);
            throw UsageError{"txhooks: the backend did not end the transaction; call commit() again or roll back"};
        case Outcome::rolled_back:
            undone_outermost(true);
            if (failure) failure.rethrow(Outcome::rolled_back);
            throw TransactionAborted{};
        case Outcome::unknown:
        default:  // an outcome that nobody knows proves nothing
            ended_in_doubt(block, result.error);
    }
}

// Not the engine's: what an adapter has seen in a transaction that is committed.
inline bool Blocks::is_usage(const Failure& failure) noexcept {
    if (!failure.error) return false;
    try {
        std::rethrow_exception(failure.error);
    } catch (const UsageError&) {
        return true;
    } catch (...) {
        return false;
    }
}

inline Outcome Blocks::ended_well(Block& block, const Failure& failure) {
    const HookArena::Mark mark = block.mark;
    HookOwner& owner = take_owner();
    end_outermost(block, phase_at_rest());
    const bool own = &owner == &own_;
    const bool lent = owner.lent_by != nullptr;
    const bool run_now = lent && owner.runs_at_commit && !owner.list.empty(mark);
    if (!own && !run_now) discard_others(owner, mark);
    if (failure) report(is_usage(failure) ? committed_but : committed_all_the_same, failure);
    if (own) {
        deliver(mark);
    } else if (lent) {  // else they are those of a CapturedHooks, which the sink may have destroyed
        leave(owner);
        if (run_now) run_of_others(owner);
    }
    return Outcome::committed;
}

[[noreturn]] inline void Blocks::ended_in_doubt(Block& block, const std::exception_ptr& cause) {
    phase_ = Phase::broken;
    if (DoubtState* const doubt = doubt_; doubt != nullptr && doubt->marked_) {
        const HookArena::Mark mark = block.mark;
        HookOwner& owner = take_owner();
        end_outermost(block, Phase::broken);
        if (owner.list.has_others()) leave_in_doubt(owner, mark);
        doubt->in_doubt_ = true;
        leave(owner);
    } else {
        undone_outermost(false);
    }
    throw CommitUnknown{cause};
}

// What does not wait for the outcome has come to its end.
inline void Blocks::leave_in_doubt(HookOwner& owner, HookArena::Mark mark) noexcept {
    const HookArena::Busy busy{own_.list};
    {
        const HookArena::Busy busy_too{owner.list};
        call_undone(owner, mark, false);
    }
    owner.list.discard_others(mark, true);
    close_left_open(nullptr);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void Blocks::ended_lost(Block& block, const std::exception_ptr& cause) {
    const Outcome outcome = lost_outcome_;
    loss_told_ = true;
    roll_back(block, nullptr);
    throw TransactionLost{outcome, cause};
}

// ---- The hooks of a transaction that is committed

// The connection's own. It is idle.
[[gnu::noinline]] inline void Blocks::deliver(HookArena::Mark mark) {
    run(own_, mark);
    own_.list.trim();
}

// Those of a Doubt or a CapturedHooks.
inline void Blocks::run_of_others(HookOwner& owner) {
    const HookArena::Busy busy{own_.list};
    owner.follow(own_);
    run(owner, owner.list.start());
}

[[gnu::always_inline]] inline void Blocks::run(HookOwner& owner, HookArena::Mark from) {
    HookArena::Run run{owner.list, from};
    std::exception_ptr error;
    try {
        run();
        return close_left_open(nullptr);
    } catch (const ForcedUnwind&) {
        discard_rest(run.release());
        throw;
    } catch (...) {
        error = std::current_exception();
    }
    run_rest(owner, run.release(), error);  // not `run` itself: while nobody knows its address it costs no memory
}

// A hook threw `first`. Runs the others, or destroys them: that may leave a block open too.
[[gnu::cold, gnu::noinline]] inline void Blocks::run_rest(HookOwner& owner, HookArena::Walk&& rest,
                                                          const std::exception_ptr& first) {
    struct Ending {
        Blocks& db;
        HookArena::Walk& rest;
        ~Ending() { db.discard_rest(static_cast<HookArena::Walk&&>(rest)); }
    } ending{*this, rest};
    owner.run_after(first, rest);
}

[[gnu::cold, gnu::noinline]] inline void Blocks::discard_rest(HookArena::Walk&& rest) noexcept {
    close_left_open(nullptr);
    rest.discard();
    close_left_open(nullptr);
}

}  // namespace txhooks::detail

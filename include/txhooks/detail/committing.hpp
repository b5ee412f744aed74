// SPDX-License-Identifier: MIT

// The good end of a block: COMMIT or RELEASE, what that proves, and the run of the hooks.

#include <txhooks/connection.hpp>  // which includes this file: hence the guard below

#ifndef TXHOOKS_DETAIL_COMMITTING_HPP
#define TXHOOKS_DETAIL_COMMITTING_HPP

#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/detail/run_after_failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>
#include <txhooks/outcome.hpp>

#include <exception>

namespace txhooks::detail {

struct Committing : RollingBack {
    template <class Db>
    [[gnu::always_inline]] static Outcome commit(Db& db, Block& block) {
        const bool plain = block.kind == Kind::outermost && !block.roll_back;
        if (!plain || db.current_ != &block || db.phase_ != Phase::in_block || !engine_is(db, ConnectionState::open))
            [[unlikely]]
            return commit_otherwise(db, block);
        if (CommitResult result = db.verb_commit(); result.outcome != Outcome::committed || result.error || result.lost)
            [[unlikely]]
            return committed_or_throw(db, block, static_cast<CommitResult&&>(result));
        const HookList::Mark mark = block.mark;
        end_outermost(db, block, Phase::idle);
        // The mark of a detached block lies in another list: this one is never empty then.
        if (db.own_hooks_.empty(mark))
            db.own_hooks_.trim();
        else
            deliver(db, mark);
        return Outcome::committed;
    }

    // A nested block, or an outermost one that cannot end well.
    template <class Db>
    [[gnu::noinline]] static Outcome commit_otherwise(Db& db, Block& block) {
        refuse_out_of_order(db, block);
        if (db.phase_ != Phase::in_block || block.roll_back || !engine_is(db, ConnectionState::open)) [[unlikely]]
            return commit_unsound(db, block);
        if (block.kind == Kind::outermost) return committed_or_throw(db, block, db.verb_commit());
        if (block.kind == Kind::staged) return commit_staged(db, block);
        if (block.kind == Kind::savepoint) release(db, block);
        pop(db);
        return Outcome::committed;
    }

    template <class Db>
    static void release(Db& db, Block& block) {
        try {
            db.verb_release(block.number);
        } catch (const TransactionLost& lost) {
            note_loss(db, lost.outcome());
            commit_lost(db, block, lost.cause());
        } catch (...) {
            if (block.kind == Kind::savepoint) block.kind = Kind::half_released;
            roll_back_quietly(block, std::current_exception());
            throw;
        }
    }

    [[gnu::cold, gnu::noinline]] static Outcome commit_staged(Connection& db, Block& block) {
        if (!is_based(db)) {
            const bool marked = db.doubt_ != nullptr && !db.hooks_->empty(block.mark);
            return committed_or_throw(db, block, marked ? db.verb_commit_marked(db.doubt_->marker_) : db.verb_commit());
        }
        release(db, block);
        return committed_or_throw(db, block, {Outcome::committed});
    }

    // The block can only roll back: doomed, asked to, lost, or failed by the engine.
    [[gnu::cold, gnu::noinline]] static Outcome commit_unsound(Connection& db, Block& block) {
        note_loss_if_gone(db);
        if (db.phase_ == Phase::lost) commit_lost(db, block);
        if (!block.roll_back) {
            const std::exception_ptr cause = db.doom_;
            if (const std::exception_ptr error = roll_back(block, cause)) {
                try {
                    std::rethrow_exception(error);
                } catch (const TransactionLost&) {
                    throw;
                } catch (...) {
                    db.report_(while_rolling_back, error);
                }
            }
            throw TransactionAborted{cause};
        }
        if (const std::exception_ptr error = roll_back(block, nullptr)) std::rethrow_exception(error);
        return Outcome::rolled_back;
    }

    // COMMIT was sent on the outermost block; this is what is proven.
    [[gnu::cold, gnu::noinline]] static Outcome committed_or_throw(Connection& db, Block& block, CommitResult result) {
        if (result.lost) {
            note_loss(db, result.outcome);
            commit_lost(db, block, result.error);
        }
        switch (result.outcome) {
            case Outcome::committed:
                break;
            case Outcome::still_open:
                if (result.error) std::rethrow_exception(result.error);
                throw UsageError{"txhooks: the backend did not end the transaction; call commit() again or roll back"};
            case Outcome::rolled_back:
                discard_outermost(db);
                if (result.error) std::rethrow_exception(result.error);
                throw TransactionAborted{};
            case Outcome::unknown:
                db.phase_ = Phase::broken;
                if (db.doubt_ != nullptr && !db.hooks_->empty(block.mark)) {
                    db.doubt_->in_doubt_ = true;
                    end_outermost(db, block, Phase::broken);
                    hand_over(db);
                } else {
                    discard_outermost(db);
                }
                throw CommitUnknown{result.error};
        }
        const HookList::Mark mark = block.mark;
        DoubtState* const doubt = db.doubt_;
        const bool detached = db.detach_ != nullptr;
        const bool captured = !detached && db.hooks_ != &db.own_hooks_;
        end_outermost(db, block, rest(db));
        if (detached) hand_over(db);
        if (result.error)
            db.report_("txhooks: COMMIT reported an error, but the transaction is committed", result.error);
        if (doubt != nullptr)
            run_doubted(db, doubt->hooks_);
        else if (!detached && !captured)
            deliver(db, mark);
        return Outcome::committed;
    }

    [[noreturn, gnu::cold, gnu::noinline]] static void commit_lost(Connection& db, Block& block,
                                                                   std::exception_ptr cause = nullptr) {
        const Outcome outcome = db.lost_outcome_;
        db.loss_told_ = true;
        roll_back(block, nullptr);
        throw TransactionLost{outcome, cause};
    }

    [[noreturn, gnu::cold, gnu::noinline]] static void refuse_ended() {
        throw UsageError{"txhooks: commit() on an atomic block that has already ended"};
    }

    // The transaction is committed and the connection idle.
    [[gnu::noinline]] static void deliver(Connection& db, HookList::Mark mark) {
        if (db.detach_ != nullptr) return hand_over(db);
        run(db, db.own_hooks_, mark);
        db.own_hooks_.trim();
    }

    // They are where a doubt would have left them.
    static void run_doubted(Connection& db, DetachedHooks& after) {
        const HookList::Run busy{db.own_hooks_, db.own_hooks_.mark()};
        HookList& hooks = list_of(after);
        run(db, hooks, hooks.start());
    }

    [[gnu::always_inline]] static void run(Connection& db, HookList& hooks, HookList::Mark mark) {
        HookList::Run run{hooks, mark};
        try {
            run();
        } catch (...) {
            return run_rest(db, run.release());  // not `run` itself: while nobody knows its address it costs no memory
        }
        close_left_open(db, nullptr);
    }

    // A hook threw. Runs the others, or destroys them: that may leave a block open too.
    [[gnu::cold, gnu::noinline]] static void run_rest(Connection& db, HookList::Walk&& rest) {
        struct Ending {
            Connection& db;
            HookList::Walk& rest;
            ~Ending() {
                close_left_open(db, nullptr);
                rest.discard();
                close_left_open(db, nullptr);
            }
        } ending{db, rest};
        run_after_failure(rest, db.on_hook_failure_, db.report_);
    }
};

}  // namespace txhooks::detail

#endif

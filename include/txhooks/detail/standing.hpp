// SPDX-License-Identifier: MIT

// How a connection stands: its phase, its chain of open blocks, its stages, and what the engine says.

#include <txhooks/connection.hpp>  // which includes this file: hence the guard below

#ifndef TXHOOKS_DETAIL_STANDING_HPP
#define TXHOOKS_DETAIL_STANDING_HPP

#include <txhooks/backend_adapter.hpp>
#include <txhooks/detail/block.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <exception>

namespace txhooks::detail {

struct Standing {
    using Phase = Connection::Phase;
    using Kind = Block::Kind;

    static bool is_based(const Connection& db) noexcept { return db.stage_ != nullptr && db.stage_->base != nullptr; }

    // What the engine says while no block is open.
    static ConnectionState between_blocks(const Connection& db) noexcept {
        return is_based(db) ? ConnectionState::open : ConnectionState::idle;
    }

    // Where the hooks of blocks that are not detached are kept.
    static HookList* usual_hooks(Connection& db) noexcept {
        return db.stage_ != nullptr && db.stage_->captured != nullptr ? db.stage_->captured : &db.own_hooks_;
    }

    // The phase when no block is open.
    static Phase rest(const Connection& db) noexcept {
        if (db.phase_ == Phase::broken) return Phase::broken;
        return db.stage_ == nullptr ? Phase::idle : Phase::staged;
    }

    // As far as an adapter can tell.
    template <class Db>
    static bool engine_is(const Db& db, ConnectionState state) noexcept {
        if constexpr (Db::has_state)
            return db.verb_state() == state;
        else
            return true;
    }

    static bool is_gone(ConnectionState state) noexcept {
        return state == ConnectionState::idle || state == ConnectionState::lost;
    }

    static void note_loss_if_gone(Connection& db) noexcept {
        if (db.phase_ != Phase::lost && is_gone(db.verb_state())) note_loss(db, db.verb_fate());
    }

    static void note_loss(Connection& db, Outcome outcome) noexcept {
        if (db.phase_ == Phase::lost) return;
        db.phase_ = Phase::lost;
        db.lost_outcome_ = outcome == Outcome::still_open ? Outcome::unknown : outcome;
        db.loss_told_ = false;
        db.doom_ = nullptr;
    }

    static std::exception_ptr tell_loss(Connection& db) noexcept {
        return std::make_exception_ptr(TransactionLost{db.lost_outcome_});
    }

    [[noreturn, gnu::cold, gnu::noinline]] static void throw_lost(Connection& db) {
        note_loss_if_gone(db);
        db.loss_told_ = true;
        throw TransactionLost{db.lost_outcome_};
    }

    // The transaction that staged blocks are savepoints in has ended.
    static void refuse_lost_base(Connection& db, ConnectionState state) {
        if (is_based(db) && state == ConnectionState::idle) throw TransactionLost{db.verb_fate()};
    }

    static void refuse_unless_alive(Connection& db) {
        if (db.phase_ == Phase::broken) throw ConnectionBroken{};
        if (db.phase_ == Phase::lost) throw_lost(db);
    }

    [[noreturn, gnu::cold, gnu::noinline]] static void refuse_engine(ConnectionState state) {
        if (state == ConnectionState::lost) throw ConnectionBroken{};
        throw UsageError{
            "txhooks: the database is already in a transaction, begun by raw SQL, by another HookedConnection on the "
            "same database, or because autocommit is off; or the connection is busy; end that first, and open "
            "transactions with Atomic or atomic(fn)"};
    }

    // The block now current, or the one it is part of, can only roll back.
    static void doom(Connection& db, const std::exception_ptr& cause) noexcept {
        if (db.phase_ == Phase::doomed) return;
        db.phase_ = Phase::doomed;
        db.doom_ = cause;
    }

    // Rolls back whatever transaction is open in the engine, be it ours or not.
    static void clear_engine(Connection& db) noexcept {
        if (db.verb_state() == ConnectionState::idle) return;
        try {
            db.verb_rollback();
        } catch (const TransactionLost&) {
            // As it should be: it was not ours.
        } catch (...) {
            const bool idle = db.verb_state() == ConnectionState::idle;
            if (!idle) db.phase_ = Phase::broken;
            db.report_(
                idle ? rolled_back_all_the_same : "txhooks: ROLLBACK failed; the connection is broken until reset()",
                std::current_exception());
        }
    }

    static constexpr const char* rolled_back_all_the_same =
        "txhooks: ROLLBACK reported an error, but the transaction is rolled back";

    static void push_nested(Connection& db, Block& block, Kind kind) noexcept {
        block = {&db, db.current_, db.hooks_->mark(), 0, db.current_->taken, kind, false};
        db.current_ = &block;
    }

    static void pop(Connection& db) noexcept {
        Block& block = *db.current_;
        db.current_ = block.parent;
        block.db = nullptr;
    }

    // The transaction is over; hooks of another can be stored and run from here on.
    static void end_outermost(Connection& db, Block& block, Phase phase) noexcept {
        block.db = nullptr;
        db.current_ = nullptr;
        db.phase_ = phase;
    }

    static Block& outermost(const Connection& db) noexcept {
        Block* block = db.current_;
        while (block->parent != nullptr) block = block->parent;
        return *block;
    }

    // Savepoints up to `number` may stay in the engine, whichever block goes on.
    static void take_numbers(const Connection& db, unsigned number) noexcept {
        for (Block* block = db.current_; block != nullptr; block = block->parent) block->taken = number;
        if (is_based(db)) db.stage_->base->taken = number;
    }

    static bool active(const Block& block) noexcept { return block.db != nullptr && block.db->phase_ != Phase::lost; }

    static void report(const Connection& db, const char* what, const std::exception_ptr& error) noexcept {
        db.report_(what, error);
    }
};

}  // namespace txhooks::detail

#endif

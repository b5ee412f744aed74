// SPDX-License-Identifier: MIT

// The beginning of a block: BEGIN, SAVEPOINT, or nothing for a joined one.

#include <txhooks/connection.hpp>  // which includes this file: hence the guard below

#ifndef TXHOOKS_DETAIL_OPENING_HPP
#define TXHOOKS_DETAIL_OPENING_HPP

#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/options.hpp>

#include <exception>
#include <type_traits>

namespace txhooks::detail {

struct Opening : RollingBack {
    template <class Db, class Options>
    [[gnu::always_inline]] static void open(Db& db, Block& block, const Options& options) {
        check(options);
        if (db.phase_ != Phase::idle || options.resolve != nullptr) [[unlikely]]
            return open_otherwise(db, block, options);
        if (!engine_is(db, ConnectionState::idle)) [[unlikely]]
            refuse_engine(db.verb_state());
        if (options.detach != nullptr) prepare_detached(db, *options.detach);
        try {
            begin(db, options);
        } catch (...) {
            undo_begin(db);
            throw;
        }
        const HookList& hooks = options.detach != nullptr ? *db.hooks_ : db.own_hooks_;
        block = {&db, nullptr, hooks.mark(), 0, 0, Kind::outermost, false};
        db.current_ = &block;
        db.phase_ = Phase::in_block;
    }

    // A BEGIN that threw may have taken effect all the same.
    [[gnu::cold, gnu::noinline]] static void undo_begin(Connection& db) noexcept {
        take_back_detached(db);
        clear_engine(db);
    }

    template <class Db, class Options>
    [[gnu::noinline]] static void open_otherwise(Db& db, Block& block, Options options) {
        refuse_unless_alive(db);
        if (db.phase_ == Phase::idle || db.phase_ == Phase::staged) return open_staged(db, block, options);
        if (options.durable)
            throw UsageError{"txhooks: a durable block was opened inside another block; it must be the outermost"};
        if (!(options.begin == decltype(options.begin){}))
            throw UsageError{"txhooks: begin options on a nested block; only the outermost begins a transaction"};
        if (options.detach != nullptr)
            throw UsageError{"txhooks: detach on a nested block; only the outermost has hooks to run"};
        if (options.resolve != nullptr)
            throw UsageError{"txhooks: resolve on a nested block; only the outermost sends a COMMIT"};
        if (db.phase_ == Phase::doomed) throw TransactionAborted{db.doom_};
        const ConnectionState state = db.verb_state();
        if (is_gone(state)) throw_lost(db);
        if (state == ConnectionState::failed) throw TransactionAborted{};
        if (options.join) return push_nested(db, block, Kind::joined);

        if (!db.has_savepoints())
            throw UsageError{
                "txhooks: this backend has no savepoints, so a nested block must be part of the one around it: open it "
                "with {.join = true}"};
        const unsigned number = db.current_->taken + 1;
        try {
            set_savepoint(db, number);
        } catch (const TransactionLost& lost) {
            note_loss(db, lost.outcome());
            db.loss_told_ = true;
            throw;
        } catch (...) {
            note_loss_if_gone(db);
            throw;
        }
        push_nested(db, block, Kind::savepoint);
        block.number = block.taken = number;
    }

    // An outermost block on a stage, or with a doubt.
    template <class Db, class Options>
    [[gnu::cold, gnu::noinline]] static void open_staged(Db& db, Block& block, const Options& options) {
        const ConnectionState state = db.verb_state();
        if (state == ConnectionState::failed) throw TransactionAborted{};
        refuse_lost_base(db, state);
        if (state != between_blocks(db)) refuse_engine(state);
        if (options.resolve != nullptr) check_doubt(db, *options.resolve, options.detach);
        if (options.resolve != nullptr && db.stage_ == nullptr && !is_read_only(options.begin)) {
            prepare_doubt(db, *options.resolve);
        } else if (options.detach != nullptr) {
            prepare_detached(db, *options.detach);
        }
        const unsigned number = is_based(db) ? db.stage_->base->taken + 1 : 0;
        try {
            if (is_based(db))
                set_savepoint(db, number);
            else
                begin(db, options);
        } catch (...) {
            take_back_detached(db);
            if (!is_based(db)) clear_engine(db);
            throw;
        }
        block = {&db, nullptr, db.hooks_->mark(), number, number, Kind::staged, false};
        db.current_ = &block;
        db.phase_ = Phase::in_block;
    }

    template <class Db, class Options>
    [[gnu::always_inline]] static void begin(Db& db, [[maybe_unused]] const Options& options) {
        if constexpr (std::is_same_v<Db, Connection>)
            db.verb_begin();
        else
            db.verb_begin(options.begin);
    }

    // Such a block has nothing to resolve, and cannot write a marker.
    template <class Begin>
    static bool is_read_only([[maybe_unused]] const Begin& begin) noexcept {
        if constexpr (requires { begin.read_only; })
            return begin.read_only;
        else
            return false;
    }

    template <class Db>
    static void set_savepoint(Db& db, unsigned number) {
        try {
            db.verb_savepoint(number);
        } catch (...) {
            // It may have taken effect all the same: with its number never used again nothing can hit the stray one.
            take_numbers(db, number);
            throw;
        }
    }
};

}  // namespace txhooks::detail

#endif

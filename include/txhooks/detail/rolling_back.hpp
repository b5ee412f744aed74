// SPDX-License-Identifier: MIT

// The bad end of a block: rolled back, its hooks discarded. Whatever goes wrong meanwhile, the block has ended.

#include <txhooks/connection.hpp>  // which includes this file: hence the guard below

#ifndef TXHOOKS_DETAIL_ROLLING_BACK_HPP
#define TXHOOKS_DETAIL_ROLLING_BACK_HPP

#include <txhooks/detail/detaching.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

#include <exception>

namespace txhooks::detail {

struct RollingBack : Detaching {
    // Ends `block`, and the blocks still open in it, by rolling back. Returns what went wrong, or null; whatever did,
    // the block has ended and its hooks are discarded, or go with the block around it, which is doomed.
    [[gnu::cold, gnu::noinline]] static std::exception_ptr roll_back(Block& block, std::exception_ptr cause) noexcept {
        Connection& db = *block.db;
        block.taken = db.current_->taken;
        for (; db.current_ != &block; pop(db))
            if (db.current_->kind == Kind::pinned)
                die("txhooks: a block was destroyed while a hook was being copied into it, or discarded from it");
        note_loss_if_gone(db);
        if (block.kind == Kind::outermost || block.kind == Kind::staged) return roll_back_outermost(db);
        pop(db);
        if (db.phase_ == Phase::lost) return tell_loss(db);
        if (block.kind == Kind::joined) {
            doom(db, cause);
            return nullptr;
        }
        return roll_back_savepoint(db, block, cause);
    }

    static std::exception_ptr roll_back_savepoint(Connection& db, Block& block, std::exception_ptr& cause) noexcept {
        try {
            db.verb_rollback_to(block.number);
        } catch (...) {
            std::exception_ptr error = std::current_exception();
            try {
                throw;
            } catch (const TransactionLost& lost) {
                if (block.kind != Kind::half_released) {
                    note_loss(db, lost.outcome());
                    return tell_loss(db);
                }
                // It may have been released all the same: that it is gone proves nothing. A loss will show later.
                if (lost.cause()) error = lost.cause();
            } catch (...) {
                // Something else.
            }
            take_numbers(db, block.taken);
            note_loss_if_gone(db);
            if (db.phase_ != Phase::lost) doom(db, cause ? cause : error);
            return error;
        }
        db.phase_ = Phase::in_block;
        db.doom_ = nullptr;
        discard(db, *db.hooks_, block.mark);
        return nullptr;
    }

    static std::exception_ptr roll_back_outermost(Connection& db) noexcept {
        std::exception_ptr error;
        if (db.phase_ != Phase::lost) {
            try {
                if (is_based(db))
                    db.verb_rollback_to(db.current_->number);
                else
                    db.verb_rollback();
            } catch (const TransactionLost& lost) {
                note_loss(db, lost.outcome());
            } catch (...) {
                error = std::current_exception();
                if (db.verb_state() != ConnectionState::idle) db.phase_ = Phase::broken;
            }
        }
        if (db.phase_ == Phase::lost) {
            error = tell_loss(db);
            clear_engine(db);
            discard_outermost(db);
            return error;
        }
        const bool broken = db.phase_ == Phase::broken;
        discard_outermost(db);
        if (broken || !error) return error;
        db.report_(rolled_back_all_the_same, error);
        return nullptr;
    }

    static void discard_outermost(Connection& db) noexcept {
        Block& block = *db.current_;
        HookList& hooks = *db.hooks_;
        DetachedHooks* const after = take_detached(db);
        end_outermost(db, block, rest(db));
        db.doom_ = nullptr;
        discard(db, hooks, block.mark);
        if (after != nullptr)
            give_back(*after, hooks);
        else
            hooks.trim();
    }

    static void discard(Connection& db, HookList& hooks, HookList::Mark mark) noexcept {
        if (hooks.empty(mark)) return;
        const HookList::Run busy{db.own_hooks_, db.own_hooks_.mark()};  // also while the hooks are a detached block's
        if (db.current_ == nullptr) return destroy(db, hooks, mark);
        const Pinned pinned{db};
        destroy(db, hooks, mark);
    }

    static void destroy(Connection& db, HookList& hooks, HookList::Mark mark) noexcept {
        HookList::Run run{hooks, mark};
        const Block* const around = db.current_;
        run.discard();
        close_left_open(db, around);
    }

    // Around code of the user's that copies a hook into the current block, or destroys one of it: until it is done that
    // block cannot end.
    class Pinned {
    public:
        explicit Pinned(Connection& db) noexcept { push_nested(db, block_, Kind::pinned); }
        Pinned(const Pinned&) = delete;
        Pinned& operator=(const Pinned&) = delete;
        ~Pinned() {
            Block** link = &block_.db->current_;
            while (*link != &block_) link = &(*link)->parent;  // over blocks that were left open
            *link = block_.parent;
        }

        void close_left_open() const noexcept { RollingBack::close_left_open(*block_.db, &block_); }

    private:
        Block block_;
    };

    // A hook, or a copy or destruction of what it captured, left a guard open inside the block `around`. It must end
    // before the list takes back the room its mark lies in.
    static void close_left_open(Connection& db, const Block* around) noexcept {
        if (db.current_ != around) [[unlikely]]
            close_blocks_inside(db, around);
    }

    [[gnu::cold, gnu::noinline]] static void close_blocks_inside(Connection& db, const Block* around) noexcept {
        Block* block = db.current_;
        while (block != nullptr && block->parent != around) block = block->parent;
        if (block == nullptr) return;
        db.report_(
            "txhooks: a hook returned with an atomic block still open; it is rolled back",
            std::make_exception_ptr(UsageError{"txhooks: end every block that a hook opens before the hook returns"}));
        roll_back_quietly(*block, nullptr);
    }

    // For who has an exception to throw already, or cannot throw. Returns what went wrong, or null.
    [[gnu::cold, gnu::noinline]] static std::exception_ptr roll_back_quietly(Block& block,
                                                                             const std::exception_ptr& cause) noexcept {
        Connection& db = *block.db;
        const bool told = db.phase_ == Phase::lost && db.loss_told_;
        std::exception_ptr error = roll_back(block, cause);
        if (!error || told) return error;
        db.loss_told_ = true;
        db.report_(while_rolling_back, error);
        return error;
    }

    static constexpr const char* while_rolling_back = "txhooks: while rolling back a block";

    static void refuse_out_of_order(const Connection& db, const Block& block) {
        if (db.current_ == &block) [[likely]]
            return;
        throw UsageError{
            db.current_->kind == Kind::pinned
                ? "txhooks: this block cannot end while a hook is being copied into it, or discarded from it"
                : "txhooks: this block still has an open block inside; end that one first"};
    }

    // Explicit rollback().
    static void roll_back_loudly(Block& block) {
        refuse_out_of_order(*block.db, block);
        if (const std::exception_ptr error = roll_back(block, nullptr)) std::rethrow_exception(error);
    }

    // The guard was destroyed with its block open.
    [[gnu::cold, gnu::noinline]] static void abandon(Block& block) noexcept {
        Connection& db = *block.db;
        const bool lost = db.phase_ == Phase::lost;
        roll_back_quietly(block, nullptr);
        if (!lost && std::uncaught_exceptions() == 0)
            db.report_("txhooks: an Atomic was destroyed without commit() or rollback(); it was rolled back");
    }

    // The connection is being destroyed.
    static void close(Connection& db) noexcept {
        if (db.own_hooks_.busy()) die("txhooks: a connection was destroyed while its hooks are being called");
        if (db.stage_ != nullptr) die("txhooks: a connection was destroyed in a scope of txhooks::testing");
        if (db.current_ == nullptr) return;
        db.report_("txhooks: a connection was destroyed with an atomic block open; it is rolled back");
        roll_back_quietly(outermost(db), nullptr);
    }
};

}  // namespace txhooks::detail

#endif

// SPDX-License-Identifier: MIT
#pragma once

// The life of an atomic block: opened, ended, and what becomes of its hooks. The state is the connection's; the guard
// owns the Block. What every block pays for is a template over the connection's type, so that the verbs of a known
// adapter are called directly; the rest goes through Connection's virtual verbs.

#include <txhooks/connection.hpp>
#include <txhooks/detached_hooks.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/detail/doubt_state.hpp>
#include <txhooks/detail/run_hooks.hpp>

#include <exception>
#include <type_traits>

namespace txhooks::detail {

struct Block {
    enum class Kind : unsigned char {
        outermost,
        staged,  // an outermost block on a Stage, or with a DoubtState
        savepoint,
        half_released,  // a savepoint whose RELEASE failed: it may be gone
        joined,
        pinned,  // no block: while a hook is being copied into its parent, or discarded, that one cannot end
    };

    Connection* db;  // null once the block has ended
    Block* parent;
    HookList::Mark mark;
    unsigned number;  // of its savepoint
    unsigned taken;   // up to here savepoints may be in the engine, while this block is the innermost
    Kind kind;
    bool roll_back;  // set_rollback(true)
};

// What <txhooks/testing/...> puts under the outermost blocks of a connection.
struct Stage {
    Stage* outer;
    Block* base;         // a transaction that is never committed: outermost blocks are savepoints in it. Or null
    HookList* captured;  // where the hooks of committed blocks stay instead of running. Or null
};

struct Blocks {
    using Phase = Connection::Phase;
    using Kind = Block::Kind;

    // ---- Registering

    template <class Db, class Hook, class... Args>
    static void register_hook(Db& db, Hook&& hook, Args&&... args) {
        detail::check_hook<Hook, Args...>();
        refuse_empty(hook);
        store<Hook, Args...>(db, [&] { return detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...); });
    }

    template <class Db, class Hook, class... Args>
    static void register_robust_hook(Db& db, Hook&& hook, Args&&... args) {
        detail::check_hook<Hook, Args...>();
        refuse_empty(hook);
        store<Hook, Args...>(db, [&] {
            return [report = db.report_,
                    hook = detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...)]() mutable {
                try {
                    static_cast<void>(static_cast<decltype(hook)&&>(hook)());
                } catch (...) {
                    report("txhooks: a robust hook threw", std::current_exception());
                }
            };
        });
    }

    template <class Hook>
    static void refuse_empty(const Hook& hook) {
        if (detail::is_empty(hook))
            throw UsageError{"txhooks: on_commit() was given an empty function; register only what can be called"};
    }

    // Stores the hook that `make()` returns, built in place, or outside a block runs it.
    template <class... Copied, class Db, class Make>
    static void store(Db& db, const Make& make) {
        if (not must_store(db)) [[unlikely]]
            return HookList::run_at_once(make);
        if constexpr (detail::copies_run_user_code<Copied...>) {
            const Pinned pinned{db};
            db.hooks_->template emplace<true>([&] {
                try {
                    return make();
                } catch (...) {
                    pinned.close_left_open();
                    throw;
                }
            });
        } else {
            db.hooks_->template emplace<false>(make);
        }
    }

    // Whether a hook registered now waits for a commit. If not, it is to run at once.
    template <class Db>
    static bool must_store(Db& db) {
        if (db.phase_ != Phase::in_block) [[unlikely]]
            return must_store_unusual(db);
        if constexpr (Db::has_state) {
            if (is_gone(db.verb_state())) [[unlikely]]
                throw_lost(db);
        }
        return true;
    }

    [[gnu::cold, gnu::noinline]] static bool must_store_unusual(Connection& db) {
        refuse_unless_alive(db);
        if (db.phase_ == Phase::doomed) return true;
        const ConnectionState state = db.verb_state();
        if (state == ConnectionState::lost) throw ConnectionBroken{};
        refuse_lost_base(db, state);
        if (state != between_blocks(db))
            throw UsageError{
                "txhooks: on_commit() in a transaction that this connection did not begin: now would be too early and "
                "later may be never; open the transaction with Atomic or atomic(fn)"};
        return false;
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

        void close_left_open() const noexcept { Blocks::close_left_open(*block_.db, &block_); }

    private:
        Block block_;
    };

    // ---- Opening

    template <class Db, class Options>
    [[gnu::always_inline]] static void open(Db& db, Block& block, const Options& options) {
        check(options);
        if (db.phase_ != Phase::idle or options.resolve != nullptr) [[unlikely]]
            return open_otherwise(db, block, options);
        if (not engine_is(db, ConnectionState::idle)) [[unlikely]]
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

    [[noreturn, gnu::cold, gnu::noinline]] static void refuse_engine(ConnectionState state) {
        if (state == ConnectionState::lost) throw ConnectionBroken{};
        throw UsageError{
            "txhooks: the database is already in a transaction, begun by raw SQL, by another HookedConnection on the "
            "same database, or because autocommit is off; end it first, and open it with Atomic or atomic(fn)"};
    }

    template <class Db, class Options>
    [[gnu::noinline]] static void open_otherwise(Db& db, Block& block, Options options) {
        refuse_unless_alive(db);
        if (db.phase_ == Phase::idle or db.phase_ == Phase::staged) return open_staged(db, block, options);
        if (options.durable)
            throw UsageError{"txhooks: a durable block was opened inside another block; it must be the outermost"};
        if (not(options.begin == decltype(options.begin){}))
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

        if (not db.has_savepoints())
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

    template <class Db, class Options>
    [[gnu::always_inline]] static void begin(Db& db, [[maybe_unused]] const Options& options) {
        if constexpr (std::is_same_v<Db, Connection>)
            db.verb_begin();
        else
            db.verb_begin(options.begin);
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

    static void push_nested(Connection& db, Block& block, Kind kind) noexcept {
        block = {&db, db.current_, db.hooks_->mark(), 0, db.current_->taken, kind, false};
        db.current_ = &block;
    }

    // A BEGIN that threw may have taken effect all the same.
    [[gnu::cold, gnu::noinline]] static void undo_begin(Connection& db) noexcept {
        take_back_detached(db);
        clear_engine(db);
    }

    static void take_back_detached(Connection& db) noexcept {
        HookList& hooks = *db.hooks_;
        if (DetachedHooks* const after = take_detached(db)) after->adopt(hooks);
    }

    static bool active(const Block& block) noexcept { return block.db != nullptr and block.db->phase_ != Phase::lost; }

    // An outermost block on a stage, or with a doubt.
    template <class Db, class Options>
    [[gnu::cold, gnu::noinline]] static void open_staged(Db& db, Block& block, const Options& options) {
        const ConnectionState state = db.verb_state();
        if (state == ConnectionState::failed) throw TransactionAborted{};
        refuse_lost_base(db, state);
        if (state != between_blocks(db)) refuse_engine(state);
        if (options.resolve != nullptr) check_doubt(db, *options.resolve, options.detach);
        if (options.resolve != nullptr and db.stage_ == nullptr) {
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
            if (not is_based(db)) clear_engine(db);
            throw;
        }
        block = {&db, nullptr, db.hooks_->mark(), number, number, Kind::staged, false};
        db.current_ = &block;
        db.phase_ = Phase::in_block;
    }

    // ---- Ending well

    template <class Db>
    [[gnu::always_inline]] static Outcome commit(Db& db, Block& block) {
        const bool plain = block.kind == Kind::outermost and not block.roll_back;
        if (not plain or db.current_ != &block or db.phase_ != Phase::in_block or
            not engine_is(db, ConnectionState::open)) [[unlikely]]
            return commit_otherwise(db, block);
        if (CommitResult result = db.verb_commit(); result.outcome != Outcome::committed or result.error or result.lost)
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
        if (db.phase_ != Phase::in_block or block.roll_back or not engine_is(db, ConnectionState::open)) [[unlikely]]
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
        if (not is_based(db)) {
            const bool marked = db.doubt_ != nullptr and not db.hooks_->empty(block.mark);
            return committed_or_throw(db, block, marked ? db.verb_commit_marked(db.doubt_->marker_) : db.verb_commit());
        }
        release(db, block);
        return committed_or_throw(db, block, {Outcome::committed});
    }

    // The block can only roll back: doomed, asked to, lost, or failed by the engine.
    [[gnu::cold, gnu::noinline]] static Outcome commit_unsound(Connection& db, Block& block) {
        note_loss_if_gone(db);
        if (db.phase_ == Phase::lost) commit_lost(db, block);
        if (not block.roll_back) {
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
                if (db.doubt_ != nullptr and not db.hooks_->empty(block.mark)) {
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
        const bool captured = not detached and db.hooks_ != &db.own_hooks_;
        end_outermost(db, block, rest(db));
        if (detached) hand_over(db);
        if (result.error)
            db.report_("txhooks: COMMIT reported an error, but the transaction is committed", result.error);
        if (doubt != nullptr)
            run_doubted(db, doubt->hooks_);
        else if (not detached and not captured)
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

    // ---- Running

    // The transaction is committed and the connection idle.
    [[gnu::noinline]] static void deliver(Connection& db, HookList::Mark mark) {
        if (db.detach_ != nullptr) return hand_over(db);
        run(db, db.own_hooks_, mark);
        db.own_hooks_.trim();
    }

    // They are where a doubt would have left them.
    static void run_doubted(Connection& db, DetachedHooks& after) {
        const HookList::Run busy{db.own_hooks_, db.own_hooks_.mark()};
        run(db, *after.held_.hooks, after.held_.hooks->start());
    }

    [[gnu::always_inline]] static void run(Connection& db, HookList& hooks, HookList::Mark mark) {
        Running running{db, hooks, mark};
        run_hooks(running.hooks, db.on_hook_failure_, db.report_);
    }

    struct Running {
        Connection& db;
        HookList::Run hooks;

        Running(Connection& on, HookList& list, HookList::Mark mark) noexcept : db{on}, hooks{list, mark} {}
        [[gnu::always_inline]] ~Running() {
            close_left_open(db, nullptr);
            hooks.discard();  // after a hook that threw; what it destroys may leave a block open too
            close_left_open(db, nullptr);
        }
    };

    // A hook, or a copy or destruction of what it captured, left a guard open inside the block `around`. It must end
    // before the list takes back the room its mark lies in.
    static void close_left_open(Connection& db, const Block* around) noexcept {
        if (db.current_ != around) [[unlikely]]
            close_blocks_inside(db, around);
    }

    [[gnu::cold, gnu::noinline]] static void close_blocks_inside(Connection& db, const Block* around) noexcept {
        Block* block = db.current_;
        while (block != nullptr and block->parent != around) block = block->parent;
        if (block == nullptr) return;
        db.report_(
            "txhooks: a hook returned with an atomic block still open; it is rolled back",
            std::make_exception_ptr(UsageError{"txhooks: end every block that a hook opens before the hook returns"}));
        roll_back_quietly(*block, nullptr);
    }

    // ---- Rolling back

    // Ends `block`, and the blocks still open in it, by rolling back. Returns what went wrong, or null; whatever did, the
    // block has ended and its hooks are discarded, or go with the block around it, which is doomed.
    [[gnu::cold, gnu::noinline]] static std::exception_ptr roll_back(Block& block, std::exception_ptr cause) noexcept {
        Connection& db = *block.db;
        block.taken = db.current_->taken;
        for (; db.current_ != &block; pop(db))
            if (db.current_->kind == Kind::pinned)
                die("txhooks: a block was destroyed while a hook was being copied into it, or discarded from it");
        note_loss_if_gone(db);
        if (block.kind == Kind::outermost or block.kind == Kind::staged) return roll_back_outermost(db);
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
        if (broken or not error) return error;
        db.report_(rolled_back_all_the_same, error);
        return nullptr;
    }

    static constexpr const char* rolled_back_all_the_same =
        "txhooks: ROLLBACK reported an error, but the transaction is rolled back";

    // For who has an exception to throw already, or cannot throw. Returns what went wrong, or null.
    [[gnu::cold, gnu::noinline]] static std::exception_ptr roll_back_quietly(Block& block,
                                                                             const std::exception_ptr& cause) noexcept {
        Connection& db = *block.db;
        const bool told = db.phase_ == Phase::lost and db.loss_told_;
        std::exception_ptr error = roll_back(block, cause);
        if (not error or told) return error;
        db.loss_told_ = true;
        db.report_(while_rolling_back, error);
        return error;
    }

    static constexpr const char* while_rolling_back = "txhooks: while rolling back a block";

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
        if (not lost and std::uncaught_exceptions() == 0)
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

    // ---- Loss and doom

    // As far as an adapter can tell.
    template <class Db>
    static bool engine_is(const Db& db, ConnectionState state) noexcept {
        if constexpr (Db::has_state)
            return db.verb_state() == state;
        else
            return true;
    }

    static bool is_gone(ConnectionState state) noexcept {
        return state == ConnectionState::idle or state == ConnectionState::lost;
    }

    static void note_loss_if_gone(Connection& db) noexcept {
        if (db.phase_ != Phase::lost and is_gone(db.verb_state())) note_loss(db, db.verb_fate());
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

    // Rolls back whatever transaction is open in the engine, be it ours or not.
    static void clear_engine(Connection& db) noexcept {
        if (db.verb_state() == ConnectionState::idle) return;
        try {
            db.verb_rollback();
        } catch (const TransactionLost&) {
            // As it should be: it was not ours.
        } catch (...) {
            const bool idle = db.verb_state() == ConnectionState::idle;
            if (not idle) db.phase_ = Phase::broken;
            db.report_(
                idle ? rolled_back_all_the_same : "txhooks: ROLLBACK failed; the connection is broken until reset()",
                std::current_exception());
        }
    }

    // The block now current, or the one it is part of, can only roll back.
    static void doom(Connection& db, const std::exception_ptr& cause) noexcept {
        if (db.phase_ == Phase::doomed) return;
        db.phase_ = Phase::doomed;
        db.doom_ = cause;
    }

    // ---- Stages

    static bool is_based(const Connection& db) noexcept { return db.stage_ != nullptr and db.stage_->base != nullptr; }

    // Where the hooks of blocks that are not detached are kept.
    static HookList* usual_hooks(Connection& db) noexcept {
        return db.stage_ != nullptr and db.stage_->captured != nullptr ? db.stage_->captured : &db.own_hooks_;
    }

    // The transaction that staged blocks are savepoints in has ended.
    static void refuse_lost_base(Connection& db, ConnectionState state) {
        if (is_based(db) and state == ConnectionState::idle) throw TransactionLost{db.verb_fate()};
    }

    // What the engine says while no block is open.
    static ConnectionState between_blocks(const Connection& db) noexcept {
        return is_based(db) ? ConnectionState::open : ConnectionState::idle;
    }

    // ---- Odds and ends

    static void report(const Connection& db, const char* what, const std::exception_ptr& error) noexcept {
        db.report_(what, error);
    }

    // Savepoints up to `number` may stay in the engine, whichever block goes on.
    static void take_numbers(const Connection& db, unsigned number) noexcept {
        for (Block* block = db.current_; block != nullptr; block = block->parent) block->taken = number;
        if (is_based(db)) db.stage_->base->taken = number;
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

    static void refuse_unless_alive(Connection& db) {
        if (db.phase_ == Phase::broken) throw ConnectionBroken{};
        if (db.phase_ == Phase::lost) throw_lost(db);
    }

    static void refuse_out_of_order(const Connection& db, const Block& block) {
        if (db.current_ == &block) [[likely]]
            return;
        throw UsageError{
            db.current_->kind == Kind::pinned
                ? "txhooks: this block cannot end while a hook is being copied into it, or discarded from it"
                : "txhooks: this block still has an open block inside; end that one first"};
    }

    [[noreturn, gnu::cold, gnu::noinline]] static void refuse_ended() {
        throw UsageError{"txhooks: commit() on an atomic block that has already ended"};
    }

    static void pop(Connection& db) noexcept {
        Block& block = *db.current_;
        db.current_ = block.parent;
        block.db = nullptr;
    }

    static Block& outermost(const Connection& db) noexcept {
        Block* block = db.current_;
        while (block->parent != nullptr) block = block->parent;
        return *block;
    }

    // The phase when no block is open.
    static Phase rest(const Connection& db) noexcept {
        if (db.phase_ == Phase::broken) return Phase::broken;
        return db.stage_ == nullptr ? Phase::idle : Phase::staged;
    }

    // The transaction is over; hooks of another can be stored and run from here on.
    static void end_outermost(Connection& db, Block& block, Phase phase) noexcept {
        block.db = nullptr;
        db.current_ = nullptr;
        db.phase_ = phase;
    }

    static void discard_outermost(Connection& db) noexcept {
        Block& block = *db.current_;
        HookList& hooks = *db.hooks_;
        DetachedHooks* const after = take_detached(db);
        end_outermost(db, block, rest(db));
        db.doom_ = nullptr;
        discard(db, hooks, block.mark);
        if (after != nullptr)
            after->adopt(hooks);
        else
            hooks.trim();
    }

    // While a detached block is open the connection owns the list: nobody can run it too early.
    static void prepare_detached(Connection& db, DetachedHooks& after) {
        if (after.lent_)
            throw UsageError{
                "txhooks: the DetachedHooks or Doubt given to this block is that of another open block; give each its "
                "own"};
        if (after.busy() or after.size() != 0)
            throw UsageError{
                "txhooks: the DetachedHooks given to this block still holds hooks of an earlier one; run() or "
                "discard() them first"};
        db.hooks_ = after.release();
        db.detach_ = &after;
    }

    static void check_doubt(const Connection& db, const DoubtState& doubt, const DetachedHooks* detach) {
        if (detach != nullptr)
            throw UsageError{"txhooks: resolve and detach exclude each other: the Doubt keeps the hooks of its block"};
        if (not db.has_markers())
            throw UsageError{
                "txhooks: this backend cannot mark a COMMIT, so a doubt about it cannot be resolved; open the block "
                "without .resolve"};
        if (doubt.in_doubt_ or doubt.hooks_.busy())
            throw UsageError{
                "txhooks: the Doubt given to this block still has an earlier COMMIT to resolve, or runs the hooks of "
                "one; "
                "resolve() or discard() it first, or give this block another"};
    }

    static void prepare_doubt(Connection& db, DoubtState& doubt) {
        prepare_detached(db, doubt.hooks_);
        try {
            doubt.renew_marker();
        } catch (...) {
            take_back_detached(db);
            throw;
        }
        db.doubt_ = &doubt;
    }

    // Whether the block that was to write `marker` was committed; if not, it never will be.
    static bool was_committed(Connection& db, const char* marker) {
        refuse_unless_alive(db);
        if (db.current_ != nullptr) throw UsageError{"txhooks: resolve() in an atomic block; end that block first"};
        if (not db.has_markers())
            throw UsageError{"txhooks: this backend cannot look for the marker of a COMMIT; give resolve() another"};
        if (const ConnectionState state = db.verb_state(); state != ConnectionState::idle) refuse_engine(state);
        return db.verb_was_committed(marker);
    }

    static DetachedHooks* take_detached(Connection& db) noexcept {
        DetachedHooks* const after = db.detach_;
        db.detach_ = nullptr;
        db.doubt_ = nullptr;
        db.hooks_ = usual_hooks(db);
        if (after != nullptr) after->lent_ = false;
        return after;
    }

    [[gnu::cold, gnu::noinline]] static void hand_over(Connection& db) noexcept {
        HookList& hooks = *db.hooks_;
        take_detached(db)->adopt(hooks, db.on_hook_failure_, db.report_);
        db.own_hooks_.trim();
    }
};

}  // namespace txhooks::detail

namespace txhooks {

template <class Hook, class... Args>
void Connection::on_commit(Hook&& hook, Args&&... args) {
    detail::Blocks::register_hook(*this, static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
}

template <class Hook, class... Args>
void Connection::on_commit(robust_t, Hook&& hook, Args&&... args) {
    detail::Blocks::register_robust_hook(*this, static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
}

inline void Connection::set_rollback(bool roll_back) {
    using Kind = detail::Block::Kind;
    detail::Blocks::refuse_unless_alive(*this);
    if (current_ == nullptr)
        throw UsageError{"txhooks: set_rollback() outside an atomic block; there is nothing to roll back"};
    detail::Block* block = current_;
    while (block->kind == Kind::joined or block->kind == Kind::pinned) block = block->parent;
    block->roll_back = roll_back;
}

inline std::size_t Connection::pending_hooks() const noexcept {
    return current_ == nullptr ? 0 : hooks_->size(detail::Blocks::outermost(*this).mark);
}

inline bool Connection::usable() const noexcept {
    const bool ready = phase_ == Phase::idle or phase_ == Phase::staged;
    return ready and verb_state() == detail::Blocks::between_blocks(*this);
}

inline void Connection::reset() {
    if (current_ != nullptr) throw UsageError{"txhooks: reset() in an atomic block; end the open blocks first"};
    if (detail::Blocks::is_based(*this)) throw UsageError{"txhooks: reset() in a RolledBack; end that first"};
    verb_reset();
    if (verb_state() != ConnectionState::idle)
        throw UsageError{
            "txhooks: reset() while the engine is still in a transaction, or gone; end that transaction or reconnect "
            "first"};
    phase_ = Phase::idle;
    phase_ = detail::Blocks::rest(*this);
}

}  // namespace txhooks

#include <txhooks/detail/run_atomic.hpp>  // Connection::atomic

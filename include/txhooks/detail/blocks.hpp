// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detached_hooks.hpp>
#include <txhooks/detail/block.hpp>
#include <txhooks/detail/doubt_state.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/hook_arena.hpp>
#include <txhooks/detail/hook_kind.hpp>
#include <txhooks/detail/hook_owner.hpp>
#include <txhooks/detail/stage.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/options.hpp>
#include <txhooks/outcome.hpp>

#include <cstddef>
#include <exception>

namespace txhooks::detail {

// What writes for others before COMMIT: behind the last hook, when no code of the user's is left to run in the block.
class LastBeforeCommit {
public:
    // Returns whether it did anything: then it is asked again, behind the hooks that this has registered.
    virtual bool last_before_commit() = 0;

    // What is to go out in one round trip with COMMIT, if the adapter can: null for nothing. And that it has.
    virtual const char* ahead_of_commit() noexcept = 0;
    virtual void went_ahead_of_commit() noexcept = 0;

protected:
    ~LastBeforeCommit() = default;
};

// A connection's inside: its verbs, how it stands, and the life of its blocks and hooks. The guards own the `Block`s.
//
// What every block pays for is a template over the type that has the verbs: the Core of a known adapter, whose verbs are
// called directly, or `Blocks`, whose verbs are virtual. What is decided before a verb and what after it are functions
// of their own (opening, opened; ending, ended; undoing, undone): a front whose verbs wait can share them one day.
//
// User code is called from here in many places: hooks, captures, the error sink, callbacks of drivers. It may come back
// to this connection through its public face at any of them. So a block has ended before anyone is told of its end (one
// that was left open is looked for again), a report is the last thing that is done, and where the connection must stay
// alive meanwhile it is busy: then destroying it ends the program with a sentence.
class Blocks {
public:
    Blocks(const Blocks&) = delete;
    Blocks& operator=(const Blocks&) = delete;

    // ---- The verbs: core.hpp makes them of an adapter's

    virtual void verb_begin() = 0;
    virtual CommitResult verb_commit() noexcept = 0;
    virtual void verb_rollback() = 0;
    virtual bool has_savepoints() const noexcept = 0;
    virtual void verb_savepoint(unsigned n) = 0;
    virtual void verb_release(unsigned n) = 0;
    virtual void verb_rollback_to(unsigned n) = 0;
    static constexpr bool has_state = true;  // as far as is known here
    virtual ConnectionState verb_state() const noexcept = 0;
    virtual ConnectionState verb_state_before_begin() const noexcept = 0;
    virtual Outcome verb_fate() noexcept = 0;
    virtual bool verb_in_another_process() const noexcept = 0;
    virtual void verb_reset() = 0;
    virtual bool has_markers() const noexcept = 0;
    virtual CommitResult verb_commit_marked(const char* marker) noexcept = 0;
    virtual CommitResult verb_commit_behind(const char* ahead, const char* marker) noexcept = 0;
    virtual bool verb_was_committed(const char* marker) = 0;

    // ---- How it stands: standing.hpp

    bool in_atomic_block() const noexcept { return current_ != nullptr; }
    // The open one. No other has the same while this is open or coming to its end.
    const void* transaction() const noexcept { return current_ == nullptr ? nullptr : &outermost(); }
    std::size_t pending_hooks() const noexcept;
    bool usable() const noexcept;
    void reset();
    void set_rollback(bool roll_back);
    void set_error_sink(ErrorSink sink, void* context) noexcept {
        own_.report = sink != nullptr ? Reporter{sink, context} : Reporter{};
    }
    void set_on_hook_failure(HookFailure policy) noexcept { own_.on_failure = policy; }
    static bool is_active(const Block& block) noexcept;
    // What the engine says while no block is open.
    ConnectionState engine_at_rest() const noexcept { return engine_at_rest_; }
    void refuse_unless_alive();
    void report(const char* what) noexcept;
    void report(const char* what, const Failure& failure) noexcept;
    class CloseLeftOpen;

    // ---- The beginning of a block: opening.hpp

    template <class Verbs, class Options>
    void open(Block& block, const Options& options);

    // ---- A hook is stored, or run at once: registering.hpp

    template <class Verbs, HookKind kind, class Hook, class... Args>
    void register_hook(Hook&& hook, Args&&... args);
    template <class Verbs, class Hook, class... Args>
    void register_robust_hook(Hook&& hook, Args&&... args);

    // ---- The good end of a block, and the run of its hooks: committing.hpp

    template <class Verbs>
    Outcome commit(Block& block);
    bool may_wait_for_commit() const noexcept;
    void run_before_commit();
    [[noreturn]] static void refuse_ended();
    void run_of_others(HookOwner& owner);

    // ---- The one that writes last before COMMIT: committing.hpp

    void set_last_before_commit(LastBeforeCommit* last);
    void ask_last_before_commit();
    bool hands_hooks_over() const noexcept { return owner_->lent_by != nullptr; }
    bool commits_by_engine() const noexcept { return stages_.verbs() == nullptr; }

    // ---- The bad end: rolling_back.hpp

    Failure roll_back_quietly(Block& block, const std::exception_ptr& cause = nullptr) noexcept;
    Failure roll_back_all() noexcept;
    template <class RolledBack>
    Failure roll_back_all(const RolledBack& rolled_back) noexcept;
    static void roll_back_loudly(Block& block);
    static void abandon(Block& block) noexcept;
    void close() noexcept;

    // ---- Whose hooks, and what became of a COMMIT in doubt: detaching.hpp

    bool was_committed(const char* marker);

    // ---- Scopes of txhooks::testing: staging.hpp

    void refuse_open_block();
    void push(Stage& stage) noexcept;
    void push(Stage& stage, Block& base);
    std::size_t pop(Stage& stage) noexcept;
    Failure undo_base(Block& base) noexcept;
    void run_captured(Stage& stage);
    void discard_captured(HookOwner& captured) noexcept;
    std::size_t kept_hooks(const HookOwner& captured) const noexcept;

    // Tells who holds it whether the connection still lives, when user code may have destroyed that.
    class Watch {
    public:
        explicit Watch(Blocks& db) noexcept : db_{&db}, next_{db.watches_} { db.watches_ = this; }
        Watch(const Watch&) = delete;
        Watch& operator=(const Watch&) = delete;
        ~Watch() {
            if (db_ == nullptr) return;
            Watch** at = &db_->watches_;
            while (*at != this) at = &(*at)->next_;
            *at = next_;
        }
        Blocks* alive() const noexcept { return db_; }

        // For Blocks alone.
        Blocks* db_;
        Watch* next_;
    };

protected:
    Blocks() = default;
    ~Blocks() {
        for (Watch* watch = watches_; watch != nullptr; watch = watch->next_) watch->db_ = nullptr;
    }

private:
    using Kind = Block::Kind;

    enum class Phase : unsigned char {
        idle,      // no block is open; or all have ended and hooks are running
        staged,    // the same in a scope of txhooks::testing
        in_block,  // in a block that can go on
        doomed,    // in a block that can only roll back; no deeper one can be opened until it has
        lost,      // in blocks whose transaction is gone, until the outermost has ended
        broken,    // no block is open, and none can be opened until reset()
        in_verb,   // the engine has been called: what its callbacks ask for is refused
    };

    // ---- How it stands

    template <class Verbs>
    Verbs& verbs() noexcept {
        return static_cast<Verbs&>(*this);
    }
    template <class Verbs>
    bool engine_is(ConnectionState state) noexcept;
    class InVerb;
    Phase phase_at_rest() const noexcept;
    static bool is_gone(ConnectionState state) noexcept;
    void note_loss_if_gone() noexcept;
    void note_loss(Outcome outcome) noexcept;
    Failure tell_loss() const noexcept;
    [[noreturn]] void throw_lost();
    void refuse_verb_under_way() const;
    void die_if_verb_under_way() const noexcept;
    [[noreturn]] void refuse_engine(ConnectionState state);
    void doom(const std::exception_ptr& cause) noexcept;
    Failure clear_engine() noexcept;
    void report_cleared(const Failure& failure) noexcept;
    void push_nested(Block& block, Kind kind) noexcept;
    void pop() noexcept;
    void end_outermost(Block& block, Phase phase) noexcept;
    Block& outermost() const noexcept;
    void keep_numbers_from(unsigned number) noexcept;
    void tell(const char* what, const Failure& failure) noexcept;
    void close_left_open(const Block* around) noexcept;
    void close_blocks_inside(const Block* around) noexcept;
    class Pinned;

    static constexpr const char* rollback_failed = "txhooks: ROLLBACK failed; the connection is broken until reset()";
    static constexpr const char* committed_all_the_same =
        "txhooks: COMMIT reported an error, but the transaction is committed";
    static constexpr const char* committed_but = "txhooks: the transaction is committed, but";
    static constexpr const char* rolled_back_all_the_same =
        "txhooks: ROLLBACK reported an error, but the transaction is rolled back";
    static constexpr const char* while_rolling_back = "txhooks: while rolling back a block";

    // ---- The beginning of a block

    template <class Verbs>
    void opening();
    template <class Verbs, class Options>
    void open_otherwise(Block& block, Options options);
    template <class Verbs, class Options>
    void open_special(Block& block, const Options& options);
    template <class Verbs, class Options>
    void opening_nested(const Options& options);
    template <class Verbs>
    void savepoint(unsigned number);
    template <class Verbs, class Options>
    void begin(const Options& options);
    void opened(Block& block, Kind kind, HookArena::Mark mark, unsigned number) noexcept;
    void not_opened() noexcept;

    // ---- A hook is stored, or run at once

    template <class Verbs, HookKind kind, class... Copied, class Make>
    void store(const Make& make);
    template <class Verbs, HookKind kind>
    bool must_store();
    template <HookKind kind>
    bool must_store_unusual();
    template <HookKind kind>
    void end_at_once(HookArena::Entry& hook);
    template <HookKind kind>
    static void end_at_once_alone(HookArena::Entry& hook);

    // ---- The good end of a block

    template <class Verbs>
    Outcome commit_otherwise(Block& block);
    template <class Verbs>
    bool ending(const Block& block);
    Outcome commit_special(Block& block);
    void run_before_commit(Block& block);
    CommitResult verb_commit_special(bool marked) noexcept;
    CommitResult verb_commit_of_last(bool marked) noexcept;
    template <class Verbs>
    void release(Block& block);
    Outcome commit_unsound(Block& block);
    Outcome ended(Block& block, CommitResult result);
    Outcome ended_well(Block& block, const Failure& failure);
    static bool is_usage(const Failure& failure) noexcept;
    void leave_in_doubt(HookOwner& owner, HookArena::Mark mark) noexcept;
    [[noreturn]] void ended_in_doubt(Block& block, const std::exception_ptr& cause);
    [[noreturn]] void ended_lost(Block& block, const std::exception_ptr& cause = nullptr);
    void deliver(HookArena::Mark mark);
    void run(HookOwner& owner, HookArena::Mark from);
    void run_rest(HookOwner& owner, HookArena::Walk&& rest, const std::exception_ptr& first);
    void discard_rest(HookArena::Walk&& rest) noexcept;

    // ---- The bad end

    Failure roll_back(Block& block, const std::exception_ptr& cause) noexcept;
    void undoing(Block& block) noexcept;
    Failure undo_savepoint(Block& block, const std::exception_ptr& cause) noexcept;
    void undone_savepoint(const Block& block) noexcept;
    void not_undone_savepoint(const Block& block, const std::exception_ptr& cause) noexcept;
    Failure undo_outermost() noexcept;
    void undone_outermost(bool proven) noexcept;
    void discard(HookOwner& owner, HookArena::Mark mark, bool proven) noexcept;
    void destroy(HookOwner& owner, HookArena::Mark mark, bool proven) noexcept;
    void call_undone(HookOwner& owner, HookArena::Mark mark, bool proven) noexcept;
    void discard_others(HookOwner& owner, HookArena::Mark mark) noexcept;
    void refuse_out_of_order(const Block& block) const;
    void die_if_in_scope() const noexcept;

    // ---- Scopes of txhooks::testing

    void stages_changed() noexcept;

    // ---- Whose hooks

    HookOwner& usual_owner() noexcept;
    HookOwner& take_owner() noexcept;
    void borrow(DetachedHooks& after, bool run_at_commit);
    void borrow(DoubtState& doubt);
    void refuse_doubt(const DoubtState& doubt, const DetachedHooks* detach) const;
    void leave(HookOwner& owner) noexcept;

    Block* current_ = nullptr;
    HookOwner* owner_ = &own_;  // of the hooks of the open transaction
    Phase phase_ = Phase::idle;
    Outcome lost_outcome_ = Outcome::unknown;
    bool loss_told_ = false;
    bool reporting_ = false;
    DoubtState* doubt_ = nullptr;  // that of the open transaction
    LastBeforeCommit* last_before_commit_ = nullptr;
    Stages stages_;
    ConnectionState engine_at_rest_ = ConnectionState::idle;
    std::exception_ptr doom_;
    Watch* watches_ = nullptr;
    HookOwner own_;
};

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/committing.hpp>
#include <txhooks/detail/opening.hpp>
#include <txhooks/detail/registering.hpp>
#include <txhooks/detail/run_atomic.hpp>
#include <txhooks/error_sink.hpp>
#include <txhooks/options.hpp>

namespace txhooks {

/// `db.on_commit(txhooks::robust, f)`: a failure of `f` goes to the error sink and does not stop later hooks.
struct robust_t {};
inline constexpr robust_t robust{};

namespace detail {
struct Access;
}

/// Any hooked connection, whatever its backend: hooks and blocks, not SQL. A service that takes `txhooks::Connection&`
/// needs no template parameter, and a test can give it a fake.
///
/// One thread at a time; different connections share nothing.
class Connection : protected detail::Blocks {
public:
    using begin_options = NoBeginOptions;

    /// Runs `hook(args...)` once the outermost atomic block on this connection is proven committed.
    ///
    /// Hooks run in the order they were registered. If a surrounding block rolls back, its hooks are discarded.
    /// Hooks follow blocks: a savepoint that is no block (raw SQL, a class of the driver's) takes its rows along when
    /// it is rolled back, and the hooks registered in it run all the same. Use a nested block instead.
    /// `hook` and `args` are copied or moved now, as `std::thread` does it; `std::ref` opts out.
    /// Outside any block the hook runs before `on_commit` returns. What it returns is ignored, so that the compiler
    /// refuses a hook whose result can mean failure (`result_traits`). O(1).
    ///
    /// It runs inside `commit()` or `atomic(fn)`: a mutex that is held around the block is still held (`.detach` lets
    /// hooks wait), and `std::exit` in it destroys a static connection in the middle, which ends the program with a
    /// message.
    ///
    /// Throws: outside a block, whatever the hook throws, and `UsageError` in a transaction that was not begun here;
    /// inside, what copying throws and `std::bad_alloc`; `UsageError` for an empty `std::function` or a null pointer;
    /// `TransactionLost` and `ConnectionBroken` when that is so. After a throw: no hook has been added.
    ///
    /// A hook that ends its thread (pthread_exit, pthread_cancel) ends it: the data stays committed, later hooks are
    /// discarded whatever the policy, and the connection can be used by another thread. (With libc++ the program ends.)
    template <class Hook, class... Args>
    void on_commit(Hook&& hook, Args&&... args) {
        register_hook<Blocks, detail::HookKind::commit>(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// The same, but what the hook throws goes to the error sink, and later hooks run.
    template <class Hook, class... Args>
    void on_commit(robust_t, Hook&& hook, Args&&... args) {
        register_robust_hook<Blocks>(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// Runs `hook(args...)` inside the transaction, when the outermost block ends well, before COMMIT: what it writes is
    /// committed with the rest. Registered, discarded with savepoints, and run in order as the hooks of `on_commit` are.
    ///
    /// It may run SQL, open blocks, and register hooks of every kind: one for before COMMIT runs in the same pass, behind
    /// those that wait. None runs in a block that can only roll back, and no further one once a hook has made it so.
    /// Runs at most once, also when COMMIT leaves the transaction open and `commit()` is called again.
    /// Outside any block it runs at once; a result that means failure is a `UsageError` there.
    ///
    /// What it throws rolls the block back, and reaches the caller as if the function of the block had thrown it. A result
    /// that means failure (`result_traits`) rolls back too: the function form returns it if its function returns the same
    /// type, else throws `TransactionAborted`; `Atomic::commit` returns `Outcome::rolled_back`. A guard that it leaves open
    /// is a `UsageError` that rolls everything back.
    ///
    /// Throws: as `on_commit`; `UsageError` from inside a verb of this connection (a notice callback): it may be COMMIT.
    template <class Hook, class... Args>
    void before_commit(Hook&& hook, Args&&... args) {
        register_hook<Blocks, detail::HookKind::before_commit>(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// Runs `hook(args...)` once what was done at this place in the code is proven undone: after a ROLLBACK or ROLLBACK TO
    /// that succeeded, a COMMIT that provably rolled back, or a loss whose `outcome()` is `rolled_back`. For what may only
    /// go if the row is not there: a file that was stored. Not for messages to the world: say those in a commit hook.
    ///
    /// Of the hooks undone together the last registered runs first; when all have run, the discarded hooks are destroyed.
    /// They run where the enclosing block goes on, or with the connection idle, and may use it; what they register belongs
    /// to the enclosing block, and what they write is undone with that. What they throw goes to the error sink: they run in
    /// destructors too, so to end the thread in one ends the program.
    /// What a ROLLBACK undoes is the engine's: tables without transactions (MariaDB's MyISAM) keep their rows. So does what
    /// raw SQL writes after it has ended the transaction behind the block's back.
    /// After a commit, and in doubt, it does not run (with a `Doubt`: once that is resolved to a rollback). Outside any
    /// block it is destroyed at once: nothing is undone there.
    ///
    /// Register first, then change: if this throws, nothing was registered. What the hook refers to must outlive the block.
    ///
    /// Throws: as `on_commit`, but for what the hook throws.
    template <class Hook, class... Args>
    void on_rollback(Hook&& hook, Args&&... args) {
        register_hook<Blocks, detail::HookKind::rollback>(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// The same, but it also runs where nothing proves that the transaction was undone: after `CommitUnknown`, any
    /// `TransactionLost`, and a ROLLBACK that failed (the connection is broken then). For what may only stay if the row is
    /// proven to be there: an object in memory. Never where the commit hooks run, but for those that a `Doubt` has kept.
    template <class Hook, class... Args>
    void unless_committed(Hook&& hook, Args&&... args) {
        register_hook<Blocks, detail::HookKind::unless_committed>(static_cast<Hook&&>(hook),
                                                                  static_cast<Args&&>(args)...);
    }

    /// Runs `fn()` in an atomic block: commits when it returns, rolls back when it throws, and returns its result.
    /// A result that means failure (`result_traits`) rolls back and is returned. Costs what `Atomic` does.
    ///
    /// Throws: what `fn` throws; what opening the block throws; what `Atomic::commit` throws, and then the block has
    /// ended all the same.
    template <class Fn>
    decltype(auto) atomic(Fn&& fn) {
        return detail::run_atomic<Blocks>(*this, BlockOptions<>{}, static_cast<Fn&&>(fn), [] {});
    }
    template <class Fn>
    decltype(auto) atomic(const BlockOptions<>& options, Fn&& fn) {
        return detail::run_atomic<Blocks>(*this, options, static_cast<Fn&&>(fn), [] {});
    }

    /// Asks for the current block (from a joined one: the block it is part of) to be rolled back at its clean end,
    /// silently: `commit()` returns `Outcome::rolled_back`. `false` takes that back. O(joined blocks).
    /// Throws: `UsageError` outside a block; `TransactionLost`, `ConnectionBroken`.
    using Blocks::set_rollback;

    /// Whether an atomic block is open. O(1).
    using Blocks::in_atomic_block;

    /// How many commit hooks the open transaction has stored. O(hooks and open blocks).
    using Blocks::pending_hooks;

    /// Whether a block can be opened: no transaction is open, by whomever, and the connection is not broken.
    /// O(1); a round trip only on MariaDB, where its client does not know.
    using Blocks::usable;

    /// Makes a broken connection usable again, once the engine is idle: after its transaction was ended by hand or the
    /// driver has reconnected. What the adapter remembers of the old session is made anew.
    /// Throws: `UsageError` in a block, or when the engine is still in a transaction or gone: it stays broken then.
    using Blocks::reset;

    /// Sets where failures go that no caller can be given. The default prints one line to stderr. A null pointer
    /// restores it. Hooks already registered with `robust` keep the sink they were registered under.
    void set_error_sink(ErrorSink sink, void* context = nullptr) noexcept { Blocks::set_error_sink(sink, context); }

    /// Sets what happens when a hook throws.
    using Blocks::set_on_hook_failure;

protected:
    Connection() = default;
    virtual ~Connection() = default;

private:
    friend class detail::Blocks;  // whose templates know the adapter's type
    friend class DetachedHooks;
    friend struct detail::Access;
};

inline void DetachedHooks::run(Connection& db) {
    const detail::Blocks::CloseLeftOpen close{db};
    run();
}

inline void DetachedHooks::discard(Connection& db) noexcept {
    const detail::Blocks::CloseLeftOpen close{db};
    discard();
}

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backend_adapter.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/error_sink.hpp>
#include <txhooks/hook_list.hpp>
#include <txhooks/options.hpp>

#include <cstddef>
#include <exception>

namespace txhooks {

/// `db.on_commit(txhooks::robust, f)`: a failure of `f` goes to the error sink and does not stop later hooks.
struct robust_t {};
inline constexpr robust_t robust{};

class AmbientConnection;
class Connection;

namespace detail {
struct Block;
struct Stage;

// Who works on a connection.
struct Standing;
struct Detaching;
struct RollingBack;
struct Registering;
struct Opening;
struct Committing;
struct Stages;

template <class Adapter>
class Core;
class DoubtState;

// Points to a connection, until that dies.
struct Watch {
    Connection* db;
    Watch* next;
};
}  // namespace detail

/// Any hooked connection, whatever its backend: hooks and blocks, not SQL. A service that takes `txhooks::Connection&`
/// needs no template parameter, and a test can give it a fake.
///
/// One thread at a time; different connections share nothing.
class Connection {
public:
    using begin_options = NoBeginOptions;

    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    /// Runs `hook(args...)` once the outermost atomic block on this connection is proven committed.
    ///
    /// Hooks run in the order they were registered. If a surrounding block rolls back, its hooks are discarded.
    /// `hook` and `args` are copied or moved now, as `std::thread` does it; `std::ref` opts out.
    /// Outside any block the hook runs before `on_commit` returns. O(1).
    ///
    /// Throws: outside a block, whatever the hook throws, and `UsageError` in a transaction that was not begun here;
    /// inside, what copying throws and `std::bad_alloc`; `UsageError` for an empty `std::function` or a null pointer;
    /// `TransactionLost` and `ConnectionBroken` when that is so. After a throw: no hook has been added.
    template <class Hook, class... Args>
    void on_commit(Hook&& hook, Args&&... args);

    /// The same, but what the hook throws goes to the error sink, and later hooks run.
    template <class Hook, class... Args>
    void on_commit(robust_t, Hook&& hook, Args&&... args);

    /// Runs `fn()` in an atomic block: commits when it returns, rolls back when it throws, and returns its result.
    /// A result that means failure (`result_traits`) rolls back and is returned. Costs what `Atomic` does.
    ///
    /// Throws: what `fn` throws; what opening the block throws; what `Atomic::commit` throws, and then the block has
    /// ended all the same.
    template <class Fn>
    decltype(auto) atomic(Fn&& fn);
    template <class Fn>
    decltype(auto) atomic(const BlockOptions<>& options, Fn&& fn);

    /// Asks for the current block (from a joined one: the block it is part of) to be rolled back at its clean end,
    /// silently: `commit()` returns `Outcome::rolled_back`. `false` takes that back. O(joined blocks).
    /// Throws: `UsageError` outside a block; `TransactionLost`, `ConnectionBroken`.
    void set_rollback(bool roll_back);

    /// Whether an atomic block is open. O(1).
    bool in_atomic_block() const noexcept { return current_ != nullptr; }

    /// How many hooks the open transaction has stored. O(hooks and open blocks).
    std::size_t pending_hooks() const noexcept;

    /// Whether a block can be opened: no transaction is open, by whomever, and the connection is not broken.
    /// O(1); a round trip only on MariaDB, where its client does not know.
    bool usable() const noexcept;

    /// Makes a broken connection usable again, once the engine is idle: after its transaction was ended by hand or the
    /// driver has reconnected. What the adapter remembers of the old session is made anew.
    /// Throws: `UsageError` in a block, or when the engine is still in a transaction or gone: it stays broken then.
    void reset();

    /// Sets where failures go that no caller can be given. The default prints one line to stderr. A null pointer
    /// restores it. Hooks already registered with `robust` keep the sink they were registered under.
    void set_error_sink(ErrorSink sink, void* context = nullptr) noexcept {
        report_ = sink != nullptr ? detail::Reporter{sink, context} : detail::Reporter{};
    }

    /// Sets what happens when a hook throws.
    void set_on_hook_failure(HookFailure policy) noexcept { on_hook_failure_ = policy; }

protected:
    Connection() = default;
    ~Connection() {
        for (detail::Watch* watch = watches_; watch != nullptr; watch = watch->next) watch->db = nullptr;
    }

private:
    friend struct detail::Standing;
    friend struct detail::Detaching;
    friend struct detail::RollingBack;
    friend struct detail::Registering;
    friend struct detail::Opening;
    friend struct detail::Committing;
    friend struct detail::Stages;
    friend class AmbientConnection;

    static constexpr bool has_state = true;  // as far as is known here

    enum class Phase : unsigned char {
        idle,      // no block; or all have ended and hooks are running
        staged,    // the same on a Stage
        in_block,  // in a block that can go on
        doomed,    // in a block that can only roll back; no deeper one can be opened until it has
        lost,      // in blocks whose transaction is gone, until the outermost has ended
        broken,    // no block is open, and none can be opened until reset()
    };

    virtual void verb_begin() = 0;
    virtual CommitResult verb_commit() noexcept = 0;
    virtual void verb_rollback() = 0;
    virtual bool has_savepoints() const noexcept = 0;
    virtual void verb_savepoint(unsigned n) = 0;
    virtual void verb_release(unsigned n) = 0;
    virtual void verb_rollback_to(unsigned n) = 0;
    virtual ConnectionState verb_state() const noexcept = 0;
    virtual Outcome verb_fate() noexcept = 0;
    virtual void verb_reset() = 0;
    virtual bool has_markers() const noexcept = 0;
    virtual CommitResult verb_commit_marked(const char* marker) noexcept = 0;
    virtual bool verb_was_committed(const char* marker) = 0;

    detail::Block* current_ = nullptr;
    HookList* hooks_ = &own_hooks_;  // the list of a detached block, while one is open
    Phase phase_ = Phase::idle;
    HookFailure on_hook_failure_ = HookFailure::stop;
    Outcome lost_outcome_ = Outcome::unknown;
    bool loss_told_ = false;
    DetachedHooks* detach_ = nullptr;      // where its hooks go
    detail::DoubtState* doubt_ = nullptr;  // whose hooks they are
    detail::Stage* stage_ = nullptr;
    std::exception_ptr doom_;
    detail::Reporter report_;
    detail::Watch* watches_ = nullptr;  // who is told when this connection dies
    HookList own_hooks_;
};

}  // namespace txhooks

#include <txhooks/detail/blocks.hpp>  // the definitions

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/atomic.hpp>
#include <txhooks/backend_adapter.hpp>
#include <txhooks/connection.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/core.hpp>
#include <txhooks/detail/holder.hpp>

#include <cstddef>
#include <type_traits>

namespace txhooks {

/// A database connection with commit hooks.
///
///     HookedConnection<SQLite::Database> db{"app.db", flags};   // is a SQLite::Database: use it as one
///     HookedConnection<SQLite::Database&> db{existing};         // borrows; so does HookedConnection db{existing}
///     HookedConnection<sqlite3*> db{handle};                    // borrows a C handle; so does HookedConnection db{handle}
///
/// What is borrowed must outlive this object. Destroyed with a block open, it rolls back, discards, ends the guards and
/// reports; destroyed by one of its own hooks, it terminates the program.
///
/// `Adapter` is how txhooks speaks to the backend: `BackendAdapter<Backend>` unless another is named.
template <class Backend, class Adapter = BackendAdapter<std::remove_reference_t<Backend>>>
class HookedConnection : public detail::holder_of<Backend> {
    using Holder = detail::holder_of<Backend>;

public:
    using txhooks_core = detail::Core<Adapter>;  // for Atomic
    using Options = BlockOptions<typename txhooks_core::begin_options>;

    HookedConnection()
        requires std::is_default_constructible_v<Holder>
    = default;
    using Holder::Holder;
    /// Takes an open connection over.
    explicit HookedConnection(Holder&& open)
        requires std::is_move_constructible_v<Holder>
        : Holder{static_cast<Holder&&>(open)} {}
    HookedConnection(const HookedConnection&) = delete;
    HookedConnection& operator=(const HookedConnection&) = delete;

    /// This connection without its type: hooks and blocks, not SQL.
    operator Connection&() noexcept { return txhooks_; }

    // What Connection has, with the adapter's verbs called directly and begin options of the backend's own.

    /// See `Connection::on_commit`.
    template <class Hook, class... Args>
    inline void on_commit(  // `inline` tells Clang to prefer that
        Hook&& hook, Args&&... args) {
        txhooks_.blocks().template register_hook<txhooks_core, detail::HookKind::commit>(static_cast<Hook&&>(hook),
                                                                                         static_cast<Args&&>(args)...);
    }
    template <class Hook, class... Args>
    void on_commit(robust_t, Hook&& hook, Args&&... args) {
        txhooks_.blocks().template register_robust_hook<txhooks_core>(static_cast<Hook&&>(hook),
                                                                      static_cast<Args&&>(args)...);
    }

    /// See `Connection::before_commit`.
    template <class Hook, class... Args>
    void before_commit(Hook&& hook, Args&&... args) {
        txhooks_.blocks().template register_hook<txhooks_core, detail::HookKind::before_commit>(
            static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// See `Connection::on_rollback`.
    template <class Hook, class... Args>
    void on_rollback(Hook&& hook, Args&&... args) {
        txhooks_.blocks().template register_hook<txhooks_core, detail::HookKind::rollback>(
            static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// See `Connection::unless_committed`.
    template <class Hook, class... Args>
    void unless_committed(Hook&& hook, Args&&... args) {
        txhooks_.blocks().template register_hook<txhooks_core, detail::HookKind::unless_committed>(
            static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    }

    /// See `Connection::atomic`. `fn` may take what runs SQL in a block: `adapter().session()` if there is such a
    /// thing, else `backend()`.
    template <class Fn>
    decltype(auto) atomic(Fn&& fn) {
        return detail::run_atomic<txhooks_core>(txhooks_.blocks(), Options{}, static_cast<Fn&&>(fn), txhooks_session());
    }
    template <class Fn>
    decltype(auto) atomic(const Options& options, Fn&& fn) {
        return detail::run_atomic<txhooks_core>(txhooks_.blocks(), options, static_cast<Fn&&>(fn), txhooks_session());
    }

    /// See `Connection`.
    void set_rollback(bool roll_back) { txhooks_.set_rollback(roll_back); }
    bool in_atomic_block() const noexcept { return txhooks_.in_atomic_block(); }
    std::size_t pending_hooks() const noexcept { return txhooks_.pending_hooks(); }
    bool usable() const noexcept { return txhooks_.usable(); }
    void reset() { txhooks_.reset(); }
    void set_error_sink(ErrorSink sink, void* context = nullptr) noexcept { txhooks_.set_error_sink(sink, context); }
    void set_on_hook_failure(HookFailure policy) noexcept { txhooks_.set_on_hook_failure(policy); }

    /// The connection itself: a reference, or the handle.
    decltype(auto) backend() noexcept { return detail::held<Backend>(*this); }

    /// What txhooks remembers of the connection.
    Adapter& adapter() noexcept { return txhooks_.adapter; }

    // The backend's own verbs would end the transaction behind the blocks' back.
    template <class... Args>
    void begin(Args&&...) {
        refuse_verb<Args...>();
    }
    template <class... Args>
    void commit(Args&&...) {
        refuse_verb<Args...>();
    }
    template <class... Args>
    void rollback(Args&&...) {
        refuse_verb<Args...>();
    }
    template <class... Args>
    void savepoint(Args&&...) {
        refuse_verb<Args...>();
    }
    template <class... Args>
    void release(Args&&...) {
        refuse_verb<Args...>();
    }
    template <class... Args>
    void rollback_to(Args&&...) {
        refuse_verb<Args...>();
    }

private:
    // How atomic(fn) gets at what runs SQL: not before the block is open.
    auto txhooks_session() noexcept {
        return [this]() -> decltype(auto) {
            if constexpr (detail::HasSession<Adapter>)
                return adapter().session();
            else
                return backend();
        };
    }

    template <class... Args>
    static void refuse_verb() {
        static_assert(sizeof...(Args) != sizeof...(Args),
                      "txhooks: a connection has no transaction verbs of its own; a block ends with tx.commit() or "
                      "tx.rollback() of an Atomic, or with the function given to atomic(fn)");
    }

    detail::Core<Adapter> txhooks_{detail::held<Backend>(*this)};  // last, so that it dies before the backend
};

template <class Backend>
HookedConnection(Backend&) -> HookedConnection<Backend&>;
template <class Backend, class Adapter>
HookedConnection(HookedConnection<Backend, Adapter>&)
    -> HookedConnection<HookedConnection<Backend, Adapter>&>;  // refused in there, in a sentence
template <class Handle>
HookedConnection(Handle*) -> HookedConnection<Handle*>;

}  // namespace txhooks

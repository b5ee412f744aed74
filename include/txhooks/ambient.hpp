// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/access.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hooked_connection.hpp>

#include <cstddef>

namespace txhooks {

/// Binds a connection to the current thread while it lives, for code below that has no connection at hand:
///
///     txhooks::AmbientConnection here{db};
///     db.atomic([&] { sign_up("Ann"); });    // somewhere in there: txhooks::call_after_commit(send_mail, "Ann")
///
/// The nearest scope counts, also when only an outer one's connection is in a block. A scope that ends before one
/// inside it takes away its own binding and no other. Allocates nothing.
///
/// The connection may die first: until the scope ends, `call_after_commit(f)` and `nearest()` throw `ConnectionBroken` then.
///
/// The binding is the thread's, in shared libraries too. No other thread has it, and a thread of a pool loses it with
/// the scope. A coroutine or fiber that is resumed elsewhere does not take it along, so it must not suspend while it holds a
/// scope: it carries the connection itself, and says `db.on_commit(f)` or binds anew after it was resumed. A
/// scope that ends on another thread than it began on ends the program, with a message.
class [[nodiscard, gnu::visibility("default")]] AmbientConnection {
public:
    /// O(1).
    template <class Db>
    explicit AmbientConnection(Db& db) noexcept : AmbientConnection{detail::connection(db), nearest_} {}
    AmbientConnection(const AmbientConnection&) = delete;
    AmbientConnection& operator=(const AmbientConnection&) = delete;
    static void* operator new(std::size_t) = delete;  // a binding ends with the scope it stands in
    static void* operator new[](std::size_t) = delete;

    /// O(scopes inside this one, and bindings of its connection that are newer).
    ~AmbientConnection() {
        AmbientConnection** at = &nearest_;
        while (*at != this) {
            if (*at == nullptr)
                detail::die(
                    "txhooks: an AmbientConnection was destroyed on another thread than it was made on; a coroutine "
                    "must not suspend while it holds one");
            at = &(*at)->outer_;
        }
        *at = outer_;
    }

    /// The connection bound last to this thread; null if none is. For `on_rollback` and the like:
    ///
    ///     if (txhooks::Connection* const db = txhooks::AmbientConnection::nearest()) db->on_rollback(remove, path);
    ///
    /// Throws: `ConnectionBroken` if it is gone. O(1).
    static Connection* nearest() {
        if (nearest_ == nullptr) return nullptr;
        if (nearest_->watch_.alive() == nullptr) throw ConnectionBroken{};
        return nearest_->db_;
    }

private:
    AmbientConnection(Connection& db, AmbientConnection* outer) noexcept
        : db_{&db}, watch_{detail::blocks(db)}, outer_{outer} {
        nearest_ = this;
    }

    static constinit inline thread_local AmbientConnection* nearest_ = nullptr;

    Connection* db_;
    detail::Blocks::Watch watch_;
    AmbientConnection* outer_;
};

namespace detail {

// Stands in where no connection is bound: never in a block, so every hook runs at once.
struct NoDatabase {
    void begin() noexcept {}
    CommitResult commit() noexcept { return {Outcome::committed}; }
    void rollback() noexcept {}
};

}  // namespace detail

/// `db.on_commit([robust,] hook, args...)` on the connection of the nearest `AmbientConnection` of this thread. With
/// none, runs the hook at once: nothing tells then that a transaction is open somewhere.
///
/// Throws: as `Connection::on_commit`; `ConnectionBroken` if the nearest connection is gone. After a throw: no hook has
/// been added.
template <class Hook, class... Args>
void call_after_commit(Hook&& hook, Args&&... args) {
    if (Connection* const db = AmbientConnection::nearest())
        return db->on_commit(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
    HookedConnection<detail::NoDatabase> none;
    none.on_commit(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
}

}  // namespace txhooks

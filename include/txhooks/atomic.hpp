// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/failed_result.hpp>
#include <txhooks/options.hpp>
#include <txhooks/outcome.hpp>

#include <cstddef>

namespace txhooks {

/// An atomic block as a scope: a transaction when it is the outermost on its connection, a savepoint inside another.
///
///     txhooks::Atomic tx{db};
///     ...
///     tx.commit();     // without it the destructor rolls back
///
/// The type of `db` is deduced; `Atomic<>` is the one that takes any `Connection&`.
template <class Db = Connection>
class [[nodiscard]] Atomic {
    using Verbs = detail::verbs_of<Db>;

public:
    /// Opens the block: BEGIN, or SAVEPOINT `txhooks_<n>`, or nothing for a joined one. O(1) and allocates nothing.
    ///
    /// Throws: what the engine throws; `UsageError` when the engine is in a transaction that was not begun here, or the
    /// options do not fit; `TransactionAborted` in a block that can only roll back; `TransactionLost`;
    /// `ConnectionBroken`. After a throw: no block was opened and no transaction of ours is left.
    [[nodiscard, gnu::always_inline]] explicit Atomic(Db& db) : Atomic{db, {}} {}
    [[nodiscard, gnu::always_inline]] Atomic(Db& db, const detail::options_of<Db>& options) {
        detail::blocks(db).template open<Verbs>(block_, options);
    }

    Atomic(const Atomic&) = delete;  // a block is one scope
    Atomic& operator=(const Atomic&) = delete;
    static void* operator new(std::size_t) = delete;  // a block ends with the scope it stands in
    static void* operator new[](std::size_t) = delete;

    /// Rolls back what was not committed, and runs its rollback hooks. What fails in that goes to the error sink: a
    /// destructor has nobody to tell.
    /// O(discarded hooks).
    ~Atomic() {
        if (block_.db != nullptr) detail::Blocks::abandon(block_);
    }

    /// Ends the block well. For the outermost: the hooks of `before_commit` run; then COMMIT, and when that is proven the
    /// commit hooks run, in here. For a savepoint: RELEASE; its hooks now belong to the block around it. O(1) and the hooks.
    ///
    /// Returns `Outcome::committed`; or `Outcome::rolled_back` after `set_rollback(true)`, or when the result of a hook before
    /// COMMIT means failure.
    ///
    /// Throws, and then the block has ended with its hooks discarded: `TransactionAborted` (it could only roll back),
    /// `TransactionLost`, `CommitUnknown` (the connection is broken), the engine's own exception (rolled back), or what a
    /// hook before COMMIT throws (rolled back).
    /// `HookError`: the data is committed and the block has ended; a hook threw, later ones are discarded.
    /// Throws, and the block is still open with its hooks: the engine's own exception while `active()` (SQLite busy, a
    /// deferred constraint: repair it or wait, and call `commit()` again); `UsageError` when a block inside this one is
    /// open. `UsageError` also on a block that has already ended.
    [[gnu::always_inline]] Outcome commit() {
        if (block_.db == nullptr) [[unlikely]]
            detail::Blocks::refuse_ended();
        try {
            return block_.db->template commit<Verbs>(block_);
        } catch (const detail::FailedHook& failed) {
            return failed.outcome();
        }
    }

    /// Undoes the block, runs its rollback hooks and discards the others; on a joined block dooms the block it is part of.
    /// On an ended block: nothing. O(discarded hooks).
    ///
    /// Throws: what the engine throws (the outermost: the connection is broken; a savepoint: the block around it can
    /// only roll back); `TransactionLost`; `UsageError` when a block inside this one is open, which changes nothing.
    /// After any other throw the block has ended.
    void rollback() {
        if (block_.db != nullptr) detail::Blocks::roll_back_loudly(block_);
    }

    /// Whether the block is open: neither ended nor lost. O(1).
    bool active() const noexcept { return detail::Blocks::is_active(block_); }

private:
    detail::Block block_;
};

template <class Db>
    requires detail::Hooked<Db>
Atomic(Db&) -> Atomic<Db>;
template <class Db>
    requires detail::Hooked<Db>
Atomic(Db&, detail::options_of<Db>) -> Atomic<Db>;
template <class T>
    requires(!detail::Hooked<T>)
Atomic(T&, BlockOptions<> = {}) -> Atomic<T>;  // refused in there, in a sentence

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/die.hpp>
#include <txhooks/detail/hook_owner.hpp>
#include <txhooks/errors.hpp>

#include <cstddef>

namespace txhooks {

class Connection;
class Doubt;
namespace detail {
class Blocks;
}

/// The hooks of a committed transaction, to be run away from its connection:
///
///     txhooks::DetachedHooks after;
///     {
///         auto db = pool.lease();
///         db->atomic({.detach = &after}, [&] { ... });
///     }                 // the connection is back in the pool
///     after.run();
///
/// Owns its memory; moving it is O(1). Holds hooks only once the block that named it is proven committed. It must
/// outlive that block; destroyed before, or by one of its own hooks, it terminates the program. Moved from while the
/// block is open, it is filled all the same. What is moved into it then stays if the block leaves no hooks; if it does,
/// that makes room for them: it is discarded, and reported. Destroyed with hooks in it, it discards them and reports that
/// to the error sink of their connection.
class DetachedHooks {
public:
    DetachedHooks() = default;
    DetachedHooks(DetachedHooks&& other) noexcept { swap(other); }
    DetachedHooks& operator=(DetachedHooks&& other) noexcept {
        DetachedHooks dropped{static_cast<DetachedHooks&&>(other)};
        swap(dropped);
        return *this;
    }
    ~DetachedHooks() {
        if (lent_) detail::die("txhooks: DetachedHooks or a Doubt destroyed before the block that fills it has ended");
        if (owner_ == nullptr) return;
        if (busy()) detail::die("txhooks: DetachedHooks destroyed while its hooks are being called");
        detail::HookOwner* const owner = owner_;
        owner_ = nullptr;
        if (owner->waits())
            owner->report("txhooks: detached hooks were destroyed without run() or discard(); they are discarded");
        delete owner;
    }

    /// Runs and destroys the hooks, in order of registration, as the connection they come from would have. O(n).
    /// Throws: `HookError` as `Atomic::commit` does. After it, returning or throwing, none is left. From one of its own
    /// hooks: `UsageError`. A guard that a hook leaves open is not noticed: the connection may be another thread's by
    /// now, or gone.
    void run() {
        refuse_busy();
        if (owner_ != nullptr) owner_->run();
    }
    /// The same while `db`, which the hooks use, is this thread's: a guard that they leave open on it is rolled back and
    /// reported, as after a commit.
    void run(Connection& db);

    /// Destroys the hooks without running them. From one of its own hooks: does nothing. O(n).
    void discard() noexcept {
        if (owner_ != nullptr && !busy()) owner_->list.discard(owner_->list.start());
    }
    /// The same while `db` is this thread's, as above: the destructors of captures may leave a guard open too.
    void discard(Connection& db) noexcept;

    /// How many hooks wait to be run; none does once `run()` was called. O(n).
    std::size_t size() const noexcept { return owner_ == nullptr ? 0 : owner_->size(); }

private:
    friend class detail::Blocks;
    friend class Doubt;

    bool busy() const noexcept { return owner_ != nullptr && owner_->list.busy(); }
    void refuse_busy() const {
        if (busy()) throw UsageError{"txhooks: run() on DetachedHooks whose hooks are already running"};
    }

    // Those of a Doubt whose block is proven rolled back.
    template <class After>
    void roll_back(const After& after) noexcept {
        if (owner_ != nullptr) owner_->roll_back(after);
    }

    // An empty owner for the hooks of a block, which gives it back, or deletes it.
    detail::HookOwner& lend() {
        detail::HookOwner* const owner = owner_ == nullptr ? new detail::HookOwner : owner_;
        owner_ = nullptr;
        lent_ = true;
        owner->lent_by = this;
        return *owner;
    }

    void take_back(detail::HookOwner& owner) noexcept {
        owner.lent_by = nullptr;
        lent_ = false;
        DetachedHooks dropped;
        dropped.owner_ = &owner;
        if (owner_ == nullptr || owner.waits()) swap(dropped);
    }

    void swap(DetachedHooks& other) noexcept {
        detail::HookOwner* const mine = owner_;
        owner_ = other.owner_;
        other.owner_ = mine;
    }

    detail::HookOwner* owner_ = nullptr;
    bool lent_ = false;
};

}  // namespace txhooks

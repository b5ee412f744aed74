// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/die.hpp>
#include <txhooks/detail/run_after_failure.hpp>
#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

#include <cstddef>
#include <type_traits>

namespace txhooks {

namespace detail {
struct Detaching;
}

/// The hooks of a committed transaction, to be run away from its connection:
///
///     txhooks::DetachedHooks after;
///     {
///         auto db = pool.lease();
///         txhooks::atomically(*db, {.detach = &after}, [&] { ... });
///     }                 // the connection is back in the pool
///     after.run();
///
/// Owns its memory; moving it is O(1). Holds hooks only once the block that named it is proven committed. Destroyed
/// with hooks in it, it discards them and reports that to the error sink of their connection; destroyed by one of its
/// own hooks, it terminates the program.
class DetachedHooks {
public:
    DetachedHooks() = default;
    DetachedHooks(DetachedHooks&& other) noexcept { swap(other); }
    DetachedHooks& operator=(DetachedHooks&& other) noexcept {
        DetachedHooks taken{static_cast<DetachedHooks&&>(other)};
        swap(taken);
        return *this;
    }
    ~DetachedHooks() {
        if (held_.hooks == nullptr) return;
        if (busy()) detail::die("txhooks: DetachedHooks destroyed while its hooks are being called");
        if (size() != 0)
            held_.report("txhooks: detached hooks were destroyed without run() or discard(); they are discarded");
        delete held_.hooks;
    }

    /// Runs and destroys the hooks, in order of registration, as the connection they come from would have. O(n).
    /// Throws: `HookError` as `Atomic::commit` does. After it, returning or throwing, none is left. From one of its own
    /// hooks: `UsageError`.
    void run() {
        if (held_.hooks == nullptr) return;
        if (busy()) throw UsageError{"txhooks: run() on DetachedHooks whose hooks are already running"};
        const Held held = held_;  // a hook may move this object
        HookList::Run run{*held.hooks, held.hooks->start()};
        try {
            run();
        } catch (...) {
            detail::run_after_failure(run, held.on_hook_failure, held.report);
        }
    }

    /// Destroys the hooks without running them. From one of its own hooks: does nothing. O(n).
    void discard() noexcept {
        if (held_.hooks != nullptr && !busy()) held_.hooks->discard(held_.hooks->start());
    }

    /// How many hooks wait to be run; none does once `run()` was called. O(n).
    std::size_t size() const noexcept {
        return held_.hooks == nullptr || busy() ? 0 : held_.hooks->size(held_.hooks->start());
    }

private:
    friend struct detail::Detaching;

    bool busy() const noexcept { return held_.hooks != nullptr && held_.hooks->busy(); }

    // An empty list for a block to fill, owned by the caller.
    HookList* release() {
        HookList* const hooks = held_.hooks == nullptr ? new HookList : held_.hooks;
        held_.hooks = nullptr;
        lent_ = true;
        return hooks;
    }

    // The list comes back empty.
    void take_back(HookList& hooks) noexcept {
        if (held_.hooks == nullptr)
            held_.hooks = &hooks;
        else  // something was moved in meanwhile
            delete &hooks;
    }

    // With the hooks of a committed block. What was moved in meanwhile goes.
    void fill(HookList& hooks, HookFailure on_hook_failure, detail::Reporter report) noexcept {
        DetachedHooks filled;
        filled.held_ = {&hooks, on_hook_failure, report};
        *this = static_cast<DetachedHooks&&>(filled);
    }

    void swap(DetachedHooks& other) noexcept {
        const Held mine = held_;
        held_ = other.held_;
        other.held_ = mine;
    }

    struct Held {
        HookList* hooks = nullptr;
        HookFailure on_hook_failure = HookFailure::stop;
        detail::Reporter report;
    };
    Held held_;
    bool lent_ = false;  // to an open block
};

}  // namespace txhooks

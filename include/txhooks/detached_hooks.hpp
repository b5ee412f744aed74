// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/die.hpp>
#include <txhooks/detail/run_hooks.hpp>
#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

#include <cstddef>
#include <type_traits>

namespace txhooks {

/// The hooks of a committed transaction, to be run away from its connection:
///
///     txhooks::DetachedHooks after;
///     {
///         auto db = pool.lease();
///         txhooks::atomically(*db, {.detach = &after}, [&] { ... });
///     }                 // the connection is back in the pool
///     after.run();
///
/// Owns its memory. Holds hooks only once the block that named it is proven committed. Destroyed with hooks in it, it
/// discards them and reports that to the error sink of their connection; destroyed by one of its own hooks, it
/// terminates the program.
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
        if (hooks_ == nullptr) return;
        if (busy()) detail::die("txhooks: DetachedHooks destroyed while its hooks are being called");
        if (size() != 0)
            report_("txhooks: detached hooks were destroyed without run() or discard(); they are discarded");
        delete hooks_;
    }

    /// Runs and destroys the hooks, in order of registration, as the connection they come from would have.
    /// Throws: `HookError` as `Atomic::commit` does. After it, returning or throwing, none is left. From one of its own
    /// hooks: `UsageError`.
    void run() {
        if (hooks_ == nullptr) return;
        if (busy()) throw UsageError{"txhooks: run() on DetachedHooks whose hooks are already running"};
        HookList::Run run{*hooks_, hooks_->start()};
        detail::run_hooks(run, on_hook_failure_, report_);
    }

    /// Destroys the hooks without running them. From one of its own hooks: does nothing.
    void discard() noexcept {
        if (hooks_ != nullptr and not busy()) hooks_->discard(hooks_->start());
    }

    /// How many hooks wait to be run; none does once `run()` was called. O(n).
    std::size_t size() const noexcept { return hooks_ == nullptr or busy() ? 0 : hooks_->size(hooks_->start()); }

private:
    friend struct detail::Blocks;

    bool busy() const noexcept { return hooks_ != nullptr and hooks_->busy(); }

    // An empty list for a block to fill, owned by the caller.
    HookList* release() {
        HookList* const hooks = hooks_ == nullptr ? new HookList : hooks_;
        hooks_ = nullptr;
        return hooks;
    }

    void adopt(HookList& hooks) noexcept {
        DetachedHooks filled;
        filled.hooks_ = &hooks;
        *this = static_cast<DetachedHooks&&>(filled);
    }

    void adopt(HookList& hooks, HookFailure on_hook_failure, detail::Reporter report) noexcept {
        adopt(hooks);
        on_hook_failure_ = on_hook_failure;
        report_ = report;
    }

    void swap(DetachedHooks& other) noexcept {
        std::swap(hooks_, other.hooks_);
        std::swap(on_hook_failure_, other.on_hook_failure_);
        std::swap(report_, other.report_);
    }

    HookList* hooks_ = nullptr;
    HookFailure on_hook_failure_ = HookFailure::stop;
    detail::Reporter report_;
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/die.hpp>
#include <txhooks/detail/hook_owner.hpp>
#include <txhooks/detail/stage.hpp>
#include <txhooks/detail/staging.hpp>
#include <txhooks/errors.hpp>

#include <cstddef>

namespace txhooks::testing {

/// Keeps the hooks that blocks of a connection commit, instead of running them:
///
///     txhooks::testing::CapturedHooks hooks{db};
///     sign_up(db, "ann");
///     CHECK(hooks.size() == 1);
///     hooks.run();                 // or discard(), or nothing: the end of the scope discards
///
/// Hooks of a block that rolled back are not among them, nor those registered outside every block, which run at once,
/// nor those of a block with `detach`. Hooks of other kinds run, or end, with their blocks, as they would without it.
/// Where one such scope stands in another, the inner one keeps what is committed in it. Together with `RolledBack` either
/// may be the outer one; what is kept outlives an inner `RolledBack`. A `Doubt` is not used: a COMMIT without an answer
/// discards the hooks. Scopes on one connection end in the reverse order of their beginning, and before their connection:
/// anything else terminates the program.
class CapturedHooks {
public:
    /// Throws: `UsageError` in an atomic block; `ConnectionBroken`.
    explicit CapturedHooks(Connection& db) : db_{detail::blocks(db)} {
        db_.refuse_open_block();
        hooks_.runs_at_commit = false;
        db_.push(stage_);
    }
    CapturedHooks(const CapturedHooks&) = delete;
    CapturedHooks& operator=(const CapturedHooks&) = delete;

    /// Discards what has not run; an exception that leaves the scope therefore runs nothing. Blocks that are still open
    /// are rolled back.
    ~CapturedHooks() {
        if (hooks_.list.busy()) detail::die("txhooks: CapturedHooks destroyed while its hooks are being called");
        db_.pop(stage_);
        db_.discard_captured(hooks_);
    }

    /// How many hooks are kept, those of a block that is open not among them; none is once `run()` was called, or while a
    /// block of this scope is being rolled back. O(n).
    std::size_t size() const noexcept { return db_.kept_hooks(hooks_); }

    /// Runs and destroys the kept hooks, in order, as the commits would have; what those hooks commit runs too, at that
    /// commit. Throws: `HookError` as `Atomic::commit` does, and then none is left; `UsageError` in an atomic block,
    /// and from one of its own hooks; `ConnectionBroken`.
    void run() {
        if (hooks_.list.busy()) throw UsageError{"txhooks: run() on CapturedHooks whose hooks are already running"};
        db_.run_captured(stage_);
    }

    /// Destroys the kept hooks without running them. From one of its own hooks: does nothing.
    /// Throws: `UsageError` in an atomic block; `ConnectionBroken`.
    void discard() {
        db_.refuse_open_block();
        db_.discard_captured(hooks_);
    }

private:
    detail::Blocks& db_;
    detail::HookOwner hooks_;
    detail::Stage stage_{.captured = &hooks_};
};

}  // namespace txhooks::testing

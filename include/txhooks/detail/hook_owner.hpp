// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/hook_arena.hpp>
#include <txhooks/detail/hook_kind.hpp>
#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>

#include <cstddef>

namespace txhooks {
class DetachedHooks;
}

namespace txhooks::detail {

// Calls them all, and `after(threw, failure)` after each; `threw` is what to say if it failed.
template <class After>
void call_each(HookArena::Undo& hooks, const After& after) noexcept {
    while (!hooks.empty()) {
        const Failure failure = attempt([&] { hooks.call_next(); });
        const bool rollback = hooks.kind() == HookKind::rollback;
        after(rollback ? "txhooks: a hook of on_rollback() threw" : "txhooks: a hook of unless_committed() threw",
              failure);
    }
}

// Whose hooks these are: a connection's own, or those of a DetachedHooks, a Doubt, a CapturedHooks. A block stores its
// hooks with one owner; after its commit they are run, or left with that owner.
struct HookOwner {
    HookArena list;
    HookFailure on_failure = HookFailure::stop;
    Reporter report{};
    bool runs_at_commit = true;
    DetachedHooks* lent_by = nullptr;  // to an open block, which gives it back

    std::size_t size() const noexcept { return list.busy() ? 0 : list.size(list.start()); }
    bool waits() const noexcept { return !list.busy() && list.waits_for_outcome(list.start()); }

    void run() {
        HookArena::Run run{list, list.start()};
        if (const Failure first = attempt([&] { run(); })) run_after(first.error, run);
    }

    template <class After>
    void roll_back(const After& after) noexcept {
        const HookArena::Run destroys_them{list, list.start()};
        HookArena::Undo hooks{list, list.start(), true};
        call_each(hooks, [&](const char* threw, const Failure& failure) {
            after();
            if (failure) report.failure(threw, failure.error);
        });
    }

    // Deals with failures as `other` does.
    void follow(const HookOwner& other) noexcept {
        on_failure = other.on_failure;
        report = other.report;
    }

    // A hook threw `first`. Does with the others what the policy says.
    [[gnu::cold, gnu::noinline]] void run_after(const std::exception_ptr& first, HookArena::Walk& rest) const {
        const std::size_t position = rest.done() - 1;
        std::size_t failed = 1;
        const auto tell = [&](const std::exception_ptr& error) {
            report.failure("txhooks: a hook threw, after its transaction was committed", error);
        };
        const HookFailure policy = on_failure;  // a hook may set another
        if (policy == HookFailure::report) tell(first);
        while (policy == HookFailure::report || policy == HookFailure::run_all) {
            const Failure next = attempt([&] { rest(); });
            if (!next) break;
            ++failed;
            tell(next.error);
        }
        if (policy != HookFailure::report) throw HookError{position, rest.left(), failed, first};
    }
};

}  // namespace txhooks::detail

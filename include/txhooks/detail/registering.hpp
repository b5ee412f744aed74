// SPDX-License-Identifier: MIT
#pragma once

// A hook is stored in the open block; outside any it is run, or destroyed, at once.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/detail/failed_result.hpp>
#include <txhooks/detail/hook_kind.hpp>
#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/detail/standing.hpp>

namespace txhooks::detail {

template <HookKind kind, class Hook>
void refuse_empty(const Hook& hook) {
    if (detail::is_empty(hook))
        throw UsageError{
            sentence<kind, "txhooks: ", " was given an empty function; register only what can be called">.text};
}

template <class Verbs, HookKind kind, class Hook, class... Args>
inline void Blocks::register_hook(Hook&& hook, Args&&... args) {
    detail::check_hook<kind, Hook, Args...>();
    detail::refuse_empty<kind>(hook);
    const auto make = [&] { return detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...); };
    if constexpr (kind == HookKind::before_commit && CanFail<decltype(make()())>)
        store<Verbs, kind, Hook, Args...>([&] { return Judged<decltype(make())>{make()}; });
    else
        store<Verbs, kind, Hook, Args...>(make);
}

template <class Verbs, class Hook, class... Args>
inline void Blocks::register_robust_hook(Hook&& hook, Args&&... args) {
    detail::check_hook<HookKind::commit, Hook, Args...>();
    detail::refuse_empty<HookKind::commit>(hook);
    store<Verbs, HookKind::commit, Hook, Args...>([&] {
        return [report = own_.report,
                hook = detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...)]() mutable {
            const Failure failure = attempt([&] { static_cast<void>(static_cast<decltype(hook)&&>(hook)()); });
            if (failure) report.failure("txhooks: a robust hook threw", failure.error);
        };
    });
}

// Stores the hook that `make()` returns, built in place. Outside a block it has come to its end at once.
template <class Verbs, HookKind kind, class... Copied, class Make>
inline void Blocks::store(const Make& make) {
    if (!must_store<Verbs, kind>()) [[unlikely]] {
        if constexpr (detail::copies_run_user_code<Copied...>) {
            const Watch watch{*this};
            const auto make_and_close = [&] {
                const CloseLeftOpen close{*this};
                return make();
            };
            return HookArena::run_at_once(make_and_close, [&](HookArena::Entry& hook) {
                watch.alive() != nullptr ? end_at_once<kind>(hook) : end_at_once_alone<kind>(hook);
            });
        } else {
            return HookArena::run_at_once(make, [this](HookArena::Entry& hook) { end_at_once<kind>(hook); });
        }
    }
    if constexpr (kind == HookKind::before_commit) outermost().kind = Kind::special;
    if constexpr (detail::copies_run_user_code<Copied...>) {
        const Pinned pinned{*this};
        owner_->list.template emplace<true, kind>([&] {
            try {
                return make();
            } catch (...) {
                pinned.close_left_open();
                throw;
            }
        });
    } else {
        owner_->list.template emplace<false, kind>(make);
    }
}

template <HookKind kind>
[[gnu::cold, gnu::noinline]] inline void Blocks::end_at_once(HookArena::Entry& hook) {
    const CloseLeftOpen close{*this};
    end_at_once_alone<kind>(hook);
}

template <HookKind kind>
inline void Blocks::end_at_once_alone(HookArena::Entry& hook) {
    if constexpr (kind >= HookKind::rollback) {
        HookArena::destroy_once(hook);
    } else if constexpr (kind == HookKind::before_commit) {
        try {
            HookArena::run_once(hook);
        } catch (const FailedHook&) {
            throw UsageError{
                "txhooks: outside a block before_commit() runs its hook at once, and its result means failure, but "
                "there is nothing to roll back; open a block around the work"};
        }
    } else {
        HookArena::run_once(hook);
    }
}

// Whether a hook registered now waits for the end of a block. If not, that is now.
template <class Verbs, HookKind kind>
inline bool Blocks::must_store() {
    if (phase_ != Phase::in_block) [[unlikely]]
        return must_store_unusual<kind>();
    if constexpr (Verbs::has_state) {
        if (is_gone(verbs<Verbs>().verb_state())) [[unlikely]]
            throw_lost();
    }
    return true;
}

template <HookKind kind>
[[gnu::cold, gnu::noinline]] inline bool Blocks::must_store_unusual() {
    if constexpr (kind == HookKind::before_commit) refuse_verb_under_way();  // it may be COMMIT
    if (phase_ == Phase::in_verb && current_ != nullptr) return true;
    refuse_unless_alive();
    const ConnectionState state = verb_state();
    if (phase_ == Phase::doomed) {
        if (is_gone(state)) throw_lost();
        return true;
    }
    if (is_gone(state) && state != engine_at_rest()) refuse_engine(state);
    if (state != engine_at_rest())
        throw UsageError{
            sentence<kind, "txhooks: ",
                     " in a transaction that this connection did not begin, or while it is busy: now would be too early "
                     "and later may be never; open the transaction with Atomic or atomic(fn), or turn autocommit on "
                     "(MariaDB: SET autocommit = 1)">.text};
    return false;
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// A hook is stored in the open block, or run at once outside any.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/callable.hpp>
#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/detail/standing.hpp>

namespace txhooks::detail {

template <class Hook>
void refuse_empty(const Hook& hook) {
    if (detail::is_empty(hook))
        throw UsageError{"txhooks: on_commit() was given an empty function; register only what can be called"};
}

template <class Verbs, class Hook, class... Args>
inline void Blocks::register_hook(Hook&& hook, Args&&... args) {
    detail::check_hook<Hook, Args...>();
    detail::refuse_empty(hook);
    store<Verbs, Hook, Args...>([&] { return detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...); });
}

template <class Verbs, class Hook, class... Args>
inline void Blocks::register_robust_hook(Hook&& hook, Args&&... args) {
    detail::check_hook<Hook, Args...>();
    detail::refuse_empty(hook);
    store<Verbs, Hook, Args...>([&] {
        return [report = own_.report,
                hook = detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...)]() mutable {
            const Failure failure = attempt([&] { static_cast<void>(static_cast<decltype(hook)&&>(hook)()); });
            if (failure) report.failure("txhooks: a robust hook threw", failure.error);
        };
    });
}

// Stores the hook that `make()` returns, built in place, or outside a block runs it.
template <class Verbs, class... Copied, class Make>
inline void Blocks::store(const Make& make) {
    if (!must_store<Verbs>()) [[unlikely]] {
        if constexpr (detail::copies_run_user_code<Copied...>) {
            const Watch watch{*this};
            const auto make_and_close = [&] {
                const CloseLeftOpen close{*this};
                return make();
            };
            return HookArena::run_at_once(make_and_close, [&](HookArena::Entry& hook) {
                watch.alive() != nullptr ? run_once(hook) : HookArena::run_once(hook);
            });
        } else {
            return HookArena::run_at_once(make, [this](HookArena::Entry& hook) { run_once(hook); });
        }
    }
    if constexpr (detail::copies_run_user_code<Copied...>) {
        const Pinned pinned{*this};
        owner_->list.template emplace<true>([&] {
            try {
                return make();
            } catch (...) {
                pinned.close_left_open();
                throw;
            }
        });
    } else {
        owner_->list.template emplace<false>(make);
    }
}

[[gnu::cold, gnu::noinline]] inline void Blocks::run_once(HookArena::Entry& hook) {
    const CloseLeftOpen close{*this};
    HookArena::run_once(hook);
}

// Whether a hook registered now waits for a commit. If not, it is to run at once.
template <class Verbs>
inline bool Blocks::must_store() {
    if (phase_ != Phase::in_block) [[unlikely]]
        return must_store_unusual();
    if constexpr (Verbs::has_state) {
        if (is_gone(verbs<Verbs>().verb_state())) [[unlikely]]
            throw_lost();
    }
    return true;
}

[[gnu::cold, gnu::noinline]] inline bool Blocks::must_store_unusual() {
    if (phase_ == Phase::in_verb && current_ != nullptr) return true;
    refuse_unless_alive();
    if (phase_ == Phase::doomed) return true;
    const ConnectionState state = verb_state();
    if (is_gone(state) && state != engine_at_rest()) refuse_engine(state);
    if (state != engine_at_rest())
        throw UsageError{
            "txhooks: on_commit() in a transaction that this connection did not begin, or while it is busy: now would "
            "be too early and "
            "later may be never; open the transaction with Atomic or atomic(fn), or turn autocommit on (MariaDB: SET "
            "autocommit = 1)"};
    return false;
}

}  // namespace txhooks::detail

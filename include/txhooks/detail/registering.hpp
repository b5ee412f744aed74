// SPDX-License-Identifier: MIT

// A hook is stored in the open block, or run at once outside any.

#include <txhooks/connection.hpp>  // which includes this file: hence the guard below

#ifndef TXHOOKS_DETAIL_REGISTERING_HPP
#define TXHOOKS_DETAIL_REGISTERING_HPP

#include <txhooks/detail/callable.hpp>
#include <txhooks/detail/rolling_back.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

#include <exception>

namespace txhooks::detail {

struct Registering : RollingBack {
    template <class Db, class Hook, class... Args>
    static void register_hook(Db& db, Hook&& hook, Args&&... args) {
        detail::check_hook<Hook, Args...>();
        refuse_empty(hook);
        store<Hook, Args...>(db, [&] { return detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...); });
    }

    template <class Db, class Hook, class... Args>
    static void register_robust_hook(Db& db, Hook&& hook, Args&&... args) {
        detail::check_hook<Hook, Args...>();
        refuse_empty(hook);
        store<Hook, Args...>(db, [&] {
            return [report = db.report_,
                    hook = detail::bind(static_cast<Hook&&>(hook), static_cast<Args&&>(args)...)]() mutable {
                try {
                    static_cast<void>(static_cast<decltype(hook)&&>(hook)());
                } catch (...) {
                    report("txhooks: a robust hook threw", std::current_exception());
                }
            };
        });
    }

    template <class Hook>
    static void refuse_empty(const Hook& hook) {
        if (detail::is_empty(hook))
            throw UsageError{"txhooks: on_commit() was given an empty function; register only what can be called"};
    }

    // Stores the hook that `make()` returns, built in place, or outside a block runs it.
    template <class... Copied, class Db, class Make>
    static void store(Db& db, const Make& make) {
        if (!must_store(db)) [[unlikely]]
            return HookList::run_at_once(make);
        if constexpr (detail::copies_run_user_code<Copied...>) {
            const Pinned pinned{db};
            db.hooks_->template emplace<true>([&] {
                try {
                    return make();
                } catch (...) {
                    pinned.close_left_open();
                    throw;
                }
            });
        } else {
            db.hooks_->template emplace<false>(make);
        }
    }

    // Whether a hook registered now waits for a commit. If not, it is to run at once.
    template <class Db>
    static bool must_store(Db& db) {
        if (db.phase_ != Phase::in_block) [[unlikely]]
            return must_store_unusual(db);
        if constexpr (Db::has_state) {
            if (is_gone(db.verb_state())) [[unlikely]]
                throw_lost(db);
        }
        return true;
    }

    [[gnu::cold, gnu::noinline]] static bool must_store_unusual(Connection& db) {
        refuse_unless_alive(db);
        if (db.phase_ == Phase::doomed) return true;
        const ConnectionState state = db.verb_state();
        if (state == ConnectionState::lost) throw ConnectionBroken{};
        refuse_lost_base(db, state);
        if (state != between_blocks(db))
            throw UsageError{
                "txhooks: on_commit() in a transaction that this connection did not begin: now would be too early and "
                "later may be never; open the transaction with Atomic or atomic(fn)"};
        return false;
    }
};

}  // namespace txhooks::detail

#endif

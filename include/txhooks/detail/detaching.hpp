// SPDX-License-Identifier: MIT

// Lends the list of a DetachedHooks or a Doubt to an open block, and gives it back.

#include <txhooks/connection.hpp>  // which includes this file: hence the guard below

#ifndef TXHOOKS_DETAIL_DETACHING_HPP
#define TXHOOKS_DETAIL_DETACHING_HPP

#include <txhooks/detached_hooks.hpp>
#include <txhooks/detail/doubt_state.hpp>
#include <txhooks/detail/standing.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>

namespace txhooks::detail {

struct Detaching : Standing {
    // While a detached block is open the connection owns the list: nobody can run it too early.
    static void prepare_detached(Connection& db, DetachedHooks& after) {
        if (after.lent_)
            throw UsageError{
                "txhooks: the DetachedHooks or Doubt given to this block is that of another open block; give each its "
                "own"};
        if (after.busy() || after.size() != 0)
            throw UsageError{
                "txhooks: the DetachedHooks given to this block still holds hooks of an earlier one; run() or "
                "discard() them first"};
        db.hooks_ = after.release();
        db.detach_ = &after;
    }

    static void take_back_detached(Connection& db) noexcept {
        HookList& hooks = *db.hooks_;
        if (DetachedHooks* const after = take_detached(db)) give_back(*after, hooks);
    }

    static DetachedHooks* take_detached(Connection& db) noexcept {
        DetachedHooks* const after = db.detach_;
        db.detach_ = nullptr;
        db.doubt_ = nullptr;
        db.hooks_ = usual_hooks(db);
        if (after != nullptr) after->lent_ = false;
        return after;
    }

    static void give_back(DetachedHooks& after, HookList& hooks) noexcept { after.take_back(hooks); }

    static HookList& list_of(DetachedHooks& after) noexcept { return *after.held_.hooks; }

    [[gnu::cold, gnu::noinline]] static void hand_over(Connection& db) noexcept {
        HookList& hooks = *db.hooks_;
        take_detached(db)->fill(hooks, db.on_hook_failure_, db.report_);
        db.own_hooks_.trim();
    }

    static void check_doubt(const Connection& db, const DoubtState& doubt, const DetachedHooks* detach) {
        if (detach != nullptr)
            throw UsageError{"txhooks: resolve and detach exclude each other: the Doubt keeps the hooks of its block"};
        if (!db.has_markers())
            throw UsageError{
                "txhooks: this backend cannot mark a COMMIT, so a doubt about it cannot be resolved; open the block "
                "without .resolve"};
        if (doubt.in_doubt_ || doubt.hooks_.busy())
            throw UsageError{
                "txhooks: the Doubt given to this block still has an earlier COMMIT to resolve, or runs the hooks of "
                "one; resolve() or discard() it first, or give this block another"};
    }

    static void prepare_doubt(Connection& db, DoubtState& doubt) {
        prepare_detached(db, doubt.hooks_);
        try {
            doubt.renew_marker();
        } catch (...) {
            take_back_detached(db);
            throw;
        }
        db.doubt_ = &doubt;
    }

    // Whether the block that was to write `marker` was committed; if not, it never will be.
    static bool was_committed(Connection& db, const char* marker) {
        refuse_unless_alive(db);
        if (db.current_ != nullptr) throw UsageError{"txhooks: resolve() in an atomic block; end that block first"};
        if (!db.has_markers())
            throw UsageError{"txhooks: this backend cannot look for the marker of a COMMIT; give resolve() another"};
        if (const ConnectionState state = db.verb_state(); state != ConnectionState::idle) refuse_engine(state);
        return db.verb_was_committed(marker);
    }
};

}  // namespace txhooks::detail

#endif

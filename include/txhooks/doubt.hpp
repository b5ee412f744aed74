// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/access.hpp>
#include <txhooks/detail/committing.hpp>
#include <txhooks/detail/detaching.hpp>
#include <txhooks/detail/doubt_state.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <cstddef>
#include <cstdint>
#include <random>

namespace txhooks {

/// Finds out what became of a COMMIT that nobody answered, so that its hooks run after all, once, or are discarded; those
/// of `on_rollback` the other way round:
///
///     txhooks::Doubt doubt;
///     try {
///         db.atomic({.resolve = &doubt}, [&] { ... });
///     } catch (const txhooks::CommitUnknown&) {
///         txhooks::HookedConnection fresh{reconnect()};
///         if (doubt.in_doubt()) doubt.resolve(fresh);    // not if no marker was written: look for the data
///     }
///
/// Such a block writes a row with a random id, its marker, in the same round trip as COMMIT (by libpq the first of each
/// session takes one more, which prepares the statement `txhooks_marker`), if commit or rollback hooks are waiting and it is not
/// read-only. `resolve` writes a row of the same id that says *not committed*, unless there is one, and then reads it.
/// Where the block's is not there it never will be: a COMMIT that is still on its way fails on the row. (PostgreSQL,
/// MariaDB. An engine that runs in the process dies with its doubt.) On PostgreSQL the answer waits for the standbys
/// that a COMMIT of that connection waits for, and then stands after a failover.
///
/// Hooks of `unless_committed` run when `CommitUnknown` arrives. Without a `Doubt` all others are destroyed then, without
/// running: a capture whose destructor undoes something (removes an uploaded file) does so although the row may be there.
///
/// The marker's table, once for each database (on MariaDB with ENGINE=InnoDB, if that is not the default; on PostgreSQL
/// not UNLOGGED, which `resolve` refuses):
///
///     CREATE TABLE txhooks_commit (id CHAR(32) PRIMARY KEY, committed BOOLEAN NOT NULL,
///                                  at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)
///
/// The block and `resolve` must find the same one by that name: do not change `search_path` or the current database in
/// such a block. The block needs INSERT on it, `resolve` SELECT, INSERT and UPDATE. Delete its rows when they are older
/// than the longest outage you wait for; the library never does.
///
/// What raw SQL has committed in the block before has no marker: `resolve` says then that the block was rolled back.
///
/// What it costs: tests/README.md. Must outlive the block. Destroyed in doubt, it discards the hooks and reports that.
class Doubt final : public detail::DoubtState {
public:
    /// Draws the random part of its markers. Throws what `std::random_device` throws.
    Doubt() {
        std::random_device random;
        for (unsigned i = 0; i != drawn_digits; i += 8) {
            std::uint32_t bits = std::uniform_int_distribution<std::uint32_t>{}(random);
            for (unsigned j = 0; j != 8; ++j, bits >>= 4) marker_[i + j] = "0123456789abcdef"[bits & 0xf];
        }
    }

    /// Whether the last block wrote a marker, its COMMIT was left without an answer, and nobody has resolved that.
    bool in_doubt() const noexcept { return in_doubt_; }
    /// How many commit hooks wait for `resolve`. O(n).
    std::size_t size() const noexcept { return hooks_.size(); }
    /// The id of the last block's row: 32 hexadecimal digits.
    const char* marker() const noexcept { return marker_; }

    /// Asks the database, through a connection to the same one. Returns `committed`, and then the hooks have run as the
    /// COMMIT would have run them; or `rolled_back`, and then the rollback hooks have run and the others are discarded.
    ///
    /// Throws: `HookError`: committed, a hook threw. After any other throw the doubt is as before: `UsageError` when
    /// nothing is in doubt, in an atomic block, or when the row cannot be written; `ConnectionBroken`, which is about
    /// `db`; what the engine throws (a lock timeout, where the COMMIT is still under way: end that session, or wait).
    Outcome resolve(Connection& db) {
        if (!in_doubt_) throw UsageError{"txhooks: resolve() without a COMMIT in doubt"};
        hooks_.refuse_busy();
        const bool committed = ask(db);
        in_doubt_ = false;
        const detail::Blocks::CloseLeftOpen close{detail::blocks(db)};
        if (committed)
            hooks_.run();
        else
            hooks_.roll_back([&] { close.now(); });
        return committed ? Outcome::committed : Outcome::rolled_back;
    }

    /// Gives up: discards the hooks.
    void discard() noexcept {
        if (hooks_.busy()) return;
        in_doubt_ = false;
        hooks_.discard();
    }

private:
    // A callback of the driver (of notices, say) must not destroy what is being asked for.
    bool ask(Connection& db) const {
        const detail::HookArena::Busy busy{hooks_.owner_->list};
        return detail::blocks(db).was_committed(marker_);
    }
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include "support/trace.hpp"

#include <txhooks/txhooks.hpp>

#include <string>

namespace support {

/// A hooked connection on a real engine's table `t`, and what happened on it: each row has its hook, and they must share
/// their fate.
///
/// `Self` has the connection, `db`. It knows how to `insert(n)`, what everybody else sees (`truth()`, "1,2"), and whether
/// the engine is `idle()`.
template <class Self, class Database>
class RowsAndHooks {
public:
    using Db = Database;
    using Tx = txhooks::Atomic<Db>;

    Sink sink;
    std::string hooks;               // the hooks that ran: "1,2"
    typename Db::Options options{};  // of outermost blocks

    void hook(int n) {
        self().db.on_commit([this, n] { hooks += (hooks.empty() ? "" : ",") + std::to_string(n); });
    }

    void row(int n) {
        self().insert(n);
        hook(n);
    }

    /// Whether the connection works as a new one would: blocks commit, roll back and nest, and each hook shares the fate
    /// of its row.
    bool goes_on() {
        Db& db = self().db;
        if (not db.usable() or db.pending_hooks() != 0 or not self().idle()) return false;
        const std::string before = self().truth();
        hooks.clear();
        {
            Tx tx{db, options};
            row(90);
            {
                Tx inner{db};
                row(91);
                inner.rollback();
            }
            db.atomic([&] { row(92); });
            tx.commit();
        }
        {
            Tx tx{db, options};
            row(93);
            tx.rollback();
        }
        return hooks == "90,92" and self().truth() == (before.empty() ? "90,92" : before + ",90,92") and db.usable() and
               self().idle();
    }

private:
    Self& self() { return static_cast<Self&>(*this); }
};

}  // namespace support

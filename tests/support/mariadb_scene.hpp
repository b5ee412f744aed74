// SPDX-License-Identifier: MIT
#pragma once

#include "support/endings.hpp"
#include "support/mariadb_server.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <exception>
#include <string>
#include <tuple>
#include <vector>

namespace support {

/// Both ways to send statements. What one sees the other sees.
using Compounds = txhooks::BackendAdapter<MYSQL*>;
using Plain = txhooks::mariadb::Plain<MYSQL*>;
using EveryWay = std::tuple<Compounds, Plain>;

inline void make_marker_table(MYSQL* db) {
    run(db,
        "CREATE OR REPLACE TABLE txhooks_commit (id CHAR(32) PRIMARY KEY, committed BOOLEAN NOT NULL, "
        "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)");
}

/// A hooked connection on a database with an empty table `t`, another connection that looks on, and what happened.
template <class Adapter>
class Scene {
public:
    using Db = txhooks::HookedConnection<MYSQL*, Adapter>;
    using Tx = txhooks::Atomic<Db>;

    explicit Scene(const Login& login = {}) : other{Login{.server = login.server}}, handle{login} {
        run(other, "CREATE OR REPLACE TABLE t (n INT PRIMARY KEY)");
        db.set_error_sink(
            [](void* to, const char* what, const std::exception_ptr& error) {
                auto& lines = *static_cast<std::vector<std::string>*>(to);
                lines.push_back(error ? std::string{what} + ": " + describe(error) : what);
            },
            &told);
    }

    Handle other;
    Handle handle;
    std::vector<std::string> told;  // what the error sink was told
    std::string hooks;              // the hooks that ran: "1,2"
    Db db{handle.get()};

    void hook(int n) {
        db.on_commit([this, n] {
            if (not hooks.empty()) hooks += ',';
            hooks += std::to_string(n);
        });
    }

    void insert(int n) { run(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")"); }

    /// A row and its hook, which must share their fate.
    void row(int n) {
        insert(n);
        hook(n);
    }

    /// What everybody else sees.
    std::string truth() { return values(other, "SELECT n FROM t ORDER BY n"); }

    bool idle() { return attempt(handle, "DO 0") == 0 and (handle.get()->server_status & SERVER_STATUS_IN_TRANS) == 0; }

    /// Whether the connection works as a new one would: blocks commit, roll back and nest, and each hook shares the fate
    /// of its row.
    bool goes_on() {
        if (not db.usable() or db.pending_hooks() != 0 or not idle()) return false;
        run(other, "DELETE FROM t");
        hooks.clear();
        {
            Tx tx{db};
            row(90);
            {
                Tx inner{db};
                row(91);
                inner.rollback();
            }
            {
                Tx inner{db};
                row(92);
                inner.commit();
            }
            tx.commit();
        }
        {
            Tx tx{db};
            row(93);
            tx.rollback();
        }
        return hooks == "90,92" and truth() == "90,92" and db.usable() and idle();
    }
};

}  // namespace support

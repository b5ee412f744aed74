// SPDX-License-Identifier: MIT
#pragma once

#include "support/mariadb_server.hpp"
#include "support/scene.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <string>
#include <tuple>

namespace support {

/// Both ways to send statements. What one sees the other sees.
using Compounds = txhooks::BackendAdapter<MYSQL*>;
using Plain = txhooks::mariadb::Plain;
using EveryWay = std::tuple<Compounds, Plain>;

inline void make_marker_table(MYSQL* db) {
    run(db,
        "CREATE OR REPLACE TABLE txhooks_commit (id CHAR(32) PRIMARY KEY, committed BOOLEAN NOT NULL, "
        "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)");
}

/// On a database with an empty table `t`, with another connection that looks on.
template <class Adapter>
class Scene : public RowsAndHooks<Scene<Adapter>, txhooks::HookedConnection<MYSQL*, Adapter>> {
    using Base = RowsAndHooks<Scene, txhooks::HookedConnection<MYSQL*, Adapter>>;

public:
    using typename Base::Db;
    using typename Base::Tx;

    explicit Scene(const Login& login = {}) : other{Login{.server = login.server}}, handle{login} {
        run(other, "CREATE OR REPLACE TABLE t (n INT PRIMARY KEY)");
        this->sink.listen_to(db);
    }

    Handle other;
    Handle handle;
    Db db{handle.get()};

    void insert(int n) { run(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() { return values(other, "SELECT n FROM t ORDER BY n"); }
    bool idle() { return attempt(handle, "DO 0") == 0 and (handle.get()->server_status & SERVER_STATUS_IN_TRANS) == 0; }

    bool goes_on() {
        run(other, "DELETE FROM t");  // also the rows of a session that has not ended yet: it would be in the way
        return Base::goes_on();
    }
};

}  // namespace support

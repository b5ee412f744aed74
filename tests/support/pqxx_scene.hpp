// SPDX-License-Identifier: MIT
#pragma once

#include "support/endings.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include <libpq-fe.h>
#include <pqxx/pqxx>

#include <exception>
#include <string>
#include <vector>

namespace support {

inline std::string sqlstate_of(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const pqxx::serialization_failure&) {
        return "40001";
    } catch (const pqxx::deadlock_detected&) {
        return "40P01";
    } catch (const pqxx::sql_error& e) {
        return e.sqlstate();
    } catch (const pqxx::broken_connection&) {
        return "broken_connection";
    } catch (const pqxx::usage_error&) {
        return "usage_error";
    } catch (...) {
        return describe(error);
    }
}

/// A hooked connection of libpqxx on a schema of its own with an empty table `t`. What others see is read with libpq.
class PqxxScene {
    PostgresScene<> scene_;

public:
    using Db = txhooks::HookedConnection<pqxx::connection>;
    using Tx = txhooks::Atomic<Db>;

    explicit PqxxScene(const std::string& more = "") : db{scene_.server(more)} {
        db.set_error_sink(
            [](void* to, const char* what, const std::exception_ptr&) {
                static_cast<std::vector<std::string>*>(to)->push_back(what);
            },
            &told);
    }

    std::vector<std::string> told;
    std::string hooks;
    Db db;

    PGconn* others() { return scene_.others; }
    std::string server() const { return scene_.server(); }
    std::string schema() const { return support::run(scene_.handle, "SELECT current_schema()"); }
    std::string truth() const { return scene_.truth(); }
    std::string run(const std::string& sql) {
        const pqxx::result rows = db.adapter().session().exec(sql);
        return rows.empty() or rows[0].size() == 0 or rows[0][0].is_null() ? "" : rows[0][0].c_str();
    }
    /// libpqxx 6 needs to be told to forget a connection that died, and then makes a new one when it is used.
    void reconnect() {
        db.disconnect();
        db.reset();
    }
    /// Returns the SQLSTATE of its error, or "".
    std::string attempt(const std::string& sql) {
        try {
            run(sql);
            return "";
        } catch (const std::exception&) {
            return sqlstate_of(std::current_exception());
        }
    }
    void hook(int n) {
        db.on_commit([this, n] { hooks += (hooks.empty() ? "" : ",") + std::to_string(n); });
    }
    void row(int n) {
        run("INSERT INTO t VALUES (" + std::to_string(n) + ")");
        hook(n);
    }
    bool goes_on() {
        const std::string before = truth();
        hooks.clear();
        db.atomic([&] {
            row(90);
            {
                Tx inner{db};
                row(91);
                inner.rollback();
            }
            db.atomic([&] { row(92); });
        });
        {
            Tx tx{db};
            row(93);
            tx.rollback();
        }
        { const pqxx::work free{db}; }  // nobody is on the connection
        return hooks == "90,92" and truth() == (before.empty() ? "90,92" : before + ",90,92") and db.usable();
    }
};

/// How a call ended: as `ending`, but an exception of libpqxx is its SQLSTATE, or its type.
template <class Fn>
std::string outcome_of(Fn&& fn) {
    try {
        fn();
        return "returned";
    } catch (const txhooks::Error& e) {
        return without_cause(describe(std::current_exception())) + (e.cause() ? " <- " + sqlstate_of(e.cause()) : "");
    } catch (...) {
        return sqlstate_of(std::current_exception());
    }
}

}  // namespace support

// SPDX-License-Identifier: MIT
#pragma once

#include "support/endings.hpp"

#include <txhooks/backends/libpq.hpp>

#include <libpq-fe.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace support {

// ---- The server, which support/servers/postgres has started

inline std::string postgres_file(const std::string& name) {
    const char* const folder = std::getenv("TXHOOKS_POSTGRES");
    if (folder == nullptr)
        throw std::runtime_error{
            "TXHOOKS_POSTGRES is not set: start a server with tests/support/servers/postgres start <folder>, and set "
            "it to <folder>"};
    std::ifstream file{std::string{folder} + '/' + name};
    std::string line;
    if (not std::getline(file, line)) throw std::runtime_error{"cannot read " + name + " of the server"};
    return line;
}

inline unsigned short postgres_port() {
    return static_cast<unsigned short>(std::stoi(postgres_file("port")));
}

/// What PQconnectdb is told. Of `more`, host and port are for a proxy on the loopback.
inline std::string postgres_server(const std::string& more = "") {
    return "user=postgres dbname=postgres sslmode=disable gssencmode=disable password=" + postgres_file("password") +
           " port=" + postgres_file("port") + " host=" + std::getenv("TXHOOKS_POSTGRES") + ' ' + more;
}

// ---- Plain connections

struct ClearResult {
    void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ClearResult>;

inline std::string sqlstate(const PGresult* result) {
    const char* const state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    return state != nullptr ? state : "";
}

/// Runs `sql` and returns the SQLSTATE of its error, "" if it has none, or "gone" if the connection is.
inline std::string attempt(PGconn* conn, const std::string& sql) {
    const Result result{PQexec(conn, sql.c_str())};
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_FATAL_ERROR) return "";
    return sqlstate(result.get()).empty() ? "gone" : sqlstate(result.get());
}

/// Runs `sql` and returns the first value of its last result, if there is one. Throws if it fails.
inline std::string run(PGconn* conn, const std::string& sql) {
    const Result result{PQexec(conn, sql.c_str())};
    if (PQresultStatus(result.get()) == PGRES_TUPLES_OK)
        return PQntuples(result.get()) != 0 ? PQgetvalue(result.get(), 0, 0) : "";
    if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) throw std::runtime_error{sql + ": " + PQerrorMessage(conn)};
    return "";
}

class PostgresHandle {
public:
    explicit PostgresHandle(const std::string& server = postgres_server()) : conn_{PQconnectdb(server.c_str())} {
        if (PQstatus(conn_.get()) != CONNECTION_OK) throw std::runtime_error{PQerrorMessage(conn_.get())};
        PQsetNoticeProcessor(conn_.get(), [](void*, const char*) {}, nullptr);
    }
    operator PGconn*() const noexcept { return conn_.get(); }
    void close() { conn_.reset(); }

private:
    struct Finish {
        void operator()(PGconn* conn) const noexcept { PQfinish(conn); }
    };
    std::unique_ptr<PGconn, Finish> conn_;
};

// ---- What is watched

using EventWitness = txhooks::BackendAdapter<PGconn*>;
using SetLocal = txhooks::postgres::SetLocal<PGconn*>;
using Sentinel = txhooks::postgres::Sentinel<PGconn*>;
using EveryWitness = std::tuple<EventWitness, SetLocal, Sentinel>;

inline constexpr const char* marker_table =
    "CREATE TABLE txhooks_commit (id CHAR(32) PRIMARY KEY, committed BOOLEAN NOT NULL, "
    "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

inline std::string new_schema() {
    static std::atomic<int> schemas{0};
    return "s" + std::to_string(++schemas) + '_' + std::to_string(getpid());
}

/// A hooked connection on a schema of its own with an empty table `t`, and what happened on it.
template <class Adapter = EventWitness>
class PostgresScene {
    std::string schema_ = new_schema();

public:
    using Db = txhooks::HookedConnection<PGconn*, Adapter>;
    using Tx = txhooks::Atomic<Db>;

    /// `more` is for PQconnectdb.
    explicit PostgresScene(const std::string& more = "") : others{server()}, handle{server(more)} {
        support::run(others, "CREATE SCHEMA " + schema_ + " CREATE TABLE t (n int PRIMARY KEY)");
        db.set_error_sink(
            [](void* to, const char* what, const std::exception_ptr& error) {
                auto& lines = *static_cast<std::vector<std::string>*>(to);
                lines.push_back(error ? std::string{what} + ": " + describe(error) : what);
            },
            &told);
    }

    PostgresHandle others;
    PostgresHandle handle;
    std::vector<std::string> told;  // what the error sink was told
    std::string hooks;              // the hooks that ran: "1,2"
    Db db{static_cast<PGconn*>(handle)};

    /// What another connection to the same schema is opened with.
    std::string server(const std::string& more = "") const {
        return postgres_server("options=-csearch_path=" + schema_ + ",public " + more);
    }

    std::string run(const std::string& sql) { return support::run(handle, sql); }
    std::string attempt(const std::string& sql) { return support::attempt(handle, sql); }

    void hook(int n) {
        db.on_commit([this, n] {
            if (not hooks.empty()) hooks += ',';
            hooks += std::to_string(n);
        });
    }

    /// A row and its hook, which must share their fate.
    void row(int n) {
        run("INSERT INTO t VALUES (" + std::to_string(n) + ")");
        hook(n);
    }

    /// The rows that others see.
    std::string truth() const { return support::run(others, "SELECT string_agg(n::text, ',' ORDER BY n) FROM t"); }

    /// Whether the connection works as a new one would: blocks commit, roll back and nest, and each hook shares the fate
    /// of its row.
    bool goes_on() {
        if (not db.usable() or db.pending_hooks() != 0 or PQtransactionStatus(handle) != PQTRANS_IDLE) return false;
        const std::string before = truth();
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
        return hooks == "90,92" and truth() == (before.empty() ? "90,92" : before + ",90,92") and db.usable() and
               PQtransactionStatus(handle) == PQTRANS_IDLE;
    }
};

}  // namespace support

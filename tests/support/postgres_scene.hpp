// SPDX-License-Identifier: MIT
#pragma once

#include "support/scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <libpq-fe.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>

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

/// As an application with a C handle should: the server's error as an exception.
inline void execute(PGconn* conn, const std::string& sql) {
    const Result result{PQexec(conn, sql.c_str())};
    if (PQresultStatus(result.get()) != PGRES_FATAL_ERROR) return;
    throw txhooks::EngineError{PGRES_FATAL_ERROR, sqlstate(result.get()).c_str(), PQresultErrorMessage(result.get())};
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
using SetLocal = txhooks::postgres::SetLocal;
using Sentinel = txhooks::postgres::Sentinel;
using EveryWitness = std::tuple<EventWitness, SetLocal, Sentinel>;

inline constexpr const char* marker_table =
    "CREATE TABLE txhooks_commit (id CHAR(32) PRIMARY KEY, committed BOOLEAN NOT NULL, "
    "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

inline std::string new_schema() {
    static std::atomic<int> schemas{0};
    return "s" + std::to_string(++schemas) + '_' + std::to_string(getpid());
}

/// On a schema of its own with an empty table `t`.
template <class Adapter = EventWitness>
class PostgresScene : public RowsAndHooks<PostgresScene<Adapter>, txhooks::HookedConnection<PGconn*, Adapter>> {
    std::string schema_ = new_schema();

public:
    using typename PostgresScene::RowsAndHooks::Db;
    using typename PostgresScene::RowsAndHooks::Tx;

    /// `more` is for PQconnectdb.
    explicit PostgresScene(const std::string& more = "") : others{server()}, handle{server(more)} {
        support::run(others, "CREATE SCHEMA " + schema_ + " CREATE TABLE t (n int PRIMARY KEY)");
        this->sink.listen_to(db);
    }

    PostgresHandle others;
    PostgresHandle handle;
    Db db{static_cast<PGconn*>(handle)};

    /// What another connection to the same schema is opened with.
    std::string server(const std::string& more = "") const {
        return postgres_server("options=-csearch_path=" + schema_ + ",public " + more);
    }

    std::string run(const std::string& sql) { return support::run(handle, sql); }
    std::string attempt(const std::string& sql) { return support::attempt(handle, sql); }
    void execute(const std::string& sql) { support::execute(handle, sql); }

    int pid() const { return PQbackendPID(handle); }
    void reconnect() {
        PQreset(handle);
        db.reset();
    }

    /// What an error of the server that undid everything is called, and a loss.
    static std::string error(const std::string& state) { return "EngineError " + state + " rolled_back"; }
    static std::string loss(txhooks::Outcome fate) { return "TransactionLost " + name(fate); }

    /// Another connection to the same schema.
    struct Session {
        explicit Session(const PostgresScene& scene) : handle{scene.server()} {}

        PostgresHandle handle;
        Db db{static_cast<PGconn*>(handle)};

        std::string run(const std::string& sql) { return support::run(handle, sql); }
        void execute(const std::string& sql) { support::execute(handle, sql); }
    };

    void insert(int n) { run("INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() const { return support::run(others, "SELECT string_agg(n::text, ',' ORDER BY n) FROM t"); }
    bool idle() const { return PQtransactionStatus(handle) == PQTRANS_IDLE; }
};

}  // namespace support

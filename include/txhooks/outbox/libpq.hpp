// SPDX-License-Identifier: MIT
#pragma once

/// Jobs that survive the process, over a `PGconn*`; PostgreSQL 13 or later. Errors are `EngineError`, with the
/// SQLSTATE. Blocks that claim and settle are READ COMMITTED, and a settlement does not wait for the disk
/// (`synchronous_commit = off`): what a crash of the server undoes of it runs again.

#include <txhooks/backends/libpq.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/outbox/detail/postgres.hpp>

#include <libpq-fe.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace txhooks {
namespace postgres::detail {

class LibpqJobs {
public:
    using Session = PGconn*;

    explicit LibpqJobs(PGconn* conn) noexcept : conn_{conn} {}

    JobCells run(const std::string& sql) {
        // PQexec would end it, and throw away what is unread.
        if (PQtransactionStatus(conn_) == PQTRANS_ACTIVE)
            throw UsageError{"txhooks: a COPY, or a query whose results are unread, is on; finish it first"};
        const std::unique_ptr<PGresult, Clear> result{PQexec(conn_, sql.c_str())};
        const ExecStatusType status = PQresultStatus(result.get());
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) fail(result.get());
        JobCells rows(static_cast<std::size_t>(PQntuples(result.get())));
        for (int row = 0; row != PQntuples(result.get()); ++row)
            for (int column = 0; column != PQnfields(result.get()); ++column)
                rows[static_cast<std::size_t>(row)].emplace_back(
                    PQgetvalue(result.get(), row, column),
                    static_cast<std::size_t>(PQgetlength(result.get(), row, column)));
        return rows;
    }

private:
    struct Clear {
        void operator()(PGresult* result) const noexcept { PQclear(result); }
    };

    [[noreturn]] void fail(const PGresult* result) const {
        const char* const state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        std::string text = PQerrorMessage(conn_);
        if (state != nullptr && std::strcmp(state, undefined_table) == 0 &&
            text.find("txhooks_job") != std::string::npos)
            text = job_table_missing(text);
        const bool open = PQtransactionStatus(conn_) == PQTRANS_INERROR;
        throw EngineError{PQresultStatus(result), state != nullptr ? state : "", text.c_str(),
                          open ? Outcome::still_open : Outcome::rolled_back};
    }

    PGconn* conn_;
};

}  // namespace postgres::detail

template <>
class JobStore<PGconn*> : public postgres::detail::JobTable<postgres::detail::LibpqJobs> {
public:
    using JobTable::JobTable;

    static void create_table(PGconn* conn) { create_table_by(conn); }
    static std::vector<bool> settle_alone(PGconn* conn, std::span<const JobEnd> ends) {
        return settle_alone_by(conn, ends);
    }
};

}  // namespace txhooks

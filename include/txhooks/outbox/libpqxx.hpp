// SPDX-License-Identifier: MIT
#pragma once

/// Jobs that survive the process, over `pqxx::connection`; PostgreSQL 13 or later. Errors are those of
/// libpqxx. Blocks that claim and settle are READ COMMITTED, and a settlement does not wait for the disk
/// (`synchronous_commit = off`): what a crash of the server undoes of it runs again.

#include <txhooks/backends/libpqxx.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/outbox/detail/postgres.hpp>

#include <pqxx/except>
#include <pqxx/nontransaction>
#include <pqxx/result>
#include <pqxx/transaction_base>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace txhooks {
namespace postgres::detail {

class PqxxJobs {
public:
    using Session = pqxx::transaction_base&;

    explicit PqxxJobs(pqxx::transaction_base& session) noexcept : session_{session} {}

    JobCells run(const std::string& sql) {
        try {
            JobCells rows;
            const pqxx::result result = session_.exec(sql);
            for (const auto& row : result) {
                std::vector<std::string> cells;
                for (const auto& field : row) cells.emplace_back(field.c_str(), static_cast<std::size_t>(field.size()));
                rows.push_back(std::move(cells));
            }
            return rows;
        } catch (const pqxx::undefined_table& e) {
            const std::string text = e.what();
            if (text.find("txhooks_job") == std::string::npos) throw;
            throw pqxx::undefined_table{job_table_missing(text), std::string{e.query()}, undefined_table};
        }
    }

private:
    pqxx::transaction_base& session_;
};

}  // namespace postgres::detail

template <std::derived_from<postgres::detail::PqxxConnection> Backend>
class JobStore<Backend> : public postgres::detail::JobTable<postgres::detail::PqxxJobs> {
public:
    using JobTable::JobTable;

    static void create_table(Backend& db) {
        pqxx::nontransaction session{db};
        create_table_by(session);
    }
    static std::vector<bool> settle_alone(Backend& db, std::span<const JobEnd> ends) {
        pqxx::nontransaction session{db};
        return settle_alone_by(session, ends);
    }
};

}  // namespace txhooks

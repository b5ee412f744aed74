// SPDX-License-Identifier: MIT

#include "process.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/outbox/libpq.hpp>

#include <libpq-fe.h>

#include <cstdlib>
#include <exception>
#include <string>

namespace crash {
namespace {

class Postgres final : public Session {
public:
    using Handle = PGconn*;
    using Db = txhooks::HookedConnection<Handle, Stalling<Handle>>;

    /// Every other process is one of those whose blocks are serializable.
    explicit Postgres(const std::string&, std::int64_t process = 0)
        : handle_{support::postgres_server(process % 2 == 0 ? ""
                                                            : "options=-cdefault_transaction_isolation=serializable")} {
    }

    PGconn* handle() { return handle_; }
    void run(const std::string& sql) override { support::execute(handle_, sql); }
    Rows rows(const std::string& sql) override {
        const support::Result result{PQexec(handle_, sql.c_str())};
        if (PQresultStatus(result.get()) != PGRES_TUPLES_OK)
            throw txhooks::EngineError{PGRES_FATAL_ERROR, support::sqlstate(result.get()).c_str(),
                                       PQresultErrorMessage(result.get())};
        Rows rows(static_cast<std::size_t>(PQntuples(result.get())));
        for (int row = 0; row != PQntuples(result.get()); ++row)
            for (int column = 0; column != PQnfields(result.get()); ++column)
                rows[static_cast<std::size_t>(row)].emplace_back(PQgetvalue(result.get(), row, column));
        return rows;
    }

    static Db::Options writing() { return {}; }
    static bool in_the_way(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::EngineError& e) {
            return std::string_view{e.sqlstate()} == "40001" or std::string_view{e.sqlstate()} == "40P01";
        } catch (...) {
            return false;
        }
    }

private:
    support::PostgresHandle handle_;
};

void crash_server() {
    const std::string command =
        std::string{"'" TXHOOKS_SERVER_SCRIPTS "/postgres' restart '"} + std::getenv("TXHOOKS_POSTGRES") + "' KILL";
    if (std::system(command.c_str()) != 0) throw std::runtime_error{command + " failed"};
}

[[maybe_unused]] const bool there = add_engine<Postgres>(
    "postgres", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, true, crash_server);

}  // namespace
}  // namespace crash

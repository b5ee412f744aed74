// SPDX-License-Identifier: MIT
#pragma once

#include "process.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/outbox/libpq.hpp>

#include <libpq-fe.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>
#include <string_view>

namespace crash {

/// A session in a time zone that depends on the number of its process.
class PostgresSession : public Session {
public:
    using Handle = PGconn*;
    using Db = txhooks::HookedConnection<Handle, Stalling<Handle>>;

    static constexpr bool has_clock = true;

    /// `more` is for PQconnectdb.
    PostgresSession(std::int64_t process, const std::string& more) : handle_{server(process, more)} {}

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
    static Trouble trouble(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::EngineError& e) {
            const std::string_view state = e.sqlstate();
            if (state == "40001" or state == "40P01") return Trouble::in_the_way;
            const bool gone = state.empty() or state.starts_with("08") or state.starts_with("57P");
            return gone ? Trouble::expected : Trouble::fault;
        } catch (const txhooks::UsageError&) {
            return Trouble::fault;
        } catch (...) {
            return Trouble::expected;
        }
    }

private:
    // A pooler hands on what libpq makes of this variable.
    static std::string server(std::int64_t process, const std::string& more) {
        const std::string zones[] = {"Asia/Kolkata", "America/St_Johns", changing_zone()};
        setenv("PGTZ", zones[process % 3].c_str(), 1);
        return support::postgres_server(more);
    }

    // Its summer time begins two seconds from now, and lasts as long.
    static std::string changing_zone() {
        const std::time_t now = std::time(nullptr);  // which is not misplaced
        const auto second = static_cast<int>(now % 86'400);
        const int begin = second + 2, end = second + 4 + 3600;
        const int day = std::gmtime(&now)->tm_yday;
        char zone[60];
        std::snprintf(zone, sizeof zone, "NOW0SUM,%d/%d:%d:%d,%d/%d:%d:%d", day, begin / 3600, begin / 60 % 60,
                      begin % 60, day, end / 3600, end / 60 % 60, end % 60);
        return zone;
    }

    support::PostgresHandle handle_;
};

/// Every other process is one of those whose blocks are serializable.
class Postgres final : public PostgresSession {
public:
    explicit Postgres(const std::string&, std::int64_t process = 0)
        : PostgresSession{process, process % 2 == 0 ? "" : "options=-cdefault_transaction_isolation=serializable"} {}
};

}  // namespace crash

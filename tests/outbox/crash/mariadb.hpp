// SPDX-License-Identifier: MIT
#pragma once

#include "process.hpp"
#include "support/mariadb_server.hpp"

#include <txhooks/outbox/mariadb.hpp>

#include <mysql.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>

namespace crash {

/// A session in a time zone that depends on the number of its process.
class MariadbSession : public Session {
public:
    using Handle = MYSQL*;
    using Db = txhooks::HookedConnection<Handle, Stalling<Handle>>;

    static constexpr bool has_clock = true;

    MariadbSession(const support::MariadbServer& server, std::int64_t process) : handle_{mysql_init(nullptr)} {
        constexpr const char* in_zone[] = {"SET time_zone = '+05:30'", "SET time_zone = '-09:30'",
                                           "SET time_zone = 'changing'"};
        mysql_options(handle(), MYSQL_INIT_COMMAND, in_zone[process % 3]);
        if (mysql_real_connect(handle(), "localhost", "txhooks", server.password().c_str(), "txhooks", 0,
                               server.socket().c_str(), 0) == nullptr)
            fail();
    }

    MYSQL* handle() { return handle_.get(); }
    void run(const std::string& sql) override {
        if (support::attempt(handle(), sql) != 0) fail();
    }
    Rows rows(const std::string& sql) override {
        if (mysql_real_query(handle(), sql.data(), sql.size()) != 0) fail();
        MYSQL_RES* const result = mysql_store_result(handle());
        if (result == nullptr) fail();
        Rows rows;
        while (const MYSQL_ROW row = mysql_fetch_row(result)) {
            std::vector<std::string>& values = rows.emplace_back();
            for (unsigned i = 0; i != mysql_num_fields(result); ++i)
                values.emplace_back(row[i] != nullptr ? row[i] : "");
        }
        mysql_free_result(result);
        return rows;
    }

    /// The zone `changing`: its summer time begins and ends every four seconds.
    void make_time_zone() {
        std::string changes;
        for (int i = 0; i != 300; ++i)
            changes += (i == 0 ? "(1, UNIX_TIMESTAMP() + " : ", (1, UNIX_TIMESTAMP() + ") + std::to_string(4 * i) +
                       (i % 2 == 0 ? ", 1)" : ", 0)");
        for (const char* const table : {"", "_name", "_transition", "_transition_type"})
            run(std::string{"DELETE FROM mysql.time_zone"} + table);
        run("INSERT INTO mysql.time_zone VALUES (1, 'N')");
        run("INSERT INTO mysql.time_zone_name VALUES ('changing', 1)");
        run("INSERT INTO mysql.time_zone_transition_type VALUES (1, 0, 0, 0, 'NOW'), (1, 1, 3600, 1, 'SUM')");
        run("INSERT INTO mysql.time_zone_transition VALUES " + changes);
    }

    static Db::Options writing() { return {}; }
    static Trouble trouble(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::EngineError& e) {
            if (e.code() == 1213 or e.code() == 1205 or e.code() == 1020) return Trouble::in_the_way;
            const bool of_client = e.code() >= 2000 and e.code() < 3000;  // the server is gone
            return of_client ? Trouble::expected : Trouble::fault;
        } catch (const txhooks::UsageError&) {
            return Trouble::fault;
        } catch (...) {
            return Trouble::expected;
        }
    }

private:
    [[noreturn]] void fail() {
        throw txhooks::EngineError{static_cast<int>(mysql_errno(handle())), mysql_sqlstate(handle()),
                                   mysql_error(handle())};
    }

    struct Close {
        void operator()(MYSQL* db) const noexcept { mysql_close(db); }
    };
    std::unique_ptr<MYSQL, Close> handle_;
};

}  // namespace crash

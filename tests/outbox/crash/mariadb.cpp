// SPDX-License-Identifier: MIT

#include "process.hpp"
#include "support/mariadb_server.hpp"

#include <txhooks/outbox/mariadb.hpp>

#include <mysql.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

namespace crash {
namespace {

class Mariadb final : public Session {
public:
    using Handle = MYSQL*;
    using Db = txhooks::HookedConnection<Handle, Stalling<Handle>>;

    explicit Mariadb(const std::string&, std::int64_t = 0) : handle_{mysql_init(nullptr)} {
        const support::MariadbServer& server = support::mariadb();
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

    static Db::Options writing() { return {}; }
    static bool in_the_way(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::EngineError& e) {
            return e.code() == 1213 or e.code() == 1205 or e.code() == 1020;
        } catch (...) {
            return false;
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

// What is committed is with the operating system, which does not crash here.
void crash_server() {
    const std::string command = std::string{"'" TXHOOKS_SERVER_SCRIPTS "/mariadb' restart '"} +
                                std::getenv("TXHOOKS_MARIADB") + "' KILL innodb-flush-log-at-trx-commit=2";
    if (std::system(command.c_str()) != 0) throw std::runtime_error{command + " failed"};
}

[[maybe_unused]] const bool there = add_engine<Mariadb>(
    "mariadb", {"producer", "producer", "producer", "worker", "worker", "worker", "worker"}, true, crash_server);

}  // namespace
}  // namespace crash

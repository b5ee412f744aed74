// SPDX-License-Identifier: MIT

#include "batch.hpp"
#include "random/dice.hpp"
#include "support/mariadb_scene.hpp"
#include "support/mariadb_server.hpp"

#include <mysql.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

namespace random_programs {
namespace {

class Mariadb {
public:
    using Handle = MYSQL*;
    static constexpr unsigned isolations = 5;
    static constexpr bool has_ddl = true;
    static constexpr bool has_deferred = false;
    static constexpr bool has_bulk = false;
    static constexpr const char* look = "SET @seen = (SELECT sum(v) FROM shared)";
    static constexpr const char* deadlock = "1213";
    static constexpr const char* serialization = "";
    static constexpr const char* lock_timeout = "1205";
    static constexpr const char* duplicate = "1062";
    static constexpr const char* statement_timeout = "1969";

    class Session {
    public:
        Session(const Mariadb& server, unsigned short proxy, Haste haste)
            : handle_{support::Login{.port = proxy,
                                     .reconnect = haste.locks,
                                     .tls = proxy == 0 and haste.locks,  // the proxy reads what is sent
                                     .compressed = proxy == 0 and haste.statements}} {
            if (mysql_select_db(handle_, server.database_.c_str()) != 0) throw std::runtime_error{mysql_error(handle_)};
            support::run(handle_, std::string{"SET innodb_lock_wait_timeout = "} + (haste.locks ? "0" : "5"));
            if (haste.statements) support::run(handle_, "SET max_statement_time = 0.001");
            forgets_ = haste.locks;
        }

        MYSQL* get() { return handle_.get(); }
        unsigned long id() { return mysql_thread_id(get()); }
        std::string attempt(const std::string& sql) {
            const unsigned code = support::attempt(get(), sql);
            if (forgets_) mysql_next_result(get());  // as the usual loop: the client no longer knows what it was told
            return code == 0 ? "" : std::to_string(code);
        }
        bool alive() { return attempt("DO 0").empty() or attempt("DO 0").empty(); }
        bool make_anew() { return false; }
        void leave_unread() { mysql_real_query(get(), "SELECT 1", 8); }
        void read_unread() {
            if (MYSQL_RES* const result = mysql_store_result(get())) mysql_free_result(result);
        }

    private:
        support::Handle handle_;
        bool forgets_ = false;
    };

    Mariadb() {
        support::run(own_, "CREATE DATABASE " + database_);
        support::run(own_, "USE " + database_);
        support::run(own_, "CREATE TABLE kept (id BIGINT PRIMARY KEY)");
        support::run(own_, "CREATE TABLE taken (k INT PRIMARY KEY)");
        support::run(own_, "CREATE TABLE shared (k INT PRIMARY KEY, v INT NOT NULL)");
        support::run(own_, "INSERT INTO shared VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)");
        support::make_marker_table(own_);
    }
    Mariadb(const Mariadb&) = delete;
    Mariadb& operator=(const Mariadb&) = delete;
    ~Mariadb() { support::attempt(own_, "DROP DATABASE " + database_); }

    static unsigned short port() { return static_cast<unsigned short>(support::mariadb().port()); }

    void empty_tables() {
        for (const char* table : {"kept", "taken", "txhooks_commit"})
            support::run(own_, std::string{"TRUNCATE TABLE "} + table);
    }

    void wait_until_alone() {
        const std::string others =
            "SELECT id FROM information_schema.processlist WHERE db = '" + database_ + "' AND id <> CONNECTION_ID()";
        while (not support::values(own_, others).empty()) std::this_thread::sleep_for(std::chrono::milliseconds{5});
    }

    std::unordered_set<unsigned long> rows() {
        std::unordered_set<unsigned long> ids;
        std::string all = support::values(own_, "SELECT id FROM kept");
        for (std::size_t at = 0; at < all.size();) {
            std::size_t size = 0;
            ids.insert(std::stoul(all.substr(at, 20), &size));
            at += size + 1;
        }
        return ids;
    }

    static void kill(Session& by, unsigned long id) { by.attempt("KILL CONNECTION " + std::to_string(id)); }
    static void interrupt(Session& by, unsigned long id) { by.attempt("KILL QUERY " + std::to_string(id)); }

    template <class Adapter>
    static std::string end_by_hand(Session& session, Dice& dice, bool) {
        static constexpr const char* ways[][2] = {
            {"ROLLBACK", ""},
            {"COMMIT", ""},
            {"ROLLBACK", "BEGIN"},
            {"COMMIT", "BEGIN"},
            {"COMMIT AND CHAIN", ""},
            {"ROLLBACK AND CHAIN", ""},
            {"START TRANSACTION", ""},
            {"BEGIN NOT ATOMIC ROLLBACK; START TRANSACTION; END", ""},
            {"SET autocommit = 0", "SET autocommit = 1"},
        };
        const unsigned way = dice.below(10);
        if (way == 9) {
            mysql_reset_connection(session.get());
            return "reset";
        }
        session.attempt(ways[way][0]);
        for (unsigned attempt = 0; attempt != 3; ++attempt)  // it may be interrupted
            if (*ways[way][1] == '\0' or session.attempt(ways[way][1]).empty()) break;
        return std::string{ways[way][0]} + "; " + ways[way][1];
    }

    static std::string define(Session& session, Dice& dice) {
        static constexpr const char* statements[] = {"CREATE OR REPLACE TABLE defined (n INT)",
                                                     "DROP TABLE not_there",
                                                     "TRUNCATE TABLE not_there",
                                                     "CREATE TABLE kept (n INT)",
                                                     "ANALYZE TABLE shared",
                                                     "CREATE TEMPORARY TABLE IF NOT EXISTS mine (n INT)"};
        const std::string sql = statements[dice.below(6)];
        session.attempt(sql);
        return sql;
    }

private:
    const std::string database_ = "random_" + std::to_string(getpid());
    support::Handle own_;
};

template <class Adapter>
Server::Witness witness(const char* name, const std::shared_ptr<Mariadb>& server) {
    return {name, [server](std::uint64_t seed, unsigned long blocks) {
                return run_batch<Mariadb, Adapter>(*server, seed, blocks);
            }};
}

[[maybe_unused]] const bool there = [] {
    servers().push_back(
        {"mariadb",
         {Count::lost_committed, Count::lost_rolled_back, Count::rollback_lost, Count::copied, Count::copy_left,
          Count::pipelined, Count::pipeline_left, Count::serialization, Count::constraint},
         [] {
             const auto server = std::make_shared<Mariadb>();
             return std::vector{witness<support::Compounds>("compounds", server),
                                witness<support::Plain>("plain", server)};
         }});
    return true;
}();

}  // namespace
}  // namespace random_programs

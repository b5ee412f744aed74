// SPDX-License-Identifier: MIT
#pragma once

#include <mysql.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace support {

/// A MariaDB server, which servers/mariadb has started.
class MariadbServer {
public:
    /// One of its own, that lives as long as this object, with `settings`: "name=value name=value".
    explicit MariadbServer(const std::string& settings) : settings_{settings} {
        std::string folder = (std::filesystem::temp_directory_path() / "txhooks.XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        own_ = folder;
        folder_ = own_ / "server";
        try {
            run("start", "--watch " + std::to_string(getpid()) + ' ' + settings);
        } catch (...) {
            std::filesystem::remove_all(own_);
            throw;
        }
    }
    /// The one that was started in `folder`.
    static MariadbServer in(std::filesystem::path folder) { return MariadbServer{std::move(folder), nullptr}; }
    MariadbServer(const MariadbServer&) = delete;
    MariadbServer& operator=(const MariadbServer&) = delete;
    ~MariadbServer() {
        if (own_.empty()) return;
        run("stop", "");
        std::error_code ignored;
        std::filesystem::remove_all(own_, ignored);
    }

    /// Crashes it and starts it again.
    void crash() const { run("restart", "KILL " + settings_); }

    std::string socket() const { return std::filesystem::canonical(folder_ / "socket").string(); }
    unsigned port() const { return static_cast<unsigned>(std::stoul(content("port"))); }
    std::string password() const { return content("password"); }
    std::string certificate() const { return (folder_ / "certificate.pem").string(); }

private:
    MariadbServer(std::filesystem::path folder, std::nullptr_t) : folder_{std::move(folder)} {}

    void run(const std::string& verb, const std::string& arguments) const {
        const std::string command =
            "'" TXHOOKS_SERVER_SCRIPTS "/mariadb' " + verb + " '" + folder_.string() + "' " + arguments;
        if (std::system(command.c_str()) != 0) throw std::runtime_error{command + " failed"};
    }
    std::string content(const char* file) const {
        std::ifstream in{folder_ / file};
        std::string line;
        if (not std::getline(in, line)) throw std::runtime_error{"no server in " + folder_.string()};
        return line;
    }

    std::string settings_;
    std::filesystem::path folder_;
    std::filesystem::path own_;
};

/// The server of this program: the one in the folder that TXHOOKS_MARIADB names, or one of its own.
inline const MariadbServer& mariadb() {
    static const MariadbServer server = [] {
        const char* const given = std::getenv("TXHOOKS_MARIADB");
        return given != nullptr ? MariadbServer::in(given) : MariadbServer{""};
    }();
    return server;
}

/// How to connect.
struct Login {
    const MariadbServer& server = mariadb();
    std::string user = "txhooks";
    unsigned port = 0;           ///< on 127.0.0.1; 0: by the socket
    unsigned long flags = 0;     ///< of mysql_real_connect
    unsigned read_timeout = 10;  ///< seconds
    bool reconnect = false;
    bool tls = false;
    bool compressed = false;
};

/// A connection of libmariadb's own.
class Handle {
public:
    explicit Handle(const Login& login = {}) {
        mysql_init(&db_);
        mysql_options(&db_, MYSQL_OPT_READ_TIMEOUT, &login.read_timeout);
        const my_bool reconnect = login.reconnect;
        mysql_options(&db_, MYSQL_OPT_RECONNECT, &reconnect);
        if (login.tls) {
            const my_bool enforced = 1;
            mysql_options(&db_, MYSQL_OPT_SSL_ENFORCE, &enforced);
            mysql_options(&db_, MYSQL_OPT_SSL_CA, login.server.certificate().c_str());
        }
        if (login.compressed) mysql_options(&db_, MYSQL_OPT_COMPRESS, nullptr);
        const std::string socket = login.server.socket();
        if (mysql_real_connect(&db_, login.port == 0 ? "localhost" : "127.0.0.1", login.user.c_str(),
                               login.server.password().c_str(), "txhooks", login.port,
                               login.port == 0 ? socket.c_str() : nullptr, login.flags) == nullptr)
            throw std::runtime_error{std::string{"cannot connect: "} + mysql_error(&db_)};
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { mysql_close(&db_); }

    MYSQL* get() { return &db_; }
    operator MYSQL*() { return &db_; }

private:
    MYSQL db_{};
};

/// Runs `sql`, reads all it returns, and gives back the error number.
inline unsigned attempt(MYSQL* db, const std::string& sql) {
    if (mysql_real_query(db, sql.data(), sql.size()) != 0) return mysql_errno(db);
    for (;;) {
        if (MYSQL_RES* const result = mysql_store_result(db))
            mysql_free_result(result);
        else if (mysql_field_count(db) != 0)
            return mysql_errno(db);
        if (not mysql_more_results(db)) return 0;
        if (mysql_next_result(db) > 0) return mysql_errno(db);
    }
}

inline void run(MYSQL* db, const std::string& sql) {
    if (attempt(db, sql) != 0) throw std::runtime_error{sql + ": " + mysql_error(db)};
}

/// The first column of every row of `sql`: "1,2,3".
inline std::string values(MYSQL* db, const std::string& sql) {
    if (mysql_real_query(db, sql.data(), sql.size()) != 0) throw std::runtime_error{sql + ": " + mysql_error(db)};
    MYSQL_RES* const result = mysql_store_result(db);
    if (result == nullptr) throw std::runtime_error{sql + ": no result"};
    std::string all;
    while (const MYSQL_ROW row = mysql_fetch_row(result)) {
        if (not all.empty()) all += ',';
        all += row[0] == nullptr ? "null" : row[0];
    }
    mysql_free_result(result);
    return all;
}

}  // namespace support

// SPDX-License-Identifier: MIT
#pragma once

#include "support/exceptions.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include <libpq-fe.h>
#include <pqxx/pqxx>

#include <exception>
#include <string>
#include <utility>

namespace support {

/// Errors of the server by their SQLSTATE, which not all exceptions of libpqxx have.
inline const auto sqlstates_by_type = std::exchange(driver_error_name, [](const std::exception& e) -> std::string {
    if (dynamic_cast<const pqxx::serialization_failure*>(&e) != nullptr) return "40001";
    if (dynamic_cast<const pqxx::deadlock_detected*>(&e) != nullptr) return "40P01";
    if (dynamic_cast<const pqxx::statement_completion_unknown*>(&e) != nullptr) return "40003";
    if (const auto* const error = dynamic_cast<const pqxx::sql_error*>(&e)) return error->sqlstate();
    if (dynamic_cast<const pqxx::broken_connection*>(&e) != nullptr) return "broken_connection";
    if (dynamic_cast<const pqxx::usage_error*>(&e) != nullptr) return "usage_error";
    return e.what();
});

/// The same with libpqxx. What others see is read with libpq.
class PqxxScene : public RowsAndHooks<PqxxScene, txhooks::HookedConnection<pqxx::connection>> {
    PostgresScene<> scene_;

public:
    explicit PqxxScene(const std::string& more = "") : db{scene_.server(more)} { sink.listen_to(db); }

    Db db;
    PostgresHandle& others = scene_.others;

    std::string server() const { return scene_.server(); }
    std::string run(const std::string& sql) { return run(db, sql); }
    /// Returns the name of its error, or "".
    std::string attempt(const std::string& sql) {
        const std::string how = ending([&] { run(sql); });
        return how == "returned" ? "" : how;
    }
    void execute(const std::string& sql) { run(sql); }

    int pid() const { return db.backendpid(); }
    /// libpqxx 6 needs to be told to forget a connection that died, and then makes a new one when it is used.
    void reconnect() {
        db.disconnect();
        db.reset();
    }

    /// What an error of the server is called, and a loss: the sentinel does not know what became of the transaction.
    static std::string error(const std::string& state) { return state == "08006" ? "broken_connection" : state; }
    static std::string loss(txhooks::Outcome) { return "TransactionLost unknown"; }

    struct Session {
        explicit Session(const PqxxScene& scene) : db{scene.server()} {}

        Db db;

        std::string run(const std::string& sql) { return PqxxScene::run(db, sql); }
        void execute(const std::string& sql) { run(sql); }
    };

    void insert(int n) { run("INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() const { return scene_.truth(); }
    bool idle() {
        return ending([&] { const pqxx::work free{db}; }) == "returned";  // nobody is on the connection
    }

private:
    static std::string run(Db& db, const std::string& sql) {
        const pqxx::result rows =
            db.in_atomic_block() ? db.adapter().session().exec(sql) : pqxx::nontransaction{db}.exec(sql);
        return rows.empty() or rows[0].size() == 0 or rows[0][0].is_null() ? "" : rows[0][0].c_str();
    }
};

}  // namespace support

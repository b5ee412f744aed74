// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/qt_scene.hpp"
#include "support/sqlite_session.hpp"

#include <txhooks/backends/qtsql.hpp>
#include <txhooks/testing/adapter_check.hpp>

#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace support;
using txhooks::testing::adapter_check;

namespace {

// On the server in the folder that TXHOOKS_MARIADB names.
QtDatabase qt_mariadb() {
    const char* const folder = std::getenv("TXHOOKS_MARIADB");
    if (folder == nullptr) throw std::runtime_error{"TXHOOKS_MARIADB is not set"};
    const std::filesystem::path server = std::filesystem::canonical(folder);
    std::string password;
    std::ifstream file{server / "password"};
    std::getline(file, password);
    return {"QMYSQL", [&](QSqlDatabase& db) {
                db.setUserName(QStringLiteral("txhooks"));
                db.setDatabaseName(QStringLiteral("txhooks"));
                db.setPassword(QString::fromStdString(password));
                db.setConnectOptions(QString::fromStdString("UNIX_SOCKET=" + (server / "socket").string()));
            }};
}

long number(const QSqlDatabase& db, const std::string& sql) {
    QSqlQuery query{db};
    if (not query.exec(QString::fromStdString(sql)) or not query.next()) throw txhooks::qt::error(query.lastError());
    return query.value(0).toInt();
}

template <class A>
class Sqlite : public SqliteOthers {
public:
    using Adapter = A;

    explicit Sqlite(const DatabaseFile& file) : SqliteOthers{file.path()}, qt_{qt_sqlite(file)} {
        run(db_, "PRAGMA foreign_keys = ON");
    }

    QSqlDatabase& backend() { return db_; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        run(db_, sql);
    }
    void refuse_commit(bool refuse) { support::refuse_commit(txhooks::qt::detail::handle_of<sqlite3*>(db_), refuse); }

private:
    QtDatabase qt_;
    QSqlDatabase db_ = qt_.get();
};

template <class A>
class Postgres {
public:
    using Adapter = A;

    QSqlDatabase& backend() { return db_; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        run(db_, sql);
    }
    long look(const std::string& query) { return std::stol(run(others_, query)); }
    void lose_reply() { ::shutdown(PQsocket(txhooks::qt::detail::handle_of<PGconn*>(db_)), SHUT_RD); }
    void kill() { run(PostgresHandle{}, "SELECT pg_terminate_backend(" + pid_ + ", 10000)"); }
    void reconnect() {
        db_.close();
        db_.open();
    }

private:
    QtDatabase qt_ = qt_postgres("public");
    QSqlDatabase db_ = qt_.get();
    PostgresHandle others_;
    std::string pid_ = std::to_string(number(db_, "SELECT pg_backend_pid()"));
};

class Mariadb {
public:
    QSqlDatabase& backend() { return db_; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        run(db_, sql);
    }
    long look(const std::string& query) { return number(others_.get(), query); }
    void kill() {
        const QtDatabase killer = qt_mariadb();
        const std::string alive = "SELECT count(*) FROM information_schema.processlist WHERE id = " + id_;
        QSqlQuery{killer.get()}.exec(QString::fromStdString("KILL CONNECTION " + id_));  // perhaps gone already
        while (number(killer.get(), alive) != 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    void reconnect() {
        db_.close();
        db_.open();
    }

private:
    QtDatabase qt_ = qt_mariadb();
    QSqlDatabase db_ = qt_.get();
    QtDatabase others_ = qt_mariadb();
    std::string id_ = std::to_string(number(db_, "SELECT connection_id()"));
};

template <class A>
bool sqlite_passes(const char* name, std::vector<std::string_view> cannot = {}) {
    const DatabaseFile file;
    cannot.insert(cannot.end(), {"reply to COMMIT lost", "killed before COMMIT", "killed during COMMIT"});
    return adapter_check(name, [&] { return Sqlite<A>{file}; }, cannot).passed();
}

}  // namespace

TEST_CASE("QSQLITE and QPSQL keep the promise as their native handles do") {
    CHECK(sqlite_passes<txhooks::qt::Sqlite>("QSQLITE"));
    CHECK(adapter_check("QPSQL", [] { return Postgres<txhooks::qt::Postgres>(); }, {"busy COMMIT", "refused COMMIT"})
              .passed());
}

TEST_CASE("any driver of Qt's keeps the promise, but for what a state() would tell") {
    CHECK(adapter_check(
              "QMYSQL", [] { return Mariadb(); },
              {"raw BEGIN before", "deferred constraint", "busy COMMIT", "refused COMMIT", "reply to COMMIT lost"})
              .passed());
    CHECK(sqlite_passes<txhooks::qt::AnyDriver>("QSQLITE, AnyDriver",
                                                {"raw BEGIN before", "deferred constraint", "busy COMMIT"}));
    CHECK(adapter_check(
              "QPSQL, AnyDriver", [] { return Postgres<txhooks::qt::AnyDriver>(); },
              {"raw BEGIN before", "deferred constraint", "busy COMMIT", "refused COMMIT", "reply to COMMIT lost"})
              .passed());
}

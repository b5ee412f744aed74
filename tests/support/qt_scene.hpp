// SPDX-License-Identifier: MIT
#pragma once

#include "support/postgres_scene.hpp"
#include "support/scene.hpp"
#include "support/sqlite_database.hpp"

#include <txhooks/backends/qtsql.hpp>

#include <QtCore/QCoreApplication>
#include <QtCore/QString>
#include <QtSql/QSqlDatabase>
#include <QtSql/QSqlError>
#include <QtSql/QSqlQuery>

#include <stdexcept>
#include <string>

namespace support {

/// Qt loads no plugin without an application.
inline void need_application() {
    static int count = 1;
    static char name[] = "tests";
    static char* arguments[] = {name, nullptr};
    static const QCoreApplication application{count, arguments};
}

inline void run(const QSqlDatabase& db, const std::string& sql) {
    QSqlQuery query{db};
    if (not query.exec(QString::fromStdString(sql))) throw txhooks::qt::error(query.lastError());
}

/// A database of Qt's by a name of its own, which is removed at the end, open.
class QtDatabase {
public:
    template <class SetUp>
    QtDatabase(const char* driver, SetUp set_up) {
        need_application();
        QSqlDatabase db = QSqlDatabase::addDatabase(QString::fromLatin1(driver), name_);
        set_up(db);
        if (not db.open()) throw std::runtime_error{db.lastError().text().toStdString()};
    }
    QtDatabase(const QtDatabase&) = delete;
    QtDatabase& operator=(const QtDatabase&) = delete;
    ~QtDatabase() { remove(); }

    /// As everywhere in a program of Qt's: each is the same database.
    QSqlDatabase get() const { return QSqlDatabase::database(name_, false); }
    void remove() const {
        if (QSqlDatabase::contains(name_)) QSqlDatabase::removeDatabase(name_);
    }

private:
    static QString new_name() {
        static int names = 0;
        return QString::number(++names);
    }

    QString name_ = new_name();
};

/// QSQLITE; a COMMIT that finds the file busy does not wait.
inline QtDatabase qt_sqlite(const DatabaseFile& file, const std::string& parameters = "") {
    return {"QSQLITE", [&](QSqlDatabase& db) {
                db.setConnectOptions(QStringLiteral("QSQLITE_OPEN_URI;QSQLITE_BUSY_TIMEOUT=0"));
                db.setDatabaseName(QString::fromStdString("file:" + file.path() + parameters));
            }};
}

/// QPSQL.
inline QtDatabase qt_postgres(const std::string& schema) {
    return {"QPSQL", [&](QSqlDatabase& db) {
                db.setHostName(QString::fromLatin1(std::getenv("TXHOOKS_POSTGRES")));
                db.setPort(postgres_port());
                db.setUserName(QStringLiteral("postgres"));
                db.setDatabaseName(QStringLiteral("postgres"));
                db.setPassword(QString::fromStdString(postgres_file("password")));
                db.setConnectOptions(
                    QString::fromStdString("sslmode=disable;gssencmode=disable;options=-csearch_path=" + schema));
            }};
}

/// On a file with an empty table `t`.
class QtSqlite {
    DatabaseFile file_;
    QtDatabase database_;

public:
    using Adapter = txhooks::qt::Sqlite;

    /// `parameters` are those of an URI.
    explicit QtSqlite(const std::string& parameters = "") : database_{qt_sqlite(file_, parameters)} {
        run(get(), "CREATE TABLE t (n INTEGER PRIMARY KEY)");
    }

    QSqlDatabase get() const { return database_.get(); }
    void remove() const { database_.remove(); }
    const DatabaseFile& file() const { return file_; }
    sqlite3* handle() const { return txhooks::qt::detail::handle_of<sqlite3*>(get()); }

    std::string truth() const { return support::truth(file_); }
    bool idle() const { return sqlite3_get_autocommit(handle()) != 0; }
};

/// On a schema of its own with an empty table `t`.
class QtPostgres {
    std::string schema_ = new_schema();
    PostgresHandle others_{postgres_server("options=-csearch_path=" + schema_)};
    QtDatabase database_ = qt_postgres(schema_);

public:
    using Adapter = txhooks::qt::Postgres;

    QtPostgres() { support::run(others_, "CREATE SCHEMA " + schema_ + " CREATE TABLE t (n int PRIMARY KEY)"); }

    QSqlDatabase get() const { return database_.get(); }
    void remove() const { database_.remove(); }
    PGconn* handle() const { return txhooks::qt::detail::handle_of<PGconn*>(get()); }
    const PostgresHandle& others() const { return others_; }

    std::string truth() const { return support::run(others_, "SELECT string_agg(n::text, ',' ORDER BY n) FROM t"); }
    bool idle() const { return PQtransactionStatus(handle()) == PQTRANS_IDLE; }
};

template <class E, class A = typename E::Adapter>
class QtScene : public RowsAndHooks<QtScene<E, A>, txhooks::HookedConnection<QSqlDatabase, A>> {
public:
    using Engine = E;
    using typename QtScene::RowsAndHooks::Db;
    using typename QtScene::RowsAndHooks::Tx;

    QtScene() { this->sink.listen_to(db); }

    Engine engine;
    Db db{engine.get()};

    void insert(int n) { run(db, "INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() const { return engine.truth(); }
    bool idle() const { return engine.idle(); }
};

}  // namespace support

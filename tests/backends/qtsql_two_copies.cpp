// SPDX-License-Identifier: MIT
//
// A program with an SQLite of its own in it, of the same version as the one that Qt's plugin brings: the handle of the
// one is not for the functions of the other.

#include <txhooks/backends/qtsql.hpp>

#include <QtCore/QCoreApplication>
#include <QtSql/QSqlDatabase>
#include <QtSql/QSqlQuery>

#include <cstdio>
#include <cstdlib>
#include <string>

int main(int argc, char** argv) {
    const QCoreApplication application{argc, argv};
    QSqlDatabase qt = QSqlDatabase::addDatabase(QStringLiteral("QSQLITE"));
    qt.setDatabaseName(QStringLiteral(":memory:"));
    QSqlQuery query;
    if (not qt.open() or not query.exec(QStringLiteral("SELECT sqlite_source_id()")) or not query.next()) {
        std::printf("WRONG: QSQLITE does not work here\n");
        return EXIT_FAILURE;
    }
    std::printf("Qt's:   %s\nours:   %s\n", query.value(0).toByteArray().constData(), sqlite3_sourceid());
    try {
        txhooks::HookedConnection<QSqlDatabase&, txhooks::qt::Sqlite> db{qt};
    } catch (const txhooks::UsageError& e) {
        std::printf("%s\n", e.what());
        return std::string{e.what()}.find("its own SQLite") != std::string::npos ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    std::printf("WRONG: it was taken for ours\n");
    return EXIT_FAILURE;
}

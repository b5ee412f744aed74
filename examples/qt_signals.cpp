// SPDX-License-Identifier: MIT
//
// Signals of Qt that tell of rows: userCreated(id) is emitted after the commit, and never for a sign-up that was rolled
// back. A view hears it at once; a mailer, in a thread with a database of its own, by a queued connection: it would not
// find the row, or find one that is gone a moment later, if the signal were emitted in the block.

#include <txhooks/backends/qtsql.hpp>
#include <txhooks/txhooks.hpp>

#include <QtCore/QCoreApplication>
#include <QtCore/QObject>
#include <QtCore/QString>
#include <QtCore/QStringList>
#include <QtCore/QTemporaryDir>
#include <QtCore/QThread>
#include <QtCore/QVariant>
#include <QtSql/QSqlDatabase>
#include <QtSql/QSqlError>
#include <QtSql/QSqlQuery>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>

namespace {

QSqlDatabase open(const QString& file, const QString& name = QLatin1String(QSqlDatabase::defaultConnection)) {
    QSqlDatabase db = QSqlDatabase::addDatabase(QStringLiteral("QSQLITE"), name);
    db.setDatabaseName(file);
    if (not db.open()) throw txhooks::qt::error(db.lastError());
    return db;
}

// Qt says no more than false.
void exec(QSqlQuery& query) {
    if (not query.exec()) throw txhooks::qt::error(query.lastError());
}

QString name_of(const QSqlDatabase& db, qint64 id) {
    QSqlQuery query{db};
    query.prepare(QStringLiteral("SELECT name FROM user WHERE id = ?"));
    query.addBindValue(id);
    exec(query);
    return query.next() ? query.value(0).toString() : QStringLiteral("nobody");
}

void say(const char* what, const QString& whom) {
    std::printf("    %s %s\n", what, qPrintable(whom));
}

}  // namespace

class Users : public QObject {
    Q_OBJECT

public:
    explicit Users(const QSqlDatabase& database) : db_{QSqlDatabase{database}} {}

    void sign_up(const QString& name) {
        std::printf("%s signs up\n", qPrintable(name));
        try {
            db_.atomic([&] {
                const qint64 id = insert(name);
                db_.on_commit(&Users::userCreated, this, id);  // emits it
                try {
                    db_.atomic([&] {  // a savepoint: if it fails, its signals go with it, and only they
                        db_.on_commit(&Users::subscribed, this, id);
                        if (name == QStringLiteral("Cleo")) throw std::runtime_error{"newsletter is full"};
                    });
                } catch (const std::exception& e) {
                    std::printf("    savepoint rolled back: %s\n", e.what());
                }
                if (name == QStringLiteral("Bob")) throw std::runtime_error{"card declined"};
                std::printf("    end of the block: COMMIT\n");
            });
        } catch (const std::exception& e) {
            std::printf("    ROLLBACK, no signal: %s\n", e.what());
        }
    }

signals:
    void userCreated(qint64 id);
    void subscribed(qint64 id);

private:
    qint64 insert(const QString& name) {
        QSqlQuery query{db_};
        query.prepare(QStringLiteral("INSERT INTO user (name) VALUES (?)"));
        query.addBindValue(name);
        exec(query);
        return query.lastInsertId().toLongLong();
    }

    txhooks::HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db_;
};

// What it hears runs in its own thread, where its database belongs.
class Mailer : public QObject {
public:
    explicit Mailer(const QString& file) : file_{file} {}

    QStringList sent;

    void welcome(qint64 id) { send(QStringLiteral("welcome to "), id); }
    void newsletter(qint64 id) { send(QStringLiteral("newsletter to "), id); }
    void stop() {
        QSqlDatabase::removeDatabase(QStringLiteral("mailer"));
        thread()->quit();
    }

private:
    void send(const QString& kind, qint64 id) {
        const bool first = not QSqlDatabase::contains(QStringLiteral("mailer"));
        const QSqlDatabase db =
            first ? open(file_, QStringLiteral("mailer")) : QSqlDatabase::database(QStringLiteral("mailer"));
        sent += kind + name_of(db, id);
        say("the mailer sends", sent.last());
    }

    QString file_;
};

namespace {

// What the view shows, and what the mailer has sent.
struct Heard {
    QStringList shown;
    QStringList sent;
};

Heard run(const QString& file) {
    QSqlQuery create{open(file)};
    create.prepare(QStringLiteral("CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"));
    exec(create);

    Heard heard;
    Users users{QSqlDatabase::database()};
    const QSqlDatabase second = open(file, QStringLiteral("view"));
    QObject view;
    QObject::connect(&users, &Users::userCreated, &view, [&](qint64 id) {
        heard.shown += name_of(second, id);
        say("the view shows", heard.shown.last());
    });

    QThread thread;
    Mailer mailer{file};
    mailer.moveToThread(&thread);
    QObject::connect(&users, &Users::userCreated, &mailer, &Mailer::welcome);  // queued: another thread's
    QObject::connect(&users, &Users::subscribed, &mailer, &Mailer::newsletter);
    QObject::connect(&thread, &QThread::finished, QCoreApplication::instance(), &QCoreApplication::quit);
    thread.start();

    QMetaObject::invokeMethod(
        &users,
        [&] {
            for (const char* name : {"Ann", "Bob", "Cleo"}) users.sign_up(QString::fromLatin1(name));
            QMetaObject::invokeMethod(&mailer, &Mailer::stop, Qt::QueuedConnection);
        },
        Qt::QueuedConnection);
    QCoreApplication::exec();
    thread.wait();
    heard.sent = mailer.sent;
    return heard;
}

}  // namespace

int main(int argc, char** argv) {
    const QCoreApplication application{argc, argv};
    const QTemporaryDir directory;
    const Heard heard = run(directory.filePath(QStringLiteral("users.db")));
    for (const QString& name : QSqlDatabase::connectionNames()) QSqlDatabase::removeDatabase(name);

    std::printf("sent: [%s]\n", qPrintable(heard.sent.join(QStringLiteral("] ["))));
    if (heard.shown == QStringList{QStringLiteral("Ann"), QStringLiteral("Cleo")} and
        heard.sent == QStringList{QStringLiteral("welcome to Ann"), QStringLiteral("newsletter to Ann"),
                                  QStringLiteral("welcome to Cleo")})
        return EXIT_SUCCESS;
    std::printf("WRONG: that is not what was committed\n");
    return EXIT_FAILURE;
}

#include "qt_signals.moc"

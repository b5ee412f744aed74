// SPDX-License-Identifier: MIT
//
// What is Qt's own: which driver it is, sessions that come and go, queries that are not finished. What SQLite and
// PostgreSQL do is tested on their handles, in sqlite3*.test.cpp and libpq*.test.cpp.

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/qt_scene.hpp"

#include <txhooks/backends/qtsql.hpp>
#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>

#include <QtCore/QtGlobal>

#include <optional>
#include <string>
#include <tuple>

using namespace support;
using txhooks::Atomic;
using txhooks::HookedConnection;
using txhooks::UsageError;

namespace {

using NativeScenes = std::tuple<QtScene<QtSqlite>, QtScene<QtPostgres>>;
using AnyDriverScenes =
    std::tuple<QtScene<QtSqlite, txhooks::qt::AnyDriver>, QtScene<QtPostgres, txhooks::qt::AnyDriver>>;
using QtScenes = std::tuple<QtScene<QtSqlite>, QtScene<QtPostgres>, QtScene<QtSqlite, txhooks::qt::AnyDriver>,
                            QtScene<QtPostgres, txhooks::qt::AnyDriver>>;

// Qt warns of what these tests do on purpose.
class NoWarnings {
public:
    NoWarnings() {
        qInstallMessageHandler([](QtMsgType, const QMessageLogContext&, const QString&) {});
    }
    NoWarnings(const NoWarnings&) = delete;
    NoWarnings& operator=(const NoWarnings&) = delete;
    ~NoWarnings() { qInstallMessageHandler(nullptr); }
};

// SQLite does not close what has prepared statements, and Qt forgets it: then it is still there when they are gone.
class Forgotten {
public:
    Forgotten() = default;
    Forgotten(const Forgotten&) = delete;
    Forgotten& operator=(const Forgotten&) = delete;
    ~Forgotten() { CHECK(sqlite3_close(handle_) == SQLITE_OK); }

    void remember(const QtSqlite& engine) { handle_ = engine.handle(); }
    void remember(const QtPostgres&) {}

private:
    sqlite3* handle_ = nullptr;
};

template <class Fn>
std::string refusal(Fn fn) {
    return thrown_by<UsageError>(fn).what();
}

bool names(const std::string& text, const std::string& what) {
    return text.find(what) != std::string::npos;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("qtsql: a hook runs if and only if its row is there", "[S11][S12][S25][S26][S33]", QtScenes) {
    TestType scene;
    scene.db.atomic([&](QSqlDatabase& same) {
        CHECK(&same == &scene.db);
        scene.row(1);
        scene.db.atomic([&] { scene.row(2); });
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(3);
                      scene.row(1);
                  });
              }) != "returned");
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
    });
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("qtsql: a borrowed database is hooked as well", "[S53]", NativeScenes) {
    typename TestType::Engine engine;
    QSqlDatabase qt = engine.get();
    HookedConnection<QSqlDatabase&, typename TestType::Engine::Adapter> db{qt};
    bool ran = false;
    db.atomic([&] {
        run(qt, "INSERT INTO t VALUES (1)");
        db.on_commit([&] { ran = engine.truth() == "1"; });
    });
    CHECK(ran);
}

TEST_CASE("qtsql: begin options are those of the native adapter", "[S38]") {
    QtScene<QtSqlite> sqlite;
    sqlite.db.atomic({.begin = txhooks::sqlite::Begin::immediate},
                     [&] { CHECK(sqlite3_txn_state(sqlite.engine.handle(), nullptr) == SQLITE_TXN_WRITE); });
    QtScene<QtPostgres> postgres;
    postgres.db.atomic({.begin = {.isolation = txhooks::postgres::Isolation::serializable}}, [&] {
        QSqlQuery query{QStringLiteral("SHOW transaction_isolation"), postgres.db};
        CHECK(query.next());
        CHECK(query.value(0).toString() == QStringLiteral("serializable"));
    });
}

TEST_CASE("qtsql: an error of a query is one that retry understands", "[retry]") {
    QtScene<QtPostgres> scene;
    QSqlQuery query{scene.db};
    CHECK_FALSE(query.exec(QStringLiteral("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")));
    CHECK(scene.db.adapter().transient(std::make_exception_ptr(txhooks::qt::error(query.lastError()))));
    CHECK_FALSE(query.exec(QStringLiteral("SELECT 1 / 0")));
    const txhooks::EngineError error = txhooks::qt::error(query.lastError());
    CHECK(error.sqlstate() == std::string{"22012"});
    CHECK(names(error.what(), "division by zero"));
    CHECK_FALSE(scene.db.adapter().transient(std::make_exception_ptr(error)));
    CHECK(names(txhooks::qt::error(QSqlError{}).what(), "gave no reason"));
}

TEST_CASE("qtsql: retry and Doubt know what the native adapter knows", "[retry][doubt]") {
    QtScene<QtSqlite> sqlite;
    std::optional<Handle> other;
    other.emplace(sqlite.engine.file().path());
    run(*other, "BEGIN IMMEDIATE");
    int attempts = 0;
    txhooks::retry(sqlite.db, {.attempts = 2, .sleep = [&](auto) { other.reset(); }}, [&] {
        ++attempts;
        sqlite.hook(1);
        QSqlQuery query{sqlite.db};
        if (not query.exec(QStringLiteral("INSERT INTO t VALUES (1)"))) throw txhooks::qt::error(query.lastError());
    });
    CHECK(attempts == 2);
    CHECK(sqlite.hooks == "1");
    CHECK(sqlite.truth() == "1");

    QtScene<QtPostgres> postgres;
    run(postgres.engine.others(), marker_table);
    txhooks::Doubt doubt;
    postgres.db.atomic({.resolve = &doubt}, [&] { postgres.row(1); });
    CHECK(postgres.hooks == "1");
    CHECK(run(postgres.engine.others(), "SELECT count(*) FROM txhooks_commit") == "1");
}

TEST_CASE("qtsql: an adapter that does not fit the driver is refused in a sentence that names the one that does",
          "[qt]") {
    const QtSqlite sqlite;
    const QtPostgres postgres;
    QSqlDatabase on_sqlite = sqlite.get();
    QSqlDatabase on_postgres = postgres.get();
    CHECK(
        names(refusal([&] { HookedConnection db{on_sqlite}; }), "HookedConnection<QSqlDatabase, txhooks::qt::Sqlite>"));
    CHECK(names(refusal([&] { HookedConnection db{on_postgres}; }),
                "HookedConnection<QSqlDatabase, txhooks::qt::Postgres>"));
    CHECK(names(refusal([&] { HookedConnection<QSqlDatabase&, txhooks::qt::Sqlite> db{on_postgres}; }),
                "is QPSQL, and qt::Sqlite is for QSQLITE; for QPSQL name txhooks::qt::Postgres"));
    CHECK(names(refusal([&] { HookedConnection<QSqlDatabase&, txhooks::qt::Postgres> db{on_sqlite}; }),
                "is QSQLITE, and qt::Postgres is for QPSQL; for QSQLITE name txhooks::qt::Sqlite"));
}

TEST_CASE("qtsql: a database that is not open is refused", "[qt]") {
    const NoWarnings quiet;
    const QtSqlite sqlite;
    QSqlDatabase closed = sqlite.get();
    closed.close();
    QSqlDatabase none;
    for (QSqlDatabase* const db : {&closed, &none}) {
        CHECK(names(refusal([&] { HookedConnection hooked{*db}; }), "not open"));
        CHECK(names(refusal([&] { HookedConnection<QSqlDatabase&, txhooks::qt::Sqlite> hooked{*db}; }), "not open"));
        CHECK(names(refusal([&] { HookedConnection<QSqlDatabase&, txhooks::qt::Postgres> hooked{*db}; }), "not open"));
        CHECK(names(refusal([&] { HookedConnection<QSqlDatabase&, txhooks::qt::AnyDriver> hooked{*db}; }), "not open"));
    }
    CHECK(names(refusal([] { HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> hooked; }), "not open"));
}

TEST_CASE("qtsql: a plugin with an SQLite of another version is refused", "[qt]") {
    const QtSqlite sqlite;
    const auto another = [](sqlite3_context* call, int, sqlite3_value**) {
        sqlite3_result_text(call, "2009-09-11 14:05:07 b084828a771ec40be85f07c590ca99de4f6c24ee", -1, SQLITE_STATIC);
    };
    REQUIRE(sqlite3_create_function(sqlite.handle(), "sqlite_source_id", 0, SQLITE_UTF8, nullptr, another, nullptr,
                                    nullptr) == SQLITE_OK);
    CHECK(names(refusal([&] { HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db{sqlite.get()}; }),
                "carries its own SQLite"));
}

TEST_CASE("qtsql: a plugin with another copy of the same SQLite is refused: its file systems are its own", "[qt]") {
    need_application();
    sqlite3_vfs theirs = *sqlite3_vfs_find(nullptr);
    theirs.zName = "txhooks_same_name";
    sqlite3_vfs ours = theirs;
    REQUIRE(sqlite3_vfs_register(&theirs, 0) == SQLITE_OK);
    {
        const QtSqlite sqlite{"?vfs=txhooks_same_name"};
        CHECK(ending([&] { HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db{sqlite.get()}; }) == "returned");
        sqlite3_vfs_unregister(&theirs);
        CHECK(names(refusal([&] { HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db{sqlite.get()}; }),
                    "carries its own SQLite"));
        REQUIRE(sqlite3_vfs_register(&ours, 0) == SQLITE_OK);
        CHECK(names(refusal([&] { HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db{sqlite.get()}; }),
                    "carries its own SQLite"));
    }
    sqlite3_vfs_unregister(&ours);
}

TEST_CASE("qtsql: databases in memory have file systems too", "[qt]") {
    const QtDatabase memory{"QSQLITE", [](QSqlDatabase& db) { db.setDatabaseName(QStringLiteral(":memory:")); }};
    HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db{memory.get()};
    bool ran = false;
    db.atomic([&] { db.on_commit([&] { ran = true; }); });
    CHECK(ran);
}

// ---- transaction(), commit(), rollback() by hand

TEMPLATE_LIST_TEST_CASE("qtsql: rollback() or commit() by hand in a block is a loss", "[S50]", QtScenes) {
    const bool commits = GENERATE(true, false);
    const bool begins = GENERATE(true, false);
    CAPTURE(commits, begins);
    TestType scene;
    QSqlDatabase same = scene.engine.get();
    Atomic tx{scene.db};
    scene.row(1);
    CHECK((commits ? same.commit() : same.rollback()));
    if (begins) CHECK(same.transaction());
    const std::string end = ending([&] { return tx.commit(); });
    CHECK(names(end, "TransactionLost"));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (commits ? "1" : ""));
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("qtsql: transaction() by hand outside of blocks is refused as a raw BEGIN is", "[S8][S41]",
                        NativeScenes) {
    TestType scene;
    QSqlDatabase same = scene.engine.get();
    CHECK(same.transaction());
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Atomic tx{scene.db}; }) == "UsageError");
    CHECK(same.rollback());
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
}

// ---- Queries that are not finished

TEMPLATE_LIST_TEST_CASE("qtsql: COMMIT with an active SELECT commits", "[S44]", QtScenes) {
    TestType scene;
    for (int n : {50, 51, 52}) scene.insert(n);
    QSqlQuery query{scene.db};
    {
        Atomic tx{scene.db};
        CHECK(query.exec(QStringLiteral("SELECT n FROM t ORDER BY n")));
        CHECK(query.next());
        scene.row(1);
        CHECK(tx.commit() == txhooks::Outcome::committed);
    }
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1,50,51,52");
    CHECK(query.isActive());
    query.finish();
    CHECK(scene.goes_on());
}

TEST_CASE("qtsql: a COMMIT that an unfinished INSERT makes fail is tried again after finish()", "[S47]") {
    QtScene<QtSqlite> scene;
    QSqlQuery query{scene.db};
    Atomic tx{scene.db};
    scene.hook(1);
    CHECK(query.exec(QStringLiteral("INSERT INTO t VALUES (1), (2) RETURNING n")));
    CHECK(query.next());
    CHECK(names(ending([&] { return tx.commit(); }), "still_open"));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    query.finish();
    CHECK(tx.commit() == txhooks::Outcome::committed);
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEST_CASE("qtsql: a COMMIT is refused while a forward-only query is unread, and not sent", "[S47]") {
    QtScene<QtPostgres> scene;
    for (int n : {50, 51, 52}) scene.insert(n);
    QSqlQuery query{scene.db};
    query.setForwardOnly(true);
    Atomic tx{scene.db};
    scene.row(1);
    CHECK(query.exec(QStringLiteral("SELECT n FROM t ORDER BY n")));
    CHECK(query.next());
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    query.clear();
    CHECK(tx.commit() == txhooks::Outcome::committed);
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1,50,51,52");
    CHECK(scene.goes_on());
}

// ---- Sessions that come and go

TEMPLATE_LIST_TEST_CASE("qtsql: a database that is closed and opened again is broken until reset()", "[S49]",
                        NativeScenes) {
    TestType scene;
    CHECK(scene.goes_on());
    QSqlDatabase same = scene.engine.get();
    scene.db.reset();
    same.close();
    CHECK_FALSE(same.lastError().isValid());
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(1); }) == "ConnectionBroken");
    CHECK(ending([&] { Atomic tx{scene.db}; }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    CHECK(same.open());
    scene.db.reset();
    run(same, "DELETE FROM t");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("qtsql: a database that is closed before the first block is nobody's harm", "[S49]",
                        NativeScenes) {
    TestType scene;
    QSqlDatabase same = scene.engine.get();
    same.close();
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { Atomic tx{scene.db}; }) == "ConnectionBroken");
}

TEMPLATE_LIST_TEST_CASE("qtsql: a database that is closed in a block has lost it", "[S50]", NativeScenes) {
    const bool opened_again = GENERATE(true, false);
    const bool commits = GENERATE(true, false);
    CAPTURE(opened_again, commits);
    Forgotten forgotten;
    TestType scene;
    forgotten.remember(scene.engine);
    QSqlDatabase same = scene.engine.get();
    {
        Atomic tx{scene.db};
        scene.row(1);
        same.close();
        if (opened_again) CHECK(same.open());
        CHECK(ending([&] { scene.hook(2); }) == "TransactionLost unknown");
        CHECK(ending([&] { Atomic inner{scene.db}; }) == "TransactionLost unknown");
        const std::string end = commits ? ending([&] { return tx.commit(); }) : ending([&] { tx.rollback(); });
        CHECK(names(end, "TransactionLost unknown"));
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(ending([&] { scene.hook(1); }) == "ConnectionBroken");
    if (not opened_again) CHECK(same.open());
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("qtsql: removeDatabase in a block is a loss too", "[S50]", NativeScenes) {
    const NoWarnings quiet;
    Forgotten forgotten;
    TestType scene;
    forgotten.remember(scene.engine);
    Atomic tx{scene.db};
    scene.row(1);
    scene.engine.remove();
    CHECK(names(ending([&] { return tx.commit(); }), "TransactionLost unknown"));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(ending([&] { scene.hook(1); }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
}

TEST_CASE("qtsql: a session that the server has ended is opened again as Qt has it", "[S48][S49]") {
    QtScene<QtPostgres> scene;
    QSqlDatabase same = scene.engine.get();
    {
        Atomic tx{scene.db};
        scene.row(1);
        run(scene.engine.others(),
            "SELECT pg_terminate_backend(" + std::to_string(PQbackendPID(scene.engine.handle())) + ", 10000)");
        CHECK(names(ending([&] { return tx.commit(); }), "CommitUnknown"));
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(ending([&] { scene.hook(1); }) == "ConnectionBroken");
    same.close();
    CHECK(same.open());
    scene.db.reset();
    CHECK(scene.goes_on());
}

// ---- Any driver

TEST_CASE("qtsql: any driver: an error is what the driver says", "[S40]") {
    QtScene<QtSqlite, txhooks::qt::AnyDriver> scene;
    QSqlDatabase same = scene.engine.get();
    const auto begin = [&] { Atomic tx{scene.db}; };
    CHECK(same.transaction());
    CHECK(names(thrown_by<txhooks::EngineError>(begin).what(), "cannot start a transaction within a transaction"));
    CHECK(scene.idle());

    sqlite3_set_authorizer(
        scene.engine.handle(),
        [](void*, int action, auto...) { return action == SQLITE_SAVEPOINT ? SQLITE_DENY : SQLITE_OK; }, nullptr);
    const auto denied = thrown_by<txhooks::EngineError>(begin);
    CHECK(denied.code() == SQLITE_AUTH);
    CHECK(names(denied.what(), "not authorized"));
    sqlite3_set_authorizer(scene.engine.handle(), nullptr, nullptr);

    same.close();
    CHECK(names(refusal(begin), "not open"));
    CHECK(same.open());
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEST_CASE("qtsql: any driver: a COMMIT that fails is in doubt, and nothing stays open", "[S48]") {
    QtScene<QtSqlite, txhooks::qt::AnyDriver> scene;
    const Handle other{scene.engine.file().path()};
    {
        Atomic tx{scene.db};
        scene.row(1);
        {
            const Unfinished reader{other, "SELECT 1 FROM sqlite_master"};
            CHECK(names(ending([&] { return tx.commit(); }), "CommitUnknown unknown <- EngineError"));
        }
    }
    CHECK(scene.idle());
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("qtsql: any driver: a session that is exchanged in a block is noticed at its end", "[S50]",
                        AnyDriverScenes) {
    TestType scene;
    QSqlDatabase same = scene.engine.get();
    Atomic tx{scene.db};
    scene.row(1);
    same.close();
    CHECK(same.open());
    CHECK(without_cause(ending([&] { return tx.commit(); })) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on a `QSqlDatabase` (Qt 6 or 5). Which driver it has is known only at run time, and what can be proven of
/// a COMMIT depends on it, so you name what it is:
///
///     txhooks::HookedConnection<QSqlDatabase, txhooks::qt::Sqlite> db{QSqlDatabase::database()};    // QSQLITE
///     txhooks::HookedConnection<QSqlDatabase, txhooks::qt::Postgres> db{QSqlDatabase::database()};  // QPSQL
///     txhooks::HookedConnection<QSqlDatabase> db{QSqlDatabase::database()};                         // others
///
///     db.atomic([&] {
///         QSqlQuery query{db};  // it is a QSqlDatabase
///         ...
///         db.on_commit(&Users::userCreated, &users, id);  // emits the signal
///     });
///
/// `Sqlite` and `Postgres` take the native handle out and are `<txhooks/backends/sqlite3.hpp>` and `.../libpq.hpp`: what
/// these say holds, begin options and `EngineError` included. They are there if `<sqlite3.h>`, `<libpq-fe.h>` are found
/// (Debian: `pkg-config --cflags libpq`); link what you use. All else goes through Qt (`qt::AnyDriver`), if its engine
/// knows RELEASE SAVEPOINT. The wrong one is refused with a `UsageError` that names the right one, and so is a database
/// that is not open.
///
/// - `HookedConnection<QSqlDatabase&, ...>` borrows a database instead of sharing it.
/// - `QSqlQuery::exec` and the like return `false`: throw (`qt::error`), or the block goes on.
/// - `transaction()`, `commit()` and `rollback()` by hand are what raw BEGIN, COMMIT and ROLLBACK are. The latter two do
///   not compile on a `HookedConnection`.
/// - A query that is active (before its last row, without `finish()`) keeps its locks after COMMIT. One that writes
///   (`INSERT ... RETURNING`) makes SQLite's COMMIT fail, and a forward-only one PostgreSQL's: the block is still open;
///   `finish()` that query, with QPSQL `clear()` it, and commit again.
/// - `close()`, `open()` and `removeDatabase` take the session away: in a block that is a loss; outside, the connection is
///   broken (`ConnectionBroken`) until the database is open again and `reset()` was called. With QSQLITE call `reset()`
///   before `close()` as well: SQLite does not close what still has prepared statements, and Qt forgets it.
/// - Destroy a `HookedConnection<QSqlDatabase>` before `removeDatabase`, for which it is a connection still in use.
/// - As Qt has it, everything happens on the thread that the database belongs to, and plugins stay loaded.

#include <txhooks/txhooks.hpp>

#if __has_include(<sqlite3.h>)
#include <txhooks/backends/sqlite3.hpp>
#endif
#if __has_include(<libpq-fe.h>)
#include <txhooks/backends/libpq.hpp>
#endif

#include <QtCore/QByteArray>
#include <QtCore/QLatin1String>
#include <QtCore/QString>
#include <QtCore/QVariant>
#include <QtSql/QSqlDatabase>
#include <QtSql/QSqlDriver>
#include <QtSql/QSqlError>
#include <QtSql/QSqlQuery>

#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <string>

namespace txhooks::qt {

/// What Qt says of a failure, as an exception that `retry` understands: `throw txhooks::qt::error(query.lastError());`
inline EngineError error(const QSqlError& error, Outcome outcome = Outcome::rolled_back) {
    if (!error.isValid())
        return EngineError{0, "", "the driver of this QSqlDatabase gave no reason (has it transactions?)", outcome};
    const QString code = error.nativeErrorCode();
    const QByteArray sqlstate = code.size() == 5 ? code.toLatin1() : QByteArray{};
    return EngineError{code.toInt(), sqlstate.constData(), error.text().toUtf8().constData(), outcome};
}

namespace detail {

// By what the plugin calls the type of its handle, whatever the plugin is called.
inline bool is(const QVariant& handle, const char* type) noexcept {
    return handle.isValid() && std::strcmp(handle.typeName(), type) == 0;
}
inline bool is_sqlite(const QVariant& handle) noexcept {
    return is(handle, "sqlite3*");
}
inline bool is_postgres(const QVariant& handle) noexcept {
    return is(handle, "PGconn*") || is(handle, "pg_conn*");  // in Qt 5, and in Qt 6
}

template <class Handle>
struct DriverOf;

// Null: of another driver, or of one that is gone. What is closed has a null handle.
template <class Handle>
Handle handle_of(const QSqlDatabase& db) noexcept {
    const QVariant handle = db.driver()->handle();
    return DriverOf<Handle>::is_of(handle) ? *static_cast<const Handle*>(handle.constData()) : nullptr;
}

inline void refuse_closed(const QSqlDatabase& db) {
    if (!db.isOpen())
        throw UsageError{"txhooks: this QSqlDatabase is not open; call open(), and look at what it returns"};
}

#if __has_include(<sqlite3.h>)
template <>
struct DriverOf<sqlite3*> {
    static bool is_of(const QVariant& handle) noexcept { return is_sqlite(handle); }
    static constexpr const char* wrong =
        ", and qt::Sqlite is for QSQLITE; for QPSQL name txhooks::qt::Postgres, for another driver none: "
        "HookedConnection<QSqlDatabase>";

    // A plugin may carry an SQLite of its own, whose handles are not for the functions of ours. Another version says so;
    // another copy of the same has its own file systems.
    static void check(const QSqlDatabase& db, sqlite3* handle) {
        QSqlQuery query{QStringLiteral("SELECT sqlite_source_id()"), db};
        if (!query.next()) throw qt::error(query.lastError());
        sqlite3_vfs* vfs = nullptr;
        sqlite3_initialize();  // ours may never have been used
        if (query.value(0).toString() != QLatin1String(sqlite3_sourceid()) ||
            sqlite3_file_control(handle, "main", SQLITE_FCNTL_VFS_POINTER, static_cast<void*>(&vfs)) != SQLITE_OK ||
            vfs == nullptr || vfs != sqlite3_vfs_find(vfs->zName))
            throw UsageError{
                "txhooks: the plugin of this QSqlDatabase carries its own SQLite, another than this program is linked "
                "with; take a plugin that uses the system's (Qt's option -system-sqlite, or a distribution's package), "
                "or be content with txhooks::qt::AnyDriver"};
    }
};
#endif

#if __has_include(<libpq-fe.h>)
template <>
struct DriverOf<PGconn*> {
    static bool is_of(const QVariant& handle) noexcept { return is_postgres(handle); }
    static constexpr const char* wrong =
        ", and qt::Postgres is for QPSQL; for QSQLITE name txhooks::qt::Sqlite, for another driver none: "
        "HookedConnection<QSqlDatabase>";
    static void check(const QSqlDatabase&, PGconn*) noexcept {}
};
#endif

// A UsageError keeps no text of its own: these live as long as the program, one for each driver.
inline UsageError wrong_driver(const QSqlDatabase& db, const char* wrong) {
    static std::mutex mutex;
    static std::set<std::string> texts;
    const std::lock_guard lock{mutex};
    const std::string driver = db.driverName().toStdString();
    return UsageError{texts.insert("txhooks: the driver of this QSqlDatabase is " + driver + wrong).first->c_str()};
}

template <class Handle>
Handle checked_handle(const QSqlDatabase& db) {
    refuse_closed(db);
    Handle const handle = handle_of<Handle>(db);
    if (handle == nullptr) throw wrong_driver(db, DriverOf<Handle>::wrong);
    DriverOf<Handle>::check(db, handle);
    return handle;
}

}  // namespace detail

/// The adapter of the driver's own handle, for as long as the database has that one; see the top of this file.
/// `reset()` takes the handle that the database has now.
template <class Handle>
class Native {
    using Adapter = BackendAdapter<Handle>;

public:
    using begin_options = typename Adapter::begin_options;
    using conditional_members = void;

    explicit Native(QSqlDatabase& db) : db_{&db} { reset(); }

    void begin(const begin_options& options) { native_->begin(options); }
    CommitResult commit() noexcept { return native_->commit(); }
    // SQLite has not freed a handle that was closed in a block: it has prepared statements.
    void rollback() { native_->rollback(); }

    void savepoint(unsigned n) { native_->savepoint(n); }
    void release(unsigned n) { native_->release(n); }
    void rollback_to(unsigned n) { native_->rollback_to(n); }

    ConnectionState state() const noexcept {
        return detail::handle_of<Handle>(*db_) == handle_ ? native_->state() : ConnectionState::lost;
    }
    Outcome fate() noexcept
        requires txhooks::detail::HasFate<Adapter>
    {
        return native_->fate();
    }
    bool in_another_process() const noexcept
        requires txhooks::detail::HasInAnotherProcess<Adapter>
    {
        return native_->in_another_process();
    }
    CommitResult commit(const char* marker) noexcept
        requires txhooks::detail::HasMarkers<Adapter>
    {
        return native_->commit(marker);
    }
    bool was_committed(const char* marker)
        requires txhooks::detail::HasMarkers<Adapter>
    {
        return native_->was_committed(marker);
    }
    bool transient(const std::exception_ptr& error) const noexcept { return native_->transient(error); }

    void reset() {
        Handle const handle = detail::checked_handle<Handle>(*db_);
        native_ = std::make_unique<Adapter>(handle);
        handle_ = handle;
    }

private:
    QSqlDatabase* db_;
    Handle handle_ = nullptr;
    std::unique_ptr<Adapter> native_;
};

#if __has_include(<sqlite3.h>)
/// For QSQLITE.
using Sqlite = Native<sqlite3*>;
#endif
#if __has_include(<libpq-fe.h>)
/// For QPSQL.
using Postgres = Native<PGconn*>;
#endif

/// For any driver whose engine knows SAVEPOINT and RELEASE SAVEPOINT, by `SqlAdapterWithoutState`, which says what is
/// then not promised: Qt does not know whether a transaction is open. Errors are `EngineError` with what the driver says;
/// `code()` is its native one where that is a number. A COMMIT that fails is in doubt, also where the database was busy.
class AnyDriver : public SqlAdapterWithoutState<AnyDriver> {
public:
    explicit AnyDriver(QSqlDatabase& db) : db_{&db} { detail::refuse_closed(db); }

    void execute(const char* sql) {
        detail::refuse_closed(*db_);
        if (std::strcmp(sql, "BEGIN") == 0) return check(db_->transaction(), Outcome::rolled_back);
        if (std::strcmp(sql, "COMMIT") == 0) return check(db_->commit(), Outcome::unknown);
        if (std::strcmp(sql, "ROLLBACK") == 0) return check(db_->rollback(), Outcome::unknown);
        QSqlQuery query{*db_};
        if (!query.exec(QString::fromLatin1(sql))) throw error(query.lastError());
    }

private:
    void check(bool ok, Outcome outcome) const {
        if (!ok) throw error(db_->lastError(), outcome);
    }

    QSqlDatabase* db_;
};

}  // namespace txhooks::qt

namespace txhooks {

/// `qt::AnyDriver`, for what has nothing better.
template <>
class BackendAdapter<QSqlDatabase> : public qt::AnyDriver {
public:
    explicit BackendAdapter(QSqlDatabase& db) : AnyDriver{db} {
        const QVariant handle = db.driver()->handle();
        if (qt::detail::is_sqlite(handle))
            throw UsageError{
                "txhooks: the driver of this QSqlDatabase is QSQLITE, of which more can be proven: name the adapter, "
                "HookedConnection<QSqlDatabase, txhooks::qt::Sqlite>, or txhooks::qt::AnyDriver if less will do"};
        if (qt::detail::is_postgres(handle))
            throw UsageError{
                "txhooks: the driver of this QSqlDatabase is QPSQL, of which more can be proven: name the adapter, "
                "HookedConnection<QSqlDatabase, txhooks::qt::Postgres>, or txhooks::qt::AnyDriver if less will do"};
    }
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT

// The adapter of the example, with Debian's drivers for three engines.

#include "../../examples/support/odbc.hpp"
#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/sqlite_files.hpp"

#include <txhooks/testing/adapter_check.hpp>
#include <txhooks/txhooks.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

using txhooks::testing::adapter_check;

namespace {

class OdbcSession {
public:
    explicit OdbcSession(const std::string& where) : own_{where}, another_{where} {}

    OdbcConnection& backend() { return odbc_; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        odbc_.execute(sql);
    }
    long look(const std::string& query) { return others_.number(query); }

protected:
    OdbcConnection& others() { return others_; }

private:
    OdbcHandle own_, another_;
    OdbcConnection odbc_{own_.get()}, others_{another_.get()};
};

class File : public OdbcSession {
public:
    explicit File(const std::string& path) : OdbcSession{odbc_sqlite(path)} {}

    void make_busy(bool busy) {
        if (busy) {
            others().execute("BEGIN");
            look("SELECT count(*) FROM sqlite_master");  // its lock keeps others from writing the file
        } else {
            others().execute("ROLLBACK");
        }
    }
};

// What can be killed: by a connection of its own, for a hook may be looking at the same time.

class Postgres : public OdbcSession {
public:
    explicit Postgres(const std::string& more = "") : OdbcSession{odbc_postgres() + more}, killer_{odbc_postgres()} {}

    void kill() { OdbcConnection{killer_.get()}.execute("SELECT pg_terminate_backend(" + id_ + ", 1000)"); }

private:
    OdbcHandle killer_;
    std::string id_ = std::to_string(backend().number("SELECT pg_backend_pid()"));
};

class Mariadb : public OdbcSession {
public:
    explicit Mariadb(const std::string& more = "") : OdbcSession{odbc_mariadb() + more}, killer_{odbc_mariadb()} {}

    void kill() {
        OdbcConnection killer{killer_.get()};
        const std::string there = "SELECT count(*) FROM information_schema.processlist WHERE id = " + id_;
        if (killer.number(there) != 0) killer.execute("KILL " + id_);
        while (killer.number(there) != 0) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }

private:
    OdbcHandle killer_;
    std::string id_ = std::to_string(backend().number("SELECT connection_id()"));
};

// A block that inserts 1 and registers a hook for that, then does `what`. Its exception, and the gold check.
template <class Session, class What>
std::exception_ptr insert_and(Session& session, const What& what) {
    OdbcConnection& odbc = session.backend();
    odbc.execute("DROP TABLE IF EXISTS txhooks_odbc");
    odbc.execute("CREATE TABLE txhooks_odbc (id INTEGER PRIMARY KEY)");
    txhooks::HookedConnection<OdbcConnection&> db{odbc};
    db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
    int ran = 0;
    std::exception_ptr error;
    try {
        db.atomic([&] {
            odbc.execute("INSERT INTO txhooks_odbc VALUES (1)");
            db.on_commit([&] { ++ran; });
            what(db);
        });
    } catch (...) {
        error = std::current_exception();
    }
    CHECK(ran == session.look("SELECT count(*) FROM txhooks_odbc WHERE id = 1"));
    return error;
}

using support::name_of;

// The same failure in a block: a row that is there already.
template <class Db>
void fail_quietly(Db& db) {
    CHECK_THROWS_AS(db.backend().execute("INSERT INTO txhooks_odbc VALUES (1)"), txhooks::EngineError);
}

template <class Session>
std::string how_it_fails(Session&& session, const std::string& sql) {
    try {
        session.backend().execute(sql);
    } catch (const txhooks::EngineError& e) {
        return std::string{e.sqlstate()} + ' ' + std::to_string(e.code());
    }
    return "not";
}

// Lets something happen between the two statements that end a block.
struct Interrupted : txhooks::SqlAdapterWithoutState<Interrupted> {
    explicit Interrupted(OdbcConnection& connection) : odbc{connection} {}
    void execute(const char* sql) {
        if (std::string_view{sql} == "COMMIT" and before_commit) before_commit();
        odbc.execute(sql);
    }
    OdbcConnection& odbc;
    std::function<void()> before_commit;
};

}  // namespace

TEST_CASE("odbc: SQLite keeps the promise", "[odbc]") {
    const support::DatabaseFile file;
    CHECK(adapter_check("ODBC, SQLite", [&] { return File{file.path()}; },
                        {"raw BEGIN before", "deferred constraint", "busy COMMIT", "refused COMMIT",
                         "reply to COMMIT lost", "killed before COMMIT", "killed during COMMIT"})
              .passed());
}

TEST_CASE("odbc: PostgreSQL keeps the promise", "[odbc]") {
    CHECK(adapter_check(
              "ODBC, PostgreSQL", [] { return Postgres{}; },
              {"raw BEGIN before", "deferred constraint", "busy COMMIT", "refused COMMIT", "reply to COMMIT lost"})
              .passed());
}

TEST_CASE("odbc: MariaDB keeps the promise", "[odbc]") {
    CHECK(adapter_check(
              "ODBC, MariaDB", [] { return Mariadb{}; },
              {"raw BEGIN before", "deferred constraint", "busy COMMIT", "refused COMMIT", "reply to COMMIT lost"})
              .passed());
}

TEST_CASE("odbc: an error has the SQLSTATE and the number that the driver tells", "[odbc]") {
    const support::DatabaseFile file;
    CHECK(how_it_fails(File{file.path()}, "SELECT * FROM nowhere") == "HY000 1");
    CHECK(how_it_fails(Postgres{}, "SELECT * FROM nowhere") == "42P01 1");
    CHECK(how_it_fails(Mariadb{}, "SELECT * FROM nowhere") == "42S02 1146");
    CHECK_THROWS_AS(OdbcHandle{"Driver={No such driver}"}, txhooks::EngineError);
}

TEST_CASE("odbc: to change no row is no error, to find no number is one", "[odbc]") {
    const support::DatabaseFile file;
    const auto check = [](auto&& session) {
        CHECK(how_it_fails(session, "CREATE TABLE IF NOT EXISTS txhooks_odbc (id INTEGER PRIMARY KEY)") == "not");
        CHECK(how_it_fails(session, "DELETE FROM txhooks_odbc") == "not");
        CHECK(how_it_fails(session, "DELETE FROM txhooks_odbc") == "not");
        CHECK_THROWS_AS(session.look("SELECT id FROM txhooks_odbc"), txhooks::EngineError);
    };
    check(File{file.path()});
    check(Postgres{});
    check(Mariadb{});
}

TEST_CASE("odbc: results that nobody has read do not stop COMMIT", "[S2]") {
    const support::DatabaseFile file;
    const auto check = [](auto&& session) {
        SQLHSTMT statement = SQL_NULL_HSTMT;
        const std::exception_ptr error = insert_and(session, [&](auto& db) {
            REQUIRE(SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_STMT, db.backend().handle(), &statement)));
            std::string query = "SELECT id FROM txhooks_odbc";
            REQUIRE(SQL_SUCCEEDED(SQLExecDirect(statement, OdbcConnection::characters(query), SQL_NTS)));
        });
        SQLFreeHandle(SQL_HANDLE_STMT, statement);
        CHECK(name_of(error) == "none");
    };
    check(File{file.path()});
    check(Postgres{});
    check(Postgres{";UseDeclareFetch=1;Fetch=1"});
    check(Mariadb{});
}

TEST_CASE("odbc: psqlodbc undoes a failed statement, does nothing, or rolls back all", "[S50]") {
    const auto check = [](const std::string& setting, bool transaction_is_gone = false) {
        Postgres session{setting};
        const std::exception_ptr error = insert_and(session, [&](auto& db) {
            fail_quietly(db);
            if (transaction_is_gone) db.backend().execute("INSERT INTO txhooks_odbc VALUES (2)");
        });
        // What is written after that is in no transaction, and stays.
        CHECK((session.look("SELECT count(*) FROM txhooks_odbc WHERE id = 2") == 1) == transaction_is_gone);
        return name_of(error);
    };
    CHECK(check("") == "none");
    CHECK(check(";Protocol=7.4-2") == "none");
    CHECK(check(";Protocol=7.4-0") == "TransactionLost unknown <- EngineError 25P02 rolled_back");
    CHECK(check(";Protocol=7.4-1", true) == "TransactionLost unknown <- EngineError 25P01 rolled_back");
}

TEST_CASE("odbc: a driver that reconnects by itself loses the block", "[S50]") {
    Mariadb session{";AUTO_RECONNECT=1"};
    const std::exception_ptr error = insert_and(session, [&](auto& db) {
        session.kill();
        fail_quietly(db);
        db.backend().execute("INSERT INTO txhooks_odbc VALUES (2)");  // in another session, and no transaction
    });
    CHECK(name_of(error) == "TransactionLost unknown <- EngineError 1305 rolled_back");
    CHECK(session.look("SELECT count(*) FROM txhooks_odbc WHERE id = 2") == 1);
}

TEST_CASE("odbc: a session that ends between RELEASE and COMMIT leaves that in doubt", "[S48]") {
    const auto check = [](auto&& session) {
        session.backend().execute("DROP TABLE IF EXISTS txhooks_odbc");
        session.backend().execute("CREATE TABLE txhooks_odbc (id INTEGER PRIMARY KEY)");
        txhooks::HookedConnection<OdbcConnection&, Interrupted> db{session.backend()};
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        bool ran = false;
        db.adapter().before_commit = [&] { session.kill(); };
        CHECK_THROWS_AS(db.atomic([&](OdbcConnection& odbc) {
            odbc.execute("INSERT INTO txhooks_odbc VALUES (1)");
            db.on_commit([&] { ran = true; });
        }),
                        txhooks::CommitUnknown);
        CHECK_FALSE(ran);
        CHECK(session.look("SELECT count(*) FROM txhooks_odbc") == 0);
    };
    check(Postgres{});
    check(Mariadb{});
    check(Mariadb{";AUTO_RECONNECT=1"});
}

TEST_CASE("odbc: SQLEndTran on a session that is gone is a success for psqlodbc", "[odbc]") {
    Postgres session;
    const SQLHDBC dbc = session.backend().handle();
    const auto off = reinterpret_cast<SQLPOINTER>(SQL_AUTOCOMMIT_OFF);
    REQUIRE(SQL_SUCCEEDED(SQLSetConnectAttr(dbc, SQL_ATTR_AUTOCOMMIT, off, 0)));
    REQUIRE(how_it_fails(session, "SELECT 1") == "not");
    session.kill();
    REQUIRE(how_it_fails(session, "SELECT 1") != "not");
    CHECK(SQLEndTran(SQL_HANDLE_DBC, dbc, SQL_ROLLBACK) == SQL_SUCCESS);
    CHECK(SQLEndTran(SQL_HANDLE_DBC, dbc, SQL_COMMIT) == SQL_SUCCESS);
}

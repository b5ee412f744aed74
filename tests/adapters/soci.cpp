// SPDX-License-Identifier: MIT

// SOCI's sessions, hooked by the handles that they keep.
//
// SOCI is included first here, and after txhooks in examples/soci.cpp, which says what there is to know: <sqlite3.h> is
// included in `sqlite_api` then, and nowhere else.

#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <soci/callbacks.h>  // needs soci.h

using namespace sqlite_api;

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/postgres_scene.hpp"
#include "support/sqlite_files.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/testing/adapter_check.hpp>
#include <txhooks/txhooks.hpp>

#include <libpq-fe.h>
#include <sys/socket.h>

#include <exception>
#include <string>

using txhooks::testing::adapter_check;

namespace {

class SociSession {
public:
    SociSession(const soci::backend_factory& engine, const std::string& where)
        : sql{engine, where}, others_{engine, where} {}

    template <class Db>
    void execute(Db&, const std::string& text) {
        sql << text;
    }
    long look(const std::string& query) {
        long long number = 0;
        others_ << query, soci::into(number);
        return static_cast<long>(number);
    }

    void empty_table() {
        others_ << "CREATE TABLE IF NOT EXISTS txhooks_soci (id INTEGER PRIMARY KEY)";
        others_ << "DELETE FROM txhooks_soci";
    }

    soci::session sql;

protected:
    soci::session others_;
};

class File : public SociSession {
public:
    explicit File(const std::string& path) : SociSession{soci::sqlite3, path} { sql << "PRAGMA foreign_keys = ON"; }

    sqlite3* backend() { return static_cast<soci::sqlite3_session_backend*>(sql.get_backend())->conn_; }

    void make_busy(bool busy) {
        if (busy) {
            others_ << "BEGIN";
            look("SELECT count(*) FROM sqlite_master");  // its lock keeps others from writing the file
        } else {
            others_ << "ROLLBACK";
        }
    }
    void refuse_commit(bool refuse) {
        sqlite3_commit_hook(backend(), refuse ? +[](void*) { return 1; } : nullptr, nullptr);
    }
};

class Postgres : public SociSession {
public:
    Postgres() : SociSession{soci::postgresql, support::postgres_server()} {
        for (soci::session* session : {&sql, &others_})
            PQsetNoticeProcessor(handle(*session), [](void*, const char*) {}, nullptr);
    }

    PGconn* backend() { return handle(sql); }
    void lose_reply() { ::shutdown(PQsocket(backend()), SHUT_RD); }
    // Perhaps while a hook looks.
    void kill() { killer_ << "SELECT FROM pg_terminate_backend(" << id_ << ", 1000)"; }

private:
    static PGconn* handle(soci::session& session) {
        return static_cast<soci::postgresql_session_backend*>(session.get_backend())->conn_;
    }

    soci::session killer_{soci::postgresql, support::postgres_server()};
    int id_ = PQbackendPID(backend());
};

// A block that inserts 1 and registers a hook for that, does `what`, and inserts 2. Its exception, and the gold check.
template <class Session, class Db, class What>
std::string insert_around(Session& session, Db& db, const What& what) {
    session.empty_table();
    db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
    int ran = 0;
    std::exception_ptr error;
    try {
        db.atomic([&] {
            session.sql << "INSERT INTO txhooks_soci VALUES (1)";
            db.on_commit([&] { ++ran; });
            what();
            session.sql << "INSERT INTO txhooks_soci VALUES (2)";
        });
    } catch (...) {
        error = std::current_exception();
    }
    CHECK(ran == session.look("SELECT count(*) FROM txhooks_soci WHERE id = 1"));
    return support::name_of(error);
}

// What SOCI asks when the server does not answer.
struct Failover : soci::failover_callback {
    void failed(bool& again, std::string& where) override {
        again = true;
        where = support::postgres_server();
    }
};

}  // namespace

TEST_CASE("soci: a session of SQLite keeps the promise, by its handle", "[soci]") {
    const support::DatabaseFile file;
    CHECK(adapter_check("SOCI, sqlite3", [&] { return File{file.path()}; },
                        {"reply to COMMIT lost", "killed before COMMIT", "killed during COMMIT"})
              .passed());
}

TEST_CASE("soci: a session of PostgreSQL keeps the promise, by its handle", "[soci]") {
    CHECK(adapter_check("SOCI, postgresql", [] { return Postgres{}; }, {"busy COMMIT", "refused COMMIT"}).passed());
}

TEST_CASE("soci: a session of PostgreSQL that reconnects loses the block, and needs a new connection", "[S50]") {
    Postgres session;
    txhooks::HookedConnection db{session.backend()};
    CHECK(insert_around(session, db, [&] { session.sql.reconnect(); }) == "TransactionLost unknown");
    CHECK(session.look("SELECT count(*) FROM txhooks_soci WHERE id = 2") == 1);  // in no transaction
    CHECK_FALSE(db.usable());
    CHECK_THROWS_AS(db.on_commit([] {}), txhooks::ConnectionBroken);

    txhooks::HookedConnection anew{session.backend()};
    CHECK(insert_around(session, anew, [] {}) == "none");
}

TEST_CASE("soci: a session of PostgreSQL that reconnects between blocks needs a new connection", "[S9]") {
    Postgres session;
    txhooks::HookedConnection db{session.backend()};
    CHECK(insert_around(session, db, [] {}) == "none");
    session.sql.reconnect();
    CHECK_THROWS_AS(db.on_commit([] {}), txhooks::ConnectionBroken);
    CHECK_THROWS_AS(db.atomic([] {}), txhooks::ConnectionBroken);
}

TEST_CASE("soci: a failover of PostgreSQL loses the block", "[S50]") {
    Postgres session;
    Failover failover;
    session.sql.set_failover_callback(failover);
    txhooks::HookedConnection db{session.backend()};
    CHECK(insert_around(session, db, [&] {
              session.kill();
              CHECK_THROWS_AS(session.sql << "SELECT 1", soci::soci_error);
          }) == "TransactionLost rolled_back");
    CHECK(session.look("SELECT count(*) FROM txhooks_soci WHERE id = 2") == 1);  // in no transaction
    CHECK_FALSE(db.usable());
}

TEST_CASE("soci: when a session of SQLite reconnects the block goes on without it", "[S50]") {
    const support::DatabaseFile file;
    File session{file.path()};
    sqlite3* const first = session.backend();
    {
        txhooks::HookedConnection db{first};
        const std::string error = insert_around(session, db, [&] { session.sql.reconnect(); });
        CHECK(error.find("database is locked") != std::string::npos);  // by the block
        CHECK(session.look("SELECT count(*) FROM txhooks_soci") == 0);
    }
    CHECK(session.backend() != first);
    CHECK(sqlite3_close(first) == SQLITE_OK);  // SOCI has tried to, and looked away
}

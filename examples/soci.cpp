// SPDX-License-Identifier: MIT
//
// Signing up with SOCI, on SQLite and on PostgreSQL: a library over a driver that txhooks knows is hooked by the handle
// of its session, and keeps all that is promised for the driver. The argument is a connection string of libpq; without
// one PGHOST, PGUSER and so on are taken.
//
//     soci "host=/var/run/postgresql dbname=test"
//
// Two things to know of SOCI:
//
// - soci-sqlite3.h includes <sqlite3.h> inside its namespace `sqlite_api`, so that whoever includes that first, SOCI or
//   anybody else (txhooks), leaves nothing for the other. Include <sqlite3.h>, or txhooks, first, and lend SOCI the four
//   names it uses, as below: then `sqlite3` is the same type in all of the program. Where SOCI comes first,
//   `using namespace sqlite_api;` behind it works as well, in a program that does so in all its files.
// - `session::reconnect()`, or a failover callback, gives the session another handle. Destroy the HookedConnection
//   before, and make one of the new handle. A `PGconn*` tells that it was closed: a block is lost then, and the connection
//   broken. A `sqlite3*` does not; SOCI leaves it open (SQLite answers BUSY) if a block was ever opened on it, so that
//   the block goes on without what the session writes from there on, and frees it otherwise.

#include <txhooks/backends/libpq.hpp>
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/txhooks.hpp>

#include <libpq-fe.h>
#include <sqlite3.h>

namespace sqlite_api {
using ::sqlite3;
using ::sqlite3_destructor_type;
using ::sqlite3_int64;
using ::sqlite3_stmt;
}  // namespace sqlite_api

#include <soci/postgresql/soci-postgresql.h>
#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// What is hooked. SOCI keeps it: the session must live longer than the HookedConnection.
sqlite3* sqlite_handle(soci::session& sql) {
    return static_cast<soci::sqlite3_session_backend*>(sql.get_backend())->conn_;
}
PGconn* postgres_handle(soci::session& sql) {
    return static_cast<soci::postgresql_session_backend*>(sql.get_backend())->conn_;
}

class SignUp {
public:
    // The same code for both engines: a Connection is a HookedConnection without its type.
    SignUp(soci::session& sql, soci::session& others, txhooks::Connection& db) : sql_{sql}, others_{others}, db_{db} {
        others_ << "DROP TABLE IF EXISTS txhooks_example";
        others_ << "CREATE TABLE txhooks_example (name VARCHAR(20) PRIMARY KEY)";
    }

    void operator()(const std::string& name) {
        std::printf("%s signs up\n", name.c_str());
        try {
            db_.atomic([&] {
                sql_ << "INSERT INTO txhooks_example VALUES (:name)", soci::use(name);
                db_.on_commit([this, name] { send_mail("welcome", name); });
                subscribe_to_newsletter(name);
                if (name == "Bob") throw std::runtime_error{"card declined"};
                if (name == "Dora") sql_ << "ROLLBACK";  // somebody's, behind the block's back
                say("end of the block: COMMIT", name);
            });
        } catch (const txhooks::TransactionLost&) {
            say("the transaction was lost, no e-mail", name);
        } catch (const std::exception& e) {
            say(std::string{"ROLLBACK, no e-mail: "} + e.what(), name);
        }
    }

    void drop() { others_ << "DROP TABLE txhooks_example"; }

    std::vector<std::string> outbox;

private:
    void subscribe_to_newsletter(const std::string& name) {
        try {
            db_.atomic([&] {  // a savepoint: if it fails, its hooks go with it, and only they
                db_.on_commit([this, name] { send_mail("newsletter", name); });
                if (name == "Cleo") sql_ << "INSERT INTO txhooks_example VALUES ('Cleo')";
            });
        } catch (const soci::soci_error& e) {
            std::printf("    savepoint rolled back: %s\n", e.get_error_message().c_str());
        }
    }

    // The hook: a job for a queue in real life.
    void send_mail(const std::string& kind, const std::string& name) {
        outbox.push_back(kind + " to " + name + (seen(name) ? "" : ", who is not there"));
        say("e-mail sent: " + kind, name);
    }

    void say(const std::string& what, const std::string& name) {
        std::printf("    %-45s others see %s: %s\n", what.c_str(), name.c_str(), seen(name) ? "yes" : "no");
    }

    bool seen(const std::string& name) {
        int rows = 0;
        others_ << "SELECT count(*) FROM txhooks_example WHERE name = :name", soci::into(rows), soci::use(name);
        return rows == 1;
    }

    soci::session& sql_;
    soci::session& others_;
    txhooks::Connection& db_;
};

bool tell(const char* engine, soci::session& sql, soci::session& others, txhooks::Connection& db) {
    std::printf("==== %s\n", engine);
    SignUp sign_up{sql, others, db};
    for (const char* name : {"Ann", "Bob", "Cleo", "Dora"}) sign_up(name);
    sign_up.drop();

    std::printf("outbox:");
    for (const std::string& mail : sign_up.outbox) std::printf(" [%s]", mail.c_str());
    std::printf("\n\n");
    return sign_up.outbox == std::vector<std::string>{"welcome to Ann", "newsletter to Ann", "welcome to Cleo"};
}

bool on_sqlite(const std::string& file) {
    soci::session sql{soci::sqlite3, file}, others{soci::sqlite3, file};
    txhooks::HookedConnection db{sqlite_handle(sql)};
    return tell("SQLite", sql, others, db);
}

bool on_postgres(const std::string& server) {
    soci::session sql{soci::postgresql, server}, others{soci::postgresql, server};
    PQsetNoticeProcessor(postgres_handle(others), [](void*, const char*) {}, nullptr);
    txhooks::HookedConnection db{postgres_handle(sql)};
    return tell("PostgreSQL", sql, others, db);
}

}  // namespace

int main(int argc, char* argv[]) {
    try {
        std::string folder = (std::filesystem::temp_directory_path() / "txhooks.XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        const bool right = on_sqlite(folder + "/main.db") and on_postgres(argc > 1 ? argv[1] : "");
        std::filesystem::remove_all(folder);
        if (right) return EXIT_SUCCESS;
        std::printf("WRONG: that is not what was committed\n");
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
    }
    return EXIT_FAILURE;
}

// SPDX-License-Identifier: MIT
//
// Signing up on PostgreSQL: the welcome e-mail goes out if and only if the user is really there. The argument is a
// connection string of libpq; without one PGHOST, PGUSER and so on are taken.
//
//     postgres "host=/var/run/postgresql dbname=test"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/txhooks.hpp>

#include <libpq-fe.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Finish {
    void operator()(PGconn* conn) const noexcept { PQfinish(conn); }
    void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using Handle = std::unique_ptr<PGconn, Finish>;
using Result = std::unique_ptr<PGresult, Finish>;

Handle open(const char* server) {
    Handle handle{PQconnectdb(server)};
    if (PQstatus(handle.get()) != CONNECTION_OK) throw std::runtime_error{PQerrorMessage(handle.get())};
    PQsetNoticeProcessor(handle.get(), [](void*, const char*) {}, nullptr);
    return handle;
}

Result query(PGconn* conn, const char* sql, const char* parameter = nullptr) {
    Result result{PQexecParams(conn, sql, parameter != nullptr ? 1 : 0, nullptr, &parameter, nullptr, nullptr, 0)};
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK and status != PGRES_TUPLES_OK)
        throw std::runtime_error{PQresultErrorField(result.get(), PG_DIAG_MESSAGE_PRIMARY)};
    return result;
}

class SignUp {
public:
    explicit SignUp(const char* server) : handle_{open(server)}, others_{open(server)} {
        query(others_.get(), "DROP TABLE IF EXISTS txhooks_example");
        query(others_.get(), "CREATE TABLE txhooks_example (name text PRIMARY KEY)");
    }
    ~SignUp() { PQclear(PQexec(others_.get(), "DROP TABLE txhooks_example")); }

    void operator()(const std::string& name) {
        std::printf("%s signs up\n", name.c_str());
        try {
            // A block of its own isolation level; the server may refuse to commit it (40001), and then no mail goes
            // out.
            db_.atomic({.begin = {.isolation = txhooks::postgres::Isolation::serializable}}, [&](PGconn* conn) {
                insert(conn, name);
                db_.on_commit([this, name] { send_mail("welcome", name); });
                subscribe_to_newsletter(name);
                if (name == "Bob") throw std::runtime_error{"card declined"};
                if (name == "Dora") swallow_an_error(conn, name);
                std::printf("    end of the block: COMMIT\n");
            });
        } catch (const txhooks::TransactionAborted&) {
            say("rolled back instead of committed, no e-mail", name);
        } catch (const std::exception& e) {
            say(std::string{"ROLLBACK, no e-mail: "} + e.what(), name);
        }
    }

    std::vector<std::string> outbox;

private:
    void insert(PGconn* conn, const std::string& name) {
        query(conn, "INSERT INTO txhooks_example VALUES ($1)", name.c_str());
        say("row inserted", name);
    }

    void subscribe_to_newsletter(const std::string& name) {
        try {
            db_.atomic([&] {  // a savepoint: if it fails, its hooks go with it, and only they
                db_.on_commit([this, name] { send_mail("newsletter", name); });
                if (name == "Cleo") throw std::runtime_error{"newsletter is full"};
            });
        } catch (const std::exception& e) {
            std::printf("    savepoint rolled back: %s\n", e.what());
        }
    }

    // From then on PostgreSQL would answer COMMIT with ROLLBACK, and call that a success.
    void swallow_an_error(PGconn* conn, const std::string& name) {
        try {
            query(conn, "INSERT INTO txhooks_example VALUES ($1)", name.c_str());
        } catch (const std::exception& e) {
            std::printf("    swallowed: %s\n", e.what());
        }
    }

    // The hook: a job for a queue in real life.
    void send_mail(const std::string& kind, const std::string& name) {
        outbox.push_back(kind + " to " + name);
        say("e-mail sent: " + kind, name);
    }

    void say(const std::string& what, const std::string& name) {
        const Result seen = query(others_.get(), "SELECT FROM txhooks_example WHERE name = $1", name.c_str());
        std::printf("    %-45s others see %s: %s\n", what.c_str(), name.c_str(),
                    PQntuples(seen.get()) == 1 ? "yes" : "no");
    }

    Handle handle_;
    Handle others_;
    txhooks::HookedConnection<PGconn*> db_{handle_.get()};
};

}  // namespace

int main(int argc, char** argv) {
    try {
        SignUp sign_up{argc > 1 ? argv[1] : ""};
        for (const char* name : {"Ann", "Bob", "Cleo", "Dora"}) sign_up(name);

        const std::vector<std::string> expected{"welcome to Ann", "newsletter to Ann", "welcome to Cleo"};
        std::printf("outbox:");
        for (const std::string& mail : sign_up.outbox) std::printf(" [%s]", mail.c_str());
        std::printf("\n");
        if (sign_up.outbox == expected) return EXIT_SUCCESS;
        std::printf("WRONG: that is not what was committed\n");
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
    }
    return EXIT_FAILURE;
}

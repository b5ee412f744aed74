// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"

#include <sys/socket.h>
#include <pqxx/pqxx>
#include <txhooks/backends/libpq.hpp>
#include <txhooks/backends/libpqxx.hpp>
#include <txhooks/sql_adapter.hpp>
#include <txhooks/testing/adapter_check.hpp>

#include <string>
#include <string_view>

// libpqxx 6.4 leaks the result of a query whose connection broke.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
    return "leak:libpqxx";
}

using txhooks::CommitResult;
using txhooks::ConnectionState;
using txhooks::Outcome;
using txhooks::testing::adapter_check;
using txhooks::testing::AdapterFinding;
using txhooks::testing::AdapterReport;

namespace {

// The server as others see it.
struct Others {
    long look(const std::string& query) const { return std::stol(support::run(others, query)); }

    static void lose_reply(int socket) { ::shutdown(socket, SHUT_RD); }
    static void kill(int pid) {
        support::run(support::PostgresHandle{}, "SELECT pg_terminate_backend(" + std::to_string(pid) + ", 10000)");
    }

    support::PostgresHandle others;
};

template <class A>
struct Libpq : Others {
    using Adapter = A;

    PGconn* backend() { return handle; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        support::execute(handle, sql);
    }
    void kill() { Others::kill(pid); }
    void lose_reply() { Others::lose_reply(PQsocket(handle)); }

    support::PostgresHandle handle;
    int pid = PQbackendPID(handle);
};

struct Libpqxx : Others {
    pqxx::connection& backend() { return db; }
    template <class Db>
    void execute(Db& hooked, const std::string& sql) {
        if (hooked.in_atomic_block())
            hooked.adapter().session().exec(sql);
        else
            pqxx::nontransaction{db}.exec(sql);
    }
    void kill() { Others::kill(pid); }
    void lose_reply() { Others::lose_reply(db.sock()); }
    void reconnect() { db.disconnect(); }

    pqxx::connection db{support::postgres_server()};
    int pid = db.backendpid();
};

// As somebody in a hurry writes it: a COMMIT that was sent is taken for done.
class Naive {
public:
    explicit Naive(PGconn* conn) : conn_{conn} {}
    void begin() { support::execute(conn_, "BEGIN"); }
    CommitResult commit() noexcept {
        support::attempt(conn_, "COMMIT");
        return {Outcome::committed};
    }
    void rollback() { support::execute(conn_, "ROLLBACK"); }

private:
    PGconn* conn_;
};

// What it is told of COMMIT it believes, and takes no answer for a rollback.
class Guesses : public Naive {
public:
    explicit Guesses(PGconn* conn) : Naive{conn}, conn_{conn} {}
    CommitResult commit() noexcept {
        return {support::attempt(conn_, "COMMIT").empty() ? Outcome::committed : Outcome::rolled_back};
    }

private:
    PGconn* conn_;
};

std::string text(const AdapterReport& report, std::string_view row) {
    for (const AdapterFinding& finding : report.rows())
        if (finding.row == row) return finding.text;
    return "no such row";
}

}  // namespace

TEST_CASE("libpq keeps the promise, whatever its witness") {
    CHECK(adapter_check("libpq", [] { return Libpq<support::EventWitness>(); }, {"busy COMMIT", "refused COMMIT"})
              .passed());
    CHECK(adapter_check("libpq, SetLocal", [] { return Libpq<support::SetLocal>(); }, {"busy COMMIT", "refused COMMIT"})
              .passed());
    CHECK(adapter_check("libpq, Sentinel", [] { return Libpq<support::Sentinel>(); }, {"busy COMMIT", "refused COMMIT"})
              .passed());
}

TEST_CASE("libpqxx keeps the promise, but for what it does not tell") {
    CHECK(adapter_check("libpqxx", [] { return Libpqxx(); }, {"busy COMMIT", "refused COMMIT", "raw BEGIN before"})
              .passed());
}

TEST_CASE("an adapter that takes each COMMIT for done fails where its session is killed") {
    const AdapterReport report = adapter_check("naive", [] { return Libpq<Naive>(); }, {}, nullptr);
    CHECK(text(report, "killed before COMMIT") == "A HOOK RAN FOR LOST DATA (returned)");
    CHECK(text(report, "killed during COMMIT").find("A HOOK RAN FOR LOST DATA (") == 0);
    CHECK(text(report, "failed statement") == "A HOOK RAN FOR LOST DATA (returned)");
    CHECK(text(report, "commit") == "returned");
}

TEST_CASE("an adapter that takes a COMMIT without an answer for a rollback fails") {
    const AdapterReport report = adapter_check("guesses", [] { return Libpq<Guesses>(); }, {}, nullptr);
    CHECK(text(report, "reply to COMMIT lost").find("A ROW IS THERE WHOSE HOOK DID NOT RUN, AND NOBODY WAS TOLD (") ==
          0);
}

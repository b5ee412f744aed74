// SPDX-License-Identifier: MIT
//
// An asynchronous driver has no adapter: its COMMIT is answered later, or the wait for the answer ends without one.
// <txhooks/hook_list.hpp> alone is enough then, as long as the program itself makes sure that the answer proves the
// commit. Here sign-ups take turns on one thread, each a coroutine with its own connection of libpq and asio. Two are
// cancelled by a timeout, two are destroyed while they wait: in the middle of the transaction, and for the answer to
// COMMIT. The argument is a connection string; without one PGHOST and so on are taken.

#include <txhooks/hook_list.hpp>

#ifdef __clang__
#define ASIO_HAS_CO_AWAIT 1  // which asio looks for elsewhere
#define ASIO_HAS_STD_COROUTINE 1
#ifndef __cpp_impl_coroutine
#define __cpp_impl_coroutine 201902L  // what <coroutine> of GCC asks for
#endif
#endif
#include <libpq-fe.h>
#include <asio.hpp>
#include <asio/experimental/awaitable_operators.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

using namespace std::chrono_literals;
using namespace asio::experimental::awaitable_operators;

using Connection = std::unique_ptr<PGconn, void (*)(PGconn*)>;
using Result = std::unique_ptr<PGresult, void (*)(PGresult*)>;

Connection connect(const char* server) {
    Connection conn{PQconnectdb(server), &PQfinish};
    if (PQstatus(conn.get()) != CONNECTION_OK) throw std::runtime_error{PQerrorMessage(conn.get())};
    PQsetNoticeProcessor(conn.get(), [](void*, const char*) {}, nullptr);
    return conn;
}

// One connection, on which one statement runs at a time.
class Session {
public:
    Session(asio::io_context& io, const char* server) : conn_{connect(server)}, socket_{io, PQsocket(conn_.get())} {}
    ~Session() { close(); }

    // Returns the command tag of the answer. Who waits for it no longer, cancelled or destroyed, leaves a connection on
    // which an answer is still to come: that is of no use to anybody, and closed.
    asio::awaitable<std::string> run(std::string sql) {
        struct Unanswered {
            Session* session;
            ~Unanswered() {
                if (session != nullptr) session->close();
            }
        } unanswered{this};
        std::string tag, error;
        if (PQsendQuery(conn_.get(), sql.c_str()) == 0) throw std::runtime_error{"cannot send: " + sql};
        while (true) {
            while (PQisBusy(conn_.get()) != 0) {
                co_await socket_.async_wait(socket_.wait_read, asio::use_awaitable);
                if (PQconsumeInput(conn_.get()) == 0) throw std::runtime_error{"no answer: " + sql};
            }
            const Result result{PQgetResult(conn_.get()), &PQclear};
            if (not result) break;
            tag = PQcmdStatus(result.get());
            error = PQresultErrorMessage(result.get());
        }
        unanswered.session = nullptr;
        if (not error.empty()) throw std::runtime_error{error};
        co_return tag;
    }

    bool idle() const { return PQtransactionStatus(conn_.get()) == PQTRANS_IDLE; }

    // The server rolls back what is open, once it has done the statement that it is at. If that is COMMIT, it commits.
    void close() {
        if (conn_) socket_.release();  // libpq closes it
        conn_.reset();
    }

private:
    Connection conn_;
    asio::posix::stream_descriptor socket_;
};

std::set<std::string> outbox;

constexpr const char* committed = "committed, and the hooks ran";
constexpr const char* failed = "COMMIT was answered by ROLLBACK: no hook ran";
constexpr const char* cut_off = "cut off before COMMIT: rolled back, no hook ran";
constexpr const char* in_doubt = "cut off while waiting for COMMIT: in doubt, no hook ran";
std::map<std::string, std::string> endings;

// A transaction, and the hooks that share its fate. What became of it is to be learnt from here only: a timeout that
// was the first to end may still have come too late.
class Transaction {
public:
    Transaction(Session& session, std::string name) : session_{session}, name_{std::move(name)} {}
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    // Nothing can be awaited here, no ROLLBACK either: with its connection the transaction ends too. So do its hooks.
    ~Transaction() {
        if (not session_.idle()) session_.close();
        std::printf("%s: %s\n", name_.c_str(), ending_);
        endings[name_] = ending_;
    }

    txhooks::HookList& hooks() { return hooks_; }

    asio::awaitable<void> commit() {
        if (session_.idle()) throw std::logic_error{"somebody ended the transaction"};  // COMMIT would succeed
        ending_ = in_doubt;
        const std::string tag = co_await session_.run("COMMIT");
        // Until the hooks have run there must be no other co_await: it throws if a timeout came with the answer.
        if (not session_.idle()) co_return;
        if (tag == "ROLLBACK") ending_ = failed;
        if (tag != "COMMIT") co_return;
        ending_ = committed;
        txhooks::HookList::Run{hooks_, start_}();
    }

private:
    Session& session_;
    std::string name_;
    const char* ending_ = cut_off;
    txhooks::HookList hooks_;
    txhooks::HookList::Mark start_ = hooks_.start();
};

asio::awaitable<void> sign_up(asio::io_context& io, const char* server, std::string name) {
    Session session{io, server};
    Transaction tx{session, name};
    co_await session.run("BEGIN");
    co_await session.run("INSERT INTO txhooks_example VALUES ('" + name + "')");
    tx.hooks().push([name] { outbox.insert("welcome to " + name); });

    co_await session.run("SAVEPOINT newsletter");
    const txhooks::HookList::Mark newsletter = tx.hooks().mark();
    tx.hooks().push([name] { outbox.insert("newsletter to " + name); });
    if (name == "Cleo") {
        co_await session.run("ROLLBACK TO newsletter");
        tx.hooks().discard(newsletter);
    } else {
        co_await session.run("RELEASE newsletter");
    }

    // Takes a while, during which others go on. Bob's fails, and nobody looks at that.
    const bool hangs = name == "Dora" or name == "Fay";
    try {
        co_await session.run(name == "Bob" ? "SELECT 1 / 0" : hangs ? "SELECT pg_sleep(3)" : "SELECT pg_sleep(0.01)");
    } catch (const std::runtime_error&) {
        if (name != "Bob") throw;
    }
    co_await tx.commit();
}

asio::awaitable<void> in_a_second(asio::awaitable<void> work) {
    asio::steady_timer limit{co_await asio::this_coro::executor, 1s};
    co_await (std::move(work) || limit.async_wait(asio::use_awaitable));
}

// The COMMIT of Emil and Gus takes three seconds.
constexpr const char* make_table = R"(
    DROP TABLE IF EXISTS txhooks_example;
    CREATE TABLE txhooks_example (name text);
    CREATE OR REPLACE FUNCTION txhooks_example() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(3); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON txhooks_example DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.name IN ('Emil', 'Gus')) EXECUTE FUNCTION txhooks_example())";

// Who has signed up, once no transaction is at work any more.
std::string users(const char* server) {
    const Connection conn = connect(server);
    PQclear(PQexec(conn.get(), "BEGIN; LOCK TABLE txhooks_example"));
    const Result result{PQexec(conn.get(), "SELECT string_agg(name, ' ' ORDER BY name) FROM txhooks_example"),
                        &PQclear};
    PQclear(PQexec(conn.get(), "DROP TABLE txhooks_example; DROP FUNCTION txhooks_example; COMMIT"));
    return PQgetvalue(result.get(), 0, 0);
}

}  // namespace

int main(int argc, char** argv) {
    const char* const server = argc > 1 ? argv[1] : "";
    std::string there;
    try {
        PQclear(PQexec(connect(server).get(), make_table));
        {
            asio::io_context io;
            const auto pass_on = [](const std::exception_ptr& error) {
                if (error) std::rethrow_exception(error);
            };
            for (const char* name : {"Ann", "Bob", "Cleo"}) asio::co_spawn(io, sign_up(io, server, name), pass_on);
            for (const char* name : {"Dora", "Emil"})
                asio::co_spawn(io, in_a_second(sign_up(io, server, name)), pass_on);
            for (const char* name : {"Fay", "Gus"}) asio::co_spawn(io, sign_up(io, server, name), pass_on);
            io.run_for(1500ms);
            std::printf("the program ends\n");
        }
        there = users(server);
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
        return EXIT_FAILURE;
    }

    std::printf("users: %s\noutbox:", there.c_str());
    for (const std::string& mail : outbox) std::printf(" [%s]", mail.c_str());
    std::printf("\n");
    if (there == "Ann Cleo Emil Gus" and  // the COMMIT of the last two was under way, and nothing stopped it
        outbox == std::set<std::string>{"newsletter to Ann", "welcome to Ann", "welcome to Cleo"} and
        endings == std::map<std::string, std::string>{{"Ann", committed},
                                                      {"Bob", failed},
                                                      {"Cleo", committed},
                                                      {"Dora", cut_off},
                                                      {"Emil", in_doubt},
                                                      {"Fay", cut_off},
                                                      {"Gus", in_doubt}})
        return EXIT_SUCCESS;
    std::printf("WRONG: that is not what was committed\n");
    return EXIT_FAILURE;
}

// SPDX-License-Identifier: MIT
//
// An asynchronous driver has no adapter: its COMMIT is answered later. <txhooks/hook_list.hpp> alone is enough then, as
// long as the program itself makes sure that the answer proves the commit. Here sign-ups take turns on one thread, each
// with its own connection of libpq and asio. The argument is a connection string; without one PGHOST and so on are
// taken.

#include <txhooks/hook_list.hpp>

#include <libpq-fe.h>
#include <asio.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

// One connection, on which one statement runs at a time.
class Session {
public:
    using Then = std::function<void(const std::string& tag)>;  // the command tag of the answer, "" for an error

    Session(asio::io_context& io, const char* server) : conn_{PQconnectdb(server), &PQfinish}, socket_{io} {
        if (PQstatus(conn_.get()) != CONNECTION_OK) throw std::runtime_error{PQerrorMessage(conn_.get())};
        PQsetNoticeProcessor(conn_.get(), [](void*, const char*) {}, nullptr);
        socket_.assign(PQsocket(conn_.get()));
    }
    ~Session() { socket_.release(); }  // libpq closes it

    void run(const std::string& sql, Then then) {
        tag_.clear();
        PQsendQuery(conn_.get(), sql.c_str());
        await(std::move(then));
    }

    bool idle() const { return PQtransactionStatus(conn_.get()) == PQTRANS_IDLE; }

private:
    void await(Then then) {
        socket_.async_wait(socket_.wait_read, [this, then = std::move(then)](std::error_code error) {
            if (error or PQconsumeInput(conn_.get()) == 0) return then("");
            while (PQisBusy(conn_.get()) == 0) {
                const std::unique_ptr<PGresult, void (*)(PGresult*)> result{PQgetResult(conn_.get()), &PQclear};
                if (not result) return then(tag_);
                tag_ = PQcmdStatus(result.get());
            }
            await(then);
        });
    }

    std::unique_ptr<PGconn, void (*)(PGconn*)> conn_;
    asio::posix::stream_descriptor socket_;
    std::string tag_;
};

std::set<std::string> outbox;

// A transaction, its savepoints, and the hooks that share their fate.
class SignUp : public std::enable_shared_from_this<SignUp> {
public:
    SignUp(asio::io_context& io, const char* server, std::string name) : session_{io, server}, name_{std::move(name)} {}

    void start() {
        next("BEGIN", [this] { insert_user(); });
    }

private:
    void insert_user() {
        next("INSERT INTO txhooks_example VALUES ('" + name_ + "')", [this] {
            hooks_.push([this] { outbox.insert("welcome to " + name_); });
            next("SAVEPOINT newsletter", [this] { subscribe(); });
        });
    }

    void subscribe() {
        const txhooks::HookList::Mark newsletter = hooks_.mark();
        hooks_.push([this] { outbox.insert("newsletter to " + name_); });
        if (name_ != "Cleo") return next("RELEASE newsletter", [this] { charge(); });
        next("ROLLBACK TO newsletter", [this, newsletter] {
            hooks_.discard(newsletter);
            charge();
        });
    }

    // Takes a while, during which the other one goes on. Bob's fails, and nobody looks at that.
    void charge() {
        session_.run(name_ == "Bob" ? "SELECT 1 / 0" : "SELECT pg_sleep(0.01)", [self = shared_from_this()](auto&) {
            self->session_.run("COMMIT", [self](const std::string& tag) { self->ended(tag); });
        });
    }

    // COMMIT succeeds in a failed transaction too: its tag is ROLLBACK then. Without an answer it is in doubt.
    void ended(const std::string& tag) {
        const bool committed = tag == "COMMIT" and session_.idle();
        std::printf("%s: COMMIT answered by %s, %s\n", name_.c_str(), tag.empty() ? "nothing" : tag.c_str(),
                    committed ? "hooks run" : "hooks are discarded");
        if (committed)
            txhooks::HookList::Run{hooks_, start_}();
        else
            hooks_.discard(start_);
    }

    // Runs `sql`; goes on if it did what it says.
    void next(const std::string& sql, std::function<void()> then) {
        session_.run(sql, [self = shared_from_this(), sql, then = std::move(then)](const std::string& tag) {
            std::printf("%s: %s -> %s\n", self->name_.c_str(), sql.c_str(), tag.c_str());
            if (tag.empty()) return self->hooks_.discard(self->start_);  // the connection is dropped with us
            then();
        });
    }

    Session session_;
    std::string name_;
    txhooks::HookList hooks_;
    txhooks::HookList::Mark start_ = hooks_.start();
};

std::string users(const char* server) {
    const std::unique_ptr<PGconn, void (*)(PGconn*)> conn{PQconnectdb(server), &PQfinish};
    const std::unique_ptr<PGresult, void (*)(PGresult*)> result{
        PQexec(conn.get(), "SELECT string_agg(name, ' ' ORDER BY name) FROM txhooks_example"), &PQclear};
    PQclear(PQexec(conn.get(), "DROP TABLE txhooks_example"));
    return PQgetvalue(result.get(), 0, 0);
}

}  // namespace

int main(int argc, char** argv) {
    const char* const server = argc > 1 ? argv[1] : "";
    try {
        asio::io_context io;
        Session first{io, server};
        first.run("DROP TABLE IF EXISTS txhooks_example; CREATE TABLE txhooks_example (name text)", [&](auto&) {
            for (const char* name : {"Ann", "Bob", "Cleo"}) std::make_shared<SignUp>(io, server, name)->start();
        });
        io.run();
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
        return EXIT_FAILURE;
    }

    const std::string there = users(server);
    std::printf("users: %s\noutbox:", there.c_str());
    for (const std::string& mail : outbox) std::printf(" [%s]", mail.c_str());
    std::printf("\n");
    if (there == "Ann Cleo" and
        outbox == std::set<std::string>{"newsletter to Ann", "welcome to Ann", "welcome to Cleo"})
        return EXIT_SUCCESS;
    std::printf("WRONG: that is not what was committed\n");
    return EXIT_FAILURE;
}

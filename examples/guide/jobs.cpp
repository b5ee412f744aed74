// SPDX-License-Identifier: MIT
//
// The page on jobs (jobs.md), in small. The whole programs are ../jobs.cpp, which is killed, and ../worker.cpp.

#include <txhooks/outbox/sqlitecpp.hpp>  // or sqlite3, libpq, libpqxx, mariadb; fake for unit tests

#include "say.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <future>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

using namespace std::chrono_literals;
using Db = txhooks::HookedConnection<SQLite::Database>;

struct Welcome {
    static constexpr const char* job_name = "welcome";  // what its rows are called, for ever
    std::string address;
};
std::string to_payload(const Welcome& job) {
    return job.address;
}
void from_payload(std::string_view stored, Welcome& job) {
    job.address = stored;
}

struct Invoice {
    static constexpr const char* job_name = "invoice";
    int order = 0;
};
std::string to_payload(const Invoice& job) {
    return std::to_string(job.order);
}
void from_payload(std::string_view stored, Invoice& job) {
    job.order = std::stoi(std::string{stored});
}

namespace {

struct Mailer {
    void send(const std::string& address, std::string_view id) const {
        check(id.size() == 36);
        say("mail to ", address);
    }
} mailer;

void jobs() {
    Db db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.exec("CREATE TABLE user (name TEXT)");

    txhooks::JobTypes<Db> types;  // what this program can run
    types.handle<Welcome>([&](const Welcome& w, txhooks::JobRun& run) { mailer.send(w.address, run.id()); });

    txhooks::Outbox<Db> outbox{db, types};  // one for each connection; dies before it
    outbox.create_table();                  // or run what schema() says with your migrations

    db.atomic([&] {
        db.exec("INSERT INTO user (name) VALUES ('Ann')");
        outbox.add(Welcome{"ann@example.org"});  // a row if and only if this commits; runs right after the COMMIT
    });

    outbox.run_due();  // elsewhere, now and then: what dead processes left, retries, what is due by now

    check(said() == "mail to ann@example.org;" and outbox.list().empty());
}

void exactly_once() {
    Db db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.exec("CREATE TABLE invoice (id INTEGER)");
    txhooks::JobTypes<Db> types;
    types.handle<Invoice>(txhooks::in_transaction, [](Db& here, const Invoice& invoice) {
        SQLite::Statement insert{here, "INSERT INTO invoice VALUES (?)"};
        insert.bind(1, invoice.order);
        insert.exec();
    });
    txhooks::Outbox<Db> outbox{db, types};
    outbox.create_table();
    db.atomic([&] { outbox.add(Invoice{7}); });
    check(db.execAndGet("SELECT count(*) FROM invoice").getInt() == 1 and outbox.list().empty());
}

// ---- What an operator does

void dead_letters() {
    Db db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
    bool mended = false;
    txhooks::JobTypes<Db> types;
    types.handle<Welcome>(
        [&](const Welcome& w) {
            if (not mended) throw std::runtime_error{"550 " + w.address + " is blocked"};
            say("mail to ", w.address);
        },
        {.attempts = 1});
    types.on_dead<Welcome>([](Db&, const Welcome& w, std::string_view error) { say(w.address, " is dead: ", error); });
    txhooks::Outbox<Db> outbox{db, types};
    outbox.create_table();
    db.atomic([&] { outbox.add(Welcome{"ann@example.org"}); });
    check(said() == "ann@example.org is dead: 550 ann@example.org is blocked;");

    for (const txhooks::JobStats& stats : outbox.stats())
        say(stats.name, ": ", stats.due, " due, ", stats.running, " running, ", stats.dead, " dead");
    for (const txhooks::JobRow& job : outbox.dead_letters()) say(job.payload, ": ", job.error);

    check(said() == "welcome: 0 due, 0 running, 1 dead;ann@example.org: 550 ann@example.org is blocked;");

    mended = true;
    for (const txhooks::JobRow& job : outbox.dead_letters()) outbox.revive(job.id);
    outbox.run_due();

    check(said() == "mail to ann@example.org;" and outbox.list().empty());
}

// The table is an interface.
void by_hand() {
    Db db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    txhooks::JobTypes<Db> types;
    types.handle<Welcome>([&](const Welcome& w) { say("mail to ", w.address); });
    txhooks::Outbox<Db> outbox{db, types};
    outbox.create_table();

    db.exec(R"(
-- A job from another language: the other columns have defaults. (PostgreSQL: payload is BYTEA; for any text
-- convert_to('...', 'UTF8').) Give an id, a UUIDv7, where the order counts: that of in_order, and of list().
INSERT INTO txhooks_job (name, payload) VALUES ('welcome', 'ann@example.org');
)");
    outbox.run_due();
    check(said() == "mail to ann@example.org;");

    db.atomic([&] { outbox.add(Welcome{"bob@example.org"}, {.delay = 24h}); });
    SQLite::Statement backlog{db, R"(
-- The backlog, by name.
SELECT name, count(*), min(due) FROM txhooks_job WHERE due < 9223372036854775807 GROUP BY name;
)"};
    check(backlog.executeStep() and backlog.getColumn(1).getInt() == 1);
    backlog.reset();

    SQLite::Statement bury{db, R"(
-- Bury: nobody runs it any more, and it stays for whoever looks. (Raising claim stops a run that has begun from settling it.)
UPDATE txhooks_job SET due = 9223372036854775807, claim = claim + 1, holder = NULL, error = 'by hand' WHERE id = ?;
)"};
    bury.bind(1, outbox.list().at(0).id);
    bury.exec();
    check(outbox.dead_letters().size() == 1);
}

// ---- A worker in the same program

void worker_beside(const std::string& file) {
    Db db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000};
    db.exec("PRAGMA journal_mode = WAL");
    std::promise<std::string> done;
    txhooks::JobTypes<Db> types;
    types.handle<Welcome>([&](const Welcome& w) { done.set_value(w.address); }, {.in_worker = true});
    txhooks::Outbox<Db> outbox{db, types};
    outbox.create_table();
    std::atomic<txhooks::Outbox<Db>*> working = nullptr;

    std::thread worker{[&] {
        Db mine{file, SQLite::OPEN_READWRITE, 5000};
        txhooks::Outbox<Db> box{mine, types};
        working = &box;  // somebody calls working->stop() in the end
        box.work();
    }};

    db.atomic([&] { outbox.add(Welcome{"bob@example.org"}); });
    check(done.get_future().get() == "bob@example.org");
    working.load()->stop();
    worker.join();
}

}  // namespace

int main() {
    jobs();
    exactly_once();
    dead_letters();
    by_hand();
    const auto folder = std::filesystem::temp_directory_path() / ("txhooks_guide_jobs_" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    worker_beside((folder / "app.db").string());
    std::filesystem::remove_all(folder);
    return verdict();
}

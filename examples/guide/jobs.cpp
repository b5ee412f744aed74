// SPDX-License-Identifier: MIT
//
// The page on jobs (jobs.md), in small. The whole programs are ../jobs.cpp, which is killed, and ../worker.cpp.

#include <txhooks/outbox/sqlitecpp.hpp>  // or sqlite3, libpq, libpqxx, mariadb; fake for unit tests

#include "say.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <string>
#include <string_view>
#include <thread>

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
    const auto folder = std::filesystem::temp_directory_path() / ("txhooks_guide_jobs_" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    worker_beside((folder / "app.db").string());
    std::filesystem::remove_all(folder);
    return verdict();
}

// SPDX-License-Identifier: MIT
//
// A race, shown and removed. Each order is a row in SQLite and a job in a Redis queue; a worker in another process
// takes the job and looks the row up. Enqueued inside the transaction the job may come before its row is there for
// others, and the worker finds nothing. Enqueued by on_commit it never does.
//
// Without on_commit most transactions are as fast as they can be, so how many jobs find no row is up to the machine.
// The first one takes its time, so that it is never none: after enqueueing it goes on writing the lines of its order
// until the worker has dealt with its job.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include "support/redis.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

using Database = txhooks::HookedConnection<SQLite::Database>;
using support::Redis;
using support::RedisServer;

namespace {

// ---- The worker: takes jobs until it is told to stop

void work(const std::string& file, const std::string& socket) {
    SQLite::Database db{file};
    SQLite::Statement find{db, "SELECT 1 FROM orders WHERE id = ?"};
    Redis redis{socket};
    for (;;) {
        const std::string job = redis({"BLPOP", "jobs", "0"}).value_or("stop");
        if (job == "stop") return;
        find.bind(1, std::stoi(job));
        redis({"INCR", find.executeStep() ? "found" : "missed"});
        find.reset();
    }
}

// A process of its own, which ends with ours.
class Worker {
public:
    Worker(const char* program, const std::string& file, const std::string& socket) : id_{fork()} {
        if (id_ != 0) return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(program, program, "worker", file.c_str(), socket.c_str(), nullptr);
        _exit(127);
    }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    ~Worker() { support::end_process(id_); }

    // Whether it ended well by itself.
    bool wait() {
        int status = -1;
        if (id_ > 0) waitpid(id_, &status, 0);
        id_ = 0;
        return status == 0;
    }

private:
    pid_t id_;
};

// ---- The shop

enum class Enqueue { inside_the_transaction, on_commit };

class Shop {
public:
    Shop(const std::string& file, const std::string& socket, Enqueue when)
        : db_{file, SQLite::OPEN_READWRITE, 20'000}, redis_{socket}, when_{when} {
        db_.exec("PRAGMA synchronous = NORMAL");
    }

    void place_order(int order) {
        db_.atomic([&] {
            insert("INSERT INTO orders VALUES (?)", order);
            if (when_ == Enqueue::on_commit)
                db_.on_commit(&Shop::enqueue, this, order);
            else
                enqueue(order);
            for (int line = 0; line != 5; ++line) insert("INSERT INTO line VALUES (?)", order);
            if (order == 1) take_time(order);
        });
    }

private:
    void insert(const char* sql, int order) {
        SQLite::Statement statement{db_, sql};
        statement.bind(1, order);
        statement.exec();
    }

    void enqueue(int order) { redis_({"RPUSH", "jobs", std::to_string(order)}); }

    // Writes more lines until the job has been dealt with, if there is one yet.
    void take_time(int order) {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds{20};
        while (when_ == Enqueue::inside_the_transaction and not redis_({"GET", "found"}) and
               not redis_({"GET", "missed"})) {
            insert("INSERT INTO line VALUES (?)", order);
            if (std::chrono::steady_clock::now() > give_up) throw std::runtime_error{"the worker does not work"};
        }
    }

    Database db_;
    Redis redis_;
    Enqueue when_;
};

// ---- Ten thousand orders

struct Count {
    int found;
    int missed;
};

Count place_orders(const char* program, RedisServer& server, int orders, Enqueue when) {
    const std::string file = server.folder() + (when == Enqueue::on_commit ? "/on_commit.db" : "/inside.db");
    {
        SQLite::Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
        db.exec(
            "PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY); CREATE TABLE line (of_order)");
    }
    Redis redis{server.socket()};
    redis({"FLUSHALL"});
    Worker worker{program, file, server.socket()};
    Shop shop{file, server.socket(), when};
    for (int order = 1; order <= orders; ++order) shop.place_order(order);
    redis({"RPUSH", "jobs", "stop"});
    if (not worker.wait()) throw std::runtime_error{"the worker failed"};

    SQLite::Database db{file};
    if (db.execAndGet("SELECT count(*) FROM orders").getInt() != orders) throw std::runtime_error{"orders are missing"};
    const auto count = [&](const char* what) { return std::stoi(redis({"GET", what}).value_or("0")); };
    return {count("found"), count("missed")};
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc == 4 and std::string{"worker"} == argv[1]) {
        work(argv[2], argv[3]);
        return EXIT_SUCCESS;
    }
    const int orders = argc > 1 ? std::atoi(argv[1]) : 10'000;
    RedisServer server;
    bool right = true;
    for (const Enqueue when : {Enqueue::inside_the_transaction, Enqueue::on_commit}) {
        const bool hooked = when == Enqueue::on_commit;
        const auto [found, missed] = place_orders("/proc/self/exe", server, orders, when);
        std::printf("%-18s %5d of %d jobs found no row\n", hooked ? "with on_commit:" : "without on_commit:", missed,
                    found + missed);
        right = right and found + missed == orders and (hooked ? missed == 0 : missed > 0);
    }
    if (not right) {
        std::printf("WRONG: without it some must be missed, with it none\n");
        return EXIT_FAILURE;
    }
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return EXIT_FAILURE;
}

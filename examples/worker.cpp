// SPDX-License-Identifier: MIT
//
// A worker program on PostgreSQL, as it would run beside a service: two handlers, an end by SIGTERM that gives back what it
// has not begun, and a line that says how it stands. It is started twice here, beside a producer that knows nothing of the
// handlers; one of the two is stopped in the middle. In the end the totals agree.
//
// The server is that of our tests: the environment says where it is (PGHOST and the like).

#include <txhooks/outbox/libpq.hpp>
#include <txhooks/txhooks.hpp>

#include <libpq-fe.h>

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using Database = txhooks::HookedConnection<PGconn*>;

namespace {

struct Close {
    void operator()(PGconn* db) const noexcept { PQfinish(db); }
    void operator()(PGresult* result) const noexcept { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, Close>;

Connection connect() {
    Connection connection{PQconnectdb("")};
    if (PQstatus(connection.get()) != CONNECTION_OK) throw std::runtime_error{PQerrorMessage(connection.get())};
    return connection;
}

// Does a statement and returns the first value of its answer, or "-".
std::string ask(PGconn* db, const std::string& sql) {
    const std::unique_ptr<PGresult, Close> result{PQexec(db, sql.c_str())};
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK and status != PGRES_TUPLES_OK) throw std::runtime_error{PQerrorMessage(db)};
    return PQntuples(result.get()) != 0 ? PQgetvalue(result.get(), 0, 0) : "-";
}

// ---- What producer and workers share: the jobs

// An invoice is booked in this database: exactly once, because it is booked in the transaction that takes the job away.
struct Book {
    static constexpr const char* job_name = "book";
    int order = 0;
};
// The customer is told: at least once, so that whoever gets it may look at the id.
struct Tell {
    static constexpr const char* job_name = "tell";
    int order = 0;
};
std::string to_payload(const Book& job) {
    return std::to_string(job.order);
}
void from_payload(std::string_view stored, Book& job) {
    job.order = std::stoi(std::string{stored});
}
std::string to_payload(const Tell& job) {
    return std::to_string(job.order);
}
void from_payload(std::string_view stored, Tell& job) {
    job.order = std::stoi(std::string{stored});
}

// ---- The service: adds jobs, and has no handler

void produce(int orders) {
    const Connection connection = connect();
    Database db{connection.get()};
    txhooks::JobTypes<Database> none;
    txhooks::Outbox<Database> outbox{db, none};
    for (int order = 1; order <= orders; ++order) {
        try {
            db.atomic([&] {
                ask(db.backend(), "INSERT INTO orders VALUES (" + std::to_string(order) + ")");
                outbox.add(Book{order});
                outbox.add(Tell{order});
                if (order % 10 == 0) throw std::runtime_error{"the card was refused"};
            });
        } catch (const std::runtime_error&) {
            // No order, and so no jobs.
        }
    }
}

// ---- The worker

txhooks::Outbox<Database>* working = nullptr;

int work(const char* name) {
    const Connection connection = connect();
    Database db{connection.get()};
    txhooks::JobTypes<Database> types;
    int told = 0;
    types.handle<Book>(txhooks::in_transaction,
                       [](Database& here, const Book& job) {
                           ask(here.backend(), "INSERT INTO booked VALUES (" + std::to_string(job.order) + ")");
                       },
                       {.in_worker = true});
    types.handle<Tell>(
        [&](const Tell&) {
            std::this_thread::sleep_for(1ms);  // mail takes its time
            ++told;
        },
        {.in_worker = true, .lease = 10s});
    txhooks::Outbox<Database> outbox{db, types};

    working = &outbox;
    std::signal(SIGTERM, [](int) { working->stop(); });
    outbox.work(50ms);
    std::signal(SIGTERM, SIG_IGN);

    ask(db.backend(), "UPDATE told SET n = n + " + std::to_string(told));
    std::printf("  worker %s stops; it has told %d customers. Left:", name, told);
    for (const txhooks::JobStats& stats : outbox.stats())
        std::printf(" %s: %zu due, %zu running;", stats.name.c_str(), stats.due, stats.running);
    std::puts("");
    std::fflush(stdout);
    return EXIT_SUCCESS;
}

template <class Act>
pid_t start(const Act& act) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child != 0) return child;
    int status = EXIT_FAILURE;
    try {
        status = act();
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
    }
    std::fflush(stdout);
    _exit(status);
}

bool ended_well(pid_t child) {
    int status = 0;
    return waitpid(child, &status, 0) == child and WIFEXITED(status) and WEXITSTATUS(status) == EXIT_SUCCESS;
}

}  // namespace

int main() {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    constexpr int orders = 1000;
    bool well = true;
    const pid_t first = start([] {
        const Connection connection = connect();
        ask(connection.get(), "CREATE TABLE orders (id INT); CREATE TABLE booked (id INT); CREATE TABLE told (n INT)");
        ask(connection.get(), "INSERT INTO told VALUES (0)");
        Database db{connection.get()};
        txhooks::JobTypes<Database> none;
        txhooks::Outbox<Database>{db, none}.create_table();
        return EXIT_SUCCESS;
    });
    well = ended_well(first) and well;

    std::printf("a producer, and two workers, of which one is stopped after a moment\n");
    const pid_t a = start([] { return work("A"); });
    const pid_t b = start([] { return work("B"); });
    const pid_t producer = start([] {
        produce(orders);
        return EXIT_SUCCESS;
    });
    std::this_thread::sleep_for(200ms);
    kill(a, SIGTERM);
    well = ended_well(a) and well;
    well = ended_well(producer) and well;

    // An operator looks on.
    const Connection connection = connect();
    Database db{connection.get()};
    txhooks::JobTypes<Database> none;
    txhooks::Outbox<Database> outbox{db, none};
    for (int line = 0; line != 600; ++line) {
        std::size_t left = 0;
        for (const txhooks::JobStats& stats : outbox.stats()) {
            left += stats.due + stats.later + stats.running;
            if (line % 10 == 0)
                std::printf("  %s: %zu due, %zu running, the oldest since %lld ms\n", stats.name.c_str(), stats.due,
                            stats.running, static_cast<long long>(stats.oldest.count() / 1000));
        }
        if (left == 0) break;
        std::this_thread::sleep_for(50ms);
    }
    kill(b, SIGTERM);
    well = ended_well(b) and well;

    const std::string committed = ask(connection.get(), "SELECT count(*) FROM orders");
    const std::string booked = ask(connection.get(), "SELECT count(*) || ' of ' || count(DISTINCT id) FROM booked");
    const std::string told = ask(connection.get(), "SELECT n FROM told");
    std::printf("orders: %s; booked: %s; told: %s\n", committed.c_str(), booked.c_str(), told.c_str());
    well = well and committed == "900" and booked == "900 of 900" and told == "900" and outbox.list().empty();
    std::printf("%s\n", well ? "the totals agree" : "WRONG");
    return well ? EXIT_SUCCESS : EXIT_FAILURE;
}

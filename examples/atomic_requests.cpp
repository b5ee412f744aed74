// SPDX-License-Identifier: MIT
//
// A block around each request of an HTTP service: a response that says success commits and then sends the jobs, an
// error or an exception rolls back and sends none. A route can opt out.
//
// Clients then ask for ten thousand orders at the same time, a third of which fail, and each order once more from the
// same service written by hand. In the end there must be a job for each row and a row for each job.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/http_status.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>
#include <httplib.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using httplib::Request;
using httplib::Response;

namespace {

constexpr std::size_t workers = 4;
std::string file;  // of the database

// ---- The queue of jobs, and who takes them: a job whose row others do not see yet comes too early

class Queue {
public:
    explicit Queue(const char* rows) : rows_{rows}, taker_{[this] { take(); }} {}
    ~Queue() { close(); }

    void add(int order) {
        const std::scoped_lock lock{mutex_};
        waiting_.push_back(order);
        changed_.notify_one();
    }
    void close() {
        if (not taker_.joinable()) return;
        add(end);
        taker_.join();
    }

    // After close().
    const std::vector<int>& taken() const { return taken_; }
    int too_early() const { return too_early_; }

private:
    static constexpr int end = -1;

    void take() {
        SQLite::Database db{file};
        SQLite::Statement find{db, std::string{"SELECT 1 FROM "} + rows_ + " WHERE id = ?"};
        for (;;) {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [&] { return not waiting_.empty(); });
            const int order = waiting_.front();
            waiting_.pop_front();
            lock.unlock();
            if (order == end) return;
            taken_.push_back(order);
            find.bind(1, order);
            if (not find.executeStep()) ++too_early_;
            find.reset();
        }
    }

    const char* rows_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<int> waiting_;
    std::vector<int> taken_;
    int too_early_ = 0;
    std::thread taker_;
};

// ---- The service

// What the handlers are written against: rows and jobs of one kind.
struct Table {
    const char* rows;
    Queue& jobs;
};

int number_of(const Request& request) {
    return std::stoi(request.get_param_value("order"));
}

template <class Db>
void insert(Db& db, const Table& table, int order, bool unknown_customer = false) {
    SQLite::Statement insert{db, std::string{"INSERT INTO "} + table.rows + " VALUES (?, ?)"};
    insert.bind(1, order);
    insert.bind(2, unknown_customer ? 0 : 1);
    insert.exec();
}

enum class Ending { success, out_of_stock, bank_is_down, bug, unknown_customer };

// Every third order fails, each time in another way.
Ending ending_of(int order) {
    return order % 3 != 0 ? Ending::success : static_cast<Ending>(1 + order / 3 % 4);
}

int status_of(Ending ending) {
    switch (ending) {
        case Ending::success:
            return 201;
        case Ending::out_of_stock:
            return 409;
        case Ending::bank_is_down:
            return 503;
        default:
            return 500;
    }
}

template <class Db>
void place_order(Db& db, const Table& table, const Request& request, Response& response) {
    const int order = number_of(request);
    const Ending ending = ending_of(order);
    insert(db, table, order, ending == Ending::unknown_customer);  // the foreign key is checked by COMMIT
    db.on_commit(&Queue::add, &table.jobs, order);
    if (ending == Ending::bug) throw std::logic_error{"a bug"};
    response.status = ending == Ending::unknown_customer ? 201 : status_of(ending);
}

template <class Db>
void write_to_log(Db& db, const Table& table, const Request& request, Response& response) {
    insert(db, table, number_of(request));
    db.on_commit(&Queue::add, &table.jobs, number_of(request));
    response.status = 500;
}

// ---- The wrapper

using Database = txhooks::HookedConnection<SQLite::Database>;

template <class Db>
struct WorkerConnection : Db {
    WorkerConnection() : Db{file, SQLite::OPEN_READWRITE, 20'000} {
        this->exec("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
    }
};

// Each worker has its own.
Database& connection() {
    thread_local WorkerConnection<Database> db;
    return db;
}

using Handler = void (*)(Database&, const Table&, const Request&, Response&);

httplib::Server::Handler atomic_request(Handler handle, Table table) {
    return [=](const Request& request, Response& response) {
        Database& db = connection();
        db.atomic({.begin = txhooks::sqlite::Begin::immediate}, [&] {
            handle(db, table, request, response);
            return txhooks::HttpStatus{response.status};
        });
    };
}

httplib::Server::Handler non_atomic_request(Handler handle, Table table) {
    return [=](const Request& request, Response& response) { handle(connection(), table, request, response); };
}

// ---- The same by hand, to compare with

struct ByHand : SQLite::Database {
    using SQLite::Database::Database;
    std::vector<std::function<void()>> after_commit;

    template <class F, class... Args>
    void on_commit(F f, Args... args) {
        after_commit.push_back([=] { std::invoke(f, args...); });
    }
};

httplib::Server::Handler request_by_hand(Table table) {
    return [=](const Request& request, Response& response) {
        thread_local WorkerConnection<ByHand> db;
        db.after_commit.clear();
        db.exec("BEGIN IMMEDIATE");
        try {
            place_order(db, table, request, response);
            db.exec(response.status < 400 ? "COMMIT" : "ROLLBACK");
        } catch (...) {
            db.exec("ROLLBACK");
            throw;
        }
        if (response.status < 400)
            for (const auto& hook : db.after_commit) hook();
    };
}

// ---- The clients

struct Answers {
    std::map<int, int> statuses;  // how often each
    int wrong = 0;
    std::vector<double> microseconds;

    void ask(httplib::Client& client, const std::string& path, int order, int expected) {
        const auto start = std::chrono::steady_clock::now();
        const httplib::Result answer = client.Post(path, httplib::Params{{"order", std::to_string(order)}});
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
        microseconds.push_back(took.count());
        const int status = answer ? answer->status : 0;
        ++statuses[status];
        if (status != expected) ++wrong;
    }

    void add(const Answers& other) {
        for (const auto& [status, count] : other.statuses) statuses[status] += count;
        wrong += other.wrong;
        microseconds.insert(microseconds.end(), other.microseconds.begin(), other.microseconds.end());
    }

    double percentile(std::size_t percent) {
        std::sort(microseconds.begin(), microseconds.end());
        return microseconds[(microseconds.size() - 1) * percent / 100];
    }
};

struct AllAnswers {
    Answers hooked, by_hand, opted_out;
};

AllAnswers ask_for(int orders, int port) {
    std::vector<AllAnswers> answers(workers);
    std::vector<std::thread> clients;
    for (std::size_t i = 0; i != workers; ++i)
        clients.emplace_back([&answers, i, orders, port] {
            AllAnswers& mine = answers[i];
            httplib::Client client{"127.0.0.1", port};
            client.set_keep_alive(true);
            client.set_tcp_nodelay(true);
            client.set_read_timeout(60);
            for (int order = 1 + static_cast<int>(i); order <= orders; order += static_cast<int>(workers)) {
                const int expected = status_of(ending_of(order));
                const auto ask_hooked = [&] { mine.hooked.ask(client, "/order", order, expected); };
                if (order % 2 == 0) ask_hooked();
                mine.by_hand.ask(client, "/by_hand/order", order, expected);
                if (order % 2 != 0) ask_hooked();
                if (order % 100 == 0) mine.opted_out.ask(client, "/log", order, 500);
            }
        });
    AllAnswers all;
    for (std::size_t i = 0; i != workers; ++i) {
        clients[i].join();
        all.hooked.add(answers[i].hooked);
        all.by_hand.add(answers[i].by_hand);
        all.opted_out.add(answers[i].opted_out);
    }
    return all;
}

// ---- The count

// Whether there is a job for each of the `expected` rows, one, not too early, and none besides.
bool agree(const char* what, Answers& answers, const Table& table, std::size_t expected) {
    table.jobs.close();
    SQLite::Database db{file};
    std::set<int> rows;
    for (SQLite::Statement all{db, std::string{"SELECT id FROM "} + table.rows}; all.executeStep();)
        rows.insert(all.getColumn(0).getInt());
    const std::vector<int>& taken = table.jobs.taken();
    const std::set<int> jobs{taken.begin(), taken.end()};
    std::vector<int> different;
    std::set_symmetric_difference(rows.begin(), rows.end(), jobs.begin(), jobs.end(), std::back_inserter(different));

    std::printf("%s: %zu requests,", what, answers.microseconds.size());
    for (const auto& [status, count] : answers.statuses) std::printf(" %d answered %d,", count, status);
    std::printf(" %d wrong answers\n", answers.wrong);
    std::printf("    %zu rows, %zu jobs, %zu rows without a job or jobs without a row, %d jobs before their row\n",
                rows.size(), taken.size(), different.size(), table.jobs.too_early());
    return answers.wrong == 0 and rows.size() == expected and taken.size() == expected and different.empty() and
           table.jobs.too_early() == 0;
}

}  // namespace

int main(int argc, char** argv) {
    const int orders = argc > 1 ? std::atoi(argv[1]) : 10'000;
    std::string folder = (std::filesystem::temp_directory_path() / "txhooks.XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) return EXIT_FAILURE;
    file = folder + "/orders.db";
    {
        SQLite::Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
        db.exec(
            "PRAGMA journal_mode = WAL; CREATE TABLE customer (id INTEGER PRIMARY KEY); INSERT INTO customer VALUES "
            "(1)");
        for (const std::string name : {"orders", "orders_by_hand", "log"})
            db.exec("CREATE TABLE " + name +
                    " (id INTEGER PRIMARY KEY, customer REFERENCES customer DEFERRABLE INITIALLY DEFERRED)");
    }
    bool right = false;
    {
        Queue jobs{"orders"}, jobs_by_hand{"orders_by_hand"}, alarms{"log"};
        const Table hooked{"orders", jobs}, by_hand{"orders_by_hand", jobs_by_hand}, opted_out{"log", alarms};

        httplib::Server server;
        server.new_task_queue = [] { return new httplib::ThreadPool{workers}; };
        server.set_tcp_nodelay(true);
        server.set_keep_alive_max_count(1'000'000);
        server.set_exception_handler([](const Request&, Response& response, std::exception_ptr) {
            response = {};  // what the handler wrote before is void, if COMMIT failed
            response.status = 500;
        });
        server.Post("/order", atomic_request(place_order<Database>, hooked));
        server.Post("/log", non_atomic_request(write_to_log<Database>, opted_out));
        server.Post("/by_hand/order", request_by_hand(by_hand));
        const int port = server.bind_to_any_port("127.0.0.1");
        if (port <= 0) throw std::runtime_error{"no free port"};
        std::thread listening{[&] { server.listen_after_bind(); }};
        while (not server.is_running()) std::this_thread::yield();

        AllAnswers answers = ask_for(orders, port);
        server.stop();
        listening.join();

        const auto asked = static_cast<std::size_t>(orders);
        right = agree("with txhooks", answers.hooked, hooked, asked - asked / 3);
        right = agree("by hand", answers.by_hand, by_hand, asked - asked / 3) and right;
        right = agree("opted out", answers.opted_out, opted_out, asked / 100) and right;
        std::printf("latency in us   median   90 %%   99 %%\n");
        for (auto [what, each] : {std::pair{"with txhooks", &answers.hooked}, std::pair{"by hand", &answers.by_hand}})
            std::printf("%-14s %7.0f %6.0f %6.0f\n", what, each->percentile(50), each->percentile(90),
                        each->percentile(99));
    }
    std::filesystem::remove_all(folder);
    if (not right) {
        std::printf("WRONG: rows and jobs must agree\n");
        return EXIT_FAILURE;
    }
}

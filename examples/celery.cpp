// SPDX-License-Identifier: MIT
//
// A service in C++ and a worker of Celery, which is Python. A sign-up writes a user and sends a task; the worker looks the
// user up in the same database, and answers with a mail, or with nothing if there is no such user. Sent inside the
// transaction, the task comes before its row is there for others, and also for a sign-up that is then rolled back. Sent
// by on_commit (what Celery calls delay_on_commit) it finds its user each time, and for the others there is no task.
//
// How many tasks come too early is up to the machine. The first one always does: its transaction goes on until its task
// has been answered.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>
#include <nlohmann/json.hpp>

#include "support/process.hpp"
#include "support/redis.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>

using namespace std::chrono_literals;
using Database = txhooks::HookedConnection<SQLite::Database>;
using nlohmann::json;
using support::Redis;

namespace {

// ---- Celery as a service in C++ sees it: version 2 of its message protocol, over Redis

class Celery {
public:
    Celery(const std::string& socket, support::Process& worker) : broker_{socket}, answers_{socket}, worker_{worker} {
        answers_({"SELECT", "1"});
    }

    // Returns the id of the task.
    std::string send(const char* task, const json& arguments) {
        std::string id;
        std::ifstream{"/proc/sys/kernel/random/uuid"} >> id;
        const json no_words = json::object();
        const json nothing_else = {
            {"callbacks", nullptr}, {"errbacks", nullptr}, {"chain", nullptr}, {"chord", nullptr}};
        const json message = {
            {"headers", {{"task", task}, {"id", id}, {"root_id", id}, {"parent_id", nullptr}, {"lang", "cpp"}}},
            {"properties",
             {{"correlation_id", id},
              {"delivery_tag", id},
              {"delivery_mode", 2},
              {"delivery_info", {{"exchange", ""}, {"routing_key", "celery"}}}}},
            {"content-type", "application/json"},
            {"content-encoding", "utf-8"},
            {"body", json::array({arguments, no_words, nothing_else}).dump()},
        };
        broker_({"LPUSH", "celery", message.dump()});
        return id;
    }

    // What the task returns.
    json wait_for(const std::string& task) {
        std::string answer;
        support::wait_until("the worker answers", [&] {
            worker_.must_run();
            answer = answers_({"GET", "celery-task-meta-" + task}).value_or("");
            return not answer.empty();
        });
        const json said = json::parse(answer);
        if (said.at("status") != "SUCCESS") throw std::runtime_error{answer};
        return said.at("result");
    }

    // How many tasks have an answer.
    int answered() { return std::stoi(answers_({"DBSIZE"}).value_or("0")); }

private:
    Redis broker_, answers_;
    support::Process& worker_;
};

// ---- The service

enum class Send { inside_the_transaction, on_commit };
struct CardDeclined {};

class Service {
public:
    Service(const std::string& file, Celery& celery, Send when)
        : db_{file, SQLite::OPEN_READWRITE, 20'000}, celery_{celery}, when_{when} {
        db_.exec("PRAGMA synchronous = NORMAL");
    }

    void sign_up(int user, bool card_is_good) {
        db_.atomic([&] {
            SQLite::Statement insert{db_, "INSERT INTO user VALUES (?, 'user ' || ?)"};
            insert.bind(1, user);
            insert.bind(2, user);
            insert.exec();
            if (when_ == Send::on_commit)
                db_.on_commit(&Service::send_welcome, this, user);
            else
                send_welcome(user);
            charge(user, card_is_good);
        });
    }

    std::map<int, std::string> tasks;  // by user

private:
    void send_welcome(int user) { tasks[user] = celery_.send("welcome", {user}); }

    // The transaction goes on for a moment, as real ones do; the first one for as long as its task takes.
    void charge(int user, bool card_is_good) {
        std::this_thread::sleep_for(2ms);
        if (user == 1 and tasks.contains(user)) celery_.wait_for(tasks[user]);
        if (not card_is_good) throw CardDeclined{};
    }

    Database db_;
    Celery& celery_;
    Send when_;
};

// ---- Users sign up

struct Count {
    int declined = 0;  // sign-ups that were rolled back
    int found = 0;
    int missed = 0;     // tasks of a user who is there, and was not found
    int of_nobody = 0;  // tasks of a sign-up that was rolled back
};

// Until so many are there. The card of each tenth is declined. They come five at a time: a worker that lags behind would
// find them all.
Count sign_up(int users, Service& service, Celery& celery) {
    const auto card_is_good = [](int user) { return user % 10 != 0; };
    Count count;
    for (int user = 1; user - count.declined <= users; ++user) {
        try {
            service.sign_up(user, card_is_good(user));
        } catch (const CardDeclined&) {
            ++count.declined;
        }
        if (user % 5 == 0 and not service.tasks.empty()) celery.wait_for(service.tasks.rbegin()->second);
    }
    for (const auto& [user, task] : service.tasks) {
        const json mail = celery.wait_for(task);
        if (not card_is_good(user))
            ++count.of_nobody;
        else if (mail.is_null())
            ++count.missed;
        else if (mail == "Welcome, user " + std::to_string(user))
            ++count.found;
    }
    return count;
}

}  // namespace

int main() try {
    support::RedisServer server;
    const std::string file = server.folder() + "/app.db";
    SQLite::Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 20'000};
    db.exec("PRAGMA journal_mode = WAL; CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT)");
    support::Process worker{support::python("celery_worker.py", server.folder()), server.folder() + "/worker.log"};
    Celery celery{server.socket(), worker};
    bool right = celery.wait_for(celery.send("welcome", {0})).is_null();  // the worker is there, user 0 is not

    for (const Send when : {Send::inside_the_transaction, Send::on_commit}) {
        const bool hooked = when == Send::on_commit;
        const int users = hooked ? 1000 : 100;
        const int answered_before = celery.answered();
        db.exec("DELETE FROM user");
        Service service{file, celery, when};
        const auto [declined, found, missed, of_nobody] = sign_up(users, service, celery);
        const int tasks = celery.answered() - answered_before;

        std::printf("%s\n", hooked ? "sent by on_commit" : "sent inside the transaction");
        std::printf("  %4d sign-ups committed: %4d tasks did not find their user\n", users, missed);
        std::printf("  %4d rolled back:        %4d tasks of nobody\n", declined, of_nobody);
        std::printf("  %4d tasks answered by the worker\n", tasks);
        right = right and tasks == found + missed + of_nobody and found + missed == users and
                db.execAndGet("SELECT count(*) FROM user").getInt() == users and
                (hooked ? missed == 0 and of_nobody == 0 : missed > 0 and of_nobody == declined);
    }
    std::puts(right ? "with on_commit each task found its user"
                    : "WRONG: without it some must be missed, with it none");
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return EXIT_FAILURE;
}

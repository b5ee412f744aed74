// SPDX-License-Identifier: MIT
//
// The store of jobs in MariaDB: its functions one by one, what connections do to each other, and an Outbox on it.

#include "support/catch.hpp"
#include "support/mariadb_server.hpp"

#include <txhooks/outbox/mariadb.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using support::Handle;
using support::run;
using support::values;
using txhooks::JobClaim;
using txhooks::JobEnd;
using txhooks::JobRow;
using txhooks::NewJob;
using Db = txhooks::HookedConnection<MYSQL*>;
using Store = txhooks::JobStore<MYSQL*>;
using Strings = std::vector<std::string>;
using Bools = std::vector<bool>;

namespace {

// Something stored as it is.
template <int kind>
struct Text {
    std::string text = {};

    friend std::string to_payload(const Text& job) { return job.text; }
    friend void from_payload(std::string_view stored, Text& job) { job.text = stored; }
};
struct Mail : Text<0> {
    static constexpr const char* job_name = "mail";
};
struct Report : Text<1> {
    static constexpr const char* job_name = "report";
};
struct Event : Text<2> {
    static constexpr const char* job_name = "event";
};
struct Invoice : Text<3> {
    static constexpr const char* job_name = "invoice";
};

// A connection whose statements do not wait for locks much longer than a second.
class Session {
public:
    Session() { run(handle, "SET innodb_lock_wait_timeout = 1"); }

    Handle handle;
    Db db{handle.get()};

    // In a block as claims are made in.
    template <class Act>
    auto claiming(const Act& act) {
        return db.atomic({.begin = Store::begin_claim()}, [&](MYSQL* session) {
            Store store{session};
            return act(store);
        });
    }
    template <class Act>
    auto in_block(const Act& act) {
        return db.atomic([&](MYSQL* session) {
            Store store{session};
            return act(store);
        });
    }

    void insert(const NewJob& job) {
        in_block([&](Store& store) { store.insert({&job, 1}, "host:1"); });
    }
    std::vector<JobRow> claim(const JobClaim& wanted) {
        return claiming([&](Store& store) { return store.claim(wanted); });
    }
    Bools settle(const std::vector<JobEnd>& ends) {
        return claiming([&](Store& store) { return store.settle(ends, true); });
    }
};

// An empty table.
class Table : public Session {
public:
    Table() {
        run(handle, "DROP TABLE IF EXISTS txhooks_job");
        Store::create_table(handle.get());
    }
    std::string see(const std::string& columns) {
        return values(handle, "SELECT " + columns + " FROM txhooks_job ORDER BY id");
    }
};

std::string id_of(int n) {
    char text[64];
    std::snprintf(text, sizeof text, "00000000-0000-7000-8000-%012d", n);
    return text;
}

// Numbers of rows.
std::string numbers(const std::vector<JobRow>& jobs) {
    std::string all;
    for (const JobRow& job : jobs) all += (all.empty() ? "" : ",") + std::to_string(std::stoi(job.id.substr(24)));
    return all;
}

const std::string id1 = id_of(1), id2 = id_of(2), id3 = id_of(3), id4 = id_of(4);
const JobClaim some{.name = "mail", .holder = "host:2", .lease = 60s, .limit = 10};

JobClaim lapsed(JobClaim claim) {
    claim.lapsed = true;
    return claim;
}
JobClaim in_order(JobClaim claim) {
    claim.in_order = true;
    claim.limit = 1;
    return claim;
}

std::string every_byte() {
    std::string all;
    for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
    return all;
}

// A process: a connection with jobs, and what it ran.
class Program : public Session {
public:
    template <class Job>
    auto note() {
        return [this](const Job& job, txhooks::JobRun& current) {
            ran.push_back(job.text);
            if (act) act(current);
        };
    }

    explicit Program(const txhooks::HandlerOptions& options = {}) {
        db.set_error_sink([](void* self, const char* what,
                             const std::exception_ptr&) { static_cast<Program*>(self)->told.emplace_back(what); },
                          this);
        txhooks::HandlerOptions worker = options, order = options;
        worker.in_worker = true;
        order.in_order = true;
        types.handle<Mail>(note<Mail>(), options);
        types.handle<Report>(note<Report>(), worker);
        types.handle<Event>(note<Event>(), order);
        types.handle<Invoice>(
            txhooks::in_transaction,
            [this](Db&, const Invoice& job, txhooks::JobRun& current) {
                run(handle, "INSERT INTO t VALUES (" + job.text + ")");
                note<Invoice>()(job, current);
            },
            options);
    }

    txhooks::JobTypes<Db> types;
    txhooks::Outbox<Db> outbox{db, types};
    Strings ran;
    Strings told;  // the error sink
    std::function<void(txhooks::JobRun&)> act;
};

std::int64_t deadlocks(MYSQL* db) {
    return std::stoll(values(db,
                             "SELECT variable_value FROM information_schema.global_status WHERE variable_name = "
                             "'INNODB_DEADLOCKS'"));
}

}  // namespace

// ---- Rows

TEST_CASE("mariadb jobs: a row is stored as it is given, and its time is the server's", "[D8]") {
    Table table;
    run(table.handle, "SET time_zone = '+09:00'");
    const auto before = std::chrono::system_clock::now().time_since_epoch() / 1us;
    const std::vector<NewJob> jobs{
        {id1, "mail", "a", "", 0s, 0s}, {id2, "mail", "b", "k", 1h, 0s}, {id3, "mail", "", "", 0s, 60s}};
    table.in_block([&](Store& store) { store.insert(jobs, "host:1"); });
    const auto after = std::chrono::system_clock::now().time_since_epoch() / 1us;
    CHECK(
        table.see(
            "CONCAT_WS(' ', name, payload, due - created, claim, attempts, IFNULL(holder, '-'), IFNULL(job_key, '-'), "
            "IFNULL(error, '-'))") == "mail a 0 0 0 - - -,mail b 3600000000 0 0 - k -,mail  60000000 1 1 host:1 - -");
    const std::vector<JobRow> rows = table.in_block([](Store& store) { return store.list({}); });
    REQUIRE(rows.size() == 3);
    CHECK(rows[0].created >= before - 1000);
    CHECK(rows[0].created <= after + 1000);
    CHECK(rows[1].key == "k");
    CHECK(rows[1].due == rows[1].created + 3'600'000'000);
    CHECK(rows[2].holder == "host:1");
}

TEST_CASE("mariadb jobs: every byte, every key and every error comes back, in any session", "[D13]") {
    const std::string setting =
        GENERATE("SET sql_mode = DEFAULT", "SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,STRICT_ALL_TABLES'",
                 "SET NAMES sjis", "SET NAMES gbk", "SET collation_connection = ucs2_general_ci", "SET NAMES latin1",
                 "SET sql_mode = ''", "SET sql_mode = 'ORACLE'");
    CAPTURE(setting);
    Table table;
    run(table.handle, setting);
    Store::create_table(table.handle.get());  // it is there
    std::string large;
    while (large.size() < 1024 * 1024) large += every_byte();
    const std::string error = "it's \"\\' \xc3\xa4 \xf0\x9f\x98\x80\n";
    const std::string keys[] = {"'\"\\", "k", "k ", "k  ", "\xc3\xa4", "\xff\xbf'", "K", "%_"};
    int n = 0;
    for (const std::string& key : keys) {
        const std::string id = id_of(++n);
        table.insert({id, "mail", every_byte(), key, 0s, 0s});
    }
    const std::string last = id_of(++n);
    table.insert({last, "mail", large, "", 0s, 0s});
    const std::vector<JobRow> jobs = table.claim(some);
    REQUIRE(jobs.size() == 9);
    for (std::size_t i = 0; i < 8; ++i) {
        CHECK(jobs[i].key == keys[i]);
        CHECK(jobs[i].payload == every_byte());
    }
    CHECK(jobs[8].payload == large);
    CHECK(jobs[8].key.empty());
    CHECK(table.settle({{.id = last, .claim = 1, .to = JobEnd::To::dead, .attempts = 3, .error = error}}) ==
          Bools{true});
    const std::vector<JobRow> dead = table.in_block([](Store& store) { return store.list({.dead = true}); });
    REQUIRE(dead.size() == 1);
    CHECK(dead[0].error == error);
    CHECK(dead[0].name == "mail");
    CHECK(dead[0].attempts == 3);
    CHECK(dead[0].dead());
}

TEST_CASE("mariadb jobs: an INSERT of another language needs a name and a payload") {
    Table table;
    run(table.handle, "SET time_zone = '-11:00'");
    run(table.handle, "INSERT INTO txhooks_job (name, payload) VALUES ('mail', 'x')");
    const std::vector<JobRow> jobs = table.claim(some);
    REQUIRE(jobs.size() == 1);
    CHECK(jobs[0].id.size() == 36);
    CHECK(jobs[0].payload == "x");
    CHECK(jobs[0].due >= jobs[0].created + 60'000'000);
    CHECK(jobs[0].due < jobs[0].created + 65'000'000);
    CHECK(table.settle({{.id = jobs[0].id, .claim = 1}}) == Bools{true});
    CHECK(table.see("id").empty());
}

TEST_CASE("mariadb jobs: of one key one waits, until it has begun", "[D13]") {
    Table table;
    table.insert({id1, "mail", "old", "k", 0s, 0s});
    table.insert({id2, "mail", "new", "k", 1h, 0s});
    table.insert({id3, "other", "of another name", "k", 0s, 0s});
    CHECK(table.see("CONCAT(payload, ' ', due > created)") == "new 1,of another name 0");
    run(table.handle, "UPDATE txhooks_job SET due = 1");
    CHECK(numbers(table.claim(some)) == "1");
    table.insert({id2, "mail", "next", "k", 0s, 0s});
    table.insert({id4, "mail", "last", "k", 0s, 0s});
    CHECK(table.see("CONCAT(payload, ' ', claim)") == "new 1,last 0,of another name 0");
    CHECK(numbers(table.claim(some)) == "2");  // two that have begun have the same key
    CHECK(table.see("CONCAT(payload, ' ', claim)") == "new 1,last 1,of another name 0");
    // Raw SQL cannot make a second one wait.
    run(table.handle, "INSERT INTO txhooks_job (id, name, payload, job_key) VALUES ('" + id4 + "', 'mail', '', 'k')");
    CHECK(attempt(table.handle, "UPDATE txhooks_job SET claim = 0 WHERE id = '" + id1 + "'") == 1062);
    CHECK(table.in_block([](Store& store) { return store.cancel("mail", "k"); }));
    CHECK_FALSE(table.in_block([](Store& store) { return store.cancel("mail", "k"); }));
    CHECK_FALSE(table.in_block([](Store& store) { return store.cancel("mail", "K"); }));
    CHECK(table.see("CONCAT(payload, ' ', claim)") == "new 1,last 1,of another name 0");
}

// ---- Looking

TEST_CASE("mariadb jobs: look tells the first of each name, and the clock") {
    Table table;
    table.insert({id1, "mail", "", "", 10s, 0s});
    table.insert({id2, "mail", "", "", 5s, 0s});
    table.insert({id3, "report", "", "", 0s, 60s});
    table.insert({id4, "event", "", "", 0s, 0s});
    run(table.handle, "UPDATE txhooks_job SET due = 9223372036854775807 WHERE id = '" + id4 + "'");
    const auto look = [&](std::vector<txhooks::JobsNamed> names) {
        std::vector<txhooks::FirstJob> first;
        const std::int64_t now = table.in_block([&](Store& store) { return store.look(names, first); });
        std::string text;
        for (const txhooks::FirstJob& each : first)
            text += std::string{each.name} + ' ' + std::to_string((each.due - now + 999'999) / 1'000'000) +
                    (each.lapsed ? " held " : " ");
        return text;
    };
    CHECK(look({{"mail"}, {"report"}, {"event"}, {"none"}}) == "mail 5 report 60 held ");
    CHECK(look({{"report"}, {"mail", true}}) == "report 60 held mail 10 ");
    const std::int64_t second = std::stoll(table.see("due").substr(0, 16));
    CHECK(look({{"mail", false, second}}) == "mail 10 ");
    CHECK(look({{"mail", false, second + 1}}).empty());
    CHECK(look({}).empty());
}

TEST_CASE("mariadb jobs: stats by name") {
    Table table;
    table.insert({id1, "mail", "", "", 0s, 0s});
    table.insert({id2, "mail", "", "", 1h, 0s});
    table.insert({id3, "mail", "", "", 0s, 60s});
    table.insert({id4, "event", "", "", 0s, 0s});
    run(table.handle, "UPDATE txhooks_job SET due = due - 2000000 WHERE id = '" + id1 + "'");
    run(table.handle, "UPDATE txhooks_job SET due = 9223372036854775807 WHERE id = '" + id4 + "'");
    const auto stats = table.in_block([](Store& store) { return store.stats(); });
    REQUIRE(stats.size() == 2);
    CHECK(stats[0].name == "event");
    CHECK(stats[0].dead == 1);
    CHECK(stats[0].oldest == 0s);
    CHECK(stats[1].name == "mail");
    CHECK(stats[1].due == 1);
    CHECK(stats[1].later == 1);
    CHECK(stats[1].running == 1);
    CHECK(stats[1].dead == 0);
    CHECK(stats[1].oldest >= 2s);
    CHECK(stats[1].oldest < 10s);
    CHECK(numbers(table.in_block([](Store& store) { return store.list({.name = "mail", .limit = 2}); })) == "1,2");
    CHECK(numbers(table.in_block([](Store& store) { return store.list({.limit = ~std::size_t{0} >> 1}); })) ==
          "1,2,3,4");
    CHECK(numbers(table.in_block([](Store& store) { return store.list({.dead = true}); })) == "4");
}

TEST_CASE("mariadb jobs: revive and cancel", "[D12]") {
    Table table;
    table.insert({id1, "mail", "", "", 0s, 60s});
    table.insert({id2, "mail", "", "", 1h, 0s});
    CHECK(table.settle({{.id = id1, .claim = 1, .to = JobEnd::To::dead, .attempts = 5, .error = "no"}}) == Bools{true});
    const auto revive = [&](std::string_view id) {
        return table.in_block([&](Store& store) { return store.revive(id); });
    };
    const auto cancel = [&](std::string_view id) {
        return table.in_block([&](Store& store) { return store.cancel(id); });
    };
    for (const std::string& id :
         {id2, id3, id1 + ' ', std::string{}, std::string{"' OR 1 = 1 -- "}, every_byte(), std::string(100, 'x')}) {
        CHECK_FALSE(revive(id));
        if (id != id2) CHECK_FALSE(cancel(id));
    }
    CHECK(revive(id1));
    CHECK_FALSE(revive(id1));
    CHECK(table.see("CONCAT_WS(' ', due < 9223372036854775807, claim, attempts, error)") == "1 1 0,1 0 0");
    CHECK(numbers(table.claim(some)) == "1");
    CHECK_FALSE(cancel(id1));  // somebody has it
    run(table.handle, "UPDATE txhooks_job SET due = 1");
    CHECK(cancel(id1));  // has had
    CHECK(cancel(id2));
    CHECK(table.see("id").empty());
}

// ---- Claims

TEST_CASE("mariadb jobs: a claim takes what is due, by due and id, and leases it") {
    Table table;
    table.insert({id4, "mail", "4", "", 0s, 0s});
    table.insert({id3, "mail", "3", "", 0s, 0s});
    table.insert({id2, "mail", "2", "", 1h, 0s});
    table.insert({id1, "other", "1", "", 0s, 0s});
    run(table.handle, "UPDATE txhooks_job SET due = 5, error = 'before' WHERE due <= created");
    JobClaim wanted = some;
    wanted.from = 6;
    CHECK(table.claim(wanted).empty());
    wanted.from = 5;
    wanted.limit = 1;
    CHECK(numbers(table.claim(wanted)) == "3");
    const std::vector<JobRow> jobs = table.claim(some);
    REQUIRE(numbers(jobs) == "4");
    CHECK(jobs[0].payload == "4");
    CHECK(jobs[0].claim == 1);
    CHECK(jobs[0].attempts == 1);
    CHECK(jobs[0].holder == "host:2");
    CHECK(jobs[0].error == "before");
    CHECK(table.see("CONCAT_WS(' ', claim, attempts, holder)") == "0 0,0 0,1 1 host:2,1 1 host:2");
    CHECK(values(table.handle, "SELECT due FROM txhooks_job WHERE id = '" + id4 + "'") == std::to_string(jobs[0].due));
    CHECK(table.claim(some).empty());
}

TEST_CASE("mariadb jobs: what ran out without a word is claimed apart", "[D11]") {
    Table table;
    table.insert({id1, "mail", "", "", 0s, 60s});
    table.insert({id2, "mail", "", "", 0s, 0s});
    CHECK(table.claim(lapsed(some)).empty());
    run(table.handle, "UPDATE txhooks_job SET due = 1 WHERE id = '" + id1 + "'");
    CHECK(numbers(table.claim(some)) == "2");
    const std::vector<JobRow> jobs = table.claim(lapsed(some));
    REQUIRE(numbers(jobs) == "1");
    CHECK(jobs[0].claim == 2);
    CHECK(jobs[0].attempts == 2);
}

TEST_CASE("mariadb jobs: a second claimer goes past locked rows, and nobody's INSERT waits", "[D5][D7]") {
    Table table;
    Session second, third;
    const bool keyed = GENERATE(false, true);
    const std::string name = GENERATE("mail", "a", "zz");  // a name between, before and after others
    for (int n = 1; n <= 6; ++n) {
        const std::string id = id_of(10 * n);
        const std::string key = keyed ? "k" + id : "";
        table.insert({id, n < 5 ? "mail" : "report", "", key, 0s, 0s});
    }
    table.claiming([&](Store& store) {
        JobClaim two = some;
        two.limit = 2;
        CHECK(numbers(store.claim(two)) == "10,20");
        CHECK(numbers(second.claim(two)) == "30,40");
        for (int n = 0; n <= 6; ++n) {
            const std::string id = id_of(10 * n + 5);
            const std::string key = "j" + id;
            third.insert({id, name, "", n % 2 == 0 ? std::string_view{} : key, 0s, 0s});
        }
        CHECK(store.claim({.name = "empty", .holder = "h", .lease = 1s}).empty());
        third.insert({id1, "empty", "", "", 0s, 0s});
    });
    CHECK(values(table.handle, "SELECT COUNT(*) FROM txhooks_job WHERE holder IS NOT NULL") == "4");
}

TEST_CASE("mariadb jobs: a row that is not committed is nobody's", "[D2]") {
    Table table;
    Session second;
    table.in_block([&](Store& store) {
        const NewJob job{id1, "mail", "", "", 0s, 0s};
        store.insert({&job, 1}, "host:1");
        CHECK(second.claim(some).empty());
        CHECK(second.claim(in_order(some)).empty());
    });
    CHECK(numbers(second.claim(some)) == "1");
}

// ---- Settlements

TEST_CASE("mariadb jobs: a stale claim neither completes, fails nor extends a job", "[D5]") {
    Table table;
    for (const std::string& id : {id1, id2, id3, id4}) table.insert({id, "mail", "", "", 0s, 60s});
    run(table.handle, "UPDATE txhooks_job SET due = 1 WHERE id <> '" + id4 + "'");
    CHECK(numbers(table.claim(lapsed(some))) == "1,2,3");
    const std::string before = table.see("CONCAT_WS(' ', id, due, claim, attempts, holder, IFNULL(error, '-'))");
    using To = JobEnd::To;
    CHECK(table.settle({{.id = id1, .claim = 1}}) == Bools{false});
    CHECK(table.settle({{.id = id1, .claim = 3}}) == Bools{false});
    CHECK(table.settle({{.id = id2, .claim = 1, .to = To::wait, .error = "stale"}}) == Bools{false});
    CHECK(table.settle({{.id = id2, .claim = 1, .to = To::dead, .error = "stale"}}) == Bools{false});
    CHECK(table.settle({{.id = id1, .claim = 1}, {.id = id2, .claim = 1}}) == Bools{false, false});
    CHECK(table.settle({}).empty());
    CHECK_FALSE(table.in_block([](Store& store) { return store.extend(id1, 1, 1h); }));
    CHECK(table.see("CONCAT_WS(' ', id, due, claim, attempts, holder, IFNULL(error, '-'))") == before);
    // In the order they are given in, and the others are done all the same.
    CHECK(table.settle({{.id = id4, .claim = 1},
                        {.id = id3, .claim = 1},
                        {.id = "nobody", .claim = 1},
                        {.id = id2, .claim = 2, .to = To::wait, .delay = 5s, .attempts = 7, .error = "again"},
                        {.id = id1, .claim = 2, .to = To::dead, .attempts = 8}}) ==
          Bools{true, false, false, true, true});
    CHECK(table.see("CONCAT_WS(' ', RIGHT(id, 1), claim, attempts, IFNULL(holder, '-'), IFNULL(error, '-'), due = "
                    "9223372036854775807)") == "1 2 8 - - 1,2 2 7 - again 0,3 2 2 host:2 - 0");
    const auto due = std::stoll(values(table.handle, "SELECT due FROM txhooks_job WHERE id = '" + id2 + "'"));
    const auto now = std::chrono::system_clock::now().time_since_epoch() / 1us;
    CHECK(due > now + 2'000'000);
    CHECK(due <= now + 5'000'000);
}

TEST_CASE("mariadb jobs: a row that is mine is mine also where nothing changes in it", "[D5]") {
    Table table;
    table.insert({id1, "mail", "", "", 0s, 60s});
    run(table.handle, "SET timestamp = 1700000000.5");  // the server's clock stands still
    for (int i = 0; i < 3; ++i) CHECK(table.in_block([](Store& store) { return store.extend(id1, 1, 60s); }));
    const JobEnd dead{.id = id1, .claim = 1, .to = JobEnd::To::dead, .attempts = 1, .error = "no"};
    CHECK(table.settle({dead}) == Bools{true});
    CHECK(table.settle({dead}) == Bools{true});
    CHECK_FALSE(table.in_block([](Store& store) { return store.extend(id1, 1, 60s); }));  // nobody has it
}

TEST_CASE("mariadb jobs: settling is two statements more at most, and waits for nobody's row", "[D6][D7]") {
    Table table;
    Session second;
    for (int n = 1; n <= 9; ++n) {
        const std::string id = id_of(n);
        table.insert({id, "mail", "", "", 0s, 60s});
    }
    table.claiming([&](Store& store) {
        CHECK(store.settle(std::vector<JobEnd>{{.id = id1, .claim = 1}}, true) == Bools{true});
        CHECK(
            store.settle(std::vector<JobEnd>{{.id = id2, .claim = 1}, {.id = id3, .claim = 1, .to = JobEnd::To::wait}},
                         true) == Bools{true, true});
        CHECK(store.extend(id4, 1, 1h));
        const std::string id5 = id_of(5), id6 = id_of(6), id7 = id_of(7), id8 = id_of(8), id9 = id_of(9),
                          id10 = id_of(10);
        CHECK(second.settle({{.id = id5, .claim = 1}}) == Bools{true});
        CHECK(second.settle({{.id = id6, .claim = 1}, {.id = id7, .claim = 1}}) == Bools{true, true});
        CHECK(second.settle({{.id = id8, .claim = 1, .to = JobEnd::To::dead}}) == Bools{true});
        second.in_block([&](Store& other) {
            CHECK(other.settle(std::vector<JobEnd>{{.id = id9, .claim = 1}}, false) == Bools{true});
            CHECK(other.revive(id8));
            CHECK(other.cancel(id8));
        });
        second.insert({id10, "mail", "", "", 0s, 0s});
    });
}

// ---- In order

TEST_CASE("mariadb jobs: in order, one at a time and the oldest first", "[D19]") {
    Table table;
    Session second;
    const auto by_order = in_order(some);
    for (const std::string& id : {id3, id1, id2}) table.insert({id, "mail", "", "", 0s, 0s});
    table.claiming([&](Store& store) {
        CHECK(numbers(store.claim(by_order)) == "1");
        CHECK(second.claim(by_order).empty());  // not the next one, either
    });
    CHECK(second.claim(by_order).empty());  // it runs
    CHECK(table.settle({{.id = id1, .claim = 1, .to = JobEnd::To::wait, .delay = 1h}}) == Bools{true});
    CHECK(second.claim(by_order).empty());  // it holds the others back
    run(table.handle, "UPDATE txhooks_job SET due = 1 WHERE id = '" + id1 + "'");
    CHECK(second.claim(lapsed(by_order)).empty());  // it has ended
    CHECK(numbers(second.claim(by_order)) == "1");
    run(table.handle, "UPDATE txhooks_job SET due = 1 WHERE id = '" + id1 + "'");
    CHECK(table.claim(by_order).empty());  // it has not
    CHECK(numbers(table.claim(lapsed(by_order))) == "1");
    CHECK(table.settle({{.id = id1, .claim = 3, .to = JobEnd::To::dead, .attempts = 3}}) == Bools{true});
    CHECK(numbers(second.claim(by_order)) == "2");
    CHECK(table.settle({{.id = id2, .claim = 1}}) == Bools{true});
    CHECK(numbers(second.claim(by_order)) == "3");
}

TEST_CASE("mariadb jobs: in order, one that is committed late does not run beside another", "[D19]") {
    Table table;
    table.insert({id2, "mail", "", "", 0s, 0s});
    CHECK(numbers(table.claim(in_order(some))) == "2");
    table.insert({id1, "mail", "", "", 0s, 0s});
    CHECK(table.claim(in_order(some)).empty());
    run(table.handle, "UPDATE txhooks_job SET due = 1 WHERE id = '" + id2 + "'");  // its process has died
    CHECK(numbers(table.claim(in_order(some))) == "1");
}

TEST_CASE("mariadb jobs: in order, an old snapshot is not believed", "[D19]") {
    Table table;
    Session second;
    table.insert({id1, "mail", "", "", 0s, 0s});
    table.insert({id2, "mail", "", "", 0s, 0s});
    const std::string then = GENERATE("runs", "has ended", "waits");
    table.db.atomic({.begin = {.isolation = txhooks::mariadb::Isolation::repeatable_read, .consistent_snapshot = true}},
                    [&](MYSQL* session) {
                        CHECK(numbers(second.claim(in_order(some))) == "1");
                        if (then == "has ended") CHECK(second.settle({{.id = id1, .claim = 1}}) == Bools{true});
                        if (then == "waits")
                            CHECK(second.settle({{.id = id1, .claim = 1, .to = JobEnd::To::wait}}) == Bools{true});
                        CHECK(Store{session}.claim(in_order(some)).empty());
                    });
    CHECK(numbers(table.claim(in_order(some))) == (then == "runs" ? "" : then == "waits" ? "1" : "2"));
}

// ---- The table

TEST_CASE("mariadb jobs: a table that is missing is told with what makes it") {
    Table table;
    run(table.handle, "DROP TABLE txhooks_job");
    try {
        table.insert({id1, "mail", "", "", 0s, 0s});
        FAIL("inserted");
    } catch (const txhooks::EngineError& error) {
        CHECK(error.code() == 1146);
        CHECK(std::string{error.sqlstate()} == "42S02");
        const std::string text = error.what(),
                          end = "; make it with Outbox::create_table(), or with the DDL of schema()";
        CHECK(text.find("txhooks_job") != std::string::npos);
        CHECK(text.substr(text.size() - end.size()) == end);
    }
    Program program;
    CHECK_THROWS_AS(program.outbox.run_due(), txhooks::EngineError);
    CHECK_THROWS_AS(program.db.atomic([&] { program.outbox.create_table(); }), txhooks::UsageError);
    program.outbox.create_table();
    program.outbox.create_table();
    CHECK(program.outbox.run_due() == 0);
}

TEST_CASE("mariadb jobs: errors of the server keep their number") {
    Table table;
    table.insert({id1, "mail", "", "", 0s, 0s});
    try {
        table.insert({id1, "mail", "", "", 0s, 0s});
        FAIL("inserted");
    } catch (const txhooks::EngineError& error) {
        CHECK(error.code() == 1062);
        CHECK(std::string{error.sqlstate()} == "23000");
    }
    CHECK(table.db.usable());
}

// ---- An Outbox

TEST_CASE("mariadb outbox: a job shares the fate of its block and of its savepoints", "[D1][D2]") {
    Table table;
    Program program;
    std::string seen;
    program.act = [&](txhooks::JobRun&) { seen = table.see("CONCAT(payload, ' ', holder IS NOT NULL)"); };
    program.db.atomic([&] {
        program.outbox.add(Mail{"a"});
        try {
            program.db.atomic([&] {
                program.outbox.add(Mail{"b"});
                throw std::runtime_error{"undone"};
            });
        } catch (const std::runtime_error&) {}
        CHECK(table.see("id").empty());
        CHECK(program.ran.empty());
    });
    CHECK(program.ran == Strings{"a"});
    CHECK(seen == "a 1");
    CHECK(table.see("id").empty());
    CHECK_THROWS(program.db.atomic([&] {
        program.outbox.add(Mail{"c"});
        throw std::runtime_error{"undone"};
    }));
    CHECK(table.see("id").empty());
    program.outbox.add(Report{"d"});
    CHECK(table.see("payload") == "d");
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"a", "d"});
    CHECK(table.see("id").empty());
    CHECK(program.told.empty());
}

TEST_CASE("mariadb outbox: a job that fails waits, and one that lives on elsewhere is superseded", "[D3][D5]") {
    Table table;
    Program program, other;
    program.act = [](txhooks::JobRun&) { throw std::runtime_error{"it's \xff no"}; };
    program.outbox.add(Mail{"a"});
    CHECK(table.see("CONCAT_WS(' ', payload, claim, attempts, IFNULL(holder, '-'), error, due > created)") ==
          "a 1 1 - it's ? no 1");
    run(table.handle, "UPDATE txhooks_job SET due = 1");
    program.act = [&](txhooks::JobRun& current) {
        CHECK(current.extend(1h));
        run(table.handle, "UPDATE txhooks_job SET due = 1");
        CHECK(other.outbox.run_due() == 1);
        CHECK_FALSE(current.extend(1h));
    };
    program.told.clear();
    CHECK(program.outbox.run_due() == 1);
    CHECK(other.ran == Strings{"a"});
    CHECK(other.told.empty());
    CHECK(program.told.size() == 1);  // superseded
    CHECK(table.see("id").empty());
}

TEST_CASE("mariadb outbox: what a handler in a transaction writes is committed exactly once", "[D4]") {
    Table table;
    Program program, other;
    run(table.handle, "CREATE OR REPLACE TABLE t (n INT)");
    program.act = [&](txhooks::JobRun& current) {
        if (current.attempt() == 1) throw std::runtime_error{"undone"};
        run(table.handle, "SET innodb_lock_wait_timeout = 1");
        CHECK(other.outbox.run_due() == 0);  // locked
        if (current.attempt() == 2) current.again_in(0s);
    };
    program.outbox.add(Invoice{"1"});
    CHECK(values(table.handle, "SELECT n FROM t").empty());
    for (int i = 0; i < 2; ++i) {
        run(table.handle, "UPDATE txhooks_job SET due = 1");
        CHECK(program.outbox.run_due() == (i == 0 ? 1 : 1));
    }
    program.act = nullptr;
    run(table.handle, "UPDATE txhooks_job SET due = 1");
    program.outbox.run_due();
    CHECK(values(table.handle, "SELECT n FROM t") == "1");
    CHECK(table.see("id").empty());
}

TEST_CASE("mariadb outbox: a key is renewed, cancelled, and not run here", "[D13]") {
    Table table;
    Program program;
    program.outbox.add(Mail{"a"}, {.key = "it's \\"});
    program.db.atomic([&] {
        program.outbox.add(Mail{"b"}, {.key = "it's \\"});
        program.outbox.add(Mail{"c"}, {.key = "it's \\"});
        program.outbox.add(Mail{"d"}, {.key = "it's \\ "});
    });
    CHECK(program.ran.empty());
    CHECK(table.see("payload") == "c,d");
    CHECK(program.outbox.cancel<Mail>("it's \\ "));
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"c"});
}

TEST_CASE("mariadb outbox: dead, revived, done", "[D3][D12]") {
    Table table;
    Program program{{.attempts = 1}};
    program.act = [](txhooks::JobRun&) { throw std::runtime_error{"no"}; };
    program.outbox.add(Mail{"a"});
    const std::vector<JobRow> dead = program.outbox.dead_letters();
    REQUIRE(dead.size() == 1);
    CHECK(dead[0].error == "no");
    CHECK(program.outbox.run_due() == 0);
    program.act = nullptr;
    CHECK(program.outbox.revive(dead[0].id));
    CHECK(program.outbox.run_due() == 1);
    CHECK(table.see("id").empty());
}

TEST_CASE("mariadb outbox: events run in their order, also by two programs", "[D19]") {
    Table table;
    Program program, other;
    for (const char* text : {"1", "2", "3"}) program.outbox.add(Event{text});
    program.act = [&](txhooks::JobRun&) { CHECK(other.outbox.run_due() == 0); };
    while (program.outbox.run_due() != 0) {}
    CHECK(program.ran == Strings{"1", "2", "3"});
    CHECK(other.ran.empty());
}

TEST_CASE("mariadb outbox: under RolledBack jobs run, and no row outlives it", "[D20]") {
    Table table;
    Program program;
    {
        const txhooks::testing::RolledBack test{program.db};
        program.outbox.add(Mail{"a"});
        program.outbox.add(Report{"b"});
        program.outbox.add(Event{"c"});
        while (program.outbox.run_due() != 0) {}
        program.outbox.add(Report{"d"});
    }
    CHECK(program.ran == Strings{"a", "b", "c"});
    CHECK(table.see("id").empty());
}

// ---- Many at once

TEST_CASE("mariadb outbox: adds, claims and settlements of many connections deadlock nobody", "[D3][D5][D7]") {
    Table table;
    const bool keyed = GENERATE(false, true);
    const std::int64_t before = deadlocks(table.handle);
    std::atomic<bool> stop = false;
    std::atomic<int> added = 0, ran = 0, failed = 0, victims = 0;
    std::vector<std::thread> threads;
    const auto worker = [&](const auto& loop) {
        threads.emplace_back([&, loop = loop]() mutable {
            Program program;
            program.act = [&](txhooks::JobRun& current) {
                ++ran;
                if (current.attempt() == 1 and ran % 7 == 0) current.again_in(0s);
            };
            while (not stop) {
                try {
                    loop(program);
                } catch (const txhooks::EngineError& error) {
                    ++(error.code() == 1213 ? victims : failed);
                }
            }
        });
    };
    for (int i = 0; i < 3; ++i) {
        worker([&, i, n = 0](Program& program) mutable {
            ++n;
            program.db.atomic([&] {
                program.outbox.add(Mail{"a"});
                program.outbox.add(Mail{"b"});
                program.outbox.add(Report{"c"});
                if (keyed) program.outbox.add(Report{"d"}, {.key = std::to_string(n % 5)});
                if (i == 0 and n % 10 == 0) program.outbox.add(Event{"e"});
            });
            ++added;
        });
    }
    for (int i = 0; i < 2; ++i) worker([](Program& program) { program.outbox.run_due(); });
    std::this_thread::sleep_for(2s);
    stop = true;
    for (std::thread& thread : threads) thread.join();
    CAPTURE(keyed);
    CHECK(added > 20);
    CHECK(ran > 3 * 20);
    CHECK(failed == 0);
    // A key that waits is renewed and claimed under locks of its gap: that goes wrong now and then.
    CHECK(deadlocks(table.handle) - before <= (keyed ? 10 + added / 100 : 0));
    CHECK(victims <= (keyed ? 10 + added / 100 : 0));
    Program last;
    while (last.outbox.run_due() != 0) {}
    CHECK(table.see("id").empty());
}

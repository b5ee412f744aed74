// SPDX-License-Identifier: MIT

// The table of jobs on a server of PostgreSQL, with both drivers.

#include <txhooks/outbox/libpq.hpp>
#include <txhooks/outbox/libpqxx.hpp>
#include <txhooks/retry.hpp>

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/pqxx_scene.hpp"

#include <pqxx/pqxx>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

using namespace txhooks;
using namespace std::chrono_literals;
using support::Oops;
using support::PostgresHandle;

namespace {

using Strings = std::vector<std::string>;
using EveryDriver = std::tuple<support::PostgresScene<>, support::PqxxScene>;

template <class Db>
using StoreOf = JobStore<detail::backend_of<Db>>;

/// Does `act(store)` in a block; in one that is open, nested.
template <class Db, class Act>
auto with_store(Db& db, const Act& act) {
    typename Db::Options options;
    if (not db.in_atomic_block()) options.begin = StoreOf<Db>::begin_claim();
    return db.atomic(options, [&](auto&& session) {
        StoreOf<Db> store{session};
        return act(store);
    });
}

std::string id_of(int n) {
    const std::string digits = std::to_string(n);
    return "01890000-0000-7000-8000-" + std::string(12 - digits.size(), '0') + digits;
}
std::string numbers(const std::vector<JobRow>& rows) {
    Strings all;
    for (const JobRow& row : rows) all.push_back(std::to_string(std::stoi(row.id.substr(24))));
    return support::join(all);
}

/// A scene with a table of jobs, and what is done to it directly.
template <class Scene>
struct Table {
    Scene scene;
    typename Scene::Db& db = scene.db;

    Table() { StoreOf<typename Scene::Db>::create_table(db.backend()); }

    void insert(const std::vector<NewJob>& jobs) {
        with_store(db, [&](auto& store) { store.insert(jobs, "here:1"); });
    }
    void insert(int n, const char* name = "mail") { insert({{.id = id_of(n), .name = name, .payload = "p"}}); }
    void change(const std::string& sql) { support::run(scene.others, sql); }
    std::string ask(const std::string& sql) const { return support::run(scene.others, sql); }
    /// What others see of the jobs.
    std::string jobs(const std::string& columns = "right(id::text, 1)") const {
        return ask("SELECT string_agg(concat_ws(' ', " + columns + "), ',' ORDER BY id) FROM txhooks_job");
    }
};

template <class Db>
std::vector<JobRow> claim(Db& db, const JobClaim& wanted = {}) {
    JobClaim all = wanted;
    if (all.name.empty()) all.name = "mail";
    if (all.holder.empty()) all.holder = "there:2";
    if (all.lease == 0us) all.lease = 60s;
    return with_store(db, [&](auto& store) { return store.claim(all); });
}
template <class Db>
bool settle(Db& db, const JobEnd& end) {
    return with_store(db, [&](auto& store) -> bool { return store.settle({&end, 1}, false).at(0); });
}

struct Text {
    std::string text;

    friend std::string to_payload(const Text& job) { return job.text; }
    friend void from_payload(std::string_view stored, Text& job) { job.text = stored; }
};
struct Mail : Text {
    static constexpr const char* job_name = "mail";
};
struct Report : Text {
    static constexpr const char* job_name = "report";
};
struct Invoice : Text {
    static constexpr const char* job_name = "invoice";
};

}  // namespace

#define OUTBOX_TEST(name, tags) TEMPLATE_LIST_TEST_CASE("PostgreSQL: " name, tags, EveryDriver)

// ---- The store alone

OUTBOX_TEST("what is inserted is listed, byte by byte", "[D8][outbox]") {
    Table<TestType> table;
    const std::string setting = GENERATE("SELECT 1", "SET TimeZone = 'Asia/Kolkata'",
                                         "SET standard_conforming_strings = off; SET bytea_output = escape; SET "
                                         "escape_string_warning = off",
                                         "SET client_encoding = LATIN1", "SET client_encoding = SJIS");
    CAPTURE(setting);
    table.scene.run(setting);
    std::string every_byte;
    for (int byte = 0; byte != 256; ++byte) every_byte += static_cast<char>(byte);
    const std::string odd = "it's a \\'key\\\\', ; -- $$ \xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98\n?";
    table.insert({{.id = id_of(1), .name = "mail", .payload = every_byte, .key = odd},
                  {.id = id_of(2), .name = "mail", .payload = ""},
                  {.id = id_of(3), .name = "other", .payload = "x", .delay = 1h},
                  {.id = id_of(4), .name = "mail", .payload = "y", .lease = 1min}});
    const std::vector<JobRow> rows = with_store(table.db, [](auto& store) { return store.list({}); });
    REQUIRE(numbers(rows) == "1,2,3,4");
    CHECK(rows[0].id == id_of(1));
    CHECK(rows[0].name == "mail");
    CHECK(rows[0].payload == every_byte);
    CHECK(rows[0].key == odd);
    CHECK((rows[0].claim == 0 and rows[0].attempts == 0 and rows[0].holder.empty() and rows[0].error.empty()));
    CHECK((rows[1].payload.empty() and rows[1].key.empty()));
    CHECK((rows[3].claim == 1 and rows[3].attempts == 1 and rows[3].holder == "here:1"));
    const auto now =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    const auto near = [](std::int64_t a, std::int64_t b) { return a - b < 10'000'000 and b - a < 10'000'000; };
    CHECK((near(rows[0].due, now) and near(rows[0].created, now)));
    CHECK((near(rows[2].due, now + 3'600'000'000) and near(rows[2].created, now)));
    CHECK(near(rows[3].due, now + 60'000'000));

    for (const std::string key : {"'", "\\", "\\'", "\xe2\x82\xac", "\n", "\x7f", "E'x'", "$$"}) {
        CAPTURE(key);
        table.insert({{.id = id_of(9), .name = "key", .payload = "", .key = key}});
        CHECK(with_store(table.db, [&](auto& store) { return store.list({.name = "key"}); }).at(0).key == key);
        CHECK(with_store(table.db, [&](auto& store) { return store.cancel("key", key); }));
    }
    const auto list = [&](const JobFilter& filter) {
        return numbers(with_store(table.db, [&](auto& store) { return store.list(filter); }));
    };
    CHECK(list({.name = "mail"}) == "1,2,4");
    CHECK(list({.limit = 2}) == "1,2");
    CHECK(list({.limit = ~std::size_t{0}}) == "1,2,3,4");
    CHECK(list({.dead = true}).empty());
    CHECK(with_store(table.db, [&](auto& store) { return store.cancel("mail", odd); }));
}

OUTBOX_TEST("a payload of a megabyte, and five hundred jobs in one statement", "[outbox]") {
    Table<TestType> table;
    std::string large(1024 * 1024, '\0');
    for (std::size_t i = 0; i != large.size(); ++i) large[i] = static_cast<char>(i * 7);
    table.insert({{.id = id_of(1000), .name = "large", .payload = large}});
    std::vector<std::string> ids;
    for (int n = 0; n != 500; ++n) ids.push_back(id_of(n));
    std::vector<NewJob> many;
    for (const std::string& id : ids) many.push_back({.id = id, .name = "mail", .payload = "p"});
    table.insert(many);
    CHECK(table.ask("SELECT count(*) FROM txhooks_job") == "501");
    CHECK(claim(table.db, {.name = "large"}).at(0).payload == large);
    CHECK(claim(table.db, {.limit = 50}).size() == 50);
}

OUTBOX_TEST("a row of another language needs a name and a payload", "[outbox]") {
    Table<TestType> table;
    table.change("INSERT INTO txhooks_job (name, payload) VALUES ('mail', 'hello')");
    const std::vector<JobRow> rows = claim(table.db);
    REQUIRE(rows.size() == 1);
    CHECK(rows[0].payload == "hello");
    CHECK(rows[0].id.size() == 36);
    CHECK(rows[0].created > 1'600'000'000'000'000);
    CHECK(settle(table.db, {.id = rows[0].id, .claim = 1}));
}

OUTBOX_TEST("look: the clock, and the first job of each name", "[D8][D9][outbox]") {
    Table<TestType> table;
    table.insert({{.id = id_of(1), .name = "mail", .payload = "", .delay = 1h},
                  {.id = id_of(2), .name = "mail", .payload = "", .delay = 1s},
                  {.id = id_of(3), .name = "other", .payload = ""},
                  {.id = id_of(4), .name = "held", .payload = "", .lease = 1min},
                  {.id = id_of(5), .name = "dead", .payload = "", .lease = 1min}});
    CHECK(settle(table.db, {.id = id_of(5), .claim = 1, .to = JobEnd::To::dead, .attempts = 1}));
    const auto look = [&](const std::vector<JobsNamed>& names) {
        std::vector<FirstJob> first;
        const std::int64_t now = with_store(table.db, [&](auto& store) {
            first.clear();
            return store.look(names, first);
        });
        CHECK(now > 1'600'000'000'000'000);
        std::string text;
        for (const FirstJob& each : first)
            text += std::string{each.name} + ' ' + std::to_string((each.due - now + 500'000) / 1'000'000) +
                    (each.lapsed ? " held; " : "; ");
        return text;
    };
    CHECK(look({}).empty());
    CHECK(look({{"held"}, {"mail"}, {"none"}, {"dead"}, {"other"}}) == "held 60 held; mail 1; other 0; ");
    CHECK(look({{"mail", true}}) == "mail 3600; ");
    CHECK(look({{"mail", false, JobRow::never_due - 1}}).empty());
    table.change("UPDATE txhooks_job SET due = 7 WHERE name = 'held'");
    CHECK(look({{"held", false, 8}}).empty());
}

OUTBOX_TEST("times are those of the statement, not of the transaction's begin", "[D8][outbox]") {
    Table<TestType> table;
    table.insert(1);
    table.scene.db.atomic([&] {
        table.scene.run("SELECT pg_sleep(0.3)");
        const std::vector<JobRow> rows = claim(table.db, {.lease = 1s});
        REQUIRE(rows.size() == 1);
        CHECK(table.scene.run("SELECT due > extract(epoch FROM now()) * 1000000 + 1200000 FROM txhooks_job") == "t");
    });
}

OUTBOX_TEST("a claim takes what is due, the longest first, and no more than it is asked for", "[outbox]") {
    Table<TestType> table;
    for (int n = 1; n <= 6; ++n) table.insert(n);
    table.insert(7, "other");
    table.change("UPDATE txhooks_job SET due = 10 - right(id::text, 1)::int WHERE name = 'mail'");
    table.change("UPDATE txhooks_job SET due = 9223372036854775806 WHERE id::text LIKE '%6'");
    CHECK(numbers(claim(table.db, {.limit = 2, .from = 6})) == "4,3");
    const std::vector<JobRow> rows = claim(table.db, {.limit = 10});
    CHECK(numbers(rows) == "5,2,1");
    CHECK((rows[0].claim == 1 and rows[0].attempts == 1 and rows[0].holder == "there:2"));
    CHECK(rows[0].due > 1'600'000'000'000'000);
    CHECK(claim(table.db, {.limit = 10}).empty());
    CHECK(table.jobs("right(id::text, 1), claim, holder") ==
          "1 1 there:2,2 1 there:2,3 1 there:2,4 1 there:2,5 1 there:2,6 0,7 0");
}

OUTBOX_TEST("a claim passes over what another transaction has, and does not wait", "[D5][outbox]") {
    Table<TestType> table;
    typename TestType::Session other{table.scene};
    for (int n = 1; n <= 4; ++n) table.insert(n);
    other.run("SET lock_timeout = '100ms'");
    {
        Atomic tx{table.db};
        CHECK(numbers(claim(table.db, {.limit = 2})) == "1,2");
        CHECK(numbers(claim(other.db, {.limit = 2})) == "3,4");
        CHECK(numbers(claim(other.db)).empty());
        tx.rollback();
    }
    CHECK(numbers(claim(other.db, {.limit = 4})) == "1,2");
}

// A statement whose snapshot is older than what others commit: its clock waits until that has happened.
template <class Scene, class Act, class Meanwhile>
void with_old_snapshot(Table<Scene>& table, Act act, Meanwhile meanwhile) {
    table.change(
        "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN PERFORM "
        "pg_advisory_xact_lock_shared(41); RETURN pg_catalog.clock_timestamp(); END'");
    typename Scene::Session slow{table.scene};
    slow.run("SET search_path = " + table.ask("SELECT current_schema()") + ", pg_catalog");
    table.ask("SELECT pg_advisory_lock(41)");
    std::thread thread{[&] { act(slow.db); }};
    while (table.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 41 AND NOT granted") != "1")
        std::this_thread::sleep_for(1ms);
    meanwhile();
    table.ask("SELECT pg_advisory_unlock(41)");
    thread.join();
}

OUTBOX_TEST("a claim asks again what was committed since it began", "[D5][D19][outbox]") {
    Table<TestType> table;
    for (int n = 1; n <= 3; ++n) table.insert(n);
    const bool in_order = GENERATE(false, true);
    const std::string change =
        GENERATE("UPDATE txhooks_job SET due = 9223372036854775807", "UPDATE txhooks_job SET due = 9223372036854775806",
                 "UPDATE txhooks_job SET holder = 'x', claim = 7", "DELETE FROM txhooks_job");
    CAPTURE(change, in_order);
    std::string claimed;
    with_old_snapshot(
        table, [&](auto& db) { claimed = numbers(claim(db, {.limit = 2, .in_order = in_order})); },
        [&] { table.change(change + " WHERE id = '" + id_of(1) + "'"); });
    CHECK(claimed == (in_order ? "" : "2,3"));
}

OUTBOX_TEST("a settlement asks again what was committed since it began", "[D5][outbox]") {
    Table<TestType> table;
    for (int n = 1; n <= 3; ++n) table.insert(n);
    CHECK(claim(table.db, {.limit = 3}).size() == 3);
    const std::string change = GENERATE("UPDATE txhooks_job SET claim = 7", "DELETE FROM txhooks_job");
    const std::string ids[] = {id_of(1), id_of(2), id_of(3)};
    const std::vector<JobEnd> ends{{.id = ids[0], .claim = 1},
                                   {.id = ids[1], .claim = 1, .to = JobEnd::To::wait},
                                   {.id = ids[2], .claim = 1, .to = JobEnd::To::wait}};
    std::vector<bool> mine;
    with_old_snapshot(
        table, [&](auto& db) { mine = with_store(db, [&](auto& store) { return store.settle(ends, true); }); },
        [&] { table.change(change + " WHERE id <> '" + ids[2] + "'"); });
    CHECK(mine == std::vector<bool>{false, false, true});
    CHECK(table.jobs("right(id::text, 1), claim, holder") ==
          (change[0] == 'D' ? "3 1" : "1 7 there:2,2 7 there:2,3 1"));
}

OUTBOX_TEST("claims of many connections never get the same job", "[D5][outbox]") {
    Table<TestType> table;
    std::vector<std::string> ids;
    for (int n = 0; n != 300; ++n) ids.push_back(id_of(n));
    std::vector<NewJob> many;
    for (const std::string& id : ids) many.push_back({.id = id, .name = "mail", .payload = "p"});
    table.insert(many);
    std::vector<std::string> taken(3);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i != taken.size(); ++i)
        threads.emplace_back([&, i] {
            typename TestType::Session session{table.scene};
            // A row is settled at once, given back or done: what others claim has just changed.
            for (int idle = 0; idle != 20;) {
                const std::vector<JobRow> rows = claim(session.db, {.limit = 7});
                idle = rows.empty() ? idle + 1 : 0;
                std::vector<JobEnd> ends;
                for (const JobRow& row : rows) {
                    const bool done = row.claim == 2;
                    ends.push_back(
                        {.id = row.id, .claim = row.claim, .to = done ? JobEnd::To::done : JobEnd::To::wait});
                    if (done) taken[i] += row.id + ' ';
                }
                const auto mine = with_store(session.db, [&](auto& store) { return store.settle(ends, true); });
                for (const bool was_mine : mine)
                    if (not was_mine) taken[i] += "not mine! ";
            }
        });
    for (std::thread& thread : threads) thread.join();
    std::string all;
    for (const std::string& each : taken) all += each;
    CHECK(all.find("not") == std::string::npos);
    CHECK(all.size() == 300 * 37);
    CHECK(table.jobs().empty());
}

OUTBOX_TEST("what has lapsed is claimed only by who asks for that", "[D11][outbox]") {
    Table<TestType> table;
    table.insert({{.id = id_of(1), .name = "mail", .payload = "", .lease = 1min},
                  {.id = id_of(2), .name = "mail", .payload = ""}});
    CHECK(claim(table.db, {.lapsed = true}).empty());
    table.change("UPDATE txhooks_job SET due = 5");
    CHECK(numbers(claim(table.db, {.limit = 5})) == "2");
    const std::vector<JobRow> lapsed = claim(table.db, {.limit = 5, .lapsed = true});
    CHECK(numbers(lapsed) == "1");
    CHECK((lapsed[0].claim == 2 and lapsed[0].attempts == 2));
}

OUTBOX_TEST("a claim that is not the last one can neither complete, fail nor extend", "[D5][outbox]") {
    Table<TestType> table;
    table.insert({{.id = id_of(1), .name = "mail", .payload = "", .lease = 1min}});
    table.change("UPDATE txhooks_job SET due = 5");
    CHECK(numbers(claim(table.db, {.lapsed = true})) == "1");
    const std::string before = table.jobs("txhooks_job::text");
    CHECK_FALSE(settle(table.db, {.id = id_of(1), .claim = 1}));
    CHECK_FALSE(settle(table.db, {.id = id_of(1), .claim = 1, .to = JobEnd::To::wait}));
    CHECK_FALSE(settle(table.db, {.id = id_of(1), .claim = 1, .to = JobEnd::To::dead}));
    const auto extend = [&](const std::string& id, std::int64_t which) {
        return with_store(table.db, [&](auto& store) { return store.extend(id, which, 1h); });
    };
    CHECK_FALSE(extend(id_of(1), 1));
    CHECK(table.jobs("txhooks_job::text") == before);
    CHECK(extend(id_of(1), 2));
    CHECK(table.ask("SELECT due > extract(epoch FROM now()) * 1000000 + 3500000000 FROM txhooks_job") == "t");
    CHECK(settle(table.db, {.id = id_of(1), .claim = 2, .to = JobEnd::To::wait}));
    CHECK_FALSE(extend(id_of(1), 2));
    CHECK_FALSE(extend("no UUID'; --", 2));
}

OUTBOX_TEST("settle answers for each job, in the order of the question", "[outbox]") {
    Table<TestType> table;
    for (int n = 1; n <= 5; ++n) table.insert(n);
    CHECK(claim(table.db, {.limit = 4}).size() == 4);
    const std::string error = "it's \\ \xe2\x82\xac";
    const std::string no_text{"\xff\0\xe2\x82 bad", 8};
    const std::string ids[] = {id_of(4), id_of(2), id_of(9), id_of(1), id_of(3)};
    const std::vector<JobEnd> ends{
        {.id = ids[0], .claim = 1, .to = JobEnd::To::wait, .delay = 1h, .attempts = 1, .error = error},
        {.id = ids[1], .claim = 1},
        {.id = ids[2], .claim = 1},
        {.id = "no UUID", .claim = 1},
        {.id = ids[3], .claim = 2},
        {.id = ids[4], .claim = 1, .to = JobEnd::To::dead, .attempts = 9, .error = no_text}};
    const bool lazily = GENERATE(false, true);
    CHECK(with_store(table.db, [&](auto& store) { return store.settle(ends, lazily); }) ==
          std::vector<bool>{true, true, false, false, false, true});
    const std::vector<JobRow> rows = with_store(table.db, [](auto& store) { return store.list({}); });
    REQUIRE(numbers(rows) == "1,3,4,5");
    CHECK(rows[0].claim == 1);
    CHECK((rows[1].dead() and rows[1].attempts == 9 and rows[1].holder.empty()));
    CHECK(rows[1].error == "???? bad");
    CHECK((rows[2].error == error and rows[2].attempts == 1 and rows[2].claim == 1 and rows[2].holder.empty()));
    CHECK(table.ask("SELECT due > extract(epoch FROM now()) * 1000000 + 3500000000 FROM txhooks_job WHERE id = '" +
                    id_of(4) + "'") == "t");
    CHECK(with_store(table.db, [](auto& store) { return store.settle({}, true); }).empty());
}

OUTBOX_TEST("settlements lock in one order", "[outbox]") {
    Table<TestType> table;
    for (int n = 1; n <= 2; ++n) table.insert(n);
    typename TestType::Session other{table.scene};
    Atomic tx{table.db};
    table.scene.run("SELECT 1 FROM txhooks_job WHERE id = '" + id_of(1) + "' FOR UPDATE");
    const std::string ids[] = {id_of(2), id_of(1)};
    const std::vector<JobEnd> ends{{.id = ids[0], .claim = 0}, {.id = ids[1], .claim = 0}};
    std::thread settles{[&] { with_store(other.db, [&](auto& store) { return store.settle(ends, false); }); }};
    while (table.ask("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()") == "0")
        std::this_thread::sleep_for(1ms);
    CHECK(table.scene.attempt("SELECT 1 FROM txhooks_job WHERE id = '" + id_of(2) + "' FOR UPDATE NOWAIT").empty());
    tx.commit();
    settles.join();
    CHECK(table.jobs().empty());
}

OUTBOX_TEST("a settlement that is lazy leaves the session as it was", "[outbox]") {
    Table<TestType> table;
    table.insert({{.id = id_of(1), .name = "mail", .payload = "", .lease = 1min}});
    const std::string id = id_of(1);
    const JobEnd end{.id = id, .claim = 1};
    const bool lazily = GENERATE(false, true);
    std::string inside;
    with_store(table.db, [&](auto& store) {
        store.settle({&end, 1}, lazily);
        inside = table.scene.run("SHOW synchronous_commit");
    });
    CHECK(inside == (lazily ? "off" : "on"));
    CHECK(table.scene.run("SHOW synchronous_commit") == "on");
}

OUTBOX_TEST("of one name and key one job waits, and is renewed", "[D13][outbox]") {
    Table<TestType> table;
    table.insert({{.id = id_of(1), .name = "mail", .payload = "old", .key = "k"}});
    table.insert({{.id = id_of(2), .name = "mail", .payload = "new", .key = "k", .delay = 1h},
                  {.id = id_of(3), .name = "other", .payload = "other", .key = "k"},
                  {.id = id_of(4), .name = "mail", .payload = "none"},
                  {.id = id_of(5), .name = "mail", .payload = "none"}});
    const std::string columns = "right(id::text, 1), convert_from(payload, 'UTF8'), job_key";
    CHECK(table.jobs(columns) == "1 new k,3 other k,4 none,5 none");
    CHECK(table.ask("SELECT due > created + 3500000000 FROM txhooks_job WHERE id = '" + id_of(1) + "'") == "t");
    table.change("UPDATE txhooks_job SET due = 1");
    CHECK(numbers(claim(table.db, {.limit = 1})) == "1");
    table.insert({{.id = id_of(6), .name = "mail", .payload = "next", .key = "k"}});
    CHECK(table.jobs(columns) == "1 new k,3 other k,4 none,5 none,6 next k");
    const auto cancel = [&](const char* name, const char* key) {
        return with_store(table.db, [&](auto& store) { return store.cancel(name, key); });
    };
    CHECK(cancel("mail", "k"));
    CHECK_FALSE(cancel("mail", "k"));
    CHECK_FALSE(cancel("mail", ""));
    CHECK(table.jobs() == "1,3,4,5");
}

OUTBOX_TEST("in order: the oldest, and while somebody has it nobody gets another", "[D19][outbox]") {
    Table<TestType> table;
    typename TestType::Session other{table.scene};
    other.run("SET lock_timeout = '100ms'");
    for (int n = 2; n <= 4; ++n) table.insert(n);
    table.change("UPDATE txhooks_job SET due = 10 - right(id::text, 1)::int");
    const JobClaim next{.limit = 9, .in_order = true};
    {
        Atomic tx{table.db};
        CHECK(numbers(claim(table.db, next)) == "2");
        CHECK(claim(other.db, next).empty());
        table.change("INSERT INTO txhooks_job (id, name, payload) VALUES ('" + id_of(1) + "', 'mail', 'late')");
        CHECK(claim(other.db, next).empty());
        tx.commit();
    }
    CHECK(claim(other.db, next).empty());
    CHECK(claim(other.db, {.lapsed = true, .in_order = true}).empty());
    CHECK(settle(table.db, {.id = id_of(2), .claim = 1}));
    CHECK(numbers(claim(other.db, next)) == "1");
    CHECK(settle(other.db, {.id = id_of(1), .claim = 1, .to = JobEnd::To::wait, .delay = 1h}));
    CHECK(claim(table.db, next).empty());  // it holds the others back
    table.change("UPDATE txhooks_job SET due = 1 WHERE id = '" + id_of(1) + "'");
    CHECK(claim(table.db, {.lapsed = true, .in_order = true}).empty());
    CHECK(numbers(claim(table.db, next)) == "1");
    CHECK(settle(table.db, {.id = id_of(1), .claim = 2, .to = JobEnd::To::dead}));
    CHECK(numbers(claim(table.db, next)) == "3");
    table.change("UPDATE txhooks_job SET due = 1 WHERE id = '" + id_of(3) + "'");
    CHECK(claim(table.db, next).empty());
    CHECK(numbers(claim(table.db, {.lapsed = true, .in_order = true})) == "3");
}

OUTBOX_TEST("in order: workers that race run one at a time, in the order", "[D19][outbox]") {
    Table<TestType> table;
    for (int n = 100; n != 160; ++n) table.insert(n);
    std::atomic<int> running{0};
    std::atomic<bool> overlap{false};
    std::mutex mutex;
    Strings order;
    std::vector<std::thread> threads;
    for (int i = 0; i != 3; ++i)
        threads.emplace_back([&] {
            typename TestType::Session session{table.scene};
            while (true) {
                const std::vector<JobRow> rows = claim(session.db, {.limit = 3, .in_order = true});
                if (rows.empty()) {
                    const std::lock_guard lock{mutex};
                    if (order.size() >= 60) return;
                    continue;
                }
                if (++running != 1 or rows.size() != 1) overlap = true;
                {
                    const std::lock_guard lock{mutex};
                    order.push_back(rows[0].id);
                }
                --running;
                settle(session.db, {.id = rows[0].id, .claim = rows[0].claim});
            }
        });
    for (std::thread& thread : threads) thread.join();
    CHECK_FALSE(overlap);
    CHECK(std::is_sorted(order.begin(), order.end()));
    CHECK(order.size() == 60);
}

OUTBOX_TEST("stats, revive and cancel", "[D12][outbox]") {
    Table<TestType> table;
    for (int n = 1; n <= 5; ++n) table.insert(n);
    table.insert({{.id = id_of(6), .name = "Later", .payload = "", .delay = 1h}});
    CHECK(claim(table.db, {.limit = 3}).size() == 3);
    CHECK(settle(table.db, {.id = id_of(1), .claim = 1, .to = JobEnd::To::dead, .attempts = 3, .error = "bad"}));
    table.change("UPDATE txhooks_job SET due = due - 100000000 WHERE id = '" + id_of(2) + "'");  // lapsed
    const auto stats = [&] {
        std::string text;
        for (const JobStats& each : with_store(table.db, [](auto& store) { return store.stats(); }))
            text += each.name + ' ' + std::to_string(each.due) + ' ' + std::to_string(each.later) + ' ' +
                    std::to_string(each.running) + ' ' + std::to_string(each.dead) + ' ' +
                    std::to_string(each.oldest / 10s) + "; ";
        return text;
    };
    CHECK(stats() == "Later 0 1 0 0 0; mail 3 0 1 1 4; ");
    const auto does = [&](auto act) { return with_store(table.db, act); };
    CHECK_FALSE(does([](auto& store) { return store.revive(id_of(2)); }));
    CHECK_FALSE(does([](auto& store) { return store.revive("no UUID"); }));
    CHECK(does([](auto& store) { return store.revive(id_of(1)); }));
    CHECK_FALSE(does([](auto& store) { return store.revive(id_of(1)); }));
    const std::vector<JobRow> rows = with_store(table.db, [](auto& store) { return store.list({.limit = 1}); });
    CHECK((rows.at(0).attempts == 0 and rows[0].claim == 1 and rows[0].error.empty() and not rows[0].dead()));
    CHECK(stats() == "Later 0 1 0 0 0; mail 4 0 1 0 4; ");
    CHECK_FALSE(does([](auto& store) { return store.cancel(id_of(3)); }));  // it runs
    CHECK_FALSE(does([](auto& store) { return store.cancel("no UUID"); }));
    for (const int n : {1, 2, 4}) CHECK(does([&](auto& store) { return store.cancel(id_of(n)); }));
    CHECK(table.jobs() == "3,5,6");
}

OUTBOX_TEST("a claim is READ COMMITTED, whatever the session's default is", "[outbox]") {
    Table<TestType> table;
    table.scene.run("SET default_transaction_isolation = 'serializable'");
    std::string level;
    with_store(table.db, [&](auto&) { level = table.scene.run("SHOW transaction_isolation"); });
    CHECK(level == "read committed");
}

// ---- The table

OUTBOX_TEST("a table that is missing is the driver's error, and says what to do", "[outbox]") {
    TestType scene;
    const char* const sentence = "; make it with Outbox::create_table(), or with the DDL of schema()";
    const auto ends_well = [&](const std::string& text) {
        CHECK(text.find("txhooks_job") != std::string::npos);
        CHECK(text.find('\n') == std::string::npos);
        return text.size() > 80 and text.substr(text.size() - std::string_view{sentence}.size()) == sentence;
    };
    try {
        claim(scene.db);
        FAIL("there is no table");
    } catch (const EngineError& e) {
        CHECK(std::string{e.sqlstate()} == "42P01");
        CHECK(e.code() == PGRES_FATAL_ERROR);
        CHECK(ends_well(e.what()));
    } catch (const pqxx::undefined_table& e) {
        CHECK(e.sqlstate() == "42P01");
        CHECK(ends_well(e.what()));
    }
    CHECK(scene.goes_on());
}

OUTBOX_TEST("create_table of many at once makes it once, and then takes no lock", "[outbox]") {
    TestType scene;
    using Store = StoreOf<typename TestType::Db>;
    typename TestType::Session other{scene};
    std::vector<std::thread> threads;
    Strings errors(4);
    for (std::size_t i = 0; i != errors.size(); ++i)
        threads.emplace_back([&, i] {
            try {
                typename TestType::Session session{scene};
                Store::create_table(session.db.backend());
            } catch (const std::exception& e) {
                errors[i] = e.what();
            }
        });
    for (std::thread& thread : threads) thread.join();
    CHECK(errors == Strings(4));
    Atomic tx{other.db};
    other.run("INSERT INTO txhooks_job (name, payload) VALUES ('mail', 'x')");
    scene.run("SET lock_timeout = '100ms'");
    Store::create_table(scene.db.backend());
    tx.rollback();
    CHECK(scene.run("SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND tablename = "
                    "'txhooks_job'") == "3");
}

TEST_CASE("PostgreSQL: libpq: create_table makes what is missing, without a notice", "[outbox]") {
    Table<support::PostgresScene<>> table;
    table.change("DROP INDEX txhooks_job_key");
    std::string notices;
    PQsetNoticeProcessor(
        table.scene.handle, [](void* all, const char* text) { *static_cast<std::string*>(all) += text; }, &notices);
    StoreOf<decltype(table.scene.db)>::create_table(table.scene.handle);
    CHECK(table.ask("SELECT to_regclass('txhooks_job_key') IS NOT NULL") == "t");
    CHECK(notices.empty());
    CHECK(table.scene.run("SHOW client_min_messages") == "notice");
}

TEST_CASE("PostgreSQL: libpq: what is unread on the connection is left alone", "[outbox]") {
    Table<support::PostgresScene<>> table;
    table.insert(1);
    CHECK_THROWS_AS(with_store(table.db,
                               [&](auto& store) {
                                   PQsendQuery(table.scene.handle, "SELECT 1");
                                   store.claim({.name = "mail"});
                               }),
                    UsageError);
    CHECK(table.jobs("holder").empty());
    CHECK(table.scene.goes_on());
}

// ---- Through an Outbox

namespace {

/// A program with jobs.
template <class Connected>
struct Program {
    using Db = std::remove_reference_t<decltype(std::declval<Connected&>().db)>;

    explicit Program(Connected& scene) : on{scene} {
        types.template handle<Mail>([this](const Mail& job, JobRun& run) {
            ran.push_back("mail " + job.text);
            if (act) act(run);
        });
        types.template handle<Report>([this](const Report& job) { ran.push_back("report " + job.text); },
                                      {.in_order = true});
        types.template handle<Invoice>(in_transaction, [this](Db&, const Invoice& job, JobRun& run) {
            ran.push_back("invoice " + job.text);
            on.run("INSERT INTO t VALUES (" + job.text + ")");
            if (act) act(run);
        });
    }

    Connected& on;
    Strings ran;
    std::function<void(JobRun&)> act;
    JobTypes<Db> types;
    Outbox<Db> outbox{on.db, types};
};

}  // namespace

OUTBOX_TEST("jobs share the fate of their blocks, run behind them, and are gone", "[D1][D2][D12][outbox]") {
    TestType scene;
    Program<TestType> program{scene};
    program.outbox.create_table();
    const std::string session_level = GENERATE("read committed", "serializable");
    scene.run("SET default_transaction_isolation = '" + session_level + "'");
    std::string seen;
    program.act = [&](JobRun&) { seen = scene.truth(); };
    scene.db.atomic([&] {
        scene.row(1);
        program.outbox.add(Mail{{"1"}});
        CHECK_THROWS_AS(scene.db.atomic([&] {
            program.outbox.add(Mail{{"2"}});
            throw Oops{};
        }),
                        Oops);
        program.outbox.add(Report{{"3"}});
        CHECK(program.ran.empty());
    });
    CHECK(program.ran == Strings{"mail 1"});
    CHECK(seen == "1");
    CHECK(support::run(scene.others, "SELECT string_agg(name, ',') FROM txhooks_job") == "report");
    CHECK_THROWS_AS(scene.db.atomic([&] {
        program.outbox.add(Mail{{"4"}});
        throw Oops{};
    }),
                    Oops);
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.run_due() == 0);
    CHECK(program.ran == Strings{"mail 1", "report 3"});
    CHECK(support::run(scene.others, "SELECT count(*) FROM txhooks_job") == "0");
    CHECK(scene.sink.sentences() == Strings{});
    CHECK(scene.run("SHOW synchronous_commit") == "on");
}

OUTBOX_TEST("what a handler in the transaction writes is committed exactly once", "[D4][outbox]") {
    TestType scene;
    Program<TestType> program{scene};
    program.outbox.create_table();
    typename TestType::Session session{scene};
    Program<typename TestType::Session> other{session};
    program.outbox.add(Invoice{{"1"}});
    CHECK(scene.truth() == "1");
    int fails = 1;
    program.act = [&](JobRun&) {
        if (fails-- > 0) throw Oops{};
    };
    program.outbox.add(Invoice{{"2"}});
    CHECK(scene.truth() == "1");
    support::run(scene.others, "UPDATE txhooks_job SET due = 1");
    CHECK(program.outbox.run_due() == 1);
    CHECK(scene.truth() == "1,2");
    // Nobody else gets at it, or waits for it.
    session.run("SET lock_timeout = '100ms'");
    std::size_t others = 9;
    program.act = [&](JobRun&) { others = other.outbox.run_due(); };
    program.outbox.add(Invoice{{"3"}});
    CHECK(others == 0);
    CHECK(scene.truth() == "1,2,3");
    CHECK(support::run(scene.others, "SELECT count(*) FROM txhooks_job") == "0");
}

OUTBOX_TEST("a run that outlived its lease does not count", "[D5][outbox]") {
    TestType scene;
    Program<TestType> program{scene};
    program.outbox.create_table();
    typename TestType::Session session{scene};
    Program<typename TestType::Session> other{session};
    support::Sink told{session.db};
    bool still_mine = true;
    program.act = [&](JobRun& run) {
        support::run(scene.others, "UPDATE txhooks_job SET due = 1");
        CHECK(other.outbox.run_due() == 1);
        still_mine = run.extend(1min);
    };
    other.act = [&](JobRun&) { throw Oops{}; };
    program.outbox.add(Mail{{"1"}});
    CHECK_FALSE(still_mine);
    CHECK(other.ran == Strings{"mail 1"});
    CHECK(support::run(scene.others, "SELECT claim || ' ' || attempts || ' ' || error FROM txhooks_job") == "2 2 oops");
    CHECK(scene.sink.sentences().size() == 1);
    CHECK(told.errors() == Strings{"oops"});
    other.act = nullptr;
    support::run(scene.others, "UPDATE txhooks_job SET due = 1");
    CHECK(other.outbox.run_due() == 1);
    CHECK(support::run(scene.others, "SELECT count(*) FROM txhooks_job") == "0");
}

OUTBOX_TEST("a job that is given up is a dead letter, and can be revived", "[D12][outbox]") {
    TestType scene;
    Program<TestType> program{scene};
    program.outbox.create_table();
    program.act = [](JobRun& run) { run.give_up("no such place"); };
    program.outbox.add(Mail{{"1"}});
    const std::vector<JobRow> dead = program.outbox.dead_letters();
    REQUIRE(dead.size() == 1);
    CHECK(dead[0].payload == "1");
    CHECK(dead[0].error == "no such place");
    CHECK(program.outbox.run_due() == 0);
    program.act = nullptr;
    CHECK(program.outbox.revive(dead[0].id));
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.list().empty());
    program.outbox.add(Mail{{"2"}}, {.key = "k", .delay = 1h});
    CHECK(program.outbox.stats().at(0).later == 1);
    CHECK(program.outbox.template cancel<Mail>("k"));
    CHECK(program.outbox.list().empty());
}

OUTBOX_TEST("at serializable, workers and writers do not fail each other", "[D3][outbox]") {
    TestType scene;
    Program<TestType> program{scene};
    program.outbox.create_table();
    support::run(scene.others, "SELECT 1");
    std::atomic<int> failed{0};
    std::vector<std::thread> threads;
    for (int i = 0; i != 3; ++i)
        threads.emplace_back([&, i] {
            try {
                typename TestType::Session session{scene};
                session.run("SET default_transaction_isolation = 'serializable'");
                Program<typename TestType::Session> worker{session};
                for (int n = 0; n != 30; ++n) {
                    worker.outbox.add(Mail{{std::to_string(i)}});
                    worker.outbox.add(Report{{std::to_string(i)}});
                    worker.outbox.run_due();
                }
            } catch (const std::exception&) {
                ++failed;
            }
        });
    for (std::thread& thread : threads) thread.join();
    CHECK(failed == 0);
    while (program.outbox.run_due() != 0) {}
    CHECK(program.outbox.list().empty());
}

TEST_CASE("work() ends when its connection breaks", "[D15][outbox]") {
    using Scene = support::PostgresScene<>;
    Table<Scene> table;
    JobTypes<Scene::Db> types;
    const std::string session = std::to_string(PQbackendPID(table.db.backend()));
    types.handle<Report>([&](const Report&) { table.ask("SELECT pg_terminate_backend(" + session + ")"); },
                         {.in_worker = true});
    Outbox<Scene::Db> outbox{table.db, types};
    outbox.add(Report{{"r"}});
    CHECK_THROWS(outbox.work(10ms));
    CHECK(table.jobs("name, attempts, holder IS NOT NULL") == "report 1 t");
}

TEST_CASE("a key that somebody else has added meanwhile is a serialization failure, which retry heals",
          "[D13][outbox]") {
    using Scene = support::PostgresScene<>;
    Table<Scene> table;
    JobTypes<Scene::Db> types;
    Outbox<Scene::Db> outbox{table.db, types};
    PQclear(PQexec(table.db.backend(), "SET default_transaction_isolation = 'repeatable read'"));
    int attempts = 0;
    retry(table.db, {.first_delay = 1ns}, [&] {
        ++attempts;
        PQclear(PQexec(table.db.backend(), "SELECT 1"));  // what it sees is as of now
        if (attempts == 1)
            table.change("INSERT INTO txhooks_job (name, payload, job_key) VALUES ('mail', 'theirs', 'k')");
        outbox.add(Mail{{"mine"}}, {.key = "k"});
    });
    CHECK(attempts == 2);
    CHECK(table.jobs("name, job_key, encode(payload, 'escape')") == "mail k mine");
}

// SPDX-License-Identifier: MIT
#pragma once

// What `store_check` plays on a table of jobs. Stores are behind virtual functions, so that it is compiled once.

#include <txhooks/connection.hpp>
#include <txhooks/detail/exception_text.hpp>
#include <txhooks/outbox/detail/job_id.hpp>
#include <txhooks/outbox/job_store.hpp>
#include <txhooks/testing/adapter_report.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace txhooks::testing::store_stories {

using Micros = std::chrono::microseconds;
using To = JobEnd::To;

// A JobStore in its block.
class Store {
public:
    virtual void insert(std::span<const NewJob> jobs, std::string_view holder) = 0;
    virtual std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first) = 0;
    virtual std::vector<JobRow> claim(const JobClaim& wanted) = 0;
    virtual std::vector<bool> settle(std::span<const JobEnd> ends, bool lazily) = 0;
    virtual bool extend(std::string_view id, std::int64_t claim, Micros lease) = 0;
    virtual std::vector<JobRow> list(const JobFilter& filter) = 0;
    virtual std::vector<JobStats> stats() = 0;
    virtual bool revive(std::string_view id) = 0;
    virtual bool cancel(std::string_view id) = 0;
    virtual bool cancel(std::string_view name, std::string_view key) = 0;

protected:
    ~Store() = default;
};

// A connection.
class Database {
public:
    using Act = std::function<void(Store&)>;

    virtual ~Database() = default;
    virtual std::string schema() = 0;
    virtual void create_table() = 0;
    virtual void writing(const Act& act) = 0;   // in a block
    virtual void claiming(const Act& act) = 0;  // in one with begin_claim(), and Lazily around it
    virtual void looking(const Act& act) = 0;   // in one with begin_look()
    virtual Connection& connection() = 0;
    virtual void pass(Micros time) = 0;
};

// A promise that is not kept.
struct Complaint : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct NotTried : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void need(bool kept, const std::string& complaint) {
    if (!kept) throw Complaint{complaint};
}

constexpr Micros minute = std::chrono::minutes{1};
constexpr Micros moment = std::chrono::milliseconds{60};  // a lease, or a delay, that ends within the check
constexpr std::chrono::seconds patience{2};               // who has not answered by then waits for a lock

// A story's table: its jobs have a name of their own.
class Table {
public:
    Table(Database& database, Database* second, std::string story)
        : db{database}, other_{second}, name{std::move(story)} {}

    Database& db;

private:
    Database* other_;

public:
    const std::string name;

    Database& other() {
        if (other_ == nullptr) throw NotTried{"there is one connection only"};
        return *other_;
    }

    // ---- Short forms

    NewJob job(std::string payload = "p", std::string key = {}, Micros delay = {}, Micros lease = {}) {
        return {
            keep(txhooks::detail::make_job_id()), name, keep(std::move(payload)), keep(std::move(key)), delay, lease};
    }
    void insert(Database& at, const NewJob& one) {
        at.writing([&](Store& store) { store.insert({&one, 1}, "host:1"); });
    }
    std::string add(std::string payload = "p", std::string key = {}, Micros delay = {}, Micros lease = {}) {
        const NewJob one = job(std::move(payload), std::move(key), delay, lease);
        insert(db, one);
        return std::string{one.id};
    }

    std::int64_t now() {
        FirstJob none;
        return look(db, none);
    }
    // The clock, and what is told of the name: never due is nothing.
    std::int64_t look(Database& at, FirstJob& first, bool in_order = false, std::int64_t from = 0) {
        std::int64_t clock = 0;
        at.looking([&](Store& store) {
            std::vector<FirstJob> all;
            const JobsNamed wanted{name, in_order, from};
            clock = store.look({&wanted, 1}, all);
            need(all.size() <= 1, "look() tells more than one job of a name");
            need(all.empty() || all[0].name == name, "look() tells of a name that it was not asked for");
            first = all.empty() ? FirstJob{} : all[0];
        });
        return clock;
    }

    JobClaim wanted(std::size_t limit = 100, Micros lease = minute) const {
        JobClaim all;
        all.name = name;
        all.holder = "host:2";
        all.lease = lease;
        all.limit = limit;
        return all;
    }
    std::vector<JobRow> claim(Database& at, const JobClaim& what) {
        std::vector<JobRow> rows;
        at.claiming([&](Store& store) { rows = store.claim(what); });
        return rows;
    }
    std::vector<JobRow> claim() { return claim(db, wanted()); }
    std::vector<JobRow> claim_lapsed() {
        JobClaim what = wanted();
        what.lapsed = true;
        return claim(db, what);
    }
    std::vector<JobRow> claim_in_order(bool lapsed = false) {
        JobClaim what = wanted(1);
        what.in_order = true;
        what.lapsed = lapsed;
        return claim(db, what);
    }

    bool settle(Database& at, std::string_view id, std::int64_t claim, To to, Micros delay = {},
                std::int64_t attempts = 1, std::string_view error = "e") {
        bool mine = false;
        const JobEnd end{id, claim, to, delay, attempts, error};
        at.claiming([&](Store& store) {
            const std::vector<bool> answers = store.settle({&end, 1}, true);
            need(answers.size() == 1, "settle() did not give one answer for one job");
            mine = answers[0];
        });
        return mine;
    }
    bool settle(std::string_view id, std::int64_t claim, To to, Micros delay = {}, std::int64_t attempts = 1,
                std::string_view error = "e") {
        return settle(db, id, claim, to, delay, attempts, error);
    }
    bool extend(std::string_view id, std::int64_t claim, Micros lease) {
        bool mine = false;
        db.claiming([&](Store& store) { mine = store.extend(id, claim, lease); });
        return mine;
    }
    template <class Does>
    bool ask(const Does& does) {
        bool answer = false;
        db.writing([&](Store& store) { answer = does(store); });
        return answer;
    }

    std::vector<JobRow> rows(Database& at) {
        std::vector<JobRow> all;
        at.looking([&](Store& store) {
            JobFilter mine;
            mine.name = name;
            all = store.list(mine);
        });
        return all;
    }
    std::vector<JobRow> rows() { return rows(db); }
    JobRow row(std::string_view id) {
        for (JobRow& each : rows())
            if (each.id == id) return each;
        throw Complaint{"a row is gone, or list() does not tell it"};
    }

    void empty() {
        std::vector<JobRow> left;
        db.looking([&](Store& store) { left = store.list({}); });
        std::vector<JobEnd> ends;
        ends.reserve(left.size());
        for (const JobRow& row : left) ends.push_back({row.id, row.claim, To::done, {}, 0, {}});
        if (!ends.empty()) db.claiming([&](Store& store) { store.settle(ends, true); });
    }

private:
    std::string_view keep(std::string text) { return kept_.emplace_back(std::move(text)); }

    std::deque<std::string> kept_;
};

inline bool same(const JobRow& a, const JobRow& b) {
    return a.id == b.id && a.name == b.name && a.payload == b.payload && a.due == b.due && a.claim == b.claim &&
           a.attempts == b.attempts && a.holder == b.holder && a.key == b.key && a.error == b.error &&
           a.created == b.created;
}
inline bool between(std::int64_t before, std::int64_t time, std::int64_t after) {
    return before <= time && time <= after;
}

inline std::string ids(const std::vector<JobRow>& rows) {
    std::string all;
    for (const JobRow& row : rows) all += row.id + ' ';
    return all;
}
inline std::string ids(std::initializer_list<std::string_view> given) {
    std::string all;
    for (const std::string_view id : given) all += std::string{id} + ' ';
    return all;
}

// ---- Inserting

inline void tables(Table& t) {
    need(t.db.schema().find("txhooks_job") != std::string::npos, "schema() does not name txhooks_job");
    t.add();
    t.db.create_table();
    need(t.rows().size() == 1, "create_table() lost a row of the table that was there");
}

inline void inserts(Table& t) {
    const std::int64_t before = t.now();
    const std::string id = t.add("payload", "key", minute);
    const std::int64_t after = t.now();
    const std::int64_t here =
        std::chrono::duration_cast<Micros>(std::chrono::system_clock::now().time_since_epoch()).count();
    constexpr std::int64_t day = Micros{std::chrono::hours{24}}.count();
    need(before <= after, "the clock goes back");
    need(between(here - day, before, here + day), "the clock does not tell microseconds since 1970");
    const JobRow row = t.row(id);
    need(row.name == t.name && row.payload == "payload" && row.key == "key",
         "name, payload or key are not as they were inserted");
    need(row.claim == 0 && row.attempts == 0 && row.holder.empty() && row.error.empty(),
         "a row is born with a claim, an attempt, a holder or an error");
    need(between(before, row.created, after), "created is not the time of the INSERT");
    need(between(before, row.due - minute.count(), after), "due is not the time of the INSERT and the delay");
    need(t.row(t.add("p")).key.empty(), "a row without a key has one");
}

inline void bytes(Table& t) {
    std::string all;
    for (int c = 0; c != 256; ++c) all += static_cast<char>(c);
    std::string large;
    while (large.size() < 1024 * 1024) large += all;
    for (const std::string& payload :
         {std::string{}, all, std::string(1, '\0'), std::string{"\\x00 '%s' $1 ?"}, large}) {
        const std::string id = t.add(payload);
        need(t.row(id).payload == payload,
             "a payload of " + std::to_string(payload.size()) + " bytes is another one in list()");
        const std::vector<JobRow> claimed = t.claim();
        need(claimed.size() == 1 && claimed[0].payload == payload,
             "a payload of " + std::to_string(payload.size()) + " bytes is another one when it is claimed");
    }
}

inline void keys(Table& t) {
    const std::string keys[] = {"a", "A", "a ", " a", "\xc3\xa4", "it's 100%_\\", std::string(255, 'k')};
    std::vector<std::string> added;
    for (const std::string& key : keys) added.push_back(t.add("p", key, minute));
    need(t.rows().size() == std::size(keys), "keys that differ in case, space or accent are taken for the same");
    for (std::size_t i = 0; i != added.size(); ++i)
        need(t.row(added[i]).key == keys[i], "a key is not as it was inserted");
}

inline void many(Table& t) {
    std::vector<NewJob> jobs;
    for (int n = 0; n != 500; ++n) jobs.push_back(t.job(std::to_string(n), n % 2 == 0 ? "" : "k" + std::to_string(n)));
    t.db.writing([&](Store& store) { store.insert(jobs, "host:1"); });
    const std::vector<JobRow> rows = t.rows();
    need(rows.size() == 500, "of 500 jobs inserted at once " + std::to_string(rows.size()) + " are there");
    for (std::size_t n = 0; n != rows.size(); ++n)
        need(rows[n].id == jobs[n].id && rows[n].payload == jobs[n].payload && rows[n].key == jobs[n].key,
             "list() is not by id, or rows of one INSERT are mixed up");
}

inline void undone(Table& t) {
    const NewJob first = t.job(), second = t.job(), third = t.job();
    t.db.writing([&](Store& store) {
        store.insert({&first, 1}, "host:1");
        t.db.connection().set_rollback(true);
    });
    need(t.rows().empty(), "a job of a block that rolled back is there");
    t.db.writing([&](Store& store) {
        store.insert({&second, 1}, "host:1");
        t.db.writing([&](Store& inner) {
            inner.insert({&third, 1}, "host:1");
            t.db.connection().set_rollback(true);
        });
    });
    need(ids(t.rows()) == ids({second.id}), "not just the job outside of the savepoint that was rolled back is there");
}

inline void born_leased(Table& t) {
    const std::int64_t before = t.now();
    const std::string id = t.add("p", "", {}, minute);
    const std::int64_t after = t.now();
    const JobRow row = t.row(id);
    need(row.claim == 1 && row.attempts == 1 && row.holder == "host:1",
         "born leased is claim 1, attempt 1, with the holder");
    need(between(before, row.due - minute.count(), after), "born leased is due when the lease ends");
    need(t.claim().empty() && t.claim_lapsed().empty(),
         "a job that was born leased is claimed before its lease is over");
    need(t.settle(id, 1, To::done) && t.rows().empty(), "a job that was born leased cannot be settled with claim 1");
}

inline void renews(Table& t) {
    const std::string id = t.add("old", "key", minute);
    const JobRow old = t.row(id);
    const std::string second = t.add("other", "other key", minute);
    const std::int64_t before = t.now();
    t.add("new", "key", 2 * minute);
    const std::int64_t after = t.now();
    need(t.rows().size() == 2, "a second job of the same name and key was inserted beside the one that waits");
    const JobRow row = t.row(id);
    need(row.payload == "new", "the payload of the job that waits was not renewed");
    need(between(before, row.due - 2 * minute.count(), after), "the time of the job that waits was not renewed");
    need(row.key == "key" && row.claim == 0 && row.created == old.created && row.holder.empty(),
         "more than payload and due was renewed");
    need(t.row(second).payload == "other", "a job of another key was renewed");
    const NewJob twice[] = {t.job("1", "twice"), t.job("2", "none"), t.job("3", "")};
    t.db.writing([&](Store& store) { store.insert(twice, "host:1"); });
    t.add("", "twice");
    need(t.row(twice[0].id).payload.empty(), "the payload of the job that waits was not renewed with an empty one");
    t.add();
    need(t.rows().size() == 6, "jobs without a key are taken for ones with the same");
}

inline void key_is_free(Table& t) {
    const std::string begun = t.add("1", "key");
    need(t.claim().size() == 1, "a job with a key was not claimed");
    const std::string next = t.add("2", "key", minute);
    need(t.row(begun).payload == "1" && t.row(next).payload == "2", "a job that has begun was renewed");
    need(t.settle(begun, 1, To::wait), "it could not be settled beside another with its key that waits");
    t.add("3", "key", minute);
    need(t.row(begun).payload == "1" && t.row(next).payload == "3",
         "the one that has begun was renewed, not the one that waits");
    Table elsewhere{t.db, nullptr, t.name + "_too"};
    const std::string same_key = elsewhere.add("4", "key");
    need(elsewhere.row(same_key).payload == "4" && t.row(next).payload == "3", "a key counts in other names, too");
}

// ---- Claiming

inline void when_due(Table& t) {
    t.add("p", "", minute);
    const std::string soon = t.add("p", "", moment);
    const std::string dead = t.add("p", "", {}, minute);
    need(t.settle(dead, 1, To::dead), "a job that was born leased cannot be settled with claim 1");
    need(t.claim().empty(), "a job was claimed before it was due, or dead");
    need(t.claim_in_order().empty(), "in_order: a job was claimed before it was due, or dead");
    t.db.pass(moment);
    need(ids(t.claim()) == ids({soon}), "not just the job that is due was claimed");
}

inline void by_due(Table& t) {
    const NewJob third = t.job("p", "", moment), first = t.job(), second = t.job("p", "", moment / 2);
    for (const NewJob* const each : {&third, &first, &second}) t.insert(t.db, *each);
    t.db.pass(2 * moment);
    need(ids(t.claim()) == ids({first.id, second.id, third.id}),
         "claim() does not give jobs in the order in which they are due");
}

inline void limited(Table& t) {
    Table other{t.db, nullptr, t.name + "x"}, upper{t.db, nullptr, "Txhooks" + t.name.substr(7)};
    other.add();
    upper.add();
    need(t.claim().empty() && t.claim_in_order().empty(), "claim() gives jobs of another name");
    const std::string a = t.add();
    t.db.pass(Micros{10});
    const std::string b = t.add();
    t.db.pass(Micros{10});
    const std::string c = t.add();
    need(ids(t.claim(t.db, t.wanted(1))) == ids({a}), "claim() with limit 1 gives not just the first job");
    JobClaim from = t.wanted();
    from.from = t.row(c).due;
    need(ids(t.claim(t.db, from)) == ids({c}), "claim() gives jobs from before its `from`, or not those at it");
    need(ids(t.claim()) == ids({b}), "claim() does not give what is left");
}

inline void counts(Table& t) {
    const std::string id = t.add("payload", "key");
    const JobRow fresh = t.row(id);
    std::int64_t before = t.now();
    const std::vector<JobRow> first = t.claim();
    std::int64_t after = t.now();
    need(first.size() == 1 && first[0].claim == 1, "a claim does not raise the column claim by one");
    need(first[0].attempts == 1, "a claim does not raise attempts by one");
    need(first[0].holder == "host:2", "a claim does not say who holds the job");
    need(between(before, first[0].due - minute.count(), after), "a claimed job is not due at the end of its lease");
    need(first[0].payload == "payload" && first[0].key == "key" && first[0].created == fresh.created &&
             first[0].name == t.name,
         "a claim changes what it should not, or does not tell it");
    need(same(first[0], t.row(id)), "claim() returns not what is in the table afterwards");
    need(t.settle(id, 1, To::wait, {}, 0, "last error"), "a claim cannot be settled");
    const std::vector<JobRow> second = t.claim();
    need(second.size() == 1 && second[0].claim == 2 && second[0].attempts == 1, "the second claim is not claim 2");
    need(second[0].error == "last error", "a claim does not tell the last error");
    need(same(second[0], t.row(id)), "claim() returns not what is in the table afterwards");
}

inline void once(Table& t) {
    t.add();
    need(t.claim().size() == 1, "a job that is due was not claimed");
    need(t.claim().empty() && t.claim_lapsed().empty() && t.claim_in_order().empty() && t.claim_in_order(true).empty(),
         "a job that is held was claimed again");
}

inline void claim_undone(Table& t) {
    const std::string id = t.add();
    const JobRow before = t.row(id);
    t.db.claiming([&](Store& store) {
        need(store.claim(t.wanted()).size() == 1, "a job that is due was not claimed");
        t.db.connection().set_rollback(true);
    });
    need(same(before, t.row(id)), "a claim that was rolled back has changed the row");
}

inline void lapsed(Table& t) {
    const std::string gone = t.add();
    need(t.claim(t.db, t.wanted(1, moment)).size() == 1, "a job that is due was not claimed");
    const std::string fresh = t.add();
    const std::string born = t.add("p", "", {}, moment);
    need(t.claim_lapsed().empty(), "claim() of lapsed jobs gives one whose lease goes on, or one that nobody has had");
    t.db.pass(moment + moment / 2);
    const std::vector<JobRow> fresh_ones = t.claim();
    need(ids(fresh_ones) == ids({fresh}),
         "claim() of fresh jobs gives one whose lease has run out, or not the fresh one");
    const std::vector<JobRow> lapsed_ones = t.claim_lapsed();
    need(lapsed_ones.size() == 2, "claim() of lapsed jobs does not give those whose lease has run out");
    for (const JobRow& row : lapsed_ones)
        need((row.id == gone || row.id == born) && row.claim == 2 && row.attempts == 2 && row.holder == "host:2",
             "a lapsed job is not claimed like another: claim 2, attempts 2, and the new holder");
}

inline void looks(Table& t) {
    FirstJob first;
    t.look(t.db, first);
    need(first.due == JobRow::never_due, "look() tells of a job where none is");
    const std::string dead = t.add("p", "", {}, minute);
    t.settle(dead, 1, To::dead);
    t.look(t.db, first);
    need(first.due == JobRow::never_due, "look() tells of a dead job");
    const std::string later = t.add("p", "", 2 * minute), sooner = t.add("p", "", minute);
    const std::int64_t clock = t.look(t.db, first);
    need(first.due == t.row(sooner).due && !first.lapsed, "look() does not tell of the job that is due first");
    need(first.due > clock, "look() tells another time than the table does");
    t.look(t.db, first, false, t.row(sooner).due + 1);
    need(first.due == t.row(later).due, "look() tells of a job from before its `from`");
    t.look(t.db, first, true);
    need(first.due == t.row(later).due, "look() in_order does not tell of the job with the lowest id");
    const std::string held = t.add("p", "", {}, moment);
    t.look(t.db, first);
    need(first.due == t.row(held).due && first.lapsed, "look() does not tell that a job has a holder");
    Table other{t.db, nullptr, t.name + "_too"}, nothing{t.db, nullptr, t.name + "_none"};
    other.add();
    std::vector<FirstJob> all;
    const JobsNamed names[] = {{other.name}, {nothing.name}, {t.name}};
    t.db.looking([&](Store& store) { store.look(names, all); });
    std::erase_if(all, [](const FirstJob& each) { return each.due == JobRow::never_due; });
    std::sort(all.begin(), all.end(), [](const FirstJob& a, const FirstJob& b) { return a.name < b.name; });
    need(all.size() == 2 && all[0].name == t.name && all[1].name == other.name && !all[1].lapsed && all[0].lapsed,
         "look() for several names does not tell of the first of each");
}

inline void in_order(Table& t) {
    const std::string a = t.add("p", "", moment), b = t.add(), c = t.add();
    need(t.claim_in_order().empty(), "in_order: a job was claimed while one with a lower id waits for its time");
    t.db.pass(moment + moment / 2);
    need(ids(t.claim_in_order()) == ids({a}), "in_order: not the job with the lowest id was claimed");
    need(t.claim_in_order().empty(), "in_order: a job was claimed while another is held");
    need(t.settle(a, 1, To::wait, moment), "a claim cannot be settled");
    need(t.claim_in_order().empty(), "in_order: a job was claimed while one that failed waits for its next attempt");
    t.db.pass(moment + moment / 2);
    need(t.claim_in_order(true).empty(), "in_order: a fresh job was claimed as a lapsed one");
    need(ids(t.claim_in_order()) == ids({a}), "in_order: not the job that failed was claimed");
    need(t.settle(a, 2, To::dead), "a claim cannot be settled");
    need(ids(t.claim_in_order()) == ids({b}), "in_order: a dead job holds the others back");
    need(t.settle(b, 1, To::done), "a claim cannot be settled");
    need(ids(t.claim_in_order()) == ids({c}), "in_order: the last one was not claimed");
}

inline void in_order_beside(Table& t) {
    const NewJob older = t.job();
    const std::string younger = t.add();
    need(ids(t.claim_in_order()) == ids({younger}), "in_order: the only job was not claimed");
    t.insert(t.db, older);
    need(t.claim_in_order().empty(), "in_order: a job was claimed while a younger one, committed before it, is held");
    need(t.settle(younger, 1, To::done), "a claim cannot be settled");
    JobClaim what = t.wanted(1, moment);
    what.in_order = true;
    need(ids(t.claim(t.db, what)) == ids({older.id}), "in_order: the only job was not claimed");
    t.add();
    t.db.pass(moment + moment / 2);
    need(t.claim_in_order().empty(),
         "in_order: a lapsed job was claimed as a fresh one, or does not hold the others back");
    need(ids(t.claim_in_order(true)) == ids({older.id}), "in_order: the lapsed job was not claimed");
}

// ---- Settling

inline void settles(Table& t) {
    const std::string done = t.add(), wait = t.add("p", "key"), dead = t.add();
    need(t.claim().size() == 3, "jobs that are due were not claimed");
    const JobRow held = t.row(wait);
    need(t.settle(done, 1, To::done), "the claim that holds a job cannot settle it");
    need(t.rows().size() == 2, "a job that is done is still there, or took another along");
    const std::int64_t before = t.now();
    const std::string text = "it's \"100%\" $1 ?\n\\x" + std::string(1500, 'e');
    need(t.settle(wait, 1, To::wait, minute, 7, text), "the claim that holds a job cannot settle it");
    const std::int64_t after = t.now();
    JobRow row = t.row(wait);
    need(row.holder.empty(), "a job that waits has a holder");
    need(between(before, row.due - minute.count(), after), "a job that waits is not due after its delay");
    need(row.attempts == 7 && row.error == text, "attempts or error are not what settle() was given");
    need(row.claim == 1, "settle() changed the column claim, which never falls and rises with claims only");
    need(row.payload == held.payload && row.key == held.key && row.created == held.created,
         "settle() changes what it should not");
    need(t.settle(dead, 1, To::dead, {}, 3, ""), "the claim that holds a job cannot settle it");
    row = t.row(dead);
    need(row.dead() && row.due == JobRow::never_due, "a dead job's due is not never_due");
    need(row.holder.empty() && row.attempts == 3 && row.error.empty() && row.claim == 1,
         "a dead job has a holder, or attempts or error are not what settle() was given");
}

inline void fenced(Table& t) {
    const std::string id = t.add();
    need(t.claim(t.db, t.wanted(1, moment)).size() == 1, "a job that is due was not claimed");
    t.db.pass(moment + moment / 2);
    need(t.claim_lapsed().size() == 1, "a job whose lease has run out was not claimed");
    const JobRow before = t.row(id);
    for (const To to : {To::wait, To::dead, To::done}) {
        need(!t.settle(id, 1, to), "settle() says that a job is this claim's when another has it");
        need(t.rows().size() == 1 && same(before, t.row(id)), "settle() has changed the row of another claim");
    }
    need(!t.settle(id, 3, To::done) && t.rows().size() == 1, "settle() takes a claim that nobody has made");
    need(!t.extend(id, 1, 2 * minute) && same(before, t.row(id)), "extend() extends the lease of another claim");
    need(!t.settle("no such id", 1, To::done), "settle() says yes to a job that is not there");
    need(t.settle(id, 2, To::done) && t.rows().empty(), "the claim that holds a job cannot settle it");
}

inline void answers(Table& t) {
    std::vector<std::string> added;
    for (int n = 0; n != 6; ++n) added.push_back(t.add());
    need(t.claim(t.db, t.wanted(5)).size() == 5, "claim() does not give as many as there are and were asked for");
    const std::vector<JobEnd> ends{{added[0], 1, To::done, {}, 1, {}},   {added[1], 2, To::done, {}, 1, {}},
                                   {added[2], 1, To::wait, {}, 2, "w"},  {"no such id", 1, To::done, {}, 1, {}},
                                   {added[3], 9, To::dead, {}, 1, "no"}, {added[4], 1, To::dead, {}, 4, "d"},
                                   {added[5], 1, To::wait, {}, 1, "no"}};
    for (const bool lazily : {true, false}) {
        std::vector<bool> got;
        t.db.claiming([&](Store& store) {
            got = store.settle(ends, lazily);
            t.db.connection().set_rollback(lazily);
        });
        need(got == std::vector<bool>{true, false, true, false, false, true, false},
             "settle() of several does not answer for each, in their order");
        if (lazily) need(t.rows().size() == 6, "a settlement that was rolled back has changed the table");
    }
    const std::vector<JobRow> rows = t.rows();
    need(rows.size() == 5, "not just the job that is done and this claim's was deleted");
    need(rows[0].holder == "host:2" && rows[2].holder == "host:2" && rows[4].claim == 0 && rows[4].error.empty(),
         "settle() has changed the row of another claim");
    need(rows[1].attempts == 2 && rows[1].error == "w" && !rows[1].dead() && rows[3].attempts == 4 &&
             rows[3].error == "d" && rows[3].dead(),
         "settle() of several mixes them up");
    need(t.ask([](Store& store) { return store.settle({}, true).empty(); }), "settle() of nothing has an answer");
}

inline void extends(Table& t) {
    const std::string id = t.add();
    need(t.claim().size() == 1, "a job that is due was not claimed");
    const std::int64_t before = t.now();
    need(t.extend(id, 1, 5 * minute), "extend() says no to the claim that holds the job");
    const std::int64_t after = t.now();
    const JobRow row = t.row(id);
    need(between(before, row.due - (5 * minute).count(), after),
         "extend() does not make the lease end so long after now");
    need(row.claim == 1 && row.attempts == 1 && row.holder == "host:2", "extend() changes what it should not");
    need(t.extend(id, 1, moment) && t.row(id).due < before + minute.count(), "extend() does not make a lease shorter");
    need(!t.extend("no such id", 1, minute), "extend() says yes to a job that is not there");
    need(t.settle(id, 1, To::wait, minute), "a claim cannot be settled");
    const JobRow waits = t.row(id);
    need(!t.extend(id, 1, 9 * minute) && same(waits, t.row(id)), "extend() extends a lease that was given back");
}

// ---- Looking at the table

inline void lists(Table& t) {
    Table other{t.db, nullptr, t.name + "_too"};
    const std::string a = t.add("p", "", minute), b = t.add("p", "", {}, minute), c = t.add(),
                      d = other.add("p", "", {}, minute);
    t.settle(b, 1, To::dead);
    other.settle(d, 1, To::dead);
    const auto listed = [&](std::string_view name, bool dead, std::size_t limit) {
        std::vector<JobRow> rows;
        t.db.looking([&](Store& store) {
            JobFilter filter;
            filter.name = name;
            filter.dead = dead;
            filter.limit = limit;
            rows = store.list(filter);
        });
        return ids(rows);
    };
    constexpr std::size_t all = ~std::size_t{0} >> 1;
    need(listed("", false, all) == ids({a, b, c, d}), "list() without a name does not give all jobs by id");
    need(listed(t.name, false, 1000) == ids({a, b, c}), "list() with a name does not give its jobs by id");
    need(listed(t.name, true, 1000) == ids({b}) && listed("", true, all) == ids({b, d}),
         "list() of the dead gives not those, or others");
    need(listed(t.name, false, 2) == ids({a, b}), "list() with a limit does not give the first ones");
}

inline void tells_stats(Table& t) {
    t.add("p", "", {}, moment);  // lapses
    const std::string fresh = t.add();
    t.add("p", "", minute);
    t.add("p", "", 2 * minute);
    t.add("p", "", {}, minute);
    const std::string dead = t.add("p", "", {}, minute);
    t.settle(dead, 1, To::dead);
    Table other{t.db, nullptr, t.name + "_too"};
    other.add("p", "", minute);
    t.db.pass(2 * moment);
    std::vector<JobStats> all;
    const std::int64_t before = t.now();
    t.db.looking([&](Store& store) { all = store.stats(); });
    const std::int64_t after = t.now();
    need(all.size() == 2 && all[0].name == t.name && all[1].name == other.name,
         "stats() does not tell each name once, in order");
    const JobStats& stats = all[0];
    need(stats.due == 2, "stats: due is not how many are due, with those whose lease ran out");
    need(stats.later == 2, "stats: later is not how many wait for their time");
    need(stats.running == 1, "stats: running is not how many are held");
    need(stats.dead == 1, "stats: dead is not how many are dead");
    const std::int64_t due = t.row(fresh).due;
    need(between(before - due, stats.oldest.count(), after - due),
         "stats: oldest is not how long the first has been due");
    need(all[1].due == 0 && all[1].later == 1 && all[1].oldest == Micros{0}, "stats: names are mixed up");
}

inline void revives(Table& t) {
    const std::string id = t.add("p", "key"), waits = t.add("p", "", minute), held = t.add("p", "", {}, minute);
    const auto revive = [&](std::string_view which) {
        return t.ask([&](Store& store) { return store.revive(which); });
    };
    need(t.claim().size() == 1 && t.settle(id, 1, To::dead, {}, 4, "why"), "a claim cannot be settled");
    const JobRow waiting = t.row(waits), holding = t.row(held);
    const std::int64_t before = t.now();
    need(revive(id), "revive() says no to a dead job");
    const std::int64_t after = t.now();
    const JobRow row = t.row(id);
    need(between(before, row.due, after), "a revived job is not due now");
    need(row.attempts == 0 && row.error.empty() && row.holder.empty(),
         "a revived job has attempts, an error or a holder");
    need(row.claim == 1, "revive() sets back the column claim, which never falls");
    need(!revive(id) && !revive(waits) && !revive(held) && !revive("no such id"),
         "revive() says yes to a job that is not dead");
    need(same(waiting, t.row(waits)) && same(holding, t.row(held)), "revive() changes a job that is not dead");
    const std::vector<JobRow> again = t.claim();
    need(again.size() == 1 && again[0].claim == 2 && again[0].attempts == 1,
         "a revived job is not claimed as claim 2, attempt 1");
}

inline void cancels(Table& t) {
    const std::string waits = t.add("p", "", minute), due = t.add(), dead = t.add("p", "", {}, minute),
                      held = t.add("p", "", {}, minute), gone = t.add("p", "", {}, moment);
    t.settle(dead, 1, To::dead);
    t.db.pass(moment + moment / 2);
    const auto cancel = [&](std::string_view which) {
        return t.ask([&](Store& store) { return store.cancel(which); });
    };
    need(!cancel(held), "cancel() says yes to a job that somebody has");
    need(!cancel("no such id"), "cancel() says yes to a job that is not there");
    need(t.rows().size() == 5, "cancel() deletes a job that somebody has, or another");
    need(cancel(waits) && cancel(due), "cancel() says no to a job that waits");
    need(cancel(dead), "cancel() says no to a dead job");
    need(cancel(gone), "cancel() says no to a job whose lease has run out");
    need(ids(t.rows()) == ids({held}), "cancel() does not delete, or deletes another");
}

inline void cancels_by_key(Table& t) {
    const std::string begun = t.add("p", "key");
    need(t.claim().size() == 1 && t.settle(begun, 1, To::wait), "a claim cannot be settled");
    const auto cancel = [&](std::string_view key) {
        return t.ask([&](Store& store) { return store.cancel(t.name, key); });
    };
    need(!cancel("key"), "cancel() by key says yes to a job that has begun");
    t.add("p", "key");
    const std::string no_key = t.add();
    Table other{t.db, nullptr, t.name + "_too"};
    other.add("p", "key");
    need(!cancel("KEY") && !cancel("key ") && !cancel("none"), "cancel() by key says yes to a key that no job has");
    need(cancel("key") && !cancel("key"), "cancel() by key says no to a job that waits, or yes twice");
    need(ids(t.rows()) == ids({begun, no_key}) && other.rows().size() == 1,
         "cancel() by key deletes not just the job that waits with this name and key");
}

inline void clock_runs(Table& t) {
    const JobsNamed wanted{t.name};
    std::vector<FirstJob> first;
    const NewJob job = t.job();
    std::int64_t begun = 0, now = 0;
    t.db.writing([&](Store& store) {
        begun = store.look({&wanted, 1}, first);
        t.db.pass(moment);
        now = store.look({&wanted, 1}, first);
        store.insert({&job, 1}, "host:1");
    });
    need(now - begun >= moment.count(), "the clock is read when the transaction begins, not when the statement runs");
    need(t.row(job.id).due >= now, "due is reckoned from when the transaction began, not from when the statement runs");
}

// ---- Two connections

// Something done on another thread. `refused`: it threw.
class Errand {
public:
    explicit Errand(std::function<void()> act)
        : done_{std::async(std::launch::async, [this, act = std::move(act)] {
              try {
                  act();
              } catch (...) {
                  refused = true;
                  txhooks::detail::with_text_of(std::current_exception(), [&](const char* what) { text = what; });
              }
          })} {}
    Errand(const Errand&) = delete;
    Errand& operator=(const Errand&) = delete;

    bool soon() { return done_.wait_for(patience) == std::future_status::ready; }
    void wait() { done_.wait(); }

    bool refused = false;
    std::string text;

private:
    std::future<void> done_;  // last: it ends before what it writes to
};

// Whether the engine lets one transaction write at a time, whatever a store does.
inline bool one_writes(Table& t) {
    Database& other = t.other();
    Table elsewhere{other, nullptr, t.name + "_w"};
    const NewJob mine = t.job("p", "", minute), theirs = elsewhere.job("p", "", minute);
    std::unique_ptr<Errand> errand;
    bool waits = false;
    t.db.writing([&](Store& store) {
        store.insert({&mine, 1}, "host:1");
        errand = std::make_unique<Errand>([&] { elsewhere.insert(other, theirs); });
        waits = !errand->soon();
        t.db.connection().set_rollback(true);
    });
    errand->wait();
    return waits || errand->refused;
}

inline void unseen(Table& t) {
    Database& other = t.other();
    const NewJob job = t.job();
    t.db.writing([&](Store& store) {
        store.insert({&job, 1}, "host:1");
        need(t.rows(other).empty(), "a job is seen, or nothing of the table, before its COMMIT");
    });
    need(ids(t.rows(other)) == ids({job.id}),
         "the second connection does not see a committed job: is it the same database?");
    need(t.claim(other, t.wanted()).size() == 1 && t.claim().empty(),
         "a job that another connection holds was claimed");
}

inline void beside_a_claim(Table& t) {
    Database& other = t.other();
    const bool one = one_writes(t);
    for (int n = 0; n != 3; ++n) t.add();
    std::vector<JobRow> mine, theirs;
    std::atomic<bool> begun = false, looked_soon = false, claimed_soon = false;
    FirstJob first;
    std::unique_ptr<Errand> look, claim;
    t.db.claiming([&](Store& store) {
        mine = store.claim(t.wanted(1));
        look = std::make_unique<Errand>([&] { t.look(other, first); });
        looked_soon = look->soon();
        if (!looked_soon) return;
        claim = std::make_unique<Errand>([&] {
            other.claiming([&](Store& second) {
                begun = true;
                theirs = second.claim(t.wanted());
            });
        });
        claimed_soon = claim->soon();
    });
    look->wait();
    need(looked_soon, "look() waits for a transaction that has claimed");
    need(!look->refused, "look() beside a transaction that has claimed threw: " + look->text);
    claim->wait();
    need(mine.size() == 1, "a job that is due was not claimed");
    need(claimed_soon || one || !begun, "claim() waits for rows that another transaction has claimed");
    need(!claim->refused || one, "claim() beside a transaction that has claimed threw: " + claim->text);
    if (claim->refused || (one && theirs.empty())) theirs = t.claim(other, t.wanted());
    for (const JobRow& row : theirs) need(row.id != mine[0].id, "two have claimed the same job");
    need(theirs.size() == 2, "claim() does not pass over rows that another transaction has claimed");
    for (const JobRow& row : t.rows()) need(row.claim == 1, "a job was not claimed just once");
}

inline void inserts_beside_a_claim(Table& t) {
    Database& other = t.other();
    if (one_writes(t)) throw NotTried{"one transaction writes at a time"};
    const NewJob before = t.job(), behind = t.job("p", "", minute), keyed = t.job("p", "key");
    t.add();
    t.add();
    t.add("p", "", {}, minute);
    std::unique_ptr<Errand> errand;
    bool soon = false;
    t.db.claiming([&](Store& store) {
        need(store.claim(t.wanted()).size() == 2, "jobs that are due were not claimed");
        errand = std::make_unique<Errand>([&] {
            for (const NewJob* const job : {&before, &behind, &keyed}) t.insert(other, *job);
        });
        soon = errand->soon();
    });
    errand->wait();
    need(soon, "an INSERT waits for a transaction that has claimed");
    need(!errand->refused, "an INSERT beside a transaction that has claimed threw: " + errand->text);
    need(t.rows().size() == 6, "what was inserted beside a claim is not there");
}

inline void key_from_two(Table& t) {
    Database& other = t.other();
    const NewJob mine = t.job("mine", "key", minute), theirs = t.job("theirs", "key", minute);
    std::unique_ptr<Errand> errand;
    t.db.writing([&](Store& store) {
        store.insert({&mine, 1}, "host:1");
        errand = std::make_unique<Errand>([&] { t.insert(other, theirs); });
        std::this_thread::sleep_for(std::chrono::milliseconds{100});
    });
    errand->wait();
    if (errand->refused) t.insert(other, theirs);  // as a serialization failure: it is tried again
    const std::vector<JobRow> rows = t.rows();
    need(rows.size() == 1, "of a key that two add at once not just one job waits");
    need(rows[0].payload == "theirs", "of a key that two add at once the last one does not count");
}

inline void race(Table& t) {
    Database& other = t.other();
    constexpr std::size_t count = 60;
    for (std::size_t n = 0; n != count; ++n) t.add();
    const auto take = [&t](Database& at, std::vector<JobRow>& taken) {
        for (int tries = 0; tries != 400; ++tries) {
            try {
                const std::vector<JobRow> some = t.claim(at, t.wanted(3));
                if (some.empty()) return;
                taken.insert(taken.end(), some.begin(), some.end());
            } catch (...) {  // a lock that was not to be had
                std::this_thread::sleep_for(std::chrono::milliseconds{1});
            }
        }
    };
    std::vector<JobRow> mine, theirs;
    Errand errand{[&] { take(other, theirs); }};
    take(t.db, mine);
    errand.wait();
    take(t.db, mine);
    std::set<std::string> all;
    for (const std::vector<JobRow>* const taken : {&mine, &theirs})
        for (const JobRow& row : *taken) {
            need(all.insert(row.id).second, "two have claimed the same job");
            need(row.claim == 1, "a job was not claimed just once");
        }
    need(all.size() == count, "of jobs that two claim some were claimed by nobody");
}

inline void superseded(Table& t) {
    Database& other = t.other();
    const std::string id = t.add();
    need(t.claim(t.db, t.wanted(1, moment)).size() == 1, "a job that is due was not claimed");
    t.db.pass(moment + moment / 2);
    JobClaim late = t.wanted();
    late.lapsed = true;
    need(t.claim(other, late).size() == 1, "a job whose lease has run out was not claimed by another connection");
    need(!t.settle(id, 1, To::done) && !t.settle(id, 1, To::wait) && !t.extend(id, 1, minute),
         "a claim that was superseded by another connection still counts");
    need(t.settle(other, id, 2, To::done) && t.rows().empty(), "the claim that holds a job cannot settle it");
}

struct Story {
    const char* row;
    void (*play)(Table&);
};

inline constexpr Story stories[] = {
    {"create_table twice", tables},
    {"a row as it was inserted", inserts},
    {"payloads of any bytes", bytes},
    {"keys of any bytes", keys},
    {"500 jobs at once", many},
    {"a rolled back insert", undone},
    {"born leased", born_leased},
    {"a key renews what waits", renews},
    {"a key is free once begun", key_is_free},
    {"claims what is due", when_due},
    {"claims in the order of due", by_due},
    {"claims by name, limit and from", limited},
    {"a claim counts", counts},
    {"claimed once", once},
    {"a rolled back claim", claim_undone},
    {"lapsed apart from fresh", lapsed},
    {"look", looks},
    {"in order", in_order},
    {"in order: one at a time", in_order_beside},
    {"settle: done, wait and dead", settles},
    {"settle: fenced", fenced},
    {"settle: several", answers},
    {"extend", extends},
    {"list", lists},
    {"stats", tells_stats},
    {"revive", revives},
    {"cancel", cancels},
    {"cancel by key", cancels_by_key},
    {"the clock of the statement", clock_runs},
    {"unseen before COMMIT", unseen},
    {"claims beside an open claim", beside_a_claim},
    {"inserts beside an open claim", inserts_beside_a_claim},
    {"a key from two at once", key_from_two},
    {"two who claim at once", race},
    {"superseded by another", superseded},
};

inline std::vector<AdapterFinding> play(Database& db, Database* other) {
    using Verdict = AdapterFinding::Verdict;
    std::vector<AdapterFinding> rows;
    db.create_table();
    int number = 0;
    for (const auto& [row, story] : stories) {
        AdapterFinding finding{row, Verdict::kept, {}};
        try {
            Table table{db, other, "txhooks_check_" + std::to_string(++number)};
            table.empty();
            story(table);
        } catch (const NotTried& why) {
            finding = {row, Verdict::cannot, std::string{"not tried: "} + why.what()};
        } catch (const Complaint& complaint) {
            finding = {row, Verdict::failed, complaint.what()};
        } catch (...) {
            std::string text = "an exception of another language";
            txhooks::detail::with_text_of(std::current_exception(), [&](const char* what) { text = what; });
            finding = {row, Verdict::failed, "it threw: " + text};
        }
        rows.push_back(std::move(finding));
    }
    return rows;
}

}  // namespace txhooks::testing::store_stories

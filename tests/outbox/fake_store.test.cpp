// SPDX-License-Identifier: MIT

#include <txhooks/outbox/fake.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using namespace txhooks;
using namespace std::chrono_literals;
using support::join;
using support::Log;
using testing::FakeBackend;

namespace {

using Db = HookedConnection<FakeBackend>;

struct Welcome {
    static constexpr const char* job_name = "welcome";
    std::string name;
};
struct Reminder {
    static constexpr const char* job_name = "reminder";
    std::string name;
};

template <class Job>
    requires requires(const Job& job) { std::string_view{job.name}; }
std::string to_payload(const Job& job) {
    return job.name;
}
template <class Job>
    requires requires(const Job& job) { std::string_view{job.name}; }
void from_payload(std::string_view stored, Job& job) {
    if (stored == "unreadable") throw std::runtime_error{"cannot be read"};
    job.name = stored;
}

// The user's code: what is under test.
void sign_up(Db& db, JobQueue& jobs, const std::string& name) {
    db.atomic([&] {
        db.put(name);
        jobs.add(Welcome{name});
        jobs.add(Reminder{name}, {.key = name, .delay = 24h});
    });
}

template <class Job>
std::string names(Outbox<Db>& outbox) {
    Log all;
    for (const Job& job : outbox.queued<Job>()) all.push_back(job.name);
    return join(all);
}

// A connection whose jobs are handled: what they did stands in `trace`, what went wrong in `sink`.
struct Scene {
    Db db;
    support::Trace trace;
    support::Sink sink{db};
    JobTypes<Db> types;
    bool fails = false;

    static constexpr auto step_name(JobEvent::Step step) {
        switch (step) {
            case JobEvent::Step::succeeded:
                return "succeeded";
            case JobEvent::Step::failed:
                return "failed";
            case JobEvent::Step::dead:
                return "dead";
            case JobEvent::Step::superseded:
                return "superseded";
            case JobEvent::Step::given_back:
                return "given back";
        }
        return "?";
    }

    auto handler() {
        return [this](const Welcome& w, JobRun& run) {
            trace.note(w.name + std::to_string(run.attempt()));
            if (fails) throw std::runtime_error{"no mail server"};
        };
    }
};

}  // namespace

TEST_CASE("fake outbox: a job is in the log where a real database would get it, and in the queue", "[D1]") {
    Db db;
    JobTypes<Db> types;
    Outbox<Db> outbox{db, types};
    sign_up(db, outbox, "ann");
    CHECK(db.log() == Log{"BEGIN", "INSERT ann", "INSERT jobs: reminder, welcome", "COMMIT"});
    CHECK(names<Welcome>(outbox) == "ann");
    CHECK(names<Reminder>(outbox) == "ann");
    const std::vector<JobRow> jobs = outbox.list();
    REQUIRE(jobs.size() == 2);
    for (const JobRow& job : jobs) {
        CHECK(db.committed("txhooks_job/" + job.id));
        CHECK(job.due - job.created == (job.name == "reminder" ? std::chrono::microseconds{24h}.count() : 0));
        CHECK(job.key == (job.name == "reminder" ? "ann" : ""));
    }
}

TEST_CASE("fake outbox: what only reads is an empty block") {
    Db db;
    JobTypes<Db> types;
    Outbox<Db> outbox{db, types};
    CHECK(outbox.list().empty());
    CHECK(outbox.stats().empty());
    CHECK(outbox.run_due() == 0);
    CHECK(db.log() == Log{"BEGIN", "COMMIT", "BEGIN", "COMMIT"});
    outbox.create_table();
    CHECK(outbox.schema().find("needs no table") != std::string::npos);
}

TEST_CASE("fake outbox: a rolled back block or savepoint leaves no job and sends none", "[D1][D6]") {
    Db db;
    JobTypes<Db> types;
    Outbox<Db> outbox{db, types};
    CHECK_THROWS_AS(db.atomic([&] {
        outbox.add(Welcome{"ann"});
        throw std::runtime_error{"no"};
    }),
                    std::runtime_error);
    db.atomic([&] {
        db.atomic([&] {
            outbox.add(Welcome{"bob"});
            db.set_rollback(true);
        });
        db.put("cid");
    });
    CHECK(db.log() ==
          Log{"BEGIN", "ROLLBACK", "BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "INSERT cid", "COMMIT"});
    CHECK(names<Welcome>(outbox).empty());
    db.lose_connection();
    db.reconnect();
    db.reset();
    CHECK(db.rows("txhooks_job/").empty());
}

TEST_CASE("fake outbox: a job runs after its COMMIT, and its row goes", "[D2]") {
    Scene s;
    s.types.handle<Welcome>([&](const Welcome& w, JobRun&) {
        CHECK(s.db.committed("ann"));
        s.trace.note(w.name);
        s.db.put("mailed");
    });
    Outbox<Db> outbox{s.db, s.types};
    s.db.atomic([&] {
        s.db.put("ann");
        outbox.add(Welcome{"ann"});
        s.db.on_commit(s.trace.hook("hook"));
    });
    CHECK(s.trace.text() == "ann,hook");
    CHECK(s.db.log() == Log{"BEGIN", "INSERT ann", "INSERT jobs: welcome", "COMMIT", "INSERT mailed", "BEGIN",
                            "DELETE jobs: welcome", "COMMIT"});
    CHECK(outbox.list().empty());
}

TEST_CASE("fake outbox: a job that fails is tried again when its pause is over") {
    Scene s;
    s.fails = true;
    s.types.handle<Welcome>(s.handler(), {.first_delay = 1min});
    Outbox<Db> outbox{s.db, s.types};
    sign_up(s.db, outbox, "ann");
    CHECK(s.trace.text() == "ann1");
    CHECK(names<Welcome>(outbox) == "ann");
    CHECK(outbox.list({.name = "welcome"}).at(0).error == "no mail server");
    CHECK(outbox.run_due() == 0);
    s.db.pass_time(1min - 1us);
    CHECK(outbox.run_due() == 0);
    s.db.pass_time(1us);
    CHECK(outbox.run_due() == 1);
    CHECK(s.trace.text() == "ann1,ann2");
    s.db.pass_time(1min);
    CHECK(outbox.run_due() == 0);
    s.fails = false;
    s.db.pass_time(1min);
    CHECK(outbox.run_due() == 1);
    CHECK(s.trace.text() == "ann1,ann2,ann3");
    CHECK(names<Welcome>(outbox).empty());
    CHECK(s.sink.errors() == Log{"no mail server", "no mail server"});
}

TEST_CASE("fake outbox: a job that failed for the last time is dead, is compensated, and can be revived", "[D12]") {
    Scene s;
    s.fails = true;
    s.types.handle<Welcome>(s.handler(), {.attempts = 2, .first_delay = 1s});
    s.types.on_dead<Welcome>(
        [](Db& db, const Welcome& w, std::string_view error) { db.put("sorry " + w.name, std::string{error}); });
    Outbox<Db> outbox{s.db, s.types};
    s.db.atomic([&] { outbox.add(Welcome{"ann"}); });
    s.db.pass_time(1s);
    s.db.clear_log();
    CHECK(outbox.run_due() == 1);
    CHECK(s.db.log() == Log{"BEGIN", "COMMIT", "BEGIN", "UPDATE jobs: welcome", "COMMIT", "BEGIN",
                            "UPDATE jobs: welcome", "INSERT sorry ann", "COMMIT"});
    CHECK(s.db.committed("sorry ann") == "no mail server");
    const std::vector<JobRow> dead = outbox.dead_letters();
    REQUIRE(dead.size() == 1);
    CHECK((dead[0].dead() and dead[0].attempts == 2 and dead[0].claim == 2));
    CHECK(names<Welcome>(outbox).empty());
    s.db.pass_time(24h * 365);
    CHECK(outbox.run_due() == 0);
    s.fails = false;
    CHECK(outbox.revive(dead[0].id));
    CHECK_FALSE(outbox.revive(dead[0].id));
    CHECK(outbox.run_due() == 1);
    CHECK(s.trace.text() == "ann1,ann2,ann1");
    CHECK(outbox.list().empty());
}

TEST_CASE("fake outbox: give_up and again_in") {
    Scene s;
    s.types.handle<Welcome>([&](const Welcome& w, JobRun& run) {
        s.trace.note(w.name + std::to_string(run.attempt()));
        if (w.name == "nobody") return run.give_up("no such address");
        if (s.fails) run.again_in(1h);
    });
    Outbox<Db> outbox{s.db, s.types};
    s.fails = true;
    outbox.add(Welcome{"nobody"});
    outbox.add(Welcome{"ann"});
    CHECK(s.trace.text() == "nobody1,ann1");
    CHECK(outbox.dead_letters().at(0).error == "no such address");
    CHECK(outbox.run_due() == 0);
    s.db.pass_time(1h);
    s.fails = false;
    CHECK(outbox.run_due() == 1);
    CHECK(s.trace.text() == "nobody1,ann1,ann1");
    CHECK(outbox.cancel(outbox.dead_letters().at(0).id));
    CHECK(outbox.list().empty());
    CHECK(s.sink.empty());
}

TEST_CASE("fake outbox: of one key one job waits, with what was said last", "[D13]") {
    Scene s;
    s.types.handle<Reminder>([&](const Reminder& r) { s.trace.note(r.name); });
    Outbox<Db> outbox{s.db, s.types};
    outbox.add(Reminder{"1"}, {.key = "ann", .delay = 1h});
    const std::string id = outbox.list().at(0).id;
    s.db.pass_time(30min);
    outbox.add(Reminder{"2"}, {.key = "ann", .delay = 1h});
    outbox.add(Reminder{"3"}, {.key = "bob"});
    s.db.atomic([&] {
        outbox.add(Reminder{"4"}, {.key = "cid"});
        outbox.add(Reminder{"5"}, {.key = "cid"});
    });
    CHECK(outbox.list().at(0).id == id);
    CHECK(names<Reminder>(outbox) == "2,3,5");
    CHECK(s.trace.text().empty());
    CHECK(outbox.run_due() == 2);
    CHECK(s.trace.text() == "3,5");
    s.db.pass_time(30min);
    CHECK(outbox.run_due() == 0);
    CHECK(outbox.cancel<Reminder>("ann"));
    CHECK_FALSE(outbox.cancel<Reminder>("ann"));
    s.db.pass_time(1h);
    CHECK(outbox.run_due() == 0);
}

TEST_CASE("fake outbox: a delayed job runs when its time has come") {
    Scene s;
    s.types.handle<Reminder>([&](const Reminder& r) { s.trace.note(r.name); });
    Outbox<Db> outbox{s.db, s.types};
    outbox.add(Reminder{"late"}, {.delay = 2h});
    outbox.add(Reminder{"early"}, {.delay = 1h});
    CHECK(outbox.stats().at(0).later == 2);
    s.db.pass_time(3h);
    const JobStats stats = outbox.stats().at(0);
    CHECK((stats.due == 2 and stats.later == 0 and stats.oldest == 2h and stats.handled_here));
    CHECK(outbox.run_due() == 2);
    CHECK(s.trace.text() == "early,late");
}

TEST_CASE("fake outbox: in order, one that fails holds the others back until it is dead", "[D19]") {
    Scene s;
    s.types.handle<Welcome>(
        [&](const Welcome& w, JobRun& run) {
            s.trace.note(w.name + std::to_string(run.attempt()));
            if (w.name == "a") throw std::runtime_error{"never"};
        },
        {.in_order = true, .attempts = 2, .first_delay = 1s});
    Outbox<Db> outbox{s.db, s.types};
    for (const char* name : {"a", "b", "c"}) outbox.add(Welcome{name});
    CHECK(s.trace.text().empty());
    CHECK(outbox.run_due() == 1);
    CHECK(outbox.run_due() == 0);
    s.db.pass_time(1s);
    while (outbox.run_due() != 0) {}
    CHECK(s.trace.text() == "a1,a2,b1,c1");
    CHECK(outbox.dead_letters().size() == 1);
}

TEST_CASE("fake outbox: what a handler in_transaction wrote goes with its row, or not at all", "[D4]") {
    Scene s;
    s.types.handle<Welcome>(in_transaction,
                            [&](Db& db, const Welcome& w) {
                                db.put("granted " + w.name);
                                if (s.fails) throw std::runtime_error{"no"};
                            },
                            {.first_delay = 0s});
    Outbox<Db> outbox{s.db, s.types};
    s.fails = true;
    outbox.add(Welcome{"ann"});
    CHECK_FALSE(s.db.get("granted ann"));
    CHECK(names<Welcome>(outbox) == "ann");
    s.fails = false;
    s.db.clear_log();
    CHECK(outbox.run_due() == 1);
    CHECK(s.db.log() == Log{"BEGIN", "COMMIT", "BEGIN", "UPDATE jobs: welcome", "COMMIT", "BEGIN",
                            "DELETE jobs: welcome", "INSERT granted ann", "COMMIT"});
    CHECK(s.db.committed("granted ann"));
    CHECK(outbox.list().empty());
}

TEST_CASE("fake outbox: a payload that cannot be read is a failed attempt of that job alone", "[D10]") {
    Scene s;
    s.types.handle<Welcome>(s.handler(), {.attempts = 1});
    Outbox<Db> outbox{s.db, s.types};
    s.db.atomic([&] {
        for (const char* name : {"ann", "unreadable", "bob"}) outbox.add(Welcome{name});
    });
    CHECK(s.trace.text() == "ann1,bob1");
    CHECK(outbox.dead_letters().at(0).error == "cannot be read");
    CHECK(outbox.list().size() == 1);
}

TEST_CASE("fake outbox: a COMMIT that is never answered: its jobs run if it was true", "[D14]") {
    for (const bool truth : {true, false}) {
        Scene s;
        s.types.handle<Welcome>(s.handler(), {.lease = 1min});
        Outbox<Db> outbox{s.db, s.types};
        s.db.answer_commit({Outcome::unknown, nullptr, truth});
        CHECK_THROWS_AS(s.db.atomic([&] { outbox.add(Welcome{"ann"}); }), CommitUnknown);
        CHECK(s.trace.text().empty());
        s.db.reset();
        CHECK(outbox.run_due() == 0);
        s.db.pass_time(1min);
        CHECK(outbox.run_due() == (truth ? 1 : 0));
        CHECK(s.trace.text() == (truth ? "ann2" : ""));
        CHECK(outbox.list().empty());
    }
}

TEST_CASE("fake outbox: a COMMIT that is refused and sent again has one row for each job") {
    Scene s;
    s.types.handle<Welcome>(s.handler());
    Outbox<Db> outbox{s.db, s.types};
    Atomic tx{s.db};
    outbox.add(Welcome{"ann"});
    s.db.answer_commit({Outcome::still_open, std::make_exception_ptr(std::runtime_error{"busy"})});
    CHECK_THROWS(tx.commit());
    tx.commit();
    CHECK(s.trace.text() == "ann1");
    CHECK(outbox.list().empty());
}

TEST_CASE("fake outbox: the connection is lost while a job runs: it runs again when its lease is over", "[D14]") {
    Scene s;
    bool lose = true;
    s.types.handle<Welcome>(
        [&](const Welcome& w, JobRun& run) {
            s.trace.note(w.name + std::to_string(run.attempt()));
            if (lose) s.db.lose_connection();
        },
        {.lease = 1min});
    Outbox<Db> outbox{s.db, s.types};
    s.db.atomic([&] { outbox.add(Welcome{"ann"}); });
    CHECK_FALSE(s.sink.empty());
    s.db.reconnect();
    s.db.reset();
    lose = false;
    CHECK(outbox.run_due() == 0);
    s.db.pass_time(1min);
    CHECK(outbox.run_due() == 1);
    CHECK(s.trace.text() == "ann1,ann2");
    CHECK(outbox.list().empty());
}

TEST_CASE("fake outbox: a run that outlives its lease is somebody else's job", "[D5]") {
    Scene s;
    Outbox<Db>* others = nullptr;
    std::vector<std::string> steps;
    s.types.handle<Welcome>(
        [&](const Welcome& w, JobRun& run) {
            s.trace.note(w.name + std::to_string(run.attempt()));
            if (run.attempt() != 1) return run.again_in(1h);
            CHECK(run.extend(1min));
            s.db.pass_time(1min);
            others->run_due();
            CHECK_FALSE(run.extend(1min));
        },
        {.lease = 1min});
    s.types.observe(
        [](void* to, const JobEvent& event) noexcept {
            static_cast<std::vector<std::string>*>(to)->push_back(Scene::step_name(event.step));
        },
        &steps);
    Outbox<Db> outbox{s.db, s.types};
    others = &outbox;
    s.db.atomic([&] { outbox.add(Welcome{"ann"}); });
    CHECK(s.trace.text() == "ann1,ann2");
    CHECK(steps == Log{"given back", "superseded"});
    CHECK(names<Welcome>(outbox) == "ann");
}

TEST_CASE("fake outbox: in RolledBack jobs run and settle, and no row outlives it", "[D20]") {
    Scene s;
    s.types.handle<Welcome>(s.handler());
    Outbox<Db> outbox{s.db, s.types};
    {
        testing::RolledBack test{s.db};
        sign_up(s.db, outbox, "ann");
        CHECK(s.trace.text() == "ann1");
        CHECK(names<Welcome>(outbox).empty());
        CHECK(names<Reminder>(outbox) == "ann");
        CHECK(s.db.get("ann"));
    }
    CHECK(outbox.list().empty());
    CHECK(s.db.rows().empty());
    CHECK(s.sink.empty());
}

TEST_CASE("fake outbox: with CapturedHooks jobs run when the hooks do, or are due", "[D20]") {
    Scene s;
    s.types.handle<Welcome>(s.handler());
    Outbox<Db> outbox{s.db, s.types};
    {
        testing::CapturedHooks hooks{s.db};
        sign_up(s.db, outbox, "ann");
        CHECK(s.trace.text().empty());
        CHECK(names<Welcome>(outbox) == "ann");
        hooks.run();
        CHECK(s.trace.text() == "ann1");
        CHECK(names<Welcome>(outbox).empty());
        sign_up(s.db, outbox, "bob");
    }
    CHECK(s.trace.text() == "ann1");
    CHECK(names<Welcome>(outbox) == "bob");
    CHECK(outbox.run_due() == 1);
    CHECK(s.trace.text() == "ann1,bob1");
    CHECK(s.sink.empty());
}

TEST_CASE("fake outbox: a payload is bytes") {
    Db db;
    JobTypes<Db> types;
    Outbox<Db> outbox{db, types};
    std::string bytes;
    for (int c = 0; c != 256; ++c) bytes += static_cast<char>(c);
    outbox.add(Welcome{bytes + bytes + "7:12:"});
    outbox.add(Welcome{""});
    const std::vector<Welcome> jobs = outbox.queued<Welcome>();
    REQUIRE(jobs.size() == 2);
    CHECK(jobs[0].name == bytes + bytes + "7:12:");
    CHECK(jobs[1].name.empty());
}

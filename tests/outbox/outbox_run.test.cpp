// SPDX-License-Identifier: MIT

// Jobs are claimed, run and settled: by run_due(), and by work() on a thread of its own.

#include <txhooks/outbox/sqlite3.hpp>

#include "outbox/job_scene.hpp"
#include "support/catch.hpp"
#include "support/exceptions.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace txhooks;
using namespace std::chrono_literals;
using support::change;
using support::DatabaseFile;
using support::Event;
using support::Foreign;
using support::Invoice;
using support::JobDb;
using support::jobs;
using support::Mail;
using support::Oops;
using support::pass_time;
using support::Program;
using support::Report;
using support::Strings;
using support::truth;

namespace {

// As if the process that had it had died, and its lease were over.
void leave_lapsed(const DatabaseFile& file, const std::string& payload) {
    change(file,
           "UPDATE txhooks_job SET holder = 'gone:1', due = 1, claim = claim + 1, attempts = attempts + 1 "
           "WHERE CAST(payload AS TEXT) = '" +
               payload + "'");
}

std::string step(JobEvent::Step step) {
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
            return "given_back";
    }
    return "?";
}

struct Steps {
    explicit Steps(JobTypes<JobDb>& types) {
        types.observe(
            [](void* self, const JobEvent& event) noexcept {
                static_cast<Steps*>(self)->all.push_back(std::string{event.name} + ' ' + std::to_string(event.attempt) +
                                                         ' ' + step(event.step) +
                                                         (event.error.empty() ? "" : ": " + std::string{event.error}));
            },
            this);
    }
    Strings all;
};

}  // namespace

TEST_CASE("what a dead process has left is run once its lease is over", "[D3][D11][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    for (int n = 1; n != 4; ++n) program.outbox.add(Report{n});
    leave_lapsed(file, "2");
    leave_lapsed(file, "3");
    change(file, "UPDATE txhooks_job SET due = 2 WHERE CAST(payload AS TEXT) = '3'");
    // Each alone: it may end its process again, and would take the others of its batch with it.
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"report 2"});
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"report 2", "report 3", "report 1"});
    CHECK(jobs(file).empty());
}

TEST_CASE("a lapsed job is in nobody's batch, whichever is due first", "[D11][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    for (int n = 1; n != 4; ++n) program.outbox.add(Report{n});
    leave_lapsed(file, "2");
    change(file, "UPDATE txhooks_job SET due = CAST(CAST(payload AS TEXT) AS INTEGER)");
    CHECK(program.outbox.run_due() == 2);
    CHECK(program.ran == Strings{"report 1", "report 3"});
    CHECK(program.outbox.run_due() == 1);
}

TEST_CASE("what somebody has is left alone", "[D5][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.outbox.add(Report{1});
    change(file, "UPDATE txhooks_job SET holder = 'other:1', due = due + 60000000, claim = 1, attempts = 1");
    CHECK(program.outbox.run_due() == 0);
    CHECK(program.ran.empty());
}

TEST_CASE("in_transaction: what its handler writes is committed exactly once", "[D4][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.first_delay = 0us});
    Steps steps{program.types};
    int fail = 2;
    program.act = [&](JobRun&) {
        CHECK(program.db.in_atomic_block());
        if (fail-- > 0) throw Oops{};
    };
    program.outbox.add(Invoice{1});
    CHECK(truth(file).empty());
    CHECK(jobs(file, "attempts || error") == "1oops");
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.run_due() == 1);
    CHECK(truth(file) == "1");
    CHECK(jobs(file).empty());
    CHECK(steps.all == Strings{"invoice 1 failed: oops", "invoice 2 failed: oops", "invoice 3 succeeded"});
}

TEST_CASE("in_transaction: a run that has lost its job writes nothing", "[D4][D5][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.types.handle<Report>([&](const Report&) { change(file, "UPDATE txhooks_job SET claim = claim + 1"); },
                                 {.in_worker = true});
    program.types.handle<Invoice>(in_transaction, program.note_in_transaction<Invoice>(), {.in_worker = true});
    Steps steps{program.types};
    program.db.atomic([&] {
        program.outbox.add(Report{1});
        program.outbox.add(Invoice{2});
    });
    change(file, "UPDATE txhooks_job SET due = 1 WHERE name = 'report'");
    CHECK(program.outbox.run_due() == 2);
    CHECK(program.ran.empty());
    CHECK(truth(file).empty());
    CHECK(jobs(file) == "report 1,invoice 2");
    std::sort(steps.all.begin(), steps.all.end());
    CHECK(steps.all == Strings{"invoice 1 superseded", "report 1 superseded"});
}

TEST_CASE("a run that outlived its lease can neither complete, fail nor extend, and is reported", "[D5][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    Steps steps{program.types};
    Program other{file};
    other.handle_all();
    const bool fails = GENERATE(false, true);
    bool extended = true;
    program.act = [&](JobRun& run) {
        pass_time(file);
        CHECK(other.outbox.run_due() == 1);
        CHECK(other.ran == Strings{"mail 1"});
        extended = run.extend(1h);
        if (fails) throw Oops{};
    };
    other.act = [&](JobRun& run) { run.again_in(1h); };
    program.outbox.add(Mail{1});
    CHECK_FALSE(extended);
    CHECK(steps.all.size() == 1);
    CHECK(steps.all[0].find("mail 1 superseded") == 0);
    CHECK(program.told.back().find("outlived its lease") != std::string::npos);
    CHECK(jobs(file, "claim || ' ' || (error IS NULL)") == "2 1");
}

TEST_CASE("extend", "[D5][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.lease = 1s});
    program.act = [&](JobRun& run) {
        CHECK(jobs(file, "due - created < 2000000") == "1");
        CHECK(run.extend(1h));
        CHECK(jobs(file, "due - created > 3000000000") == "1");
        CHECK_THROWS_AS(run.extend(0us), UsageError);
    };
    program.outbox.add(Mail{1});
    CHECK(jobs(file).empty());
    program.act = [&](JobRun& run) { CHECK(run.extend(1h)); };
    program.outbox.add(Invoice{1});
    CHECK(jobs(file).empty());
    CHECK(truth(file) == "1");
}

TEST_CASE("jobs that nobody handles here are left alone", "[D9][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.outbox.add(Foreign{1});
    program.outbox.add(Report{2});
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.run_due() == 0);
    CHECK(jobs(file, "name || attempts || claim") == "foreign00");
}

TEST_CASE("a payload that cannot be read is a failed attempt of that job alone", "[D10][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 2, .first_delay = 0us});
    for (int n = 1; n != 4; ++n) program.outbox.add(Report{n});
    change(file, "UPDATE txhooks_job SET payload = 'x' WHERE CAST(payload AS TEXT) = '2'");
    CHECK(program.outbox.run_due() == 3);
    CHECK(program.ran == Strings{"report 1", "report 3"});
    CHECK(jobs(file, "payload || attempts || error") == "x1not a number");
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.dead_letters().size() == 1);
}

TEST_CASE("the count rises before the run, and who ends its process every time ends dead", "[D11][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 3});
    Steps steps{program.types};
    std::string seen;
    program.act = [&](JobRun&) { seen = jobs(file, "attempts"); };
    program.outbox.add(Report{1});
    CHECK(program.outbox.run_due() == 1);
    CHECK(seen == "1");
    program.outbox.add(Report{2});
    for (int n = 0; n != 3; ++n) leave_lapsed(file, "2");
    program.ran.clear();
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran.empty());
    CHECK(program.outbox.dead_letters().size() == 1);
    CHECK(steps.all.back() == "report 4 dead: its last run ended without a word");
}

TEST_CASE("dead jobs stay until revive or cancel", "[D12][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 1});
    program.act = [](JobRun&) { throw Oops{}; };
    program.db.atomic([&] {
        program.outbox.add(Mail{1});
        program.outbox.add(Mail{2});
    });
    const std::vector<JobRow> dead = program.outbox.dead_letters();
    REQUIRE(dead.size() == 2);
    CHECK(dead[0].dead());
    CHECK(dead[0].error == "oops");
    CHECK(dead[0].holder.empty());
    pass_time(file);
    CHECK(program.outbox.run_due() == 0);
    program.act = nullptr;
    program.ran.clear();
    CHECK(program.outbox.revive(dead[0].id));
    CHECK_FALSE(program.outbox.revive(dead[0].id));
    CHECK(jobs(file, "attempts || (error IS NULL)") == "01,10");
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"mail 1"});
    CHECK(program.outbox.cancel(dead[1].id));
    CHECK_FALSE(program.outbox.cancel(dead[1].id));
    CHECK_FALSE(program.outbox.revive("nobody's"));
    CHECK(jobs(file).empty());
}

TEST_CASE("cancel leaves alone what runs", "[D12][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.act = [&](JobRun& run) { CHECK_FALSE(program.outbox.cancel(run.id())); };
    program.outbox.add(Mail{1});
    CHECK(program.ran == Strings{"mail 1"});
    program.outbox.add(Mail{2}, {.delay = 1h});
    CHECK(program.outbox.cancel(program.outbox.list()[0].id));
    CHECK(jobs(file).empty());
}

TEST_CASE("run_due takes one batch", "[D15][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.db.atomic([&] {
        for (int n = 0; n != 60; ++n) program.outbox.add(Report{n});
    });
    CHECK(program.outbox.run_due() == 50);
    CHECK(program.outbox.run_due() == 10);
    CHECK(program.outbox.run_due() == 0);
    CHECK(program.ran.front() == "report 0");
    CHECK(program.ran.back() == "report 59");
    program.db.atomic([&] { CHECK_THROWS_AS(program.outbox.run_due(), UsageError); });
    program.db.atomic([&] { CHECK_THROWS_AS(program.outbox.work(), UsageError); });
}

TEST_CASE("give_up: the job is dead, and what its transaction wrote is undone", "[D4][D12][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 5});
    std::string error = "no such address";
    program.act = [](JobRun& run) { run.give_up("no such address"); };
    SECTION("given up") {
        program.outbox.add(Mail{1});
    }
    SECTION("in a transaction") {
        program.outbox.add(Invoice{1});
    }
    SECTION("what is thrown after it is still dead") {
        program.act = [](JobRun& run) {
            run.give_up("no such address");
            throw Oops{};
        };
        error += " (oops)";
        SECTION("here") {
            program.outbox.add(Mail{1});
        }
        SECTION("in a transaction") {
            program.outbox.add(Invoice{1});
        }
    }
    SECTION("the last call wins") {
        program.act = [](JobRun& run) {
            run.again_in(1h);
            run.give_up("no such address");
        };
        program.outbox.add(Mail{1});
    }
    SECTION("the reason is text, whatever it is") {
        program.act = [](JobRun& run) { run.give_up("\xff\x01 "); };
        program.outbox.add(Mail{1});
        error = "?? ";
    }
    SECTION("in any language") {
        program.act = [](JobRun& run) { run.give_up("ung\xc3\xbcltig"); };
        program.outbox.add(Mail{1});
        error = "ung\xc3\xbcltig";
    }
    REQUIRE(program.outbox.dead_letters().size() == 1);
    CHECK(jobs(file, "error || attempts") == error + '1');
    CHECK(truth(file).empty());
}

TEST_CASE("again_in: the job waits, and no attempt is used up", "[D4][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 1});
    program.act = [](JobRun& run) {
        run.give_up("not so");
        run.again_in(1h);
    };
    SECTION("here") {
        program.outbox.add(Mail{1});
    }
    SECTION("in a transaction") {
        program.outbox.add(Invoice{1});
    }
    CHECK(jobs(file, "attempts || (due - created > 3500000000) || (holder IS NULL)") == "011");
    CHECK(truth(file).empty());
}

TEST_CASE("on_dead runs in the transaction that makes a job dead", "[D3][outbox]") {
    const DatabaseFile file;
    Program program{file};
    int fail = 0;
    program.types.handle<Report>([](const Report&) { throw Oops{}; },
                                 {.in_worker = true, .attempts = 2, .first_delay = 0us, .longest_delay = 0us});
    program.types.on_dead<Report>([&](JobDb& db, const Report& report, std::string_view error) {
        CHECK(db.in_atomic_block());
        program.insert(report.number);
        program.ran.push_back("buried: " + std::string{error});
        if (fail-- > 0) throw std::runtime_error{"no spade"};
    });
    Steps steps{program.types};
    program.outbox.add(Report{1});
    CHECK(program.outbox.run_due() == 1);
    CHECK(truth(file).empty());
    SECTION("it succeeds") {
        CHECK(program.outbox.run_due() == 1);
        CHECK(truth(file) == "1");
        CHECK(program.ran == Strings{"buried: oops"});
        CHECK(program.outbox.dead_letters().size() == 1);
        CHECK(steps.all.back() == "report 2 dead: oops");
    }
    SECTION("it throws, and is tried again, and nothing it wrote stays") {
        fail = 1;
        CHECK(program.outbox.run_due() == 1);
        CHECK(truth(file).empty());
        CHECK(program.outbox.dead_letters().empty());
        CHECK(program.outbox.run_due() == 1);
        CHECK(truth(file) == "1");
        CHECK(program.ran == Strings{"buried: oops", "buried: oops"});
    }
    SECTION("it always throws: dead without it, and both errors told") {
        fail = 100;
        for (int n = 0; n != 10; ++n) program.outbox.run_due();
        CHECK(truth(file).empty());
        REQUIRE(program.outbox.dead_letters().size() == 1);
        CHECK(program.outbox.dead_letters()[0].error == "oops; on_dead: no spade");
        CHECK(program.ran.size() == 2);
    }
    SECTION("not for a payload that cannot be read") {
        change(file, "UPDATE txhooks_job SET payload = 'x'");
        CHECK(program.outbox.run_due() == 1);
        CHECK(program.ran.empty());
        CHECK(program.outbox.dead_letters().size() == 1);
    }
}

TEST_CASE("in_order: one at a time, the oldest, and who fails holds the others back", "[D19][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 2, .first_delay = 1h});
    Program other{file};
    other.handle_all({.attempts = 2});
    for (int n = 1; n != 4; ++n) program.outbox.add(Event{n});
    program.act = [&](JobRun& run) {
        CHECK(other.outbox.run_due() == 0);
        if (program.ran.back() == "event 1" and run.attempt() == 1) throw Oops{};
    };
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.run_due() == 0);
    CHECK(other.outbox.run_due() == 0);
    change(file, "UPDATE txhooks_job SET due = 1 WHERE CAST(payload AS TEXT) = '1'");
    CHECK(program.outbox.run_due() == 1);
    CHECK(other.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"event 1", "event 1"});
    CHECK(other.ran == Strings{"event 2"});
    // Dead, it is reported and they go on.
    program.act = [](JobRun& run) { run.give_up("enough"); };
    program.outbox.add(Event{4});
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.outbox.dead_letters().size() == 2);
    CHECK(program.ran == Strings{"event 1", "event 1", "event 3", "event 4"});
}

TEST_CASE("in_order: a younger one that was committed earlier is not overtaken while it runs", "[D19][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    Program other{file};
    other.handle_all();
    program.outbox.add(Event{2});
    program.act = [&](JobRun&) {
        change(file,
               "INSERT INTO txhooks_job (id, name, payload) VALUES ('00000000-0000-7000-8000-000000000000', 'event', "
               "'1')");
        CHECK(other.outbox.run_due() == 0);
    };
    CHECK(program.outbox.run_due() == 1);
    CHECK(other.outbox.run_due() == 1);
    CHECK(other.ran == Strings{"event 1"});
}

TEST_CASE("a renamed job is run by its new handler", "[D9][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.types.handle<Report>(program.note<Report>(), {.in_worker = true, .also = {"old_report", "older_report"}});
    change(file, "INSERT INTO txhooks_job (id, name, payload) VALUES ('a', 'older_report', '7')");  // the recipe, too
    program.outbox.add(Report{8});
    CHECK(program.outbox.run_due() == 2);
    CHECK(program.ran == Strings{"report 7", "report 8"});
}

TEST_CASE("pauses double up to the longest", "[D3][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.first_delay = 10s, .longest_delay = 35s});
    program.act = [](JobRun&) { throw Oops{}; };
    program.outbox.add(Report{1});
    std::string pauses;
    for (int n = 0; n != 4; ++n) {
        const auto now =
            std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
        CHECK(program.outbox.run_due() == 1);
        pauses += jobs(file, "(due / 1000000 - " + std::to_string(now.count()) + ") / 5 * 5") + ' ';
        pass_time(file);
    }
    CHECK(pauses == "10 20 35 35 ");
}

TEST_CASE("stats, list and queued", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 1});
    program.outbox.add(Report{1});
    program.outbox.add(Report{2}, {.delay = 1h});
    program.outbox.add(Report{3});
    program.outbox.add(Foreign{4});
    change(file,
           "UPDATE txhooks_job SET due = due + 60000000, holder = 'x:1', claim = 1 WHERE CAST(payload AS TEXT) = '3'");
    change(file, "UPDATE txhooks_job SET due = due - 5000000 WHERE CAST(payload AS TEXT) = '1'");
    program.act = [](JobRun& run) { run.give_up("no"); };
    program.outbox.add(Mail{5});
    const std::vector<JobStats> stats = program.outbox.stats();
    REQUIRE(stats.size() == 3);
    CHECK(stats[0].name == "foreign");
    CHECK_FALSE(stats[0].handled_here);
    CHECK(stats[0].due == 1);
    CHECK(stats[1].name == "mail");
    CHECK(stats[1].dead == 1);
    CHECK(stats[1].due + stats[1].later + stats[1].running == 0);
    CHECK(stats[1].oldest == 0us);
    CHECK(stats[2].handled_here);
    CHECK((stats[2].due == 1 and stats[2].later == 1 and stats[2].running == 1 and stats[2].dead == 0));
    CHECK((stats[2].oldest >= 5s and stats[2].oldest < 60s));

    CHECK(program.outbox.list().size() == 5);
    CHECK(program.outbox.list({.name = "report"}).size() == 3);
    CHECK(program.outbox.list({.name = "report", .limit = 2}).size() == 2);
    CHECK(program.outbox.list({.dead = true}).size() == 1);
    CHECK(program.outbox.list({.name = "report", .dead = true}).empty());
    const JobRow row = program.outbox.list({.name = "foreign"})[0];
    CHECK(row.id.size() == 36);
    CHECK(row.id[14] == '7');
    CHECK(row.payload == "4");
    CHECK(program.outbox.queued<Report>().size() == 3);
    CHECK(program.outbox.queued<Report>()[1].number == 2);
    CHECK(program.outbox.queued<Mail>().empty());
}

TEST_CASE("work runs what is due, is woken by a commit of this program, and stops", "[D15][outbox]") {
    const DatabaseFile file;
    Program program{file};
    std::atomic<int> ran = 0;
    std::atomic<std::int64_t> woken_after = -1;
    std::chrono::steady_clock::time_point added;
    program.types.handle<Report>(
        [&](const Report&) {
            woken_after =
                std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - added).count();
            ++ran;
        },
        {.in_worker = true});
    program.outbox.add(Foreign{1});
    Outbox<JobDb>* outbox = nullptr;
    std::atomic<bool> ready = false;
    std::thread worker{[&] {
        const support::Handle handle{file.path()};
        support::run(handle, "PRAGMA busy_timeout = 5000");
        JobDb db{handle.get()};
        Outbox<JobDb> mine{db, program.types};
        outbox = &mine;
        ready = true;
        mine.work(1h);
        outbox = nullptr;
    }};
    while (not ready) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(50ms);
    added = std::chrono::steady_clock::now();
    program.outbox.add(Report{1});
    for (int n = 0; n != 1000 and ran == 0; ++n) std::this_thread::sleep_for(5ms);
    CHECK(ran == 1);
    outbox->stop();
    worker.join();
    CHECK(woken_after < 5000);
    CHECK(jobs(file) == "foreign 1");
}

TEST_CASE("work waits no longer than until something is due", "[D3][D15][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.act = [&](JobRun&) { program.outbox.stop(); };
    program.outbox.add(Report{1}, {.delay = 100ms});
    program.outbox.work(1h);
    CHECK(program.ran == Strings{"report 1"});
}

TEST_CASE("when stopped, work gives back what it has not begun", "[D15][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    static Outbox<JobDb>* outbox = nullptr;
    outbox = &program.outbox;
    const auto before = std::signal(SIGUSR1, [](int) { outbox->stop(); });
    program.act = [](JobRun&) { std::raise(SIGUSR1); };
    program.db.atomic([&] {
        for (int n = 1; n != 4; ++n) program.outbox.add(Report{n});
    });
    program.outbox.work(1h);
    std::signal(SIGUSR1, before);
    CHECK(program.ran == Strings{"report 1"});
    CHECK(jobs(file, "payload || attempts || (holder IS NULL)") == "201,301");
    program.act = nullptr;
    CHECK(program.outbox.run_due() == 2);

    program.outbox.stop();  // holds until work() returns
    program.outbox.add(Report{4});
    program.outbox.work(1h);
    CHECK(program.ran.size() == 3);
    program.act = [&](JobRun&) { program.outbox.stop(); };
    program.outbox.work(1h);
    CHECK(program.ran.size() == 4);
    CHECK_THROWS_AS(program.outbox.work(0us), UsageError);
}

TEST_CASE("work takes few slow jobs at a time, run_due a whole batch", "[D15][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.db.atomic([&] {
        for (int n = 1; n != 9; ++n) program.outbox.add(Report{n});
    });
    Strings held;
    program.act = [&](JobRun&) {
        std::this_thread::sleep_for(60ms);
        held.push_back(jobs(file, "holder IS NOT NULL"));
        if (program.ran.size() == 4) program.outbox.stop();
    };
    program.outbox.work(1h);
    CHECK(held == Strings{"1,0,0,0,0,0,0,0", "1,0,0,0,0,0,0", "1,0,0,0,0,0", "1,0,0,0,0"});
    program.act = [&](JobRun&) { held.push_back(jobs(file, "holder IS NOT NULL")); };
    CHECK(program.outbox.run_due() == 4);
    CHECK(held[4] == "1,1,1,1");
}

TEST_CASE("one of a batch begins only while half of its lease is left", "[D5][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.lease = 400ms});
    program.db.atomic([&] {
        for (int n = 1; n != 4; ++n) program.outbox.add(Report{n});
    });
    program.act = [](JobRun&) { std::this_thread::sleep_for(250ms); };
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.told == Strings{});
    CHECK(jobs(file, "payload || attempts || (holder IS NULL)") == "201,301");
}

TEST_CASE("a handler that destroys the Outbox", "[outbox]") {
    const DatabaseFile file;
    const support::Handle handle{file.path()};
    JobDb db{handle.get()};
    JobTypes<JobDb> types;
    std::unique_ptr<Outbox<JobDb>> outbox;
    int ran = 0;
    types.handle<Report>(
        [&](const Report&) {
            ++ran;
            outbox.reset();
        },
        {.in_worker = true});
    outbox = std::make_unique<Outbox<JobDb>>(db, types);
    outbox->create_table();
    outbox->add(Report{1});
    outbox->add(Report{2});
    CHECK(outbox->run_due() == 1);
    CHECK(ran == 1);
    CHECK(jobs(file, "payload || attempts || (holder IS NULL)") == "201");
}

TEST_CASE("a handler that returns with a block open has failed", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    std::optional<Atomic<JobDb>> left;
    program.types.handle<Report>([&](const Report&) { left.emplace(program.db); }, {.in_worker = true, .attempts = 1});
    program.outbox.add(Report{1});
    CHECK(program.outbox.run_due() == 1);
    CHECK_FALSE(program.db.in_atomic_block());
    REQUIRE(program.outbox.dead_letters().size() == 1);
    CHECK(program.outbox.dead_letters()[0].error.find("atomic block open") != std::string::npos);
}

TEST_CASE("handlers are called with what they ask for", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    Strings ran;
    program.types.handle<Mail>([&](const Mail&) { ran.emplace_back("mail"); });
    program.types.handle<Report>(
        [&](const Report&, JobRun& run) { ran.push_back("report " + std::to_string(run.id().size())); });
    program.types.handle<Event>([&](JobDb& db, const Event&, JobRun& run) {
        ran.push_back("event " + std::to_string(&db == &program.db) + std::to_string(run.attempt()));
    });
    program.types.handle<Invoice>(in_transaction, [&](JobDb& db, const Invoice&) {
        ran.push_back("invoice " + std::to_string(db.in_atomic_block()));
    });
    program.db.atomic([&] {
        program.outbox.add(Mail{});
        program.outbox.add(Report{});
        program.outbox.add(Event{});
        program.outbox.add(Invoice{});
    });
    CHECK(ran == Strings{"mail", "report 36", "event 11", "invoice 1"});
}

TEST_CASE("JobTypes refuse what does not fit", "[outbox]") {
    JobTypes<JobDb> types;
    const auto handler = [](const Mail&) {};
    CHECK_THROWS_AS(types.on_dead<Mail>([](JobDb&, const Mail&, std::string_view) {}), UsageError);
    CHECK_THROWS_AS(types.handle<Mail>(handler, {.attempts = 0}), UsageError);
    CHECK_THROWS_AS(types.handle<Mail>(handler, {.lease = 0us}), UsageError);
    CHECK_THROWS_AS(types.handle<Mail>(handler, {.first_delay = 2s, .longest_delay = 1s}), UsageError);
    CHECK_THROWS_AS(types.handle<Mail>(handler, {.also = {"a b"}}), UsageError);
    CHECK_THROWS_AS(types.handle<Mail>(handler, {.also = {"mail"}}), UsageError);
    CHECK_THROWS_AS(types.handle<Mail>(std::function<void(const Mail&)>{}), UsageError);
    types.handle<Mail>(handler, {.also = {"post"}});
    CHECK_THROWS_AS(types.handle<Mail>(handler), UsageError);
    CHECK_THROWS_AS(types.handle<Report>([](const Report&) {}, {.also = {"post"}}), UsageError);
    types.on_dead<Mail>([](JobDb&, const Mail&, std::string_view) {});
    CHECK_THROWS_AS(types.on_dead<Mail>([](JobDb&, const Mail&, std::string_view) {}), UsageError);
}

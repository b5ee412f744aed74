// SPDX-License-Identifier: MIT

// What an attack on the outbox found, each with what must happen.

#include <txhooks/outbox/sqlite3.hpp>
#include <txhooks/testing/capture.hpp>

#include "outbox/job_scene.hpp"
#include "support/catch.hpp"
#include "support/exceptions.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using namespace txhooks;
using namespace std::chrono_literals;
using support::change;
using support::DatabaseFile;
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

TEST_CASE("what is added while a block is being rolled back takes none of its jobs along", "[D1][outbox]") {
    const DatabaseFile file;
    Program program{file};
    struct AddsAtTheEnd {
        Program* program;
        AddsAtTheEnd(Program& p) : program{&p} {}
        AddsAtTheEnd(AddsAtTheEnd&& other) noexcept : program{std::exchange(other.program, nullptr)} {}
        ~AddsAtTheEnd() {
            if (program != nullptr) program->outbox.add(Report{2});
        }
        void operator()() const {}
    };
    const auto block = [&](auto end) {
        CHECK_THROWS_AS(program.db.atomic([&] {
            program.outbox.add(Report{1});
            end();
            throw Oops{};
        }),
                        Oops);
    };
    SECTION("a rollback hook") {
        block([&] { program.db.on_rollback([&] { program.outbox.add(Report{2}); }); });
    }
    SECTION("a hook of unless_committed") {
        block([&] { program.db.unless_committed([&] { program.outbox.add(Report{2}); }); });
    }
    SECTION("the destructor of what a hook holds") {
        block([&] { program.db.on_commit(AddsAtTheEnd{program}); });
    }
    SECTION("a block that has a hook before COMMIT") {
        block([&] {
            program.db.on_rollback(
                [&] { program.db.atomic([&] { program.db.before_commit([&] { program.outbox.add(Report{2}); }); }); });
        });
    }
    CHECK(jobs(file) == "report 2");
}

TEST_CASE("what is added while the jobs are written is written too", "[D1][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    static Outbox<JobDb>* outbox = nullptr;
    outbox = &program.outbox;
    sqlite3_update_hook(
        program.handle_,
        [](void*, int, const char*, const char*, sqlite3_int64) {
            if (Outbox<JobDb>* const once = std::exchange(outbox, nullptr)) once->add(Report{2});
        },
        nullptr);
    program.db.atomic([&] { program.outbox.add(Mail{1}); });
    sqlite3_update_hook(program.handle_, nullptr, nullptr);
    CHECK(program.ran == Strings{"mail 1"});
    CHECK(jobs(file) == "report 2");
}

TEST_CASE("a database in UTF-16", "[D3][outbox]") {
    const DatabaseFile file;
    {
        const support::Handle handle{file.path()};
        support::run(handle, "PRAGMA encoding = 'UTF-16'; CREATE TABLE t (n INTEGER)");
    }
    Program program{file};
    program.handle_all({.first_delay = 0us});
    program.act = [](JobRun& run) {
        if (run.attempt() == 1) throw Oops{};
    };
    program.outbox.add(Report{1}, {.key = "schl\xc3\xbcssel"});
    CHECK(program.outbox.run_due() == 1);
    REQUIRE(program.outbox.list().size() == 1);
    CHECK(program.outbox.list()[0].key == "schl\xc3\xbcssel");
    CHECK(program.outbox.list()[0].error == "oops");
    CHECK(program.outbox.stats()[0].name == "report");
    CHECK(program.outbox.run_due() == 1);
    CHECK(jobs(file).empty());
}

TEST_CASE("set_rollback() in the transaction of a job is a failed attempt", "[D4][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.first_delay = 0us});
    program.act = [&](JobRun& run) {
        if (run.attempt() == 1) program.db.set_rollback(true);
    };
    program.outbox.add(Invoice{1});
    CHECK(jobs(file, "attempts || (holder IS NULL) || (error LIKE '%set_rollback()%')") == "111");
    CHECK(truth(file).empty());
    CHECK(program.outbox.run_due() == 1);
    CHECK(truth(file) == "1");
}

TEST_CASE("set_rollback() in on_dead is as if it had thrown", "[D3][outbox]") {
    const DatabaseFile file;
    Program program{file};
    int calls = 0;
    program.types.handle<Mail>([](const Mail&) { throw Oops{}; }, {.attempts = 2, .first_delay = 0us});
    program.types.on_dead<Mail>([&](JobDb& db, const Mail&, std::string_view) {
        ++calls;
        db.set_rollback(true);
    });
    program.outbox.add(Mail{1});
    for (int n = 0; n != 10; ++n) program.outbox.run_due();
    CHECK(calls == 2);
    CHECK(program.outbox.dead_letters().size() == 1);
}

TEST_CASE("an on_dead that ends its process every time: the job is dead without it", "[D11][outbox]") {
    const DatabaseFile file;
    Program program{file};
    int calls = 0;
    program.types.handle<Report>([](const Report&) { throw Oops{}; }, {.in_worker = true, .attempts = 3});
    program.types.on_dead<Report>([&](JobDb&, const Report&, std::string_view) { ++calls; });
    program.outbox.add(Report{1});
    // As if every process that had it had died: three in the handler, three in on_dead.
    change(file, "UPDATE txhooks_job SET attempts = 6, claim = 6, holder = 'gone:1', due = 1");
    CHECK(program.outbox.run_due() == 1);
    CHECK(calls == 0);
    CHECK(program.told.size() == 1);
    CHECK(program.outbox.dead_letters().size() == 1);

    program.outbox.add(Report{2});
    change(file, "UPDATE txhooks_job SET attempts = 5, claim = 5, holder = 'gone:1', due = 1 WHERE claim = 0");
    CHECK(program.outbox.run_due() == 1);
    CHECK(calls == 1);
}

TEST_CASE("a new release with fewer attempts calls on_dead all the same", "[D3][outbox]") {
    const DatabaseFile file;
    Program program{file};
    int calls = 0;
    program.types.handle<Report>([](const Report&) { throw Oops{}; }, {.in_worker = true, .attempts = 3});
    program.types.on_dead<Report>([&](JobDb&, const Report&, std::string_view error) {
        CHECK(error == "boom");
        ++calls;
    });
    program.outbox.add(Report{1});
    change(file, "UPDATE txhooks_job SET attempts = 10, claim = 10, error = 'boom'");
    CHECK(program.outbox.run_due() == 1);
    CHECK(calls == 1);
    CHECK(program.outbox.dead_letters().size() == 1);
}

TEST_CASE("captured jobs do not belong to the next block", "[D5][D6][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.lease = 1s});
    testing::CapturedHooks hooks{program.db};
    const auto block = [&](int n) { program.db.atomic([&] { program.outbox.add(Mail{n}); }); };
    block(1);
    const std::string before = jobs(file, "due");
    std::this_thread::sleep_for(150ms);
    block(2);
    CHECK(jobs(file, "due").find(before) == 0);
}

TEST_CASE("a block that hands its hooks over wakes workers too", "[D17][outbox]") {
    const DatabaseFile file;
    Program program{file};
    std::atomic<bool> ran = false, ready = false;
    Outbox<JobDb>* working = nullptr;
    program.types.handle<Report>([&](const Report&) { ran = true; }, {.in_worker = true});
    std::thread worker{[&] {
        const support::Handle handle{file.path()};
        support::run(handle, "PRAGMA busy_timeout = 5000");
        JobDb db{handle.get()};
        Outbox<JobDb> outbox{db, program.types};
        working = &outbox;
        ready = true;
        outbox.work(1h);
    }};
    while (not ready) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(50ms);
    DetachedHooks after;
    program.db.atomic({.detach = &after}, [&] { program.outbox.add(Report{1}); });
    for (int n = 0; n != 1000 and not ran; ++n) std::this_thread::sleep_for(5ms);
    CHECK(ran);
    working->stop();
    worker.join();
    after.run();
}

TEST_CASE("attempts = 1: a job whose process died may not have begun, and is run once more", "[D11][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.attempts = 1});
    program.outbox.add(Report{1});
    change(file, "UPDATE txhooks_job SET attempts = 1, claim = 1, holder = 'gone:1', due = 1");
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"report 1"});
    program.outbox.add(Report{2});
    change(file, "UPDATE txhooks_job SET attempts = 2, claim = 2, holder = 'gone:1', due = 1");
    CHECK(program.outbox.run_due() == 1);
    CHECK(program.ran == Strings{"report 1"});
    CHECK(program.outbox.dead_letters().size() == 1);
}

TEST_CASE("hooks that outlive the Outbox and its JobTypes", "[D17][outbox]") {
    const DatabaseFile file;
    DetachedHooks after;
    {
        Program program{file};
        program.handle_all();
        program.db.atomic({.detach = &after}, [&] {
            program.outbox.add(Mail{1});
            program.outbox.add(Report{2});
        });
    }
    after.run();
    CHECK(jobs(file, "payload || claim") == "10,20");
}

TEST_CASE("a connection whose Outbox is gone may have another", "[outbox]") {
    const DatabaseFile file;
    const support::Handle handle{file.path()};
    JobDb db{handle.get()};
    JobTypes<JobDb> types;
    int ran = 0;
    std::optional<Outbox<JobDb>> outbox;
    types.handle<Mail>([&](const Mail& mail) {
        ++ran;
        if (mail.number == 1) outbox.emplace(db, types);
    });
    outbox.emplace(db, types);
    outbox->create_table();
    DetachedHooks after;
    db.atomic({.detach = &after}, [&] { outbox->add(Mail{2}); });
    after.discard();
    outbox.reset();
    outbox.emplace(db, types);
    {
        testing::CapturedHooks hooks{db};
        outbox->add(Mail{3});
        outbox.reset();
        outbox.emplace(db, types);
    }
    db.atomic([&] { outbox->add(Mail{1}); });
    CHECK(ran == 1);
    CHECK(outbox->run_due() == 2);
    CHECK(ran == 3);
    CHECK(jobs(file).empty());
}

TEST_CASE("what is settled is told, whatever becomes of the others", "[D16][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    Strings steps;
    program.types.observe(
        [](void* to, const JobEvent& event) noexcept {
            if (event.step == JobEvent::Step::succeeded) static_cast<Strings*>(to)->emplace_back(event.name);
        },
        &steps);
    change(
        file,
        "CREATE TRIGGER no BEFORE DELETE ON txhooks_job WHEN old.name = 'mail' BEGIN SELECT raise(ABORT, 'no'); END");
    program.db.atomic([&] {
        program.outbox.add(Mail{1});
        program.outbox.add(Invoice{2});
    });
    CHECK(program.ran == Strings{"mail 1", "invoice 2"});
    CHECK(steps == Strings{"invoice"});
    CHECK(jobs(file) == "mail 1");
    CHECK(program.told.size() == 1);
}

TEST_CASE("a verdict that comes after the COMMIT of a job's transaction is too late", "[D4][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    JobRun* kept = nullptr;
    program.act = [&](JobRun& run) {
        kept = &run;
        program.db.on_commit([&] { kept->give_up("too late"); });
    };
    program.outbox.add(Invoice{1});
    CHECK(truth(file) == "1");
    CHECK(jobs(file).empty());
    CHECK(program.told == Strings{});
}

TEST_CASE("work: limits and re-entrance", "[D15][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    bool refused = false;
    program.act = [&](JobRun&) {
        try {
            program.outbox.work();
        } catch (const UsageError&) {
            refused = true;
        }
        program.outbox.stop();
    };
    program.outbox.add(Report{1});
    program.outbox.work((std::chrono::microseconds::max)());
    CHECK(refused);
    CHECK(program.ran == Strings{"report 1"});
}

TEST_CASE("ten thousand jobs of a block, written or discarded", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    const bool commits = GENERATE(true, false);
    program.db.atomic([&] {
        for (int n = 0; n != 10'000; ++n) program.outbox.add(Report{n});
        program.db.set_rollback(not commits);
    });
    CHECK(jobs(file, "count(*)") == (commits ? "10000" : "0"));
}

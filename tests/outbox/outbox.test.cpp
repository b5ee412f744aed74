// SPDX-License-Identifier: MIT

// Jobs are added, written before the COMMIT, and run behind it.

#include <txhooks/outbox/sqlite3.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include "outbox/job_scene.hpp"
#include "support/catch.hpp"
#include "support/exceptions.hpp"

#include <chrono>
#include <string>
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

TEST_CASE("a job has a row if and only if its block and every savepoint around it committed", "[D1][outbox]") {
    const DatabaseFile file;
    Program program{file};
    JobDb& db = program.db;
    Outbox<JobDb>& outbox = program.outbox;

    db.atomic([&] {
        outbox.add(Report{1});
        db.atomic([&] { outbox.add(Report{2}); });
        CHECK_THROWS_AS(db.atomic([&] {
            outbox.add(Report{3});
            db.atomic([&] { outbox.add(Report{4}); });
            throw Oops{};
        }),
                        Oops);
        db.atomic([&] {
            outbox.add(Report{5});
            db.set_rollback(true);
        });
        outbox.add(Report{6});
        CHECK(jobs(file).empty());
        CHECK(outbox.list().empty());
    });
    CHECK(jobs(file) == "report 1,report 2,report 6");

    CHECK_THROWS_AS(db.atomic([&] {
        outbox.add(Report{7});
        throw Oops{};
    }),
                    Oops);
    {
        Atomic tx{db};
        outbox.add(Report{8});
        tx.rollback();
    }
    CHECK(jobs(file) == "report 1,report 2,report 6");
    CHECK(program.told == Strings{});
}

TEST_CASE("a job runs after its COMMIT, in its place among the hooks, and its row is gone", "[D2][D12][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    std::string seen;
    program.act = [&](JobRun&) { seen = truth(file) + " with " + jobs(file); };
    program.db.atomic([&] {
        program.db.on_commit([&] { program.ran.emplace_back("before"); });
        program.insert(1);
        program.outbox.add(Mail{1});
        program.db.on_commit([&] { program.ran.emplace_back("behind"); });
        CHECK(program.ran.empty());
    });
    CHECK(program.ran == Strings{"before", "mail 1", "behind"});
    CHECK(seen == "1 with mail 1");
    CHECK(jobs(file).empty());
}

TEST_CASE("a job is born leased where it runs here, and due where it does not", "[D5][D17][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    Program other{file};
    other.handle_all();
    const auto state = [&] { return jobs(file, "claim || ' ' || attempts || ' ' || (holder IS NOT NULL)"); };
    std::string seen;
    std::size_t taken = 0;
    program.act = [&](JobRun&) {
        seen = state();
        taken = other.outbox.run_due();
    };
    program.outbox.add(Mail{1});
    CHECK(seen == "1 1 1");
    CHECK(taken == 0);

    SECTION("a worker's") {
        program.outbox.add(Report{1});
    }
    SECTION("in order") {
        program.outbox.add(Event{1});
    }
    SECTION("nobody's here") {
        program.outbox.add(Foreign{1});
    }
    SECTION("with a delay") {
        program.outbox.add(Mail{1}, {.delay = 1h});
    }
    SECTION("with a key") {
        program.outbox.add(Mail{1}, {.key = "k"});
    }
    SECTION("of a block that hands its hooks over") {
        DetachedHooks later;
        program.db.atomic({.detach = &later}, [&] { program.outbox.add(Mail{1}); });
        program.ran.clear();
        later.run();
        CHECK(program.ran.empty());
    }
    CHECK(state() == "0 0 0");
}

TEST_CASE("a block with jobs sends one statement before COMMIT, and one transaction behind the hooks",
          "[D6][D7][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    Strings sent;
    const auto trace = [](unsigned, void* to, void* statement, void*) {
        const char* const sql = sqlite3_sql(static_cast<sqlite3_stmt*>(statement));
        static_cast<Strings*>(to)->emplace_back(std::string{sql}.substr(0, 30));
        return 0;
    };
    sqlite3_trace_v2(program.handle_, SQLITE_TRACE_STMT, trace, &sent);
    program.db.atomic([&] { program.insert(1); });
    const Strings plain = sent;
    CHECK(plain == Strings{"SAVEPOINT txhooks_0", "INSERT INTO t VALUES (1)", "RELEASE txhooks_0"});

    sent.clear();
    program.db.atomic([&] {
        program.db.before_commit([&] { program.insert(3); });
        program.outbox.add(Report{1});
        program.db.before_commit([&] {
            program.db.before_commit([&] { program.insert(5); });
            program.insert(4);
        });
        program.insert(2);
    });
    CHECK(sent == Strings{"SAVEPOINT txhooks_0", "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)",
                          "INSERT INTO t VALUES (4)", "INSERT INTO t VALUES (5)", "INSERT INTO txhooks_job (id, n",
                          "RELEASE txhooks_0"});

    sent.clear();
    program.db.atomic([&] {
        for (int n = 0; n != 20; ++n) program.outbox.add(Mail{n});
        program.db.on_commit([&] { sent.emplace_back("the last hook"); });
    });
    const auto hook = std::find(sent.begin(), sent.end(), "the last hook");
    CHECK(std::count(sent.begin(), hook, "SAVEPOINT txhooks_0") == 1);
    CHECK(std::count(hook, sent.end(), "SAVEPOINT txhooks_0") == 1);
    CHECK(std::count(hook, sent.end(), "DELETE FROM txhooks_job WHERE ") == 20);
    CHECK(std::count(hook, sent.end(), "RELEASE txhooks_0") == 1);
    CHECK(program.ran.size() == 20);
    CHECK(jobs(file) == "report 1");
    sqlite3_trace_v2(program.handle_, 0, nullptr, nullptr);
}

TEST_CASE("add outside of a block opens one of its own", "[D18][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.outbox.add(Report{1});
    CHECK(jobs(file) == "report 1");
    program.outbox.add(Mail{1});
    program.db.on_commit([&] { program.outbox.add(Mail{2}); });
    program.db.atomic([&] { program.db.on_commit([&] { program.outbox.add(Mail{3}); }); });
    CHECK(program.ran == Strings{"mail 1", "mail 2", "mail 3"});
    JobQueue& queue = program.outbox;
    queue.add(Report{2});
    CHECK(&queue.connection() == &static_cast<Connection&>(program.db));
    CHECK(jobs(file) == "report 1,report 2");
}

TEST_CASE("a handler's failure is not the caller's", "[D16][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.first_delay = 1h});
    program.act = [](JobRun&) { throw Oops{}; };
    program.db.atomic([&] {
        program.outbox.add(Mail{1});
        program.outbox.add(Invoice{2});
        program.db.on_commit([&] { program.ran.emplace_back("behind"); });
    });
    CHECK(program.ran == Strings{"mail 1", "invoice 2", "behind"});
    CHECK(program.told.size() == 2);
    CHECK(jobs(file, "attempts || error || (holder IS NULL)") == "1oops1,1oops1");
    CHECK(truth(file).empty());
    CHECK(program.outbox.run_due() == 0);
    pass_time(file);
    program.act = nullptr;
    CHECK(program.outbox.run_due() == 2);
    CHECK(jobs(file).empty());
    CHECK(truth(file) == "2");
}

TEST_CASE("an unrelated hook's failure costs a job no lease", "[D16][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    CHECK_THROWS_AS(program.db.atomic([&] {
        program.outbox.add(Mail{1});
        program.db.on_commit([] { throw Oops{}; });
        program.outbox.add(Mail{2});
        program.outbox.add(Report{3});
    }),
                    HookError);
    CHECK(program.ran == Strings{"mail 1"});
    CHECK(jobs(file, "payload || ' ' || claim || ' ' || attempts || (holder IS NULL)") == "2 1 01,3 0 01");
    CHECK(program.outbox.run_due() == 2);
}

TEST_CASE("a job that adds jobs", "[D1][D2][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.types.handle<Mail>([&](const Mail& mail) {
        program.ran.push_back("mail " + std::to_string(mail.number));
        if (mail.number == 3) return;
        program.db.atomic([&] {
            program.outbox.add(Mail{mail.number + 1});
            program.insert(mail.number);
        });
        CHECK_THROWS_AS(program.db.atomic([&] {
            program.outbox.add(Mail{100});
            throw Oops{};
        }),
                        Oops);
    });
    program.outbox.add(Mail{1});
    CHECK(program.ran == Strings{"mail 1", "mail 2", "mail 3"});
    CHECK(jobs(file).empty());
    CHECK(truth(file) == "1,2");
}

TEST_CASE("of one name and key one job waits, and another add renews it", "[D13][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    program.db.atomic([&] {
        program.outbox.add(Mail{1}, {.key = "a"});
        program.outbox.add(Mail{2}, {.key = "b"});
        program.outbox.add(Mail{3}, {.key = "a"});
        program.outbox.add(Report{4}, {.key = "a"});
    });
    CHECK(program.ran.empty());
    CHECK(jobs(file, "name || payload || job_key") == "mail2b,mail3a,report4a");
    program.outbox.add(Mail{5}, {.key = "a", .delay = 1h});
    CHECK(jobs(file, "name || payload || job_key") == "mail2b,mail5a,report4a");
    CHECK(program.outbox.run_due() == 2);
    CHECK(program.ran == Strings{"mail 2", "report 4"});

    Program other{file};
    program.act = [&](JobRun&) { other.outbox.add(Mail{6}, {.key = "a"}); };
    pass_time(file);
    CHECK(program.outbox.run_due() == 1);  // it has begun: the next one waits
    CHECK(jobs(file) == "mail 6");
    CHECK(program.outbox.cancel<Mail>("a"));
    CHECK_FALSE(program.outbox.cancel<Mail>("a"));
    CHECK(jobs(file).empty());
}

TEST_CASE("a block that cannot write its jobs rolls back", "[D1][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    change(file, "DROP TABLE txhooks_job");
    const auto add = [&] {
        program.db.atomic([&] {
            program.insert(1);
            program.outbox.add(Mail{1});
        });
    };
    CHECK_THROWS_WITH(add(), Catch::Contains("create_table()"));
    CHECK(truth(file).empty());
    CHECK(program.ran.empty());
    program.outbox.create_table();
    program.outbox.create_table();
    add();
    CHECK(program.ran == Strings{"mail 1"});
}

TEST_CASE("retry writes the jobs of the attempt that commits", "[D1][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    int attempts = 0;
    const RetryPolicy policy{.first_delay = 1ns, .transient = [](const std::exception_ptr&) noexcept { return true; }};
    retry(program.db, policy, [&] {
        program.outbox.add(Mail{++attempts});
        program.outbox.add(Report{attempts});
        if (attempts < 3) throw Oops{};
    });
    CHECK(program.ran == Strings{"mail 3"});
    CHECK(jobs(file) == "report 3");
}

TEST_CASE("jobs in a scope of RolledBack run and settle in it, and no row outlives it", "[D20][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    {
        testing::RolledBack test{program.db};
        program.db.atomic([&] {
            program.outbox.add(Mail{1});
            program.outbox.add(Report{2});
        });
        CHECK(program.ran == Strings{"mail 1"});
        CHECK(program.outbox.queued<Report>().size() == 1);
        CHECK(program.outbox.run_due() == 1);
        CHECK(program.ran == Strings{"mail 1", "report 2"});
        CHECK(program.outbox.list().empty());
        program.outbox.add(Report{3});
    }
    CHECK(jobs(file).empty());
    CHECK(program.told.empty());
}

TEST_CASE("captured jobs have rows, and those that are discarded are due", "[D20][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    {
        testing::CapturedHooks hooks{program.db};
        program.outbox.add(Mail{1});
        CHECK(program.ran.empty());
        CHECK(jobs(file) == "mail 1");
        hooks.run();
        CHECK(program.ran == Strings{"mail 1"});
        CHECK(jobs(file).empty());
        program.outbox.add(Mail{2});
    }
    CHECK(program.ran == Strings{"mail 1"});
    CHECK(jobs(file, "payload || (holder IS NULL)") == "21");
    CHECK(program.outbox.run_due() == 1);
}

TEST_CASE("a connection has one Outbox, which outlives the blocks that it adds to", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    CHECK_THROWS_AS((Outbox<JobDb>{program.db, program.types}), UsageError);

    support::Handle handle{file.path()};
    JobDb db{handle.get()};
    JobTypes<JobDb> types;
    bool ran = false;
    types.handle<Mail>([&](const Mail&) { ran = true; });
    auto outbox = std::make_unique<Outbox<JobDb>>(db, types);
    CHECK_THROWS_AS(db.atomic([&] {
        outbox->add(Mail{1});
        outbox.reset();
        support::run(handle, "INSERT INTO t VALUES (1)");
    }),
                    UsageError);
    CHECK(truth(file).empty());
    CHECK(jobs(file).empty());

    outbox = std::make_unique<Outbox<JobDb>>(db, types);
    db.atomic([&] {
        db.on_commit([&] { outbox.reset(); });
        outbox->add(Mail{1});
    });
    CHECK_FALSE(ran);
    CHECK(jobs(file, "payload || (holder IS NULL)") == "11");
    outbox = std::make_unique<Outbox<JobDb>>(db, types);
    CHECK(outbox->run_due() == 1);
    CHECK(ran);
}

TEST_CASE("what does not fit is refused by add, and nothing was added", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    struct Raw {
        static std::string to(const std::string& text) { return text; }
    };
    program.db.atomic([&] {
        CHECK_THROWS_AS(program.outbox.add(Report{1}, {.key = std::string(256, 'k')}), UsageError);
        CHECK_THROWS_AS(program.outbox.add(Report{1}, {.key = std::string_view{"a\0b", 3}}), UsageError);
        CHECK_THROWS_AS(program.outbox.add(Report{1}, {.delay = -1us}), UsageError);
        program.outbox.add(Report{2}, {.key = std::string(255, 'k')});
    });
    CHECK(jobs(file) == "report 2");
    CHECK_THROWS_AS(program.types.handle<Foreign>([](const Foreign&) {}), UsageError);  // a job was added
}

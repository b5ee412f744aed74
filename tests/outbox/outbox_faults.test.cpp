// SPDX-License-Identifier: MIT

// Blocks with jobs in which everything goes wrong that can: every verb fails, COMMIT is in doubt, memory is out. Then the
// program starts again, and works until nothing is left. The gold check: a job ran if and only if its row was committed.

#include <txhooks/doubt.hpp>
#include <txhooks/outbox/fake.hpp>
#include <txhooks/retry.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/foreign.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

using namespace txhooks;
using namespace std::chrono_literals;
using support::all_faults;
using support::Fault;
using support::Oops;
using testing::FakeBackend;
using testing::FakeError;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend&>;

template <int kind>
struct Named {
    std::string name = {};
    friend std::string to_payload(const Named& job) { return job.name; }
    friend void from_payload(std::string_view stored, Named& job) { job.name = stored; }
};
struct Mail : Named<0> {
    static constexpr const char* job_name = "mail";
};
struct Report : Named<1> {
    static constexpr const char* job_name = "report";
};
struct Invoice : Named<2> {
    static constexpr const char* job_name = "invoice";
};

// A program on the engine; the next one starts when it is gone.
struct Program {
    explicit Program(FakeBackend& backend, std::map<std::string, int>& runs) : engine{backend}, ran{runs} {
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        types.handle<Mail>([this](const Mail& mail) { ++ran["mail " + mail.name]; });
        types.handle<Report>([this](const Report& report) { ++ran["report " + report.name]; }, {.in_worker = true});
        types.handle<Invoice>(in_transaction, [this](Db&, const Invoice& invoice) {
            const std::string effect = "effect " + invoice.name;
            engine.put(effect, engine.get(effect).value_or("") + '1');
        });
        outbox.emplace(db, types);
    }

    void block() {
        db.atomic([&] { write(); });
    }
    void write() {
        engine.put("row");
        outbox->add(Mail{{"a"}});
        db.atomic([&] {
            outbox->add(Invoice{{"b"}});
            outbox->add(Report{{"c"}});
        });
        try {
            db.atomic([&] {
                outbox->add(Mail{{"never"}});
                throw Oops{};
            });
        } catch (const Oops&) {}
        db.on_commit([this] { ++ran["hook"]; });
    }

    // Until nothing is left.
    void work() {
        for (int n = 0; n != 60; ++n) {
            engine.pass_time(1h);
            try {
                if (outbox->run_due() == 0 and outbox->list().empty()) return;
            } catch (...) {
                if (not db.usable()) return;
            }
        }
    }

    FakeBackend& engine;
    std::map<std::string, int>& ran;
    Db db{engine};
    JobTypes<Db> types;
    std::optional<Outbox<Db>> outbox;
};

struct World {
    FakeBackend engine;
    std::map<std::string, int> ran;

    World() { engine.keep_log(false); }

    // The session is ended, as when the process dies; the next one works.
    void start_again() {
        engine.faults.clear();
        engine.reconnect();
        Program next{engine, ran};
        next.work();
        CHECK(next.outbox->list().empty());
    }

    void check_gold() {
        const bool committed = engine.committed("row").has_value();
        CHECK((ran["mail a"] != 0) == committed);
        CHECK((ran["report c"] != 0) == committed);
        CHECK(engine.committed("effect b").value_or("") == (committed ? "1" : ""));
        CHECK(ran["mail never"] == 0);
    }
};

}  // namespace

TEST_CASE("jobs: every verb fails", "[D1][D3][D4][D14][outbox]") {
    const bool dies = GENERATE(false, true);
    for (const Fault& fault : all_faults(6, {support::Kind::own, support::Kind::odd, support::Kind::loss})) {
        World world;
        INFO(fault.name());
        {
            Program program{world.engine, world.ran};
            fault.plan(world.engine.faults, 1);
            try {
                program.block();
            } catch (...) {}
            if (not dies) {
                program.work();
                if (not program.db.usable()) {
                    world.engine.faults.clear();
                    world.engine.reconnect();
                    program.db.reset();
                }
                program.work();
                CHECK(program.outbox->list().empty());
            }
        }
        if (dies) world.start_again();
        world.check_gold();
    }
}

TEST_CASE("jobs: COMMIT in doubt needs no Doubt", "[D14][outbox]") {
    World world;
    const bool really = GENERATE(false, true);
    {
        Program program{world.engine, world.ran};
        world.engine.answer_commit({.proven = Outcome::unknown, .really_committed = really});
        CHECK_THROWS_AS(program.block(), CommitUnknown);
        CHECK(world.ran.empty());
    }
    world.start_again();
    world.check_gold();
    CHECK(world.engine.committed("row").has_value() == really);
}

TEST_CASE("jobs: the transaction is lost", "[D14][outbox]") {
    World world;
    const char* const sql = GENERATE("ROLLBACK", "COMMIT", "ROLLBACK;BEGIN", "COMMIT;BEGIN");
    {
        Program program{world.engine, world.ran};
        CHECK_THROWS_AS(program.db.atomic([&] {
            program.write();
            world.engine.execute(sql);
        }),
                        TransactionLost);
    }
    world.start_again();
    // What raw SQL commits has no jobs: they are written last.
    CHECK(world.ran["mail a"] == 0);
    CHECK(world.ran["report c"] == 0);
}

TEST_CASE("jobs: COMMIT leaves the transaction open, and is tried again", "[D1][D6][outbox]") {
    World world;
    world.engine.keep_log(true);
    Program program{world.engine, world.ran};
    world.engine.answer_commit({.proven = Outcome::still_open});
    world.engine.answer_commit({.proven = Outcome::still_open});
    {
        Atomic tx{program.db};
        program.write();
        CHECK_THROWS(tx.commit());
        CHECK(world.ran.empty());
        program.outbox->add(Mail{{"later"}});
        CHECK_THROWS(tx.commit());
        SECTION("and commits") {
            tx.commit();
            CHECK(world.ran["mail later"] == 1);
        }
        SECTION("and is given up") {
            tx.rollback();
            CHECK(world.ran.empty());
        }
    }
    program.work();
    world.check_gold();
    CHECK(program.outbox->list().empty());
    const auto& log = world.engine.log();
    CHECK(std::count(log.begin(), log.end(), "INSERT jobs: invoice, mail, report") == 1);
}

TEST_CASE("jobs: blocks that hand their hooks over", "[D14][D17][outbox]") {
    World world;
    Program program{world.engine, world.ran};
    SECTION("detach") {
        DetachedHooks later;
        program.db.atomic({.detach = &later}, [&] { program.write(); });
        CHECK(world.ran.empty());
        if (GENERATE(false, true))
            later.run();
        else
            later.discard();
        CHECK(world.ran["mail a"] == 0);
    }
    SECTION("resolve") {
        Doubt doubt;
        program.db.atomic({.resolve = &doubt}, [&] { program.write(); });
        CHECK(world.ran["hook"] == 1);
        CHECK(world.ran["mail a"] == 0);
    }
    SECTION("resolve, in doubt") {
        const bool really = GENERATE(false, true);
        Doubt doubt;
        world.engine.answer_commit({.proven = Outcome::unknown, .really_committed = really});
        CHECK_THROWS_AS(program.db.atomic({.resolve = &doubt}, [&] { program.write(); }), CommitUnknown);
        world.engine.reconnect();
        program.db.reset();
        doubt.resolve(program.db);
        CHECK(world.ran["hook"] == (really ? 1 : 0));
        CHECK(world.ran["mail a"] == 0);
    }
    program.work();
    world.check_gold();
}

TEST_CASE("jobs: one statement for each five hundred, or megabyte", "[D6][outbox]") {
    World world;
    world.engine.keep_log(true);
    Program program{world.engine, world.ran};
    const auto inserts = [&] {
        const auto& log = world.engine.log();
        return std::count_if(log.begin(), log.end(),
                             [](const std::string& sql) { return sql.rfind("INSERT jobs", 0) == 0; });
    };
    program.db.atomic([&] {
        for (int n = 0; n != 1001; ++n) program.outbox->add(Report{{"r"}});
    });
    CHECK(inserts() == 3);
    program.db.atomic([&] {
        for (int n = 0; n != 5; ++n) program.outbox->add(Report{{std::string(400'000, 'x')}});
    });
    CHECK(inserts() == 3 + 3);
}

TEST_CASE("jobs: retry", "[D1][outbox]") {
    World world;
    Program program{world.engine, world.ran};
    int attempts = 0;
    const RetryPolicy policy{.first_delay = 1ns, .transient = [](const std::exception_ptr&) noexcept { return true; }};
    SECTION("what fails is the block") {
        retry(program.db, policy, [&] {
            program.write();
            if (++attempts < 3) throw Oops{};
        });
    }
    SECTION("what fails is a verb") {
        world.engine.faults.fail(Verb::commit, When::before_effect, FakeError{"busy"});
        retry(program.db, policy, [&] { program.write(); });
    }
    CHECK(world.ran["mail a"] == 1);
    program.work();
    world.check_gold();
}

TEST_CASE("jobs: memory is out", "[D1][D3][D4][outbox]") {
    int failures = 0;
    for (std::size_t nth = 1; nth < 4000; nth += nth < 400 ? 1 : 7) {
        World world;
        bool failed = false;
        INFO("allocation " << nth);
        {
            auto program = std::make_unique<Program>(world.engine, world.ran);
            world.ran["mail a"] = world.ran["report c"] = world.ran["mail never"] = world.ran["hook"] = 0;
            {
                const support::FailAllocation fail{nth};
                try {
                    program->block();
                    program->outbox->run_due();
                } catch (...) {}
                failed = fail.happened();
            }
        }
        world.start_again();
        world.check_gold();
        failures += failed;
        if (not failed) break;
    }
    CHECK(failures > 100);
}

TEST_CASE("jobs: a handler throws what C++ does not know", "[D16][outbox]") {
    World world;
    Program program{world.engine, world.ran};
    int fail = 1;
    program.outbox.reset();
    JobTypes<Db> types;
    types.handle<Mail>([&](const Mail& mail) {
        if (fail-- > 0) support::raise_foreign();
        ++world.ran["mail " + mail.name];
    });
    Outbox<Db> outbox{program.db, types};
    std::thread{[&] { outbox.add(Mail{{"a"}}); }}.join();  // what it leaves behind there counts for no test
    REQUIRE(outbox.list().size() == 1);
    CHECK(outbox.list()[0].error == "an exception of another language");
    world.engine.pass_time(1h);
    CHECK(outbox.run_due() == 1);
    CHECK(world.ran["mail a"] == 1);
}

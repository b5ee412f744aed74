// SPDX-License-Identifier: MIT

// Code of the user's that comes back: from every place where an Outbox calls it, everything that it may do. And blocks with
// jobs in coroutines.

#include <txhooks/outbox/fake.hpp>

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/task.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

using namespace txhooks;
using namespace std::chrono_literals;
using support::Oops;
using testing::FakeBackend;

namespace {

using Db = HookedConnection<FakeBackend>;

// What is done in the middle, once.
std::function<void()> act;
void come_back() {
    if (const std::function<void()> once = std::exchange(act, nullptr)) once();
}

struct Mail {
    static constexpr const char* job_name = "mail";
    std::string name = {};
};
std::string to_payload(const Mail& job) {
    if (job.name == "outer") come_back();
    return job.name;
}
void from_payload(std::string_view stored, Mail& job) {
    job.name = stored;
}

struct Callback : Mail {
    static constexpr const char* job_name = "callback";
};
void from_payload(std::string_view stored, Callback& job) {
    job.name = stored;
    come_back();
}

struct World {
    World() {
        db.keep_log(false);
        db.set_error_sink(
            [](void* self, const char*, const std::exception_ptr&) {
                if (static_cast<World*>(self)->where == "sink") come_back();
            },
            this);
        const auto handler = [this](const Mail& mail) {
            ++ran[mail.name];
            if (mail.name != "outer") return;
            if (where == "handler") come_back();
            if (where == "sink" and ran["outer"] == 1) throw Oops{};
            if (where == "dead") throw Oops{};
        };
        types.handle<Mail>(handler, {.attempts = 3, .first_delay = 0us});
        types.on_dead<Mail>([this](Db&, const Mail&, std::string_view) {
            if (where == "dead") come_back();
        });
        types.handle<Callback>(handler);
        types.observe(
            [](void* self, const JobEvent& event) noexcept {
                World& world = *static_cast<World*>(self);
                ++world.steps[event.step];
                if (world.where == "observer") come_back();
            },
            this);
    }

    void add(const std::string& name) { outbox.add(Mail{name}); }

    void block() {
        db.atomic([&] {
            db.put("row");
            if (where == "before") db.before_commit(come_back);
            if (where == "on_commit first") db.on_commit(come_back);
            if (where == "payload")
                outbox.add(Callback{{"outer"}});
            else
                add("outer");
            if (where == "on_commit last") db.on_commit(come_back);
            try {
                db.atomic([&] {
                    add("undone");
                    if (where == "on_rollback") db.on_rollback(come_back);
                    if (where == "unless_committed") db.unless_committed(come_back);
                    throw Oops{};
                });
            } catch (const Oops&) {}
        });
    }

    std::string where;
    std::map<std::string, int> ran;
    std::map<JobEvent::Step, int> steps;
    Db db;
    JobTypes<Db> types;
    Outbox<Db> outbox{db, types};
};

}  // namespace

TEST_CASE("jobs: user code comes back from everywhere", "[D1][D2][D16][outbox]") {
    World world;
    world.where = GENERATE("store", "payload", "handler", "observer", "sink", "dead", "before", "on_commit first",
                           "on_commit last", "on_rollback", "unless_committed");
    const std::string what = GENERATE("add", "add in a block", "add, undone", "add twice, nested", "run_due", "stats",
                                      "set_rollback in a block");
    INFO(world.where << ": " << what);
    int added = 1;
    act = [&] {
        if (what == "add") {
            world.add("inner");
        } else if (what == "add in a block") {
            world.db.atomic([&] { world.add("inner"); });
        } else if (what == "add twice, nested") {
            world.db.atomic([&] {
                world.add("inner");
                world.db.atomic([&] { world.add("inner"); });
            });
            added = 2;
        } else if (what == "add, undone") {
            added = 0;
            try {
                world.db.atomic([&] {
                    world.add("inner");
                    throw Oops{};
                });
            } catch (const Oops&) {}
        } else if (what == "set_rollback in a block") {
            added = 0;
            world.db.atomic([&] {
                world.add("inner");
                world.db.set_rollback(true);
            });
        } else if (what == "run_due") {
            added = 0;
            if (world.db.in_atomic_block())
                CHECK_THROWS_AS(world.outbox.run_due(), UsageError);
            else
                CHECK(world.outbox.run_due() == 0);
        } else {
            added = 0;
            CHECK_NOTHROW(world.outbox.stats());
            CHECK_NOTHROW(world.outbox.list());
        }
    };
    world.block();
    for (int n = 0; n != 10; ++n) {
        world.db.pass_time(1h);
        world.outbox.run_due();
    }
    CHECK_FALSE(act);
    CHECK(world.db.committed("row"));
    CHECK(world.ran["outer"] == (world.where == "sink" ? 2 : world.where == "dead" ? 3 : 1));
    CHECK(world.ran["undone"] == 0);
    CHECK(world.ran["inner"] == added);
    CHECK(world.outbox.list().size() == (world.where == "dead" ? 1 : 0));
    CHECK(world.steps[JobEvent::Step::succeeded] == (world.where == "dead" ? 0 : 1) + added);
    CHECK(world.steps[JobEvent::Step::superseded] == 0);
    CHECK_FALSE(world.db.in_atomic_block());
}

TEST_CASE("jobs: blocks in coroutines that take turns", "[D1][outbox]") {
    World one, other;
    const auto block = [](World& world, bool fail) -> support::Task {
        Atomic tx{world.db};
        world.add("a");
        co_await std::suspend_always{};
        world.add("b");
        co_await std::suspend_always{};
        if (fail)
            tx.rollback();
        else
            tx.commit();
    };
    support::Task first = block(one, false), second = block(other, true);
    for (int n = 0; n != 3; ++n) {
        first.resume();
        second.resume();
    }
    CHECK(one.ran == std::map<std::string, int>{{"a", 1}, {"b", 1}});
    CHECK(other.ran.empty());
    CHECK(one.outbox.list().empty());
    CHECK(other.outbox.list().empty());
}

// SPDX-License-Identifier: MIT

#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

using namespace txhooks;
using support::Log;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::CapturedHooks;
using testing::FakeBackend;
using testing::RolledBack;

namespace {

struct Scene {
    HookedConnection<FakeBackend> db;
    Sink sink{db};
    Trace ran;

    void act(const std::string& name) {
        db.atomic([&] {
            db.put(name);
            db.on_commit(ran.hook(name));
        });
    }

    void fail(const std::string& name) {
        try {
            db.atomic([&] {
                act(name);
                throw std::runtime_error{"no"};
            });
        } catch (const std::runtime_error&) {
            // As planned.
        }
    }
};

}  // namespace

TEST_CASE("CapturedHooks: keeps the hooks of committed blocks and runs them when asked", "[capture]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.act("1");
    s.fail("2");
    s.act("3");
    CHECK(hooks.size() == 2);
    CHECK(s.ran.text().empty());
    CHECK(s.db.committed("1"));
    hooks.run();
    CHECK(s.ran.text() == "1,3");
    CHECK(hooks.size() == 0);
    hooks.run();
    CHECK(s.ran.text() == "1,3");
}

TEST_CASE("CapturedHooks: runs nothing at the end of its scope, nor later", "[capture]") {
    Scene s;
    const auto capture_alive = std::make_shared<int>();
    try {
        CapturedHooks hooks{s.db};
        s.act("1");
        s.db.atomic([&] { s.db.on_commit([capture_alive] {}); });
        CHECK(capture_alive.use_count() == 2);
        throw std::runtime_error{"the test failed"};
    } catch (const std::runtime_error&) {
        CHECK(capture_alive.use_count() == 1);
    }
    s.act("2");
    CHECK(s.ran.text() == "2");
}

TEST_CASE("CapturedHooks: discard() destroys the hooks that wait and no others", "[capture]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.act("1");
    hooks.discard();
    CHECK(hooks.size() == 0);
    s.act("2");
    hooks.run();
    CHECK(s.ran.text() == "2");
}

TEST_CASE("CapturedHooks: a hook outside every block runs at once", "[capture][S1]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.db.on_commit(s.ran.hook("1"));
    CHECK(s.ran.text() == "1");
    CHECK(hooks.size() == 0);
}

TEST_CASE("CapturedHooks: what hooks commit while they run, runs at that commit", "[capture][S16]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.db.atomic([&] {
        for (const int n : {1, 2})
            s.db.on_commit([&s, n] {
                s.ran.note(std::to_string(n));
                s.act(std::to_string(n + 10));
            });
    });
    hooks.run();
    CHECK(s.ran.text() == "1,11,2,12");
    s.act("3");
    CHECK(hooks.size() == 1);
}

TEST_CASE("CapturedHooks: a hook that throws stops the others, as after a commit", "[capture][S19][S20]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.act("1");
    s.db.atomic([&] { s.db.on_commit(s.ran.throwing("2", std::runtime_error{"bad"})); });
    s.act("3");
    const auto error = thrown_by<HookError>([&] { hooks.run(); });
    CHECK(error.position() == 1);
    CHECK(error.not_run() == 1);
    CHECK(s.ran.text() == "1,2");
    CHECK(hooks.size() == 0);
    s.act("4");
    CHECK(hooks.size() == 1);
}

TEST_CASE("CapturedHooks: the inner of two keeps what is committed in it, and nothing runs twice", "[capture][S14]") {
    Scene s;
    CapturedHooks outer{s.db};
    s.act("1");
    {
        CapturedHooks inner{s.db};
        s.act("2");
        CHECK(inner.size() == 1);
        inner.run();
        CHECK(s.ran.text() == "2");
        s.act("3");
    }
    s.act("4");
    CHECK(outer.size() == 2);
    outer.run();
    CHECK(s.ran.text() == "2,1,4");
}

TEST_CASE("CapturedHooks: stands in a RolledBack, or around one", "[capture][rolled_back]") {
    Scene s;
    const bool capture_first = GENERATE(false, true);
    std::optional<RolledBack> test;
    if (not capture_first) test.emplace(s.db);
    std::optional<CapturedHooks> hooks{std::in_place, s.db};
    if (capture_first) test.emplace(s.db);

    s.act("1");
    s.fail("2");
    s.act("3");
    CHECK(s.ran.text().empty());
    CHECK(hooks->size() == 2);
    hooks->run();
    CHECK(s.ran.text() == "1,3");

    if (capture_first) test.reset();
    hooks.reset();
    test.reset();
    CHECK_FALSE(s.db.committed("1"));
    CHECK(s.db.usable());
    s.act("4");
    CHECK(s.ran.text() == "1,3,4");
}

TEST_CASE("CapturedHooks: a block with `detach` keeps its hooks for its own", "[capture][S60]") {
    Scene s;
    CapturedHooks hooks{s.db};
    DetachedHooks after;
    s.db.atomic({.detach = &after}, [&] { s.act("1"); });
    CHECK(hooks.size() == 0);
    CHECK(after.size() == 1);
    s.act("2");
    CHECK(hooks.size() == 1);
}

TEST_CASE("CapturedHooks: a block that is open at the end is rolled back", "[capture][S57]") {
    Scene s;
    std::optional<Atomic<HookedConnection<FakeBackend>>> tx;
    {
        CapturedHooks hooks{s.db};
        tx.emplace(s.db);
        s.db.on_commit(s.ran.hook("1"));
    }
    CHECK_FALSE(tx->active());
    CHECK(s.db.log().back() == "ROLLBACK");
    s.act("2");
    CHECK(s.ran.text() == "2");
}

TEST_CASE("CapturedHooks: counts and discards no hook of a block that is still open", "[capture]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.act("1");
    s.db.atomic([&] {
        s.act("2");
        CHECK(hooks.size() == 1);
        CHECK(s.db.pending_hooks() == 1);
        CHECK_THROWS_AS(hooks.discard(), UsageError);
    });
    CHECK(hooks.size() == 2);
    hooks.run();
    CHECK(s.ran.text() == "1,2");
}

TEST_CASE("CapturedHooks: refuses an open block, and to run in one or in its own hooks", "[capture]") {
    Scene s;
    {
        Atomic tx{s.db};
        CHECK_THROWS_AS(CapturedHooks{s.db}, UsageError);
        tx.rollback();
    }
    CapturedHooks hooks{s.db};
    s.db.atomic([&] {
        s.db.on_commit([&] {
            CHECK(hooks.size() == 0);
            hooks.discard();
            CHECK_THROWS_AS(hooks.run(), UsageError);
            s.ran.note("1");
        });
    });
    {
        Atomic tx{s.db};
        CHECK_THROWS_AS(hooks.run(), UsageError);
        tx.rollback();
    }
    hooks.run();
    CHECK(s.ran.text() == "1");
}

TEST_CASE("CapturedHooks: keeps the hooks of a COMMIT that reported an error and was proven", "[capture][S44]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.db.answer_commit({Outcome::committed, std::make_exception_ptr(std::runtime_error{"late"})});
    s.act("1");
    CHECK(hooks.size() == 1);
    CHECK(s.sink.text() == "late");
}

TEST_CASE("CapturedHooks: what was kept before a RolledBack inside can be run and dropped while it stands",
          "[capture][rolled_back]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.act("1");
    const bool run = GENERATE(true, false);
    {
        RolledBack test{s.db};
        s.db.atomic([&] { s.db.on_commit([&] { s.act("2"); }); });
        run ? hooks.run() : hooks.discard();
        CHECK(hooks.size() == 0);
        CHECK(s.ran.text() == (run ? "1,2" : ""));
        s.act("3");
    }
    CHECK(hooks.size() == 1);
    CHECK_FALSE(s.db.committed("3"));
    hooks.run();
    CHECK(s.ran.text() == (run ? "1,2,3" : "3"));
}

TEST_CASE("CapturedHooks: a block that a discarded capture leaves open is closed", "[capture][S58]") {
    Scene s;
    std::optional<Atomic<HookedConnection<FakeBackend>>> left;
    CapturedHooks hooks{s.db};
    s.db.atomic([&] { s.db.on_commit(support::AtDestruction{[&] { left.emplace(s.db); }}); });
    hooks.discard();
    CHECK_FALSE(left->active());
    CHECK(s.sink.sentences() == Log{"txhooks: a hook returned with an atomic block still open; it is rolled back"});
    s.act("1");
    CHECK(hooks.size() == 1);
}

TEST_CASE("CapturedHooks: keeps commit hooks, and the others end with their block", "[capture][S76][S77]") {
    Scene s;
    CapturedHooks hooks{s.db};
    const auto block = [&](bool fails) {
        s.db.atomic([&] {
            s.db.on_rollback(s.ran.probe("rollback"));
            s.db.before_commit(s.ran.probe("before"));
            s.db.on_commit(s.ran.probe("commit"));
            s.db.unless_committed(s.ran.probe("unless"));
            CHECK(hooks.size() == 0);
            if (fails) throw std::runtime_error{"no"};
        });
    };
    SECTION("committed") {
        block(false);
        CHECK(s.ran.text() == "before,~before,~rollback,~unless");
        CHECK(hooks.size() == 1);
        s.ran.clear();
        hooks.run();
        CHECK(s.ran.text() == "commit,~commit");
    }
    SECTION("rolled back") {
        CHECK_THROWS_AS(block(true), std::runtime_error);
        CHECK(s.ran.text() == "unless,rollback,~rollback,~before,~commit,~unless");
        CHECK(hooks.size() == 0);
    }
    CHECK(s.sink.empty());
}

TEST_CASE("CapturedHooks: what was kept before stays when a later block runs its rollback hooks", "[capture][S76]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.act("1");
    CHECK_THROWS_AS(s.db.atomic([&] {
        s.act("2");
        s.db.on_rollback([&] {
            s.ran.note("undone");
            CHECK(hooks.size() == 0);  // none can be counted while some are being called
            hooks.discard();           // nor discarded
            CHECK_THROWS_AS(hooks.run(), UsageError);
            s.act("3");
        });
        throw std::runtime_error{"no"};
    }),
                    std::runtime_error);
    CHECK(s.ran.text() == "undone");
    CHECK(hooks.size() == 2);
    hooks.run();
    CHECK(s.ran.text() == "undone,1,3");
}

TEST_CASE("CapturedHooks: a hook before COMMIT sees an open block, and what it commits nested is kept",
          "[capture][S61]") {
    Scene s;
    CapturedHooks hooks{s.db};
    s.db.atomic([&] {
        s.db.before_commit([&] {
            CHECK_THROWS_AS(hooks.run(), UsageError);
            CHECK_THROWS_AS(hooks.discard(), UsageError);
            CHECK_THROWS_AS(CapturedHooks{s.db}, UsageError);
            s.act("1");
        });
    });
    CHECK(hooks.size() == 1);
    CHECK(s.ran.text().empty());
    hooks.run();
    CHECK(s.ran.text() == "1");
}

TEST_CASE("CapturedHooks: the end of its scope rolls back what is open, with its rollback hooks",
          "[capture][S68][S57]") {
    Scene s;
    std::optional<Atomic<HookedConnection<FakeBackend>>> tx;
    {
        CapturedHooks hooks{s.db};
        s.act("1");
        tx.emplace(s.db);
        s.db.on_rollback(s.ran.hook("undone"));
        s.db.before_commit(s.ran.hook("before"));
    }
    CHECK(s.ran.text() == "undone");
    CHECK(s.db.usable());
}

TEST_CASE("CapturedHooks: destroyed by a hook of another kind it ends the program with a sentence", "[capture][S57]") {
    const bool before = GENERATE(false, true);
    const auto end = support::end_of_process([before] {
        HookedConnection<FakeBackend> db;
        std::optional<CapturedHooks> hooks{std::in_place, db};
        Atomic tx{db};
        if (before)
            db.before_commit([&] { hooks.reset(); });
        else
            db.on_rollback([&] { hooks.reset(); });
        before ? static_cast<void>(tx.commit()) : tx.rollback();
    });
    CHECK(end.terminated);
    CHECK(end.said.find("txhooks: ") == 0);
}

// SPDX-License-Identifier: MIT

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <optional>
#include <stdexcept>
#include <string>

using namespace txhooks;
using support::Log;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::FakeError;
using testing::HooksLeft;
using testing::RolledBack;
using testing::Verb;
using testing::When;

namespace {

struct Scene {
    HookedConnection<FakeBackend> db;
    Sink sink{db};
    Trace ran;

    void act(const std::string& name) {
        db.put(name);
        db.on_commit(ran.hook(name));
    }
};

}  // namespace

TEST_CASE("RolledBack: an outermost block is a savepoint whose hooks run when it commits", "[rolled_back][S11][S12]") {
    Scene s;
    {
        RolledBack test{s.db};
        s.db.atomic([&] {
            s.act("1");
            s.db.atomic([&] { s.act("2"); });
            CHECK(s.ran.text().empty());
        });
        CHECK(s.ran.text() == "1,2");
        CHECK(s.db.get("1"));
    }
    CHECK_FALSE(s.db.get("1"));
    CHECK(s.db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "INSERT 1", "SAVEPOINT txhooks_2", "INSERT 2",
                            "RELEASE txhooks_2", "RELEASE txhooks_1", "ROLLBACK"});
    CHECK(s.sink.text().empty());
    CHECK(s.db.usable());
}

TEST_CASE("RolledBack: a hook runs at once outside every block, in a hook as well", "[rolled_back][S1][S15]") {
    Scene s;
    RolledBack test{s.db};
    s.db.on_commit(s.ran.hook("1"));
    s.db.atomic([&] {
        s.db.on_commit([&] {
            s.ran.note("2");
            s.db.on_commit(s.ran.hook("3"));
        });
        s.db.on_commit(s.ran.hook("4"));
    });
    CHECK(s.ran.text() == "1,2,3,4");
}

TEST_CASE("RolledBack: blocks that hooks open run their hooks before the next", "[rolled_back][S16]") {
    Scene s;
    RolledBack test{s.db};
    s.db.atomic([&] {
        for (const int n : {1, 2})
            s.db.on_commit([&s, n] {
                s.ran.note(std::to_string(n));
                s.db.atomic({.durable = true}, [&] { s.act(std::to_string(n + 10)); });
            });
    });
    CHECK(s.ran.text() == "1,11,2,12");
}

TEST_CASE("RolledBack: a block that fails discards its hooks and leaves what was committed", "[rolled_back][S25]") {
    Scene s;
    RolledBack test{s.db};
    s.db.atomic([&] { s.act("1"); });
    CHECK_THROWS_AS(s.db.atomic([&] {
        s.act("2");
        throw std::runtime_error{"no"};
    }),
                    std::runtime_error);
    s.db.atomic([&] { s.act("3"); });
    CHECK(s.ran.text() == "1,3");
    CHECK(s.db.get("1"));
    CHECK_FALSE(s.db.get("2"));
}

TEST_CASE("RolledBack: the connection answers as it would without", "[rolled_back]") {
    Scene s;
    RolledBack test{s.db};
    CHECK(s.db.usable());
    CHECK_FALSE(s.db.in_atomic_block());
    CHECK(s.db.pending_hooks() == 0);
    CHECK_THROWS_AS(s.db.set_rollback(true), UsageError);
    Atomic tx{s.db};
    CHECK(s.db.in_atomic_block());
    CHECK_FALSE(s.db.usable());
    s.act("1");
    CHECK(s.db.pending_hooks() == 1);
    CHECK(tx.commit() == Outcome::committed);
    CHECK_THROWS_AS(tx.commit(), UsageError);
    CHECK(s.db.usable());
}

TEST_CASE("RolledBack: counts the hooks of a block that is still open at its end", "[rolled_back][S25]") {
    Scene s;
    std::optional<Atomic<HookedConnection<FakeBackend>>> tx;
    RolledBack test{s.db};
    tx.emplace(s.db);
    s.act("1");
    s.act("2");
    const auto error = thrown_by<HooksLeft>([&] { test.end(); });
    CHECK(error.count() == 2);
    CHECK(std::string{error.what()}.find("2 hook(s)") != std::string::npos);
    CHECK_FALSE(tx->active());
    CHECK(s.ran.text().empty());
    CHECK(s.db.log().back() == "ROLLBACK");
    CHECK(s.db.usable());
    CHECK_NOTHROW(test.end());
}

TEST_CASE("RolledBack: its destructor reports to the sink what end() would throw", "[rolled_back][S22]") {
    Scene s;
    std::optional<Atomic<HookedConnection<FakeBackend>>> tx;
    {
        RolledBack test{s.db};
        tx.emplace(s.db);
        s.act("1");
    }
    CHECK(s.sink.sentences() == Log{"txhooks: at the end of a RolledBack"});
    CHECK(s.sink.text().find("1 hook(s)") != std::string::npos);
}

TEST_CASE("RolledBack: a transaction that was ended inside is noticed", "[rolled_back][S50]") {
    Scene s;
    RolledBack test{s.db};
    Atomic tx{s.db};
    s.act("1");
    s.db.execute("COMMIT");
    CHECK_THROWS_AS(tx.commit(), TransactionLost);
    CHECK(s.ran.text().empty());
    CHECK_THROWS_AS(s.db.atomic([] {}), TransactionLost);
    CHECK_THROWS_AS(s.db.on_commit([] {}), TransactionLost);
    CHECK_THROWS_AS(s.db.reset(), UsageError);
    CHECK_THROWS_AS(test.end(), TransactionLost);
    CHECK(s.db.usable());
    s.db.atomic([&] { s.act("2"); });
    CHECK(s.ran.text() == "2");
}

TEST_CASE("RolledBack: a failed RELEASE is rolled back and its hooks are discarded", "[rolled_back][S51]") {
    Scene s;
    RolledBack test{s.db};
    s.db.faults.fail(Verb::release, When::before_effect, FakeError{"disk full"});
    CHECK_THROWS(s.db.atomic([&] { s.act("1"); }));
    s.db.atomic([&] { s.act("2"); });
    CHECK(s.ran.text() == "2");
    CHECK_FALSE(s.db.get("1"));
}

TEST_CASE("RolledBack: a rollback that fails breaks the connection, as a ROLLBACK would", "[rolled_back][S49]") {
    Scene s;
    {
        RolledBack test{s.db};
        s.db.faults.fail(Verb::rollback_to, When::before_effect, FakeError{"disk full"});
        Atomic tx{s.db};
        s.act("1");
        CHECK_THROWS(tx.rollback());
        CHECK_THROWS_AS(s.db.atomic([] {}), ConnectionBroken);
    }
    CHECK_THROWS_AS(s.db.atomic([] {}), ConnectionBroken);
    s.db.reset();
    CHECK(s.db.usable());
}

TEST_CASE("RolledBack: a SAVEPOINT that fails leaves no block and its number unused", "[rolled_back][S40]") {
    Scene s;
    RolledBack test{s.db};
    s.db.faults.fail(Verb::savepoint, When::before_effect, FakeError{"disk full"});
    CHECK_THROWS(s.db.atomic([] {}));
    CHECK(s.db.usable());
    s.db.clear_log();
    s.db.atomic([] {});
    CHECK(s.db.log() == Log{"SAVEPOINT txhooks_2", "RELEASE txhooks_2"});
}

TEST_CASE("RolledBack: one stands in another", "[rolled_back]") {
    Scene s;
    RolledBack outer{s.db};
    s.db.atomic([&] { s.act("1"); });
    {
        RolledBack inner{s.db};
        s.db.atomic([&] { s.act("2"); });
        CHECK(s.db.get("2"));
    }
    CHECK(s.db.get("1"));
    CHECK_FALSE(s.db.get("2"));
    s.db.atomic([&] { s.act("3"); });
    CHECK(s.ran.text() == "1,2,3");
}

TEST_CASE("RolledBack: refuses an open block and a backend without savepoints", "[rolled_back]") {
    Scene s;
    Atomic tx{s.db};
    CHECK_THROWS_AS(RolledBack{s.db}, UsageError);
    tx.rollback();

    struct Plain {
        void begin() {}
        CommitResult commit() noexcept { return {Outcome::committed}; }
        void rollback() {}
    };
    HookedConnection<Plain> plain;
    CHECK_THROWS_AS(RolledBack{plain}, UsageError);
    CHECK(plain.usable());
}

TEST_CASE("RolledBack: ends in reverse order, before its connection, or the program does", "[rolled_back]") {
    const support::ProcessEnd out_of_order = support::end_of_process([] {
        HookedConnection<FakeBackend> db;
        std::optional<RolledBack> outer{std::in_place, db};
        RolledBack inner{db};
        outer.reset();
    });
    CHECK(out_of_order.terminated);
    CHECK(out_of_order.said.find("before one that was opened in it") != std::string::npos);

    const support::ProcessEnd too_late = support::end_of_process([] {
        std::optional<HookedConnection<FakeBackend>> db{std::in_place};
        RolledBack test{*db};
        db.reset();
    });
    CHECK(too_late.terminated);
    CHECK(too_late.said.find("in a scope of txhooks::testing") != std::string::npos);
}

TEST_CASE("RolledBack: detached hooks are handed over when their block commits", "[rolled_back][S60]") {
    Scene s;
    RolledBack test{s.db};
    DetachedHooks after;
    s.db.atomic({.detach = &after}, [&] { s.act("1"); });
    CHECK(after.size() == 1);
    CHECK(s.ran.text().empty());
    after.run();
    CHECK(s.ran.text() == "1");
    CHECK_THROWS_AS(s.db.atomic({.detach = &after},
                                [&] {
                                    s.act("2");
                                    throw std::runtime_error{"no"};
                                }),
                    std::runtime_error);
    CHECK(after.size() == 0);
}

TEST_CASE("RolledBack: can be ended by a hook, or in a function given to atomic", "[rolled_back][S42]") {
    Scene s;
    std::optional<RolledBack> test{std::in_place, s.db};
    if (GENERATE(true, false)) {
        s.db.atomic([&] {
            s.db.on_commit([&] {
                test->end();
                s.ran.note("1");
            });
            s.db.on_commit(s.ran.hook("2"));
        });
        CHECK(s.ran.text() == "1,2");
    } else {
        CHECK_THROWS_AS(s.db.atomic([&] { test->end(); }), UsageError);
    }
    CHECK(s.db.log().back() == "ROLLBACK");
    CHECK(s.db.usable());
}

TEST_CASE("RolledBack: hooks of every kind run where they would in production", "[rolled_back][S61][S68][S69][S76]") {
    Scene s;
    RolledBack test{s.db};
    const auto block = [&](const std::string& ends) {
        s.ran.clear();
        s.db.clear_log();
        Atomic tx{s.db};
        s.db.on_rollback(s.ran.probe("rollback"));
        s.db.before_commit([&] {
            s.ran.note("before");
            s.db.put("before");
        });
        s.db.on_commit(s.ran.probe("commit"));
        s.db.unless_committed(s.ran.probe("unless"));
        if (ends == "commit") tx.commit();
        if (ends == "roll back") tx.rollback();
        if (ends == "fail") CHECK_THROWS_AS(tx.commit(), FakeError);
    };
    block("commit");
    CHECK(s.ran.text() == "before,~rollback,commit,~commit,~unless");
    CHECK(s.db.log() == Log{"SAVEPOINT txhooks_1", "INSERT before", "RELEASE txhooks_1"});
    block("roll back");
    CHECK(s.ran.text() == "unless,rollback,~rollback,~commit,~unless");
    CHECK(s.db.log() == Log{"SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1"});
    s.db.faults.fail(Verb::release, When::before_effect, FakeError{"no"});
    block("fail");
    CHECK(s.ran.text() == "before,unless,rollback,~rollback,~commit,~unless");
    s.ran.clear();
    test.end();
    CHECK(s.ran.text().empty());
    CHECK(s.sink.empty());
}

TEST_CASE("RolledBack: at its end no hook of a block that committed runs", "[rolled_back][S76]") {
    Scene s;
    {
        RolledBack test{s.db};
        s.db.atomic([&] {
            s.db.on_rollback(s.ran.hook("rollback"));
            s.db.unless_committed(s.ran.hook("unless"));
            s.db.atomic([&] { s.db.on_rollback(s.ran.hook("nested")); });
            s.act("1");
        });
        s.db.on_rollback(s.ran.hook("never"));
    }
    CHECK(s.ran.text() == "1");
    CHECK_FALSE(s.db.committed("1"));
}

TEST_CASE("RolledBack: at its end the rollback hooks of a block that is still open run, and only commit hooks are told",
          "[rolled_back][S68][S76][S77]") {
    Scene s;
    std::optional<Atomic<HookedConnection<FakeBackend>>> tx;
    RolledBack test{s.db};
    tx.emplace(s.db);
    s.db.on_rollback(s.ran.hook("1"));
    s.db.unless_committed(s.ran.hook("2"));
    s.db.before_commit(s.ran.hook("3"));
    const bool with_commit_hook = GENERATE(false, true);
    if (with_commit_hook) s.act("4");
    if (with_commit_hook) {
        const auto error = thrown_by<HooksLeft>([&] { test.end(); });
        CHECK(error.count() == 1);
    } else {
        CHECK_NOTHROW(test.end());
    }
    CHECK(s.ran.text() == "2,1");
    CHECK_FALSE(tx->active());
    CHECK(s.db.usable());
}

TEST_CASE("RolledBack: a loss runs what it proves", "[rolled_back][S50][S68][S69]") {
    Scene s;
    const bool committed = GENERATE(false, true);
    RolledBack test{s.db};
    const auto lost = thrown_by<TransactionLost>([&] {
        s.db.atomic([&] {
            s.db.on_rollback(s.ran.hook("rollback"));
            s.db.unless_committed(s.ran.hook("unless"));
            s.db.execute(committed ? "COMMIT" : "ROLLBACK");
        });
    });
    CHECK(lost.outcome() == (committed ? Outcome::committed : Outcome::rolled_back));
    CHECK(s.ran.text() == (committed ? "unless" : "unless,rollback"));
    CHECK_THROWS_AS(test.end(), TransactionLost);
    CHECK(s.db.usable());
}

TEST_CASE("RolledBack: can be ended by a rollback hook, and not by one before COMMIT", "[rolled_back][S57][S72]") {
    Scene s;
    std::optional<RolledBack> test{std::in_place, s.db};
    CHECK_THROWS_AS(s.db.atomic([&] {
        s.db.on_rollback([&] {
            test->end();
            s.db.atomic([&] { s.act("for good"); });
        });
        throw std::runtime_error{"no"};
    }),
                    std::runtime_error);
    CHECK(s.ran.text() == "for good");
    CHECK(s.db.committed("for good"));
    CHECK(s.db.usable());
    const auto end = support::end_of_process([] {
        HookedConnection<FakeBackend> db;
        RolledBack scope{db};
        db.atomic([&] { db.before_commit([&] { scope.end(); }); });
    });
    CHECK(end.terminated);
    CHECK(end.said.find("txhooks: ") == 0);
}

// SPDX-License-Identifier: MIT

#include <txhooks/detached_hooks.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

using namespace txhooks;
using support::AtDestruction;
using support::Log;
using support::name_of;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

}  // namespace

static_assert(not std::is_copy_constructible_v<DetachedHooks>, "[S60]");
static_assert(std::is_nothrow_move_constructible_v<DetachedHooks>, "[S60]");
static_assert(std::is_nothrow_move_assignable_v<DetachedHooks>, "[S60]");

TEST_CASE("detach: the commit leaves the hooks, to be run after the connection is gone", "[S60]") {
    DetachedHooks after;
    Trace ran;
    {
        Db db;
        db.atomic({.detach = &after}, [&] {
            db.on_commit(ran.probe("1"));
            db.atomic([&] { db.on_commit(ran.probe("2")); });
            CHECK_THROWS_AS(db.atomic([&] {
                db.on_commit(ran.probe("never"));
                throw Oops{};
            }),
                            Oops);
            for (int i = 0; i != 500; ++i) db.on_commit([] {});
            db.on_commit(ran.probe("3"));
            CHECK(db.pending_hooks() == 503);
            CHECK(after.size() == 0);
        });
        CHECK(ran.text() == "~never");
        CHECK(db.usable());
        CHECK(db.pending_hooks() == 0);
        db.on_commit(ran.hook("at once"));
        db.atomic([&] { db.on_commit(ran.hook("another transaction")); });
    }
    CHECK(after.size() == 503);
    CHECK(ran.text() == "~never,at once,another transaction");
    ran.clear();
    after.run();
    CHECK(after.size() == 0);
    CHECK(ran.text() == "1,~1,2,~2,3,~3");
    after.run();
    CHECK(ran.text() == "1,~1,2,~2,3,~3");
}

TEST_CASE("detach: a guard, Connection& and a durable block detach too", "[S60]") {
    Db db;
    Connection& any = db;
    DetachedHooks after;
    Trace ran;
    {
        Atomic tx{db, {.detach = &after}};
        db.on_commit(ran.hook("1"));
        CHECK(tx.commit() == Outcome::committed);
    }
    after.run();
    any.atomic({.durable = true, .detach = &after}, [&] { any.on_commit(ran.hook("2")); });
    CHECK(ran.text() == "1");
    after.run();
    CHECK(ran.text() == "1,2");
}

TEST_CASE("detach: is refused on a nested block, before the database is touched", "[S60]") {
    Db db;
    DetachedHooks after;
    db.atomic([&] {
        db.clear_log();
        CHECK_THROWS_AS(db.atomic({.detach = &after}, [] {}), UsageError);
        CHECK_THROWS_AS(db.atomic({.join = true, .detach = &after}, [] {}), UsageError);
        CHECK(db.log().empty());
    });
    db.atomic({.detach = &after}, [] {});
    CHECK(after.size() == 0);
}

TEST_CASE("detach: DetachedHooks that still hold hooks are refused, and keep them", "[S60]") {
    Db db;
    DetachedHooks after;
    Trace ran;
    db.atomic({.detach = &after}, [&] { db.on_commit(ran.hook("1")); });
    db.clear_log();
    CHECK_THROWS_AS(db.atomic({.detach = &after}, [] {}), UsageError);
    CHECK(db.log().empty());
    CHECK_FALSE(db.in_atomic_block());
    after.run();
    db.atomic({.detach = &after}, [&] { db.on_commit(ran.hook("2")); });
    after.run();
    CHECK(ran.text() == "1,2");
}

TEST_CASE("detach: what is not committed leaves nothing", "[S60][S25]") {
    Db db;
    Sink sink{db};
    DetachedHooks after;
    Trace ran;
    CHECK_THROWS_AS(db.atomic({.detach = &after},
                              [&] {
                                  db.on_commit(ran.probe("1"));
                                  throw Oops{};
                              }),
                    Oops);
    CHECK(after.size() == 0);
    db.atomic({.detach = &after}, [&] {
        db.on_commit(ran.probe("2"));
        db.set_rollback(true);
    });
    db.answer_commit({Outcome::rolled_back});
    CHECK_THROWS_AS(db.atomic({.detach = &after}, [&] { db.on_commit(ran.probe("3")); }), TransactionAborted);
    CHECK_THROWS_AS(db.atomic({.detach = &after},
                              [&] {
                                  db.on_commit(ran.probe("4"));
                                  db.execute("COMMIT; BEGIN");
                              }),
                    TransactionLost);
    db.faults.fail(Verb::begin, When::after_effect, Oops{});
    CHECK_THROWS_AS(db.atomic({.detach = &after}, [] {}), Oops);
    db.answer_commit({Outcome::unknown, nullptr, true});
    CHECK_THROWS_AS(db.atomic({.detach = &after}, [&] { db.on_commit(ran.probe("5")); }), CommitUnknown);
    db.reset();
    CHECK(after.size() == 0);
    CHECK(ran.text() == "~1,~2,~3,~4,~5");
    db.atomic([&] { db.on_commit(ran.hook("own again")); });
    CHECK(ran.text() == "~1,~2,~3,~4,~5,own again");
    CHECK(sink.text().empty());
}

TEST_CASE("detach: a commit that is still open keeps the hooks with the block", "[S60][S47]") {
    Db db;
    DetachedHooks after;
    Trace ran;
    Atomic tx{db, {.detach = &after}};
    db.on_commit(ran.hook("1"));
    db.answer_commit({Outcome::still_open, std::make_exception_ptr(Oops{})});
    CHECK_THROWS_AS(tx.commit(), Oops);
    CHECK(after.size() == 0);
    CHECK(db.pending_hooks() == 1);
    tx.commit();
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "1");
}

TEST_CASE("detach: destructors of discarded captures may register; outside a block that runs at once", "[S60][S27]") {
    Db db;
    DetachedHooks after;
    Trace ran;
    db.atomic({.detach = &after}, [&] {
        CHECK_THROWS_AS(db.atomic([&] {
            db.on_commit(AtDestruction{[&] { db.on_commit(ran.hook("registered by a destructor")); }});
            throw Oops{};
        }),
                        Oops);
    });
    CHECK(ran.text().empty());
    after.run();
    CHECK(ran.text() == "registered by a destructor");
    CHECK_THROWS_AS(db.atomic({.detach = &after},
                              [&] {
                                  db.on_commit(AtDestruction{[&] { db.on_commit(ran.hook("at once")); }});
                                  throw Oops{};
                              }),
                    Oops);
    CHECK(ran.text() == "registered by a destructor,at once");
    CHECK(after.size() == 0);
}

TEST_CASE("DetachedHooks: run under the policy and the sink of their connection", "[S60][S24]") {
    Trace ran;
    Db db;
    Sink sink{db};
    DetachedHooks after;
    const auto fill = [&] {
        db.atomic({.detach = &after}, [&] {
            db.on_commit(ran.hook("0"));
            db.on_commit(ran.throwing("1", Oops{}));
            db.on_commit(robust, ran.throwing("2", 42));
            db.on_commit(ran.throwing("3", 7));
            db.on_commit(ran.hook("4"));
        });
        ran.clear();
        sink.clear();
    };
    fill();
    const auto stopped = thrown_by<HookError>([&] { after.run(); });
    CHECK(stopped.position() == 1);
    CHECK(stopped.not_run() == 3);
    CHECK(stopped.outcome() == Outcome::committed);
    CHECK(name_of(stopped.cause()) == "oops");
    CHECK(ran.text() == "0,1");
    CHECK(after.size() == 0);

    db.set_on_hook_failure(HookFailure::run_all);
    fill();
    const auto all = thrown_by<HookError>([&] { after.run(); });
    CHECK(all.failed() == 2);
    CHECK(all.not_run() == 0);
    CHECK(ran.text() == "0,1,2,3,4");
    CHECK(sink.text() == "42,7");

    db.set_on_hook_failure(HookFailure::report);
    fill();
    after.run();
    CHECK(ran.text() == "0,1,2,3,4");
    CHECK(sink.text() == "oops,42,7");
}

TEST_CASE("DetachedHooks: destroyed with hooks in it, discards and reports", "[S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    {
        DetachedHooks after;
        db.atomic({.detach = &after}, [&] {
            db.on_commit(ran.probe("1"));
            db.on_commit(ran.probe("2"));
        });
        CHECK(ran.text().empty());
    }
    CHECK(ran.text() == "~1,~2");
    CHECK(sink.text() == "none");
    CHECK(sink.sentences().at(0).find("without run() or discard()") != std::string::npos);
}

TEST_CASE("DetachedHooks: discard() destroys without running and without a report", "[S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    after.discard();
    after.run();
    db.atomic({.detach = &after}, [&] { db.on_commit(ran.probe("1")); });
    after.discard();
    CHECK(after.size() == 0);
    after.run();
    CHECK(ran.text() == "~1");
    CHECK(sink.text().empty());
}

TEST_CASE("DetachedHooks: move; assigning over hooks discards and reports those", "[S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    const auto filled = [&](const std::string& name) {
        DetachedHooks after;
        db.atomic({.detach = &after}, [&] { db.on_commit(ran.probe(name)); });
        return after;
    };
    DetachedHooks first = filled("1");
    DetachedHooks second{std::move(first)};
    CHECK(first.size() == 0);
    CHECK(second.size() == 1);
    CHECK(ran.text().empty());
    second = filled("2");
    CHECK(ran.text() == "~1");
    CHECK(sink.text() == "none");
    second.run();
    CHECK(ran.text() == "~1,2,~2");
}

TEST_CASE("DetachedHooks: never run twice, whatever their hooks do", "[S60][S14]") {
    Db db;
    Trace ran;
    DetachedHooks after;
    db.atomic({.detach = &after}, [&] {
        db.on_commit([&] {
            ran.note("1");
            CHECK_THROWS_AS(after.run(), UsageError);
            after.discard();
            CHECK(after.size() == 0);
            CHECK_THROWS_AS(db.atomic({.detach = &after}, [] {}), UsageError);
            db.atomic([&] { db.on_commit(ran.hook("1.1")); });
        });
        db.on_commit(ran.hook("2"));
    });
    after.run();
    CHECK(ran.text() == "1,1.1,2");
    after.run();
    CHECK(ran.text() == "1,1.1,2");
}

TEST_CASE("DetachedHooks: destroyed by one of its hooks, terminates with a message", "[S60][S57]") {
    const auto end = support::end_of_process([] {
        Db db;
        std::optional<DetachedHooks> after{std::in_place};
        db.atomic({.detach = &*after}, [&] { db.on_commit([&] { after.reset(); }); });
        after->run();
    });
    CHECK(end.terminated);
    CHECK(end.said == "txhooks: DetachedHooks destroyed while its hooks are being called\n");
}

TEST_CASE("detach: a connection destroyed with the block open leaves nothing", "[S60][S57]") {
    DetachedHooks after;
    Trace ran;
    FakeBackend backend;
    std::optional<HookedConnection<FakeBackend&>> db{std::in_place, backend};
    Sink sink{*db};
    Atomic tx{*db, {.detach = &after}};
    db->on_commit(ran.probe("1"));
    db.reset();
    CHECK(ran.text() == "~1");
    CHECK(after.size() == 0);
    CHECK(sink.text() == "none");
    after.run();
}

TEST_CASE("detach: a sink told of an error at COMMIT may open blocks, detached ones too", "[S44][S60]") {
    struct Told {
        Db& db;
        Trace& ran;
        DetachedHooks other;
    };
    Db db;
    Trace ran;
    Told told{db, ran, {}};
    db.set_error_sink(
        [](void* context, const char*, const std::exception_ptr&) {
            Told& to = *static_cast<Told*>(context);
            to.db.atomic([&] { to.db.on_commit(to.ran.hook("sink")); });
            to.db.atomic({.detach = &to.other}, [&] { to.db.on_commit(to.ran.hook("sink, detached")); });
        },
        &told);
    db.answer_commit({Outcome::committed, std::make_exception_ptr(Oops{})});
    DetachedHooks after;

    db.atomic({.detach = &after}, [&] { db.on_commit(ran.hook("1")); });

    CHECK(ran.text() == "sink");
    CHECK(after.size() == 1);
    after.run();
    told.other.run();
    CHECK(ran.text() == "sink,1,sink, detached");
    CHECK(db.usable());
}

TEST_CASE("detach: what is moved into the DetachedHooks of an open block makes room for its hooks", "[S60]") {
    const bool commits = GENERATE(true, false);
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks other;
    db.atomic({.detach = &other}, [&] { db.on_commit(ran.hook("1")); });
    const bool has_run = GENERATE(true, false);
    if (has_run) other.run();
    DetachedHooks after;
    {
        Atomic tx{db, {.detach = &after}};
        db.on_commit(ran.hook("2"));
        after = std::move(other);
        if (commits)
            tx.commit();
        else
            tx.rollback();
    }
    after.run();
    CHECK(ran.text() == (has_run ? (commits ? "1,2" : "1") : (commits ? "2" : "1")));
    CHECK(sink.sentences().size() == (commits and not has_run ? 1 : 0));
}

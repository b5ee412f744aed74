// SPDX-License-Identifier: MIT

#include <txhooks/detached_hooks.hpp>
#include <txhooks/doubt.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/trace.hpp"

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

using namespace txhooks;
using support::AtDestruction;
using support::end_of_process;
using support::ending;
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
using Tx = Atomic<Db>;

constexpr const char* left_open = "txhooks: a hook returned with an atomic block still open; it is rolled back";
constexpr const char* dropped = "txhooks: detached hooks were destroyed without run() or discard(); they are discarded";
constexpr const char* lent = "txhooks: DetachedHooks or a Doubt destroyed before the block that fills it has ended\n";

// Hooks that a block has left, to be moved about.
DetachedHooks filled(Db& db, Trace& ran, const std::string& name) {
    DetachedHooks after;
    db.atomic({.detach = &after}, [&] { db.on_commit(ran.probe(name)); });
    return after;
}

}  // namespace

static_assert(not std::is_copy_constructible_v<DetachedHooks>, "[S60]");
static_assert(std::is_nothrow_move_constructible_v<DetachedHooks>, "[S60]");
static_assert(std::is_nothrow_move_assignable_v<DetachedHooks>, "[S60]");
static_assert(not std::is_move_constructible_v<Doubt> and not std::is_move_assignable_v<Doubt>, "[doubt]");

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
    DetachedHooks first = filled(db, ran, "1");
    DetachedHooks second{std::move(first)};
    CHECK(first.size() == 0);
    CHECK(second.size() == 1);
    CHECK(ran.text().empty());
    second = filled(db, ran, "2");
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

TEST_CASE("DetachedHooks: destroyed by one of its hooks, terminates with a message", "[S60][S57][posix]") {
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

// ---- Moved, or destroyed, while it is lent to an open block

TEST_CASE("detach: moved from while the block is open, it is filled all the same", "[S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    DetachedHooks other;
    {
        Tx tx{db, {.detach = &after}};
        db.on_commit(ran.probe("1"));
        const DetachedHooks third{std::move(after)};
        other = std::move(after);
        CHECK(third.size() + other.size() == 0);
        tx.commit();
    }
    CHECK(other.size() == 0);
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "1,~1");
    CHECK(sink.sentences().empty());
}

TEST_CASE("detach: moved into itself while the block is open, or filled, it is what it was", "[S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    DetachedHooks& same = after;
    after = std::move(same);
    db.atomic({.detach = &after}, [&] {
        db.on_commit(ran.probe("1"));
        after = std::move(same);
    });
    CHECK(after.size() == 1);
    after = std::move(same);
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "1,~1");
    CHECK(sink.sentences().empty());
}

TEST_CASE("detach: what is moved into it while the block is open stays if the block leaves no hooks", "[S60]") {
    for (const std::string way : {"no hooks", "rolled back", "in doubt", "lost", "aborted", "begin failed"}) {
        CAPTURE(way);
        Db db;
        Sink sink{db};
        Trace ran;
        DetachedHooks other = filled(db, ran, "1");
        DetachedHooks after;
        if (way == "begin failed")
            db.faults.act(Verb::begin, When::before_effect, [&] {
                after = std::move(other);
                throw Oops{};
            });
        static_cast<void>(ending([&] {
            Tx tx{db, {.detach = &after}};
            after = std::move(other);
            CHECK(after.size() == 1);
            if (way != "no hooks") db.on_commit(ran.probe("2"));
            if (way == "rolled back") tx.rollback();
            if (way == "in doubt") db.answer_commit({Outcome::unknown});
            if (way == "aborted") db.answer_commit({Outcome::rolled_back});
            if (way == "lost") db.execute("ROLLBACK");
            if (tx.active() or way == "lost") tx.commit();
        }));
        CHECK(after.size() == 1);
        CHECK(ran.text() == (way == "no hooks" or way == "begin failed" ? "" : "~2"));
        CHECK(sink.sentences().empty());
        ran.clear();
        after.run();
        CHECK(ran.text() == "1,~1");
    }
}

TEST_CASE("detach: what is moved into it while the block is open is run or discarded like any other", "[S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks first = filled(db, ran, "1");
    DetachedHooks second = filled(db, ran, "2");
    DetachedHooks third = filled(db, ran, "3");
    DetachedHooks after;
    db.atomic({.detach = &after}, [&] {
        db.on_commit(ran.probe("4"));
        after = std::move(first);
        after = std::move(second);  // makes room for these
        CHECK(ran.text() == "~1");
        CHECK(sink.sentences() == Log{dropped});
        CHECK_THROWS_AS(db.atomic({.detach = &after}, [] {}), UsageError);
        after.run();
        CHECK(ran.text() == "~1,2,~2");
        after = std::move(third);
        after.discard();
        CHECK(ran.text() == "~1,2,~2,~3");
    });
    CHECK(sink.sentences() == Log{dropped});
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "~1,2,~2,~3,4,~4");
}

TEST_CASE("detach: lent to an open block, it is refused to any other", "[S60]") {
    Db db;
    Db other;
    DetachedHooks after;
    Trace ran;
    db.atomic({.detach = &after}, [&] {
        db.on_commit(ran.hook("1"));
        CHECK(ending([&] { other.atomic({.detach = &after}, [] {}); }) == "UsageError");
        after = DetachedHooks{};
        CHECK(ending([&] { other.atomic({.detach = &after}, [] {}); }) == "UsageError");
    });
    CHECK(other.log().empty());
    CHECK(after.size() == 1);
    after.run();
    other.atomic({.detach = &after}, [&] { other.on_commit(ran.hook("2")); });
    after.run();
    CHECK(ran.text() == "1,2");
}

TEST_CASE("detach: destroyed while the block is open, terminates with a message", "[S57][S60][posix]") {
    // By fn, by a capture that a nested block discards, and by the sink that is told of the error of COMMIT.
    const auto in_fn = end_of_process([] {
        Db db;
        std::optional<DetachedHooks> after{std::in_place};
        db.atomic({.detach = &*after}, [&] { after.reset(); });
    });
    const auto in_nested = end_of_process([] {
        Db db;
        std::optional<DetachedHooks> after{std::in_place};
        db.atomic({.detach = &*after}, [&] {
            Tx tx{db};
            db.on_commit(AtDestruction{[&] { after.reset(); }});
            tx.rollback();
        });
    });
    const auto in_sink = end_of_process([] {
        Db db;
        std::optional<DetachedHooks> after{std::in_place};
        db.set_error_sink(
            [](void* context, const char*, const std::exception_ptr&) {
                static_cast<std::optional<DetachedHooks>*>(context)->reset();
            },
            &after);
        db.answer_commit({Outcome::committed, std::make_exception_ptr(Oops{})});
        db.atomic({.detach = &*after}, [&] { db.on_commit([] {}); });
    });
    const auto doubt = end_of_process([] {
        Db db;
        std::optional<Doubt> in_doubt{std::in_place};
        db.atomic({.resolve = &*in_doubt}, [&] { in_doubt.reset(); });
    });
    for (const support::ProcessEnd& end : {in_fn, in_nested, in_sink, doubt}) {
        CHECK(end.terminated);
        CHECK(end.said == lent);
    }
}

TEST_CASE("detach: the sink that is told of the error of COMMIT finds it empty, and may move it about", "[S44][S60]") {
    struct Told {
        Db& db;
        Trace& ran;
        DetachedHooks& after;
        std::optional<DetachedHooks> moved{};
        DetachedHooks more{};
    };
    for (const std::string what : {"run", "move from", "move into", "use"}) {
        CAPTURE(what);
        Db db;
        Trace ran;
        DetachedHooks after;
        Told told{db, ran, after};
        static std::string act;
        act = what;
        db.set_error_sink(
            [](void* context, const char* said, const std::exception_ptr&) {
                Told& to = *static_cast<Told*>(context);
                if (said == std::string{dropped}) return to.ran.note("dropped");
                CHECK(to.after.size() == 0);
                if (act == "run") to.after.run();
                if (act == "move from") to.moved.emplace(std::move(to.after));
                if (act == "move into") to.after = std::move(to.more);
                if (act == "use") CHECK(ending([&] { to.db.atomic({.detach = &to.after}, [] {}); }) == "UsageError");
            },
            &told);
        told.more = filled(db, ran, "0");
        db.answer_commit({Outcome::committed, std::make_exception_ptr(Oops{})});
        db.atomic({.detach = &after}, [&] { db.on_commit(ran.probe("1")); });
        CHECK(after.size() == 1);
        CHECK(ran.text() == (what == "move into" ? "dropped,~0" : ""));
        ran.clear();
        after.run();
        CHECK(ran.text() == "1,~1");
        told.more.discard();
    }
}

TEST_CASE("detach: a capture that a rollback discards may destroy it, or fill it anew", "[S27][S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    std::optional<DetachedHooks> after{std::in_place};
    {
        Tx tx{db, {.detach = &*after}};
        db.on_commit(AtDestruction{[&] { after.reset(); }});
        db.on_commit(ran.probe("1"));
        tx.rollback();
    }
    CHECK_FALSE(after);
    CHECK(ran.text() == "~1");
    after.emplace();
    {
        Tx tx{db, {.detach = &*after}};
        db.on_commit(AtDestruction{[&] { *after = filled(db, ran, "2"); }});
        tx.rollback();
    }
    CHECK(after->size() == 1);
    after->run();
    CHECK(ran.text() == "~1,2,~2");
    CHECK(sink.sentences().empty());
    CHECK(db.usable());
}

TEST_CASE("detach: hooks that make room may own the connection, which dies with them", "[S57][S60]") {
    Trace ran;
    DetachedHooks after;
    FakeBackend backend;
    auto db = std::make_shared<HookedConnection<FakeBackend&>>(backend);
    const Sink sink{*db};
    HookedConnection<FakeBackend&>& alive = *db;
    DetachedHooks other;
    db->atomic({.detach = &other}, [&] { db->on_commit([owned = db, at_end = ran.probe("0")] {}); });
    const std::weak_ptr<HookedConnection<FakeBackend&>> watched{db};
    db.reset();
    alive.atomic({.detach = &after}, [&] {
        alive.on_commit(ran.hook("1"));
        after = std::move(other);
    });
    CHECK(watched.expired());
    CHECK(ran.text() == "~0");
    CHECK(sink.sentences() == Log{dropped});
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "~0,1");
    CHECK(backend.state() == ConnectionState::idle);
}

TEST_CASE("detach: hooks that make room may leave a guard open, which is rolled back and reported", "[S58][S60]") {
    Db db;
    Sink sink{db};
    std::optional<Tx> left;
    DetachedHooks other;
    DetachedHooks after;
    db.atomic({.detach = &other}, [&] { db.on_commit(AtDestruction{[&] { left.emplace(db); }}); });
    db.atomic({.detach = &after}, [&] {
        db.on_commit([] {});
        after = std::move(other);
    });
    CHECK_FALSE(left->active());
    CHECK(sink.sentences() == Log{dropped, left_open});
    CHECK(after.size() == 1);
    CHECK(db.usable());
    after.discard();
}

// ---- A guard that is left open

TEST_CASE("DetachedHooks: told the connection, run() and discard() close a guard that is left open on it",
          "[S58][S60]") {
    for (const std::string way : {"hook", "hook that throws", "capture that ran", "discarded capture", "in a block"}) {
        CAPTURE(way);
        Db db;
        Sink sink{db};
        Trace ran;
        std::optional<Tx> left;
        DetachedHooks after;
        db.atomic({.detach = &after}, [&] {
            if (way == "hook" or way == "in a block") db.on_commit([&] { left.emplace(db); });
            if (way == "hook that throws")
                db.on_commit([&] {
                    left.emplace(db);
                    throw Oops{};
                });
            if (way == "capture that ran" or way == "discarded capture")
                db.on_commit(AtDestruction{[&] { left.emplace(db); }});
        });
        const auto act = [&] { way == "discarded capture" ? after.discard(db) : after.run(db); };
        db.clear_log();
        if (way == "in a block")
            db.atomic([&] {
                db.on_commit(ran.hook("around"));
                act();
                CHECK(db.pending_hooks() == 1);
            });
        else
            CHECK(ending(act) == (way == "hook that throws" ? "HookError committed <- oops" : "returned"));
        CHECK_FALSE(left->active());
        CHECK(sink.sentences() == Log{left_open});
        CHECK(db.log() == (way == "in a block" ? Log{"BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "COMMIT"}
                                               : Log{"BEGIN", "ROLLBACK"}));
        CHECK(ran.text() == (way == "in a block" ? "around" : ""));
        CHECK(after.size() == 0);
        CHECK(db.usable());
    }
}

TEST_CASE("DetachedHooks: told the connection, run() stands it if a hook destroys that", "[S57][S60]") {
    Trace ran;
    FakeBackend backend;
    auto db = std::make_unique<HookedConnection<FakeBackend&>>(backend);
    Connection& any = *db;
    DetachedHooks after;
    db->atomic({.detach = &after}, [&] {
        db->on_commit([&] { db.reset(); });
        db->on_commit(ran.hook("2"));
    });
    after.run(any);
    CHECK(ran.text() == "2");
    CHECK_FALSE(db);
}

TEST_CASE("DetachedHooks: told no connection, a guard that is left open stays", "[S58][S60]") {
    Db db;
    Sink sink{db};
    DetachedHooks after;
    {
        std::optional<Tx> left;
        db.atomic({.detach = &after}, [&] { db.on_commit([&] { left.emplace(db); }); });
        after.run();
        CHECK(left->active());
        CHECK(sink.sentences().empty());
    }
    CHECK(sink.sentences().size() == 1);  // an Atomic was destroyed without commit()
    CHECK(db.usable());
}

// ---- Memory

TEST_CASE("detach: in a loop it allocates nothing after the first rounds", "[S60][S52]") {
    struct Engine {
        void begin() {}
        CommitResult commit() noexcept { return {Outcome::committed}; }
        void rollback() {}
    };
    HookedConnection<Engine> db;
    DetachedHooks after;
    std::size_t ran = 0;
    const auto round = [&](std::size_t hooks) {
        db.atomic({.detach = &after}, [&] {
            for (std::size_t i = 0; i != hooks; ++i) db.on_commit([&] { ++ran; });
        });
        after.run();
    };
    round(1000);
    round(1000);
    const support::CountAllocations count;
    for (int i = 0; i != 20; ++i) {
        round(1000);
        round(1);
        round(0);
    }
    const std::size_t made = count.made();
    CHECK(made == 0);
    CHECK(ran == 22'020);
}

TEST_CASE("resolve: a block that gets no memory for its hooks was not begun", "[doubt][S40]") {
    Db db;
    Doubt doubt;
    std::string left;
    {
        const support::FailAllocation fail{0};
        left = ending([&] { const Tx tx{db, {.resolve = &doubt}}; });
    }
    CHECK(left == "std::bad_alloc");
    CHECK(db.log().empty());
    CHECK(db.usable());
    Trace ran;
    db.atomic({.resolve = &doubt}, [&] { db.on_commit(ran.hook("1")); });
    CHECK(ran.text() == "1");
}

// ---- Hooks of other kinds

namespace {

void register_each_kind(Db& db, Trace& ran) {
    db.on_rollback(ran.probe("rollback"));
    db.before_commit(ran.probe("before"));
    db.on_commit(ran.probe("commit"));
    db.unless_committed(ran.probe("unless"));
}

}  // namespace

TEST_CASE("detach: hands commit hooks over, and the rest ends with the block", "[S60][S73][S75][S77]") {
    Db db;
    Trace ran;
    DetachedHooks after;
    SECTION("committed") {
        db.atomic({.detach = &after}, [&] {
            register_each_kind(db, ran);
            CHECK(db.pending_hooks() == 1);
        });
        CHECK(ran.text() == "before,~before,~rollback,~unless");
        CHECK(after.size() == 1);
        ran.clear();
        after.run();
        CHECK(ran.text() == "commit,~commit");
    }
    SECTION("rolled back") {
        CHECK_THROWS_AS(db.atomic({.detach = &after},
                                  [&] {
                                      register_each_kind(db, ran);
                                      throw Oops{};
                                  }),
                        Oops);
        CHECK(ran.text() == "unless,rollback,~rollback,~before,~commit,~unless");
    }
    SECTION("in doubt") {
        db.answer_commit({Outcome::unknown, nullptr, true});
        CHECK_THROWS_AS(db.atomic({.detach = &after}, [&] { register_each_kind(db, ran); }), CommitUnknown);
        CHECK(ran.text() == "before,~before,unless,~rollback,~commit,~unless");
    }
    CHECK(after.size() == 0);
    db.reset();
    CHECK(db.usable());
}

TEST_CASE("detach: what was left without a commit hook is nothing, and is not reported", "[S60][S75][S77]") {
    Db db;
    Sink sink{db};
    Trace ran;
    {
        DetachedHooks after;
        db.atomic({.detach = &after}, [&] {
            db.on_rollback(ran.probe("1"));
            db.unless_committed(ran.probe("2"));
        });
        CHECK(ran.text() == "~1,~2");
        CHECK(after.size() == 0);
        db.atomic({.detach = &after}, [&] { db.on_rollback(ran.probe("3")); });
    }
    CHECK(ran.text() == "~1,~2,~3");
    CHECK(sink.empty());
}

TEST_CASE("detach: a rollback hook may do anything to the DetachedHooks of its block", "[S57][S60][S72]") {
    Db db;
    Sink sink{db};
    Trace ran;
    auto after = std::make_unique<DetachedHooks>();
    const auto act = GENERATE(as<std::string>{}, "run", "discard", "destroy", "fill", "use again");
    CAPTURE(act);
    Db other;
    Sink other_sink{other};
    CHECK_THROWS_AS(db.atomic({.detach = after.get()},
                              [&] {
                                  db.on_rollback(ran.probe("1"));
                                  db.on_rollback([&] {
                                      CHECK(after->size() == 0);
                                      if (act == "run") after->run();
                                      if (act == "discard") after->discard();
                                      if (act == "destroy") after.reset();
                                      if (act == "fill") *after = filled(other, ran, "of other");
                                      if (act == "use again")
                                          db.atomic({.detach = after.get()}, [&] { db.on_commit(ran.probe("again")); });
                                  });
                                  db.on_commit(ran.probe("2"));
                                  throw Oops{};
                              }),
                    Oops);
    CHECK(ran.text() == "1,~1,~2");
    ran.clear();
    if (after) after->run();
    CHECK(ran.text() == (act == "fill" ? "of other,~of other" : act == "use again" ? "again,~again" : ""));
    CHECK(sink.empty());
    CHECK(db.usable());
}

TEST_CASE("detach: in a hook before COMMIT the DetachedHooks are lent", "[S57][S60][S61][posix]") {
    Db db;
    Trace ran;
    auto after = std::make_unique<DetachedHooks>();
    db.atomic({.detach = after.get()}, [&] {
        db.on_commit(ran.hook("1"));
        db.before_commit([&] {
            CHECK(after->size() == 0);
            after->run();
            after->discard();
            CHECK_THROWS_AS(db.atomic({.detach = after.get()}, [] {}), UsageError);
            db.on_commit(ran.hook("2"));
        });
    });
    CHECK(ran.text() == "");
    CHECK(after->size() == 2);
    after->run();
    CHECK(ran.text() == "1,2");
    const auto end =
        end_of_process([&] { db.atomic({.detach = after.get()}, [&] { db.before_commit([&] { after.reset(); }); }); });
    CHECK(end.terminated);
    CHECK(end.said == lent);
}

TEST_CASE("detach: in a loop hooks of other kinds need no more memory either", "[S52][S60][S75]") {
    struct Engine {
        void begin() {}
        CommitResult commit() noexcept { return {Outcome::committed}; }
        void rollback() {}
    };
    HookedConnection<Engine> db;
    DetachedHooks after;
    std::size_t ran = 0;
    const auto round = [&](std::size_t commit_hooks) {
        db.atomic({.detach = &after}, [&] {
            for (int i = 0; i != 100; ++i) {
                db.on_rollback([&] { ++ran; });
                db.unless_committed([&] { ++ran; });
            }
            for (std::size_t i = 0; i != commit_hooks; ++i) db.on_commit([] {});
        });
        if (commit_hooks != 0) after.run();
    };
    for (int i = 0; i != 3; ++i) round(1);
    const support::CountAllocations count;
    for (int i = 0; i != 200; ++i) round(0);  // never run, and there is nothing to run
    for (int i = 0; i != 20; ++i) round(2);
    const std::size_t made = count.made();
    CHECK(made == 0);
    CHECK(ran == 0);
}

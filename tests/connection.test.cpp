// SPDX-License-Identifier: MIT

#include <txhooks/connection.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

using namespace txhooks;
using support::Log;
using support::name_of;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::FakeError;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

}  // namespace

// ---- Registering

TEST_CASE("on_commit: outside a block runs at once and what the hook throws reaches the caller as it is", "[S1]") {
    Db db;
    Trace ran;
    db.on_commit(ran.hook("1"));
    CHECK(ran.text() == "1");
    CHECK_THROWS_AS(db.on_commit([] { throw Oops{}; }), Oops);
    CHECK_THROWS_AS(db.on_commit([] { throw 42; }), int);
    CHECK(db.log().empty());
    CHECK(db.usable());
}

TEST_CASE("on_commit: inside a block nothing runs before the outermost commit", "[S2][S11]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    {
        Atomic inner{db};
        db.on_commit(ran.hook("2"));
        inner.commit();
    }
    CHECK(db.pending_hooks() == 2);
    CHECK(ran.text().empty());
    tx.commit();
    CHECK(ran.text() == "1,2");
    CHECK(db.pending_hooks() == 0);
}

TEST_CASE("on_commit: copies the arguments at the call, so that a loop variable cannot bind late", "[S3]") {
    Db db;
    Trace ran;
    std::string name = "ann";
    Atomic tx{db};
    for (int i = 1; i != 4; ++i) db.on_commit([&](int n) { ran.note(std::to_string(n)); }, i);
    db.on_commit([&](const std::string& text) { ran.note(text); }, name);
    db.on_commit([&](const std::string& text) { ran.note(text); }, std::ref(name));
    char buffer[] = "array";
    const auto function = [&](const std::string& text) { ran.note(text); };
    db.on_commit(function, std::string{buffer});
    name = "bob";
    buffer[0] = 'A';
    tx.commit();
    CHECK(ran.text() == "1,2,3,ann,bob,array");
}

TEST_CASE("on_commit: std::ref passes a reference", "[S3]") {
    Db db;
    int counter = 0;
    Atomic tx{db};
    db.on_commit([](int& n) { ++n; }, std::ref(counter));
    counter = 5;
    tx.commit();
    CHECK(counter == 6);
}

TEST_CASE("on_commit: moves move-only callables and arguments in", "[S3]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.on_commit([&ran, text = std::make_unique<std::string>("callable")] { ran.note(*text); });
        db.on_commit([&ran](std::unique_ptr<std::string> text) { ran.note(*text); },
                     std::make_unique<std::string>("argument"));
    });
    CHECK(ran.text() == "callable,argument");
}

TEST_CASE("on_commit: takes what std::invoke takes", "[S3]") {
    struct Mailer {
        Trace& sent;
        void welcome(const std::string& name) { sent.note("welcome " + name); }
    };
    Db db;
    Trace sent;
    Mailer mailer{sent};
    const auto run = [&] {
        db.on_commit(&Mailer::welcome, &mailer, "ann");
        db.on_commit(&Mailer::welcome, std::ref(mailer), "bob");
        db.on_commit(&Mailer::welcome, mailer, "eve");
    };
    db.atomic(run);
    CHECK(sent.text() == "welcome ann,welcome bob,welcome eve");
    run();
    CHECK(sent.text() == "welcome ann,welcome bob,welcome eve,welcome ann,welcome bob,welcome eve");
}

namespace {

int calls_of_a_function = 0;
void a_function() {
    ++calls_of_a_function;
}
void a_function_of(int n) {
    calls_of_a_function += n;
}

}  // namespace

TEST_CASE("on_commit: takes functions and pointers to them, with arguments or without", "[S3]") {
    Db db;
    calls_of_a_function = 0;
    const auto run = [&] {
        db.on_commit(a_function);
        db.on_commit(&a_function);
        db.on_commit(a_function_of, 10);
        db.on_commit(robust, a_function);
        db.on_commit(robust, a_function_of, 100);
    };
    run();
    CHECK(calls_of_a_function == 113);
    db.atomic(run);
    CHECK(calls_of_a_function == 226);
}

TEST_CASE("on_commit: refuses what is empty, inside and outside a block, robust or not", "[S4]") {
    Db db;
    struct Mailer {
        void welcome() {}
    };
    Mailer mailer;
    void (Mailer::* const no_member)() = nullptr;
    void (*const no_function)() = nullptr;
    const std::function<void()> empty;
    const auto refuse_all = [&] {
        CHECK_THROWS_AS(db.on_commit(no_function), UsageError);
        CHECK_THROWS_AS(db.on_commit(empty), UsageError);
        CHECK_THROWS_AS(db.on_commit(no_member, &mailer), UsageError);
        CHECK_THROWS_AS(db.on_commit(robust, no_function), UsageError);
        CHECK_THROWS_AS(db.on_commit(robust, empty), UsageError);
        CHECK_THROWS_AS(db.on_commit(robust, no_member, &mailer), UsageError);
        CHECK(db.pending_hooks() == 0);
    };
    refuse_all();
    db.atomic(refuse_all);
    CHECK(db.log() == Log{"BEGIN", "COMMIT"});
}

TEST_CASE("on_commit: ignores what a hook returns", "[S5]") {
    struct [[nodiscard]] Precious {};
    Db db;
    Trace ran;
    const auto hook = [&] {
        ran.note("ran");
        return Precious{};
    };
    db.on_commit(hook);
    db.atomic([&] { db.on_commit(hook); });
    db.atomic([&] { db.on_commit(robust, [&] { return ran.note("false"), false; }); });
    CHECK(ran.text() == "ran,ran,false");
}

TEST_CASE("on_commit: the same callable twice runs twice", "[S6]") {
    Db db;
    Trace ran;
    const auto hook = ran.hook("1");
    db.atomic([&] {
        db.on_commit(hook);
        db.on_commit(hook);
        db.atomic([&] { db.on_commit(hook); });
    });
    CHECK(ran.text() == "1,1,1");
}

TEST_CASE("on_commit: a copy that throws registers nothing and the block goes on", "[S7]") {
    struct ThrowsWhenCopied {
        ThrowsWhenCopied() = default;
        ThrowsWhenCopied(const ThrowsWhenCopied&) { throw Oops{}; }
        void operator()() const {}
    };
    Db db;
    Trace ran;
    const ThrowsWhenCopied hook;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    CHECK_THROWS_AS(db.on_commit(hook), Oops);
    CHECK_THROWS_AS(db.on_commit([](const ThrowsWhenCopied&) {}, hook), Oops);
    CHECK_THROWS_AS(db.on_commit(robust, hook), Oops);
    CHECK(db.pending_hooks() == 1);
    db.on_commit(ran.hook("2"));
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "1,2");
}

TEST_CASE("on_commit: outside a block throws while a transaction is open that was not begun here", "[S8]") {
    Db db;
    Trace ran;
    db.execute("BEGIN");
    CHECK_THROWS_AS(db.on_commit(ran.hook("1")), UsageError);
    CHECK_THROWS_AS(db.on_commit(robust, ran.hook("1")), UsageError);
    db.execute("ROLLBACK");
    db.on_commit(ran.hook("2"));
    CHECK(ran.text() == "2");
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
}

TEST_CASE("on_commit: on a lost transaction throws TransactionLost", "[S9][S50]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    db.execute("ROLLBACK");
    CHECK(thrown_by<TransactionLost>([&] { db.on_commit(ran.hook("2")); }).outcome() == Outcome::rolled_back);
    CHECK(thrown_by<TransactionLost>([&] { db.on_commit(robust, ran.hook("3")); }).outcome() == Outcome::rolled_back);
    CHECK_FALSE(tx.active());
    CHECK_THROWS_AS(tx.commit(), TransactionLost);
    CHECK(ran.text().empty());
}

TEST_CASE("on_commit: on a broken connection throws ConnectionBroken", "[S9][S49]") {
    Db db;
    Sink sink{db};
    Trace ran;
    db.faults.fail(Verb::rollback, When::before_effect, Oops{});
    CHECK_THROWS_AS(Atomic{db}.rollback(), Oops);
    CHECK_THROWS_AS(db.on_commit(ran.hook("1")), ConnectionBroken);
    CHECK_THROWS_AS(db.on_commit(robust, ran.hook("1")), ConnectionBroken);
    CHECK(ran.text().empty());
}

TEST_CASE("on_commit: on a connection that dropped outside a block throws ConnectionBroken, as opening a block does",
          "[S9]") {
    Db db;
    Trace ran;
    db.lose_connection();
    CHECK_FALSE(db.usable());
    CHECK_THROWS_AS(db.on_commit(ran.hook("1")), ConnectionBroken);
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
    CHECK(ran.text().empty());
    CHECK(db.log().empty());
}

TEST_CASE("on_commit: in a doomed block stores what will be discarded", "[S9][S34]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    Atomic{db, {.join = true}}.rollback();
    db.on_commit(ran.probe("1"));
    CHECK(db.pending_hooks() == 1);
    CHECK(ran.text().empty());
    CHECK_THROWS_AS(tx.commit(), TransactionAborted);
    CHECK(ran.text() == "~1");
}

TEST_CASE("on_commit: hooks belong to one connection", "[S10]") {
    Db a;
    Db b;
    Trace ran;
    Atomic tx{b};
    a.on_commit(ran.hook("a"));
    b.on_commit(ran.hook("b"));
    CHECK(ran.text() == "a");
    a.atomic([&] { a.on_commit(ran.hook("a2")); });
    CHECK(ran.text() == "a,a2");
    tx.commit();
    CHECK(ran.text() == "a,a2,b");
}

// ---- Running

TEST_CASE("hooks: run inside commit() with the connection idle", "[S13]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.put("row");
    db.on_commit([&] {
        ran.note(db.usable() and not db.in_atomic_block() and db.pending_hooks() == 0 ? "idle" : "busy");
        ran.note(tx.active() ? "active" : "ended");
        ran.note(*db.committed("row") == "" ? "visible" : "not visible");
        db.put("written by a hook");
        Atomic own{db, {.durable = true}};
        db.put("written by its block");
        own.commit();
    });
    tx.commit();
    CHECK(ran.text() == "idle,ended,visible");
    CHECK(db.log() == Log{"BEGIN", "INSERT row", "COMMIT", "INSERT written by a hook", "BEGIN",
                          "INSERT written by its block", "COMMIT"});
}

TEST_CASE("hooks: never run twice, whatever they do", "[S14]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit([&] {
        ran.note("1");
        CHECK_THROWS_AS(tx.commit(), UsageError);
        tx.rollback();
        db.atomic([] {});
        CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
    });
    db.on_commit(ran.hook("2"));
    db.on_commit(ran.throwing("3", Oops{}));
    db.on_commit(ran.hook("4"));
    CHECK_THROWS_AS(tx.commit(), HookError);
    CHECK_THROWS_AS(tx.commit(), UsageError);
    tx.rollback();
    db.atomic([] {});
    CHECK(ran.text() == "1,2,3");
}

TEST_CASE("hooks: a hook that registers outside a block runs it before its own siblings", "[S15]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.on_commit([&] {
            ran.note("1 begins");
            db.on_commit([&] {
                ran.note("1.1");
                db.on_commit(ran.hook("1.1.1"));
            });
            ran.note("1 ends");
        });
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1 begins,1.1,1.1.1,1 ends,2");
}

TEST_CASE("hooks: what a block opened by a hook registers runs at that block's commit", "[S16]") {
    Db db;
    Trace ran;
    const auto hook = [&](int i) {
        ran.note(std::to_string(i));
        db.atomic([&] { db.on_commit(ran.hook(std::to_string(i + 10))); });
    };
    db.atomic([&] {
        db.on_commit(hook, 1);
        db.on_commit(hook, 2);
    });
    CHECK(ran.text() == "1,11,2,12");
}

TEST_CASE("hooks: a block rolled back inside a hook does not disturb the remaining ones", "[S17]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.on_commit([&] {
            ran.note("1");
            Atomic own{db};
            for (int i = 0; i != 100; ++i) db.on_commit(ran.hook("never"));
            {
                Atomic inner{db};
                db.on_commit(ran.hook("never"));
                inner.commit();
            }
            own.rollback();
        });
        db.on_commit(ran.hook("2"));
        db.on_commit(ran.hook("3"));
    });
    CHECK(ran.text() == "1,2,3");
}

TEST_CASE("hooks: each is destroyed right after it ran, before the next runs", "[S18]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.probe("1"));
        db.on_commit([](const Trace::Probe& argument) { argument(); }, ran.probe("2"));
        db.on_commit(robust, ran.probe("3"));
    });
    CHECK(ran.text() == "1,~1,2,~2,3,~3");
}

TEST_CASE("hooks: one that throws is destroyed before the failure is told, and so are those not run", "[S18][S19]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit([p = ran.probe("1")] { throw Oops{}; });
    db.on_commit(ran.probe("2"));
    db.on_commit(ran.probe("3"));
    CHECK_THROWS_AS(tx.commit(), HookError);
    CHECK(ran.text() == "~1,~2,~3");
}

// ---- When a hook throws

TEST_CASE("hooks: after a failure the data stays committed, later hooks are discarded", "[S19][S20]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.put("row");
    db.on_commit(ran.hook("0"));
    db.on_commit(ran.throwing("1", Oops{}));
    db.on_commit(ran.hook("2"));
    db.on_commit(ran.hook("3"));
    const auto error = thrown_by<HookError>([&] { tx.commit(); });
    CHECK(error.outcome() == Outcome::committed);
    CHECK(error.position() == 1);
    CHECK(error.not_run() == 2);
    CHECK(error.failed() == 1);
    CHECK_THROWS_AS(std::rethrow_exception(error.cause()), Oops);
    CHECK(ran.text() == "0,1");
    CHECK(db.committed("row"));
    CHECK_FALSE(tx.active());
}

TEST_CASE("hooks: atomic(fn) passes the failure of a hook on, and does not roll back", "[S19][S20]") {
    Db db;
    Sink sink{db};
    const auto error = thrown_by<HookError>([&] {
        db.atomic([&] {
            db.put("row");
            db.on_commit([] { throw 42; });
            return 7;
        });
    });
    CHECK(name_of(error.cause()) == "42");
    CHECK(error.position() == 0);
    CHECK(error.not_run() == 0);
    CHECK(db.log() == Log{"BEGIN", "INSERT row", "COMMIT"});
    CHECK(db.committed("row"));
    CHECK(sink.text().empty());
}

TEST_CASE("hooks: the place of a failure counts what was registered and not discarded", "[S20][S26]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("0"));
    {
        Atomic inner{db};
        db.on_commit(ran.hook("discarded"));
        db.on_commit(ran.hook("discarded"));
        inner.rollback();
    }
    {
        Atomic inner{db};
        for (int i = 1; i != 200; ++i) db.on_commit([] {});
        db.on_commit(ran.throwing("200", Oops{}));
        inner.commit();
    }
    for (int i = 0; i != 100; ++i) db.on_commit(ran.hook("never"));
    const auto error = thrown_by<HookError>([&] { tx.commit(); });
    CHECK(error.position() == 200);
    CHECK(error.not_run() == 100);
    CHECK(ran.text() == "0,200");
}

TEST_CASE("hooks: the error of a hook of a hook is a HookError in a HookError", "[S16][S20]") {
    Db db;
    const auto outer = thrown_by<HookError>(
        [&] { db.atomic([&] { db.on_commit([&] { db.atomic([&] { db.on_commit([] { throw Oops{}; }); }); }); }); });
    const auto inner = thrown_by<HookError>([&] { std::rethrow_exception(outer.cause()); });
    CHECK(name_of(inner.cause()) == "oops");
}

TEST_CASE("robust: failures go to the sink and later hooks run; the first other failure stops", "[S21]") {
    Db db;
    Sink sink{db};
    Trace ran;
    Atomic tx{db};
    db.on_commit(robust, ran.throwing("0", std::runtime_error{"first"}));
    db.on_commit(ran.hook("1"));
    db.on_commit(robust, ran.throwing("2", 42));
    db.on_commit(ran.throwing("3", Oops{}));
    db.on_commit(robust, ran.hook("4"));
    const auto error = thrown_by<HookError>([&] { tx.commit(); });
    CHECK(ran.text() == "0,1,2,3");
    CHECK(sink.text() == "first,42");
    CHECK(error.position() == 3);
    CHECK(error.not_run() == 1);
    CHECK(error.failed() == 1);
}

TEST_CASE("robust: takes arguments, and outside a block fails into the sink too", "[S1][S21]") {
    Db db;
    Sink sink{db};
    Trace ran;
    const auto hook = [&](std::unique_ptr<int> n, const std::string& text) {
        ran.note(std::to_string(*n) + text);
        throw Oops{};
    };
    db.on_commit(robust, hook, std::make_unique<int>(1), "a");
    db.atomic([&] { db.on_commit(robust, hook, std::make_unique<int>(2), "b"); });
    CHECK(ran.text() == "1a,2b");
    CHECK(sink.text() == "oops,oops");
}

TEST_CASE("hooks: after a failure the next block starts empty", "[S23]") {
    Db db;
    Trace ran;
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_commit([] { throw Oops{}; });
        db.on_commit(ran.hook("left over"));
    }),
                    HookError);
    CHECK(db.usable());
    Atomic tx{db};
    CHECK(db.pending_hooks() == 0);
    db.on_commit(ran.hook("1"));
    tx.commit();
    CHECK(ran.text() == "1");
}

TEST_CASE("set_on_hook_failure: decides over a mixed list of hooks", "[S24][S21]") {
    struct Cell {
        HookFailure policy;
        std::string ran;
        std::string reported;
        std::string thrown;
    };
    const Cell cells[] = {
        {HookFailure::stop, "0,1,2", "robust 1", "position 2, not run 4, failed 1: plain 2"},
        {HookFailure::run_all, "0,1,2,3,4,5,6", "robust 1,plain 4,robust 5,plain 6",
         "position 2, not run 0, failed 3: plain 2"},
        {HookFailure::report, "0,1,2,3,4,5,6", "robust 1,plain 2,plain 4,robust 5,plain 6", "nothing"},
    };
    for (const Cell& cell : cells) {
        CAPTURE(static_cast<int>(cell.policy));
        Db db;
        Sink sink{db};
        Trace ran;
        db.set_on_hook_failure(cell.policy);
        std::string thrown = "nothing";
        Atomic tx{db};
        db.put("row");
        db.on_commit(ran.hook("0"));
        db.on_commit(robust, ran.throwing("1", std::runtime_error{"robust 1"}));
        db.on_commit(ran.throwing("2", std::runtime_error{"plain 2"}));
        db.on_commit(ran.hook("3"));
        db.on_commit(ran.throwing("4", std::runtime_error{"plain 4"}));
        db.on_commit(robust, ran.throwing("5", std::runtime_error{"robust 5"}));
        db.on_commit(ran.throwing("6", std::runtime_error{"plain 6"}));
        try {
            const Outcome outcome = tx.commit();
            CHECK(outcome == Outcome::committed);
        } catch (const HookError& error) {
            thrown = "position " + std::to_string(error.position()) + ", not run " + std::to_string(error.not_run()) +
                     ", failed " + std::to_string(error.failed()) + ": " + name_of(error.cause());
        }
        CHECK(ran.text() == cell.ran);
        CHECK(sink.text() == cell.reported);
        CHECK(thrown == cell.thrown);
        CHECK(db.committed("row"));
        CHECK(db.usable());
        db.atomic([] {});
        CHECK(ran.text() == cell.ran);
    }
}

TEST_CASE("set_on_hook_failure: run_all and report destroy each hook right after it ran", "[S18][S24]") {
    for (const HookFailure policy : {HookFailure::run_all, HookFailure::report}) {
        Db db;
        Sink sink{db};
        Trace ran;
        db.set_on_hook_failure(policy);
        try {
            db.atomic([&] {
                db.on_commit(ran.probe("1"));
                db.on_commit([p = ran.probe("2")] {
                    p();
                    throw Oops{};
                });
                db.on_commit(ran.probe("3"));
            });
        } catch (const HookError& error) {
            CHECK(policy == HookFailure::run_all);
            CHECK(error.position() == 1);
        }
        CHECK(ran.text() == "1,~1,2,~2,3,~3");
    }
}

// ---- Discarding

TEST_CASE("discard: captures are freed when the savepoint is rolled back, after the statement, in order",
          "[S26][S27]") {
    Db db;
    Trace trace;
    Atomic tx{db};
    db.on_commit(trace.probe("kept"));
    {
        Atomic inner{db};
        const auto freed = [&](std::string name) {
            return support::AtDestruction{[&, name] { trace.note(name + " after " + db.log().back()); }};
        };
        db.on_commit(freed("1"));
        {
            Atomic innermost{db};
            db.on_commit(freed("2"));
            innermost.commit();
        }
        db.on_commit(freed("3"));
        inner.rollback();
    }
    CHECK(trace.text() == "1 after ROLLBACK TO txhooks_1,2 after ROLLBACK TO txhooks_1,3 after ROLLBACK TO txhooks_1");
    CHECK(db.pending_hooks() == 1);
    trace.clear();
    tx.commit();
    CHECK(trace.text() == "kept,~kept");
}

TEST_CASE("discard: on the outermost rollback captures are freed after it, in order", "[S25][S27]") {
    Db db;
    Trace trace;
    Atomic tx{db};
    const auto freed = [&](std::string name) {
        return support::AtDestruction{
            [&, name] { trace.note(name + " after " + db.log().back() + (db.usable() ? ", usable" : ", unusable")); }};
    };
    db.on_commit(freed("1"));
    db.on_commit(freed("2"));
    tx.rollback();
    CHECK(trace.text() == "1 after ROLLBACK, usable,2 after ROLLBACK, usable");
}

TEST_CASE("discard: destructors of captures may write, open blocks and register in the enclosing block", "[S27]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    {
        Atomic inner{db};
        db.on_commit(support::AtDestruction{[&] {
            db.put("by a destructor");
            db.on_commit(ran.hook("registered by a destructor"));
            db.atomic([&] { db.on_commit(ran.hook("in its block")); });
            CHECK_THROWS_AS(db.atomic([&] {
                db.on_commit(ran.hook("never"));
                throw Oops{};
            }),
                            Oops);
        }});
        db.on_commit(ran.probe("discarded"));
        inner.rollback();
    }
    db.on_commit(ran.hook("last"));
    CHECK(db.pending_hooks() == 3);
    CHECK(ran.text() == "~discarded");
    ran.clear();
    tx.commit();
    CHECK(ran.text() == "registered by a destructor,in its block,last");
    CHECK(db.committed("by a destructor"));
}

TEST_CASE("discard: what a destructor registers after the outermost rollback runs at once", "[S27]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(support::AtDestruction{[&] {
        db.on_commit(ran.hook("at once"));
        db.atomic([&] {
            db.put("row");
            db.on_commit(ran.hook("at its commit"));
        });
    }});
    db.on_commit(ran.probe("discarded"));
    tx.rollback();
    CHECK(ran.text() == "at once,at its commit,~discarded");
    CHECK(db.committed("row"));
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK", "BEGIN", "INSERT row", "COMMIT"});
}

TEST_CASE("discard: destructors of hooks that ran may open blocks while their siblings wait", "[S14][S18][S27]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(support::AtDestruction{[&] {
        db.atomic([&] {
            for (int i = 0; i != 100; ++i) db.on_commit([] {});
            db.on_commit(ran.hook("1.1"));
        });
    }});
    db.on_commit(ran.hook("2"));
    db.on_commit(ran.hook("3"));
    tx.commit();
    CHECK(ran.text() == "1.1,2,3");
}

TEST_CASE("discard: hooks never leak into the next transaction, whatever threw", "[S28]") {
    struct NotAnException {};
    Db db;
    Trace ran;
    const auto fails_with = [&](auto error) {
        try {
            db.atomic([&] {
                db.on_commit(ran.hook("leaked"));
                db.atomic([&] { db.on_commit(ran.hook("leaked")); });
                throw error;
            });
        } catch (decltype(error)&) {
            ran.note("caught");
        }
        CHECK(db.usable());
        db.atomic([&] { CHECK(db.pending_hooks() == 0); });
    };
    fails_with(Oops{});
    fails_with(42);
    fails_with(static_cast<const char*>("text"));
    fails_with(NotAnException{});
    fails_with(TransactionAborted{});
    CHECK(ran.text() == "caught,caught,caught,caught,caught");
}

// ---- set_rollback

TEST_CASE("set_rollback: the outermost block rolls back silently at its clean end", "[S36]") {
    Db db;
    Sink sink{db};
    Trace ran;
    Atomic tx{db};
    db.put("row");
    db.on_commit(ran.hook("1"));
    db.set_rollback(true);
    CHECK(tx.commit() == Outcome::rolled_back);
    CHECK_FALSE(tx.active());
    const int result = db.atomic([&] {
        db.on_commit(ran.hook("2"));
        db.set_rollback(true);
        return 7;
    });
    CHECK(result == 7);
    CHECK(ran.text().empty());
    CHECK(sink.text().empty());
    CHECK(db.log() == Log{"BEGIN", "INSERT row", "ROLLBACK", "BEGIN", "ROLLBACK"});
}

TEST_CASE("set_rollback: a savepoint rolls back alone", "[S36]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    {
        Atomic inner{db};
        db.on_commit(ran.hook("2"));
        db.set_rollback(true);
        CHECK(inner.commit() == Outcome::rolled_back);
    }
    db.on_commit(ran.hook("3"));
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "1,3");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "COMMIT"});
}

TEST_CASE("set_rollback: from a joined block means the nearest that has a savepoint", "[S36]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    {
        Atomic inner{db};
        db.on_commit(ran.hook("2"));
        db.atomic({.join = true}, [&] { db.atomic({.join = true}, [&] { db.set_rollback(true); }); });
        CHECK(inner.commit() == Outcome::rolled_back);
    }
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "1");
}

TEST_CASE("set_rollback: from a joined block without a savepoint around it means the outermost", "[S36]") {
    Db db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    {
        Atomic joined{db, {.join = true}};
        db.set_rollback(true);
        CHECK(joined.commit() == Outcome::committed);
    }
    CHECK(tx.commit() == Outcome::rolled_back);
    CHECK(ran.text().empty());
}

TEST_CASE("set_rollback: false takes the request back, but never a doom", "[S36]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.set_rollback(true);
        db.set_rollback(false);
        db.on_commit(ran.hook("1"));
    });
    CHECK(ran.text() == "1");
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_commit(ran.hook("2"));
        Atomic{db, {.join = true}}.rollback();
        db.set_rollback(false);
    }),
                    TransactionAborted);
    CHECK(ran.text() == "1");
}

TEST_CASE("set_rollback: is forgotten with its block, and refused outside one", "[S36]") {
    Db db;
    Trace ran;
    CHECK_THROWS_AS(db.set_rollback(true), UsageError);
    CHECK_THROWS_AS(db.set_rollback(false), UsageError);
    db.atomic([&] { db.set_rollback(true); });
    db.atomic([&] { db.on_commit(ran.hook("1")); });
    CHECK(ran.text() == "1");
}

TEST_CASE("set_rollback: the engine's exception leaves commit() when that rollback fails", "[S36][S49]") {
    Db db;
    Sink sink{db};
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    db.set_rollback(true);
    db.faults.fail(Verb::rollback, When::before_effect, Oops{});
    CHECK_THROWS_AS(tx.commit(), Oops);
    CHECK(ran.text().empty());
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
}

// ---- What can be asked

TEST_CASE("connection: in_atomic_block, pending_hooks and usable follow the blocks") {
    Db db;
    Log seen;
    const auto look = [&] {
        seen.push_back(std::string{db.in_atomic_block() ? "in block, " : "outside, "} +
                       std::to_string(db.pending_hooks()) + " hooks" + (db.usable() ? ", usable" : ""));
    };
    look();
    {
        Atomic tx{db};
        db.on_commit([] {});
        look();
        {
            Atomic inner{db};
            db.on_commit([] {});
            db.on_commit([] {});
            look();
            inner.rollback();
        }
        look();
        tx.commit();
    }
    look();
    db.execute("BEGIN");
    look();
    CHECK(seen == Log{"outside, 0 hooks, usable", "in block, 1 hooks", "in block, 3 hooks", "in block, 1 hooks",
                      "outside, 0 hooks, usable", "outside, 0 hooks"});
}

TEST_CASE("reset: is refused in a block and while the engine is in a transaction", "[S49]") {
    Db db;
    Sink sink{db};
    db.atomic([&] { CHECK_THROWS_AS(db.reset(), UsageError); });
    db.faults.fail(Verb::rollback, When::before_effect, Oops{});
    CHECK_THROWS_AS(Atomic{db}.rollback(), Oops);
    CHECK_FALSE(db.usable());
    CHECK_THROWS_AS(db.reset(), UsageError);
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
    db.execute("ROLLBACK");
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
    CHECK_FALSE(db.usable());
    db.reset();
    CHECK(db.usable());
    db.atomic([&] { db.put("row"); });
    CHECK(db.committed("row"));
}

TEST_CASE("reset: every use of a broken connection throws until then", "[S49]") {
    Db db;
    Sink sink{db};
    Trace ran;
    db.answer_commit({Outcome::unknown});
    CHECK_THROWS_AS(db.atomic([&] { db.on_commit(ran.hook("1")); }), CommitUnknown);
    CHECK_FALSE(db.usable());
    db.clear_log();
    Connection& any = db;
    CHECK_THROWS_AS(Atomic{db}, ConnectionBroken);
    CHECK_THROWS_AS(Atomic{any}, ConnectionBroken);
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
    CHECK_THROWS_AS(db.atomic({.join = true}, [] {}), ConnectionBroken);
    CHECK_THROWS_AS(db.atomic({.durable = true}, [] {}), ConnectionBroken);
    CHECK_THROWS_AS(db.on_commit(ran.hook("2")), ConnectionBroken);
    CHECK_THROWS_AS(db.set_rollback(true), ConnectionBroken);
    CHECK(db.log().empty());
    db.reset();
    db.atomic([&] { db.on_commit(ran.hook("3")); });
    CHECK(ran.text() == "3");
}

// ---- Connection&

TEST_CASE("Connection: names any hooked connection without a template parameter", "[S54]") {
    struct SignUp {
        Connection& db;
        Trace& mails;
        void operator()(const std::string& name, bool fail) const {
            db.atomic([&] {
                db.on_commit(mails.hook("welcome " + name));
                db.on_commit(robust, mails.hook("count " + name));
                if (fail) throw Oops{};
            });
        }
    };
    Trace mails;
    Db owning;
    FakeBackend existing;
    HookedConnection<FakeBackend&> borrowing{existing};
    const Log committed{"BEGIN", "COMMIT", "BEGIN", "ROLLBACK"};
    for (Connection* db : {&static_cast<Connection&>(owning), &static_cast<Connection&>(borrowing)}) {
        mails.clear();
        existing.clear_log();
        const SignUp sign_up{*db, mails};
        sign_up("ann", false);
        CHECK_THROWS_AS(sign_up("bob", true), Oops);
        CHECK(mails.text() == "welcome ann,count ann");
        CHECK((db == &static_cast<Connection&>(owning) ? owning.log() : existing.log()) == committed);
    }
}

TEST_CASE("Connection: has blocks, guards, options and questions like the concrete type", "[S54]") {
    Db concrete;
    Connection& db = concrete;
    Sink sink{db};
    Trace ran;
    CHECK(db.usable());
    {
        Atomic tx{db, {.durable = true}};
        static_assert(std::is_same_v<decltype(tx), Atomic<Connection>>);
        db.on_commit(ran.hook("1"));
        {
            Atomic inner{concrete};
            static_assert(std::is_same_v<decltype(inner), Atomic<Db>>);
            db.on_commit(ran.hook("2"));
            inner.commit();
        }
        db.atomic({.join = true}, [&] { concrete.on_commit(ran.hook("3")); });
        CHECK(db.in_atomic_block());
        CHECK(db.pending_hooks() == 3);
        CHECK(tx.commit() == Outcome::committed);
    }
    CHECK(ran.text() == "1,2,3");
    CHECK(db.atomic([&] {
        db.set_rollback(true);
        return 7;
    }) == 7);
    db.set_on_hook_failure(HookFailure::report);
    db.atomic([&] { db.on_commit([] { throw Oops{}; }); });
    CHECK(sink.text() == "oops");
    Atomic<> any{concrete};
    any.rollback();
    CHECK(concrete.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "COMMIT", "BEGIN", "ROLLBACK",
                                "BEGIN", "COMMIT", "BEGIN", "ROLLBACK"});
}

TEST_CASE("connection: decides nothing by whether an exception is in flight", "[S56]") {
    Db db;
    Trace ran;
    try {
        support::AtDestruction during_unwinding{[&] {
            Atomic tx{db};
            db.put("row");
            db.on_commit(ran.hook("guard"));
            {
                Atomic inner{db};
                db.on_commit(ran.hook("discarded"));
            }
            CHECK(tx.commit() == Outcome::committed);
            db.atomic([&] { db.on_commit(ran.hook("function")); });
        }};
        throw Oops{};
    } catch (const Oops&) {
        ran.note("caught");
    }
    CHECK(ran.text() == "guard,function,caught");
    CHECK(db.committed("row"));
}

static_assert(not std::is_copy_constructible_v<Db>);
static_assert(not std::is_move_constructible_v<Db>);
static_assert(not std::is_copy_assignable_v<Db>);
static_assert(not std::is_move_assignable_v<Db>);

// SPDX-License-Identifier: MIT

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <stdexcept>
#include <string>

using namespace txhooks;
using support::Log;
using support::name_of;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::ConnectionLostError;
using testing::FakeBackend;
using testing::Faults;
using testing::FaultyAdapter;
using testing::Verb;
using testing::When;

namespace {

// The same fake engine, with the faults injected around the adapter of it.
using Faulty = HookedConnection<FakeBackend, FaultyAdapter<BackendAdapter<FakeBackend>>>;

}  // namespace

TEST_CASE("Faults: a failure before effect keeps the work from being done, one after it does not") {
    Faults faults;
    int done = 0;
    const auto work = [&] { ++done; };
    faults.fail(Verb::begin, When::before_effect, Oops{});
    CHECK_THROWS_AS(faults.around(Verb::begin, work), Oops);
    CHECK(done == 0);
    faults.fail(Verb::begin, When::after_effect, 42);
    CHECK(thrown_by<int>([&] { faults.around(Verb::begin, work); }) == 42);
    CHECK(done == 1);
    faults.around(Verb::begin, work);
    CHECK(done == 2);
}

TEST_CASE("Faults: each hits the nth call of its verb, once") {
    Faults faults;
    Trace trace;
    faults.fail(Verb::release, When::before_effect, std::string{"never reached"}, 9);
    faults.fail(Verb::commit, When::before_effect, 2, 2);
    faults.fail(Verb::commit, When::before_effect, 3, 3);
    CHECK(faults.planned() == 3);
    for (int call = 1; call != 6; ++call) {
        for (const Verb verb : {Verb::rollback, Verb::commit}) {
            try {
                faults.around(verb, [&] { trace.note("ok"); });
            } catch (int error) {
                trace.note(std::to_string(error));
            }
        }
    }
    CHECK(trace.text() == "ok,ok,ok,2,ok,3,ok,ok,ok,ok");
    CHECK(faults.planned() == 1);
    faults.clear();
    CHECK(faults.planned() == 0);
}

TEST_CASE("Faults: a lost connection calls lose() and throws ConnectionLostError") {
    Faults faults;
    Trace trace;
    faults.lose = [&] { trace.note("lost"); };
    faults.lose_connection(Verb::commit, When::after_effect);
    faults.lose_connection(Verb::commit, When::before_effect, 2);
    CHECK_THROWS_AS(faults.around(Verb::commit, [&] { trace.note("done"); }), ConnectionLostError);
    CHECK_THROWS_AS(faults.around(Verb::commit, [&] { trace.note("done"); }), ConnectionLostError);
    CHECK(trace.text() == "done,lost,lost");
}

TEST_CASE("Faults: code may be called at a verb, which goes on if that returns") {
    Faults faults;
    Trace trace;
    const auto work = [&] { trace.note("work"); };
    faults.act(Verb::begin, When::before_effect, [&] {
        trace.note("before");
        faults.act(Verb::begin, When::before_effect, [&] { trace.note("planned meanwhile"); });
    });
    faults.act(Verb::begin, When::after_effect, [&] { trace.note("after"); });
    faults.act(Verb::begin, When::after_effect, [] { throw Oops{}; }, 3);
    faults.around(Verb::begin, work);
    CHECK(trace.text() == "before,work,after");
    trace.clear();
    faults.around(Verb::begin, work);
    CHECK(trace.text() == "planned meanwhile,work");
    CHECK_THROWS_AS(faults.around(Verb::begin, work), Oops);
    CHECK(faults.planned() == 0);
}

TEST_CASE("Faults: of those due at one call the first that throws wins") {
    Faults faults;
    Trace trace;
    faults.fail(Verb::commit, When::after_effect, 1);
    faults.fail(Verb::commit, When::after_effect, 2);
    faults.act(Verb::commit, When::before_effect, [&] { trace.note("before"); });
    CHECK(thrown_by<int>([&] { faults.around(Verb::commit, [&] { trace.note("work"); }); }) == 1);
    CHECK(trace.text() == "before,work");
    CHECK(faults.planned() == 0);
}

TEST_CASE("FaultyAdapter: passes every verb on while nothing is planned") {
    Faulty db;
    Trace ran;
    db.atomic([&] {
        db.put("1");
        db.on_commit(ran.hook("1"));
        db.atomic([] {});
        CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
    });
    CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
    CHECK(ran.text() == "1");
    CHECK(db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "SAVEPOINT txhooks_1",
                          "ROLLBACK TO txhooks_1", "COMMIT", "BEGIN", "ROLLBACK"});
    CHECK_THROWS_AS(db.atomic([&] { db.execute("COMMIT; BEGIN"); }), TransactionLost);
    CHECK(db.usable());
}

TEST_CASE("FaultyAdapter: a COMMIT that fails before effect is still open, after effect in doubt", "[S47][S48]") {
    Faulty db;
    Trace ran;
    {
        Atomic tx{db};
        db.put("1");
        db.on_commit(ran.hook("1"));
        db.adapter().faults.fail(Verb::commit, When::before_effect, Oops{});
        CHECK_THROWS_AS(tx.commit(), Oops);
        CHECK(tx.active());
        tx.commit();
    }
    CHECK(ran.text() == "1");
    db.adapter().faults.fail(Verb::commit, When::after_effect, Oops{});
    const auto error = thrown_by<CommitUnknown>([&] {
        db.atomic([&] {
            db.put("2");
            db.on_commit(ran.hook("2"));
        });
    });
    CHECK(name_of(error.cause()) == "oops");
    CHECK(db.committed("2"));
    CHECK(ran.text() == "1");
}

TEST_CASE("FaultyAdapter: a COMMIT that the engine rolled back stays so, whatever is injected after it", "[S46]") {
    Faulty db;
    db.answer_commit({Outcome::rolled_back, std::make_exception_ptr(42)});
    db.adapter().faults.fail(Verb::commit, When::after_effect, Oops{});
    CHECK_THROWS_AS(db.atomic([] {}), int);
    CHECK(db.usable());
}

TEST_CASE("FaultyAdapter: injects into every other verb", "[S40][S49][S51]") {
    Faulty db;
    Sink sink{db};
    db.adapter().faults.fail(Verb::begin, When::after_effect, Oops{});
    CHECK_THROWS_AS(db.atomic([] {}), Oops);
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
    db.clear_log();
    db.atomic([&] {
        db.adapter().faults.fail(Verb::savepoint, When::before_effect, Oops{});
        CHECK_THROWS_AS(db.atomic([] {}), Oops);
        db.adapter().faults.fail(Verb::release, When::before_effect, Oops{});
        CHECK_THROWS_AS(db.atomic([] {}), Oops);
    });
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_2", "ROLLBACK TO txhooks_2", "COMMIT"});
    db.adapter().faults.fail(Verb::rollback_to, When::before_effect, 42);
    db.adapter().faults.fail(Verb::rollback, When::before_effect, 7);
    CHECK_THROWS_AS(db.atomic([&] { db.atomic([] { throw Oops{}; }); }), Oops);
    CHECK(sink.text() == "42,7");
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
}

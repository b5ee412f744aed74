// SPDX-License-Identifier: MIT

// Exceptions that are no C++ exceptions: nothing may be decided by whether there is an exception_ptr.

#include <txhooks/backend_adapter.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/foreign.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>

using namespace txhooks;
using support::Log;
using support::raise_foreign;
using support::raises_foreign;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::FaultyAdapter;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

// A commit() of which nothing is known but that it threw.
struct Least {
    void begin() {}
    void commit() { raise_foreign(); }
    void rollback() {}
};

// The same, and what the client sees afterwards.
struct Stateful : Least {
    ConnectionState now = ConnectionState::idle;
    ConnectionState state() const noexcept { return now; }
};

// Statements of which some throw.
struct Sql : SqlAdapter<Sql> {
    Log log;
    Log refused;
    ConnectionState now = ConnectionState::open;

    void execute(const char* sql) {
        log.emplace_back(sql);
        for (const std::string& one : refused)
            if (one == sql) raise_foreign();
    }
    ConnectionState state() const noexcept { return now; }
};

void check(const CommitResult& result, Outcome outcome, bool lost = false) {
    CHECK(static_cast<unsigned>(result.outcome) == static_cast<unsigned>(outcome));
    CHECK(result.lost == lost);
    CHECK(result.failed);
    CHECK(result.reported_error());
    CHECK_FALSE(result.error);
}

}  // namespace

// ---- COMMIT

TEST_CASE("CommitResult: an error is reported if it says so, or has one") {
    CHECK_FALSE(CommitResult{Outcome::committed}.reported_error());
    CHECK(CommitResult{Outcome::committed, std::make_exception_ptr(42)}.reported_error());
    CHECK(CommitResult{.outcome = Outcome::committed, .failed = true}.reported_error());
}

TEST_CASE("foreign exception: a commit() that throws one has proved nothing", "[S55][S47][S48]") {
    Least least;
    check(BackendAdapter<Least>{least}.commit(), Outcome::unknown);
    Stateful stateful;
    for (const ConnectionState now : {ConnectionState::idle, ConnectionState::lost}) {
        stateful.now = now;
        check(BackendAdapter<Stateful>{stateful}.commit(), Outcome::unknown);
    }
    for (const ConnectionState now : {ConnectionState::open, ConnectionState::failed}) {
        stateful.now = now;
        check(BackendAdapter<Stateful>{stateful}.commit(), Outcome::still_open);
    }
}

TEST_CASE("foreign exception: no hook runs after a COMMIT that threw one", "[S48]") {
    Trace ran;
    HookedConnection<Least> db;
    CHECK_THROWS_AS(db.atomic([&] { db.on_commit(ran.probe("1")); }), CommitUnknown);
    CHECK(ran.text() == "~1");
    CHECK_FALSE(db.usable());
}

TEST_CASE("SqlAdapter: a foreign exception of each statement of COMMIT and ROLLBACK", "[S55][S47][S48][S50]") {
    Sql sql;
    SECTION("COMMIT: open") {
        sql.refused = {"COMMIT"};
        check(sql.commit(), Outcome::still_open);
        CHECK(sql.log == Log{"RELEASE SAVEPOINT txhooks_0", "COMMIT", "SAVEPOINT txhooks_0"});
    }
    SECTION("COMMIT: idle") {
        sql.refused = {"COMMIT"};
        sql.now = ConnectionState::idle;
        check(sql.commit(), Outcome::unknown);
    }
    SECTION("COMMIT, and the new witness") {
        sql.refused = {"COMMIT", "SAVEPOINT txhooks_0"};
        check(sql.commit(), Outcome::unknown);
    }
    SECTION("RELEASE of the witness") {
        sql.refused = {"RELEASE SAVEPOINT txhooks_0"};
        check(sql.commit(), Outcome::unknown, true);
        CHECK(sql.log == Log{"RELEASE SAVEPOINT txhooks_0"});
    }
    SECTION("ROLLBACK TO the witness") {
        sql.refused = {"ROLLBACK TO SAVEPOINT txhooks_0"};
        const auto lost = thrown_by<TransactionLost>([&] { sql.rollback(); });
        CHECK(lost.outcome() == Outcome::unknown);
        CHECK_FALSE(lost.cause());
        CHECK(sql.log == Log{"ROLLBACK TO SAVEPOINT txhooks_0", "ROLLBACK"});
    }
    SECTION("both of them: nothing is replaced, nothing is being handled") {
        sql.refused = {"ROLLBACK TO SAVEPOINT txhooks_0", "ROLLBACK"};
        CHECK(raises_foreign([&] { sql.rollback(); }));
    }
}

// ---- testing/

TEST_CASE("FakeBackend: a foreign exception of COMMIT before effect is still open, after it in doubt", "[S47][S48]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        FakeBackend backend;
        backend.begin();
        backend.faults.act(Verb::commit, when, raise_foreign);
        check(backend.commit(), when == When::before_effect ? Outcome::still_open : Outcome::unknown);
    }
}

TEST_CASE("FaultyAdapter: a foreign exception of COMMIT before effect is still open, after it in doubt", "[S47][S48]") {
    FakeBackend backend;
    FaultyAdapter<BackendAdapter<FakeBackend>> adapter{backend};
    adapter.begin({});
    adapter.faults.act(Verb::commit, When::before_effect, raise_foreign);
    check(adapter.commit(), Outcome::still_open);
    adapter.faults.act(Verb::commit, When::after_effect, raise_foreign);
    check(adapter.commit(), Outcome::unknown);
    adapter.begin({});
    backend.answer_commit({static_cast<Outcome>(4), nullptr});
    adapter.faults.act(Verb::commit, When::after_effect, raise_foreign);
    check(adapter.commit(), Outcome::unknown);
}

TEST_CASE("FakeBackend: a foreign exception of any other verb passes through it") {
    for (const Verb verb : {Verb::begin, Verb::rollback, Verb::savepoint, Verb::release, Verb::rollback_to}) {
        for (const When when : {When::before_effect, When::after_effect}) {
            CAPTURE(static_cast<int>(verb), static_cast<int>(when));
            FakeBackend backend;
            backend.faults.act(verb, when, raise_foreign);
            CHECK(raises_foreign([&] {
                backend.begin();
                backend.savepoint(1);
                backend.release(1);
                backend.savepoint(1);
                backend.rollback_to(1);
                backend.rollback();
            }));
            CHECK(backend.faults.planned() == 0);
        }
    }
}

// ---- retry

TEST_CASE("retry: an exception of another language passes through at once", "[retry]") {
    Db db;
    Trace ran;
    int calls = 0;
    bool asked = false;
    RetryPolicy policy{
        .transient = [](const std::exception_ptr&) noexcept { return true; },
        .before_retry = [&](unsigned, const std::exception_ptr&) { asked = true; },
        .sleep = [&](std::chrono::nanoseconds) { asked = true; },
    };
    SECTION("from fn") {
        CHECK(raises_foreign([&] {
            retry(db, policy, [&] {
                ++calls;
                db.on_commit(ran.probe("1"));
                raise_foreign();
            });
        }));
        CHECK(ran.text() == "~1");
        CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
    }
    SECTION("from a nested block") {
        CHECK(raises_foreign([&] {
            retry(db, policy, [&] {
                ++calls;
                db.atomic([] { raise_foreign(); });
            });
        }));
    }
    CHECK(calls == 1);
    CHECK_FALSE(asked);
    db.atomic([&] { db.on_commit(ran.hook("works")); });
}

TEST_CASE("retry: one that happens between two attempts ends it", "[retry]") {
    Db db;
    int calls = 0;
    RetryPolicy policy{
        .transient = [](const std::exception_ptr&) noexcept { return true; },
        .sleep = [](std::chrono::nanoseconds) {},
    };
    SECTION("in before_retry") {
        policy.before_retry = [](unsigned, const std::exception_ptr&) { raise_foreign(); };
    }
    SECTION("in sleep") {
        policy.sleep = [](std::chrono::nanoseconds) { raise_foreign(); };
    }
    CHECK(raises_foreign([&] {
        retry(db, policy, [&] {
            ++calls;
            throw 42;
        });
    }));
    CHECK(calls == 1);
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
}

TEST_CASE("retry: a COMMIT in doubt is not sent again, whatever it threw", "[retry][S48]") {
    Db db;
    int calls = 0;
    db.faults.act(Verb::commit, When::after_effect, raise_foreign);
    const RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
    CHECK_THROWS_AS(retry(db, policy, [&] { ++calls; }), CommitUnknown);
    CHECK(calls == 1);
}

#if defined __GLIBC__ && defined __GLIBCXX__
TEST_CASE("retry: a thread that is ended in fn ends, and its block is rolled back", "[retry][S31]") {
    Db db;
    int calls = 0;
    bool went_on = false;
    std::thread{[&] {
        const RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
        retry(db, policy, [&] {
            ++calls;
            pthread_exit(nullptr);
        });
        went_on = true;
    }}.join();
    CHECK(calls == 1);
    CHECK_FALSE(went_on);
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
    CHECK(db.usable());
}
#endif

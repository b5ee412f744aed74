// SPDX-License-Identifier: MIT

// Enumerators that nobody knows: an adapter that was not initialized, or is newer than the core. They prove nothing.

#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>

using namespace txhooks;
using support::ending;
using support::Log;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::CapturedHooks;
using testing::FakeBackend;
using testing::RolledBack;
using testing::Verb;
using testing::When;

namespace {

// Says what it is told to say, and does what it should.
class Strange : public BackendAdapter<FakeBackend> {
public:
    using BackendAdapter::BackendAdapter;

    std::optional<CommitResult> answer{};
    std::optional<ConnectionState> now{};
    std::optional<Outcome> became{};

    CommitResult commit() noexcept {
        const CommitResult true_one = BackendAdapter::commit();
        return answer ? *answer : true_one;
    }
    CommitResult commit(const char* marker) noexcept {
        const CommitResult true_one = BackendAdapter::commit(marker);
        return answer ? *answer : true_one;
    }
    ConnectionState state() const noexcept { return now ? *now : BackendAdapter::state(); }
    Outcome fate() noexcept { return became ? *became : BackendAdapter::fate(); }
};

using Db = HookedConnection<FakeBackend, Strange>;

struct Scene {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    Doubt doubt;

    void act() {
        db.put("1");
        db.on_commit(ran.probe("1"));
    }

    // The next block is as if nothing had been before.
    void check_goes_on() {
        ran.clear();
        db.atomic([&] { db.on_commit(ran.hook("next")); });
        CHECK(ran.text() == "next");
    }
};

const Outcome outcomes[] = {static_cast<Outcome>(4), static_cast<Outcome>(255)};
const ConnectionState states[] = {static_cast<ConnectionState>(4), static_cast<ConnectionState>(255)};

constexpr auto strange_state = static_cast<ConnectionState>(9);

}  // namespace

// ---- Outcome

TEST_CASE("unknown number: as the outcome of a COMMIT it is in doubt, and no hook runs", "[S48]") {
    for (const Outcome outcome : outcomes)
        for (const std::exception_ptr& error : {std::exception_ptr{}, std::make_exception_ptr(Oops{})})
            for (const bool foreign : {false, true})
                for (const std::string way : {"atomic", "any", "guard", "asked for", "detach", "resolve", "captured"}) {
                    CAPTURE(static_cast<int>(outcome), error != nullptr, foreign, way);
                    Scene s;
                    Connection& any = s.db;
                    std::optional<CapturedHooks> captured;
                    if (way == "captured") captured.emplace(s.db);
                    s.db.adapter().answer = CommitResult{outcome, error, false, foreign};
                    const std::string left = ending([&] {
                        if (way == "any") return any.atomic([&] { s.act(); });
                        if (way == "detach") return s.db.atomic({.detach = &s.after}, [&] { s.act(); });
                        if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, [&] { s.act(); });
                        if (way != "guard") return s.db.atomic([&] { s.act(); });
                        Atomic tx{s.db};
                        s.act();
                        try {
                            tx.commit();
                        } catch (...) {
                            CHECK_FALSE(tx.active());
                            throw;
                        }
                    });
                    CHECK(left == (error ? "CommitUnknown unknown <- oops" : "CommitUnknown unknown"));
                    CHECK(s.ran.text() == (way == "resolve" ? "" : "~1"));
                    CHECK(s.after.size() == 0);
                    CHECK(s.doubt.in_doubt() == (way == "resolve"));
                    if (captured) CHECK(captured->size() == 0);
                    CHECK_FALSE(s.db.usable());
                    CHECK(ending([&] { s.db.atomic([] {}); }) == "ConnectionBroken");
                    CHECK(ending([&] { s.db.on_commit([] {}); }) == "ConnectionBroken");
                    s.db.adapter().answer.reset();
                    s.db.reset();
                    if (way == "resolve") {
                        CHECK(s.doubt.resolve(s.db) == Outcome::committed);
                        CHECK(s.ran.text() == "1,~1");
                    }
                    captured.reset();
                    CHECK(s.sink.sentences().empty());
                    s.check_goes_on();
                }
}

TEST_CASE("unknown number: the fake answers a COMMIT with it, as with `unknown`", "[S48]") {
    for (const Outcome outcome : outcomes)
        for (const bool really_committed : {false, true}) {
            HookedConnection<FakeBackend> db;
            Trace ran;
            db.answer_commit({outcome, nullptr, really_committed});
            CHECK(ending([&] {
                      db.atomic([&] {
                          db.put("1");
                          db.on_commit(ran.probe("1"));
                      });
                  }) == "CommitUnknown unknown");
            CHECK(ran.text() == "~1");
            CHECK(db.committed("1").has_value() == really_committed);
        }
}

TEST_CASE("unknown number: as the outcome of a COMMIT of a transaction that was lost, it is an unknown loss",
          "[S48][S50]") {
    for (const Outcome outcome : outcomes) {
        Scene s;
        s.db.adapter().answer = CommitResult{outcome, nullptr, true};
        CHECK(ending([&] { s.db.atomic([&] { s.act(); }); }) == "TransactionLost unknown");
        CHECK(s.ran.text() == "~1");
        s.db.adapter().answer.reset();
        s.check_goes_on();
    }
}

TEST_CASE("unknown number: an engine that is still in the transaction stays broken until that is over", "[S48][S49]") {
    struct Stuck : BackendAdapter<FakeBackend> {
        using BackendAdapter::BackendAdapter;
        CommitResult commit() noexcept { return {static_cast<Outcome>(4)}; }
        CommitResult commit(const char*) noexcept { return commit(); }
    };
    HookedConnection<FakeBackend, Stuck> db;
    Trace ran;
    CHECK(ending([&] { db.atomic([&] { db.on_commit(ran.probe("1")); }); }) == "CommitUnknown unknown");
    CHECK(ran.text() == "~1");
    CHECK(ending([&] { db.reset(); }) == "UsageError");
    CHECK(ending([&] { db.atomic([] {}); }) == "ConnectionBroken");
    db.execute("ROLLBACK");
    db.reset();
    CHECK(db.usable());
}

TEST_CASE("unknown number: as the fate of a lost transaction it is an unknown one", "[S50]") {
    for (const Outcome outcome : outcomes)
        for (const std::string noticed : {"commit", "rollback", "on_commit", "nested", "set_rollback", "destructor"}) {
            CAPTURE(static_cast<int>(outcome), noticed);
            Scene s;
            s.db.adapter().became = outcome;
            const std::string left = ending([&] {
                Atomic tx{s.db};
                s.act();
                s.db.execute("COMMIT; BEGIN");
                if (noticed == "commit") tx.commit();
                if (noticed == "rollback") tx.rollback();
                if (noticed == "on_commit") s.db.on_commit(s.ran.hook("2"));
                if (noticed == "nested") s.db.atomic([] {});
                if (noticed == "set_rollback") {
                    CHECK(ending([&] { s.db.on_commit([] {}); }) == "TransactionLost unknown");
                    s.db.set_rollback(true);
                }
            });
            CHECK(left == (noticed == "destructor" ? "returned" : "TransactionLost unknown"));
            CHECK(s.ran.text() == "~1");
            s.check_goes_on();
        }
}

TEST_CASE("unknown number: in a TransactionLost that a verb throws it is an unknown loss", "[S50]") {
    for (const Outcome outcome : outcomes) {
        CHECK(TransactionLost{outcome}.outcome() == Outcome::unknown);
        for (const When when : {When::before_effect, When::after_effect})
            for (const Verb verb : {Verb::begin, Verb::savepoint, Verb::release, Verb::rollback_to, Verb::rollback}) {
                CAPTURE(static_cast<int>(outcome), static_cast<int>(verb), static_cast<int>(when));
                Scene s;
                s.db.faults.fail(verb, when, TransactionLost{outcome});
                const std::string left = ending([&] {
                    Atomic tx{s.db};
                    s.act();
                    Atomic inner{s.db};
                    if (verb == Verb::release) inner.commit();
                    inner.rollback();
                    tx.rollback();
                });
                CHECK(left == "TransactionLost unknown");
                CHECK(s.ran.text() == (verb == Verb::begin ? "" : "~1"));
                CHECK_FALSE(s.db.committed("1"));
                if (not s.db.usable()) {
                    if (s.db.FakeBackend::state() != ConnectionState::idle) s.db.execute("ROLLBACK");
                    s.db.reset();
                }
                s.check_goes_on();
            }
        CHECK(TransactionLost{Outcome::still_open}.outcome() == Outcome::unknown);
    }
}

TEST_CASE("unknown number: retry does not take it for a rollback", "[retry][S50]") {
    const RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; },
                             .sleep = [](std::chrono::nanoseconds) {}};
    for (const Outcome outcome : outcomes) {
        Scene s;
        int calls = 0;
        s.db.adapter().became = outcome;
        CHECK(ending([&] {
                  retry(s.db, policy, [&] {
                      ++calls;
                      s.db.execute("COMMIT; BEGIN");
                      throw Oops{};
                  });
              }) == "oops");
        CHECK(calls == 1);
        s.db.adapter().answer = CommitResult{outcome, std::make_exception_ptr(Oops{})};
        CHECK(ending([&] { retry(s.db, policy, [&] { ++calls; }); }) == "CommitUnknown unknown <- oops");
        CHECK(calls == 2);
    }
}

TEST_CASE("unknown number: as an outcome or a fate it proves no rollback, and unless_committed runs",
          "[S48][S50][S68][S69]") {
    for (const Outcome outcome : outcomes)
        for (const std::string way : {"COMMIT", "resolve", "loss", "loss that COMMIT finds"}) {
            CAPTURE(static_cast<int>(outcome), way);
            Scene s;
            if (way == "loss")
                s.db.adapter().became = outcome;
            else
                s.db.adapter().answer = CommitResult{outcome, nullptr, way == "loss that COMMIT finds"};
            const std::string left = ending([&] {
                s.db.atomic({.resolve = way == "resolve" ? &s.doubt : nullptr}, [&] {
                    s.db.on_rollback(s.ran.probe("rollback"));
                    s.db.unless_committed(s.ran.probe("unless"));
                    if (way == "loss") s.db.execute("ROLLBACK; BEGIN");
                });
            });
            CHECK(left == (way.starts_with("loss") ? "TransactionLost unknown" : "CommitUnknown unknown"));
            CHECK(s.ran.text() == (way == "resolve" ? "unless,~unless" : "unless,~rollback,~unless"));
            s.db.adapter().answer.reset();
            s.db.adapter().became.reset();
            s.db.reset();
            if (way == "resolve") {
                CHECK(s.doubt.resolve(s.db) == Outcome::committed);
                CHECK(s.ran.text() == "unless,~unless,~rollback");
            }
            s.check_goes_on();
        }
}

// ---- ConnectionState

TEST_CASE("unknown number: a connection in a state that nobody knows begins nothing and runs nothing", "[S8][S41]") {
    for (const ConnectionState state : states) {
        Scene s;
        Connection& any = s.db;
        s.db.adapter().now = state;
        CHECK(ending([&] { s.db.atomic([] {}); }) == "UsageError");
        CHECK(ending([&] { any.atomic([] {}); }) == "UsageError");
        CHECK(ending([&] { s.db.atomic({.durable = true}, [] {}); }) == "UsageError");
        CHECK(ending([&] { s.db.atomic({.detach = &s.after}, [] {}); }) == "UsageError");
        CHECK(ending([&] { s.db.atomic({.resolve = &s.doubt}, [] {}); }) == "UsageError");
        CHECK(ending([&] { const RolledBack test{s.db}; }) == "UsageError");
        CHECK(ending([&] { s.db.on_commit(s.ran.hook("1")); }) == "UsageError");
        CHECK(ending([&] { s.db.on_commit(robust, s.ran.hook("1")); }) == "UsageError");
        CHECK(ending([&] { any.on_commit(s.ran.hook("1")); }) == "UsageError");
        CHECK_FALSE(s.db.usable());
        CHECK(ending([&] { s.db.reset(); }) == "UsageError");
        CHECK(s.ran.text().empty());
        CHECK(s.db.log().empty());
        s.db.adapter().now.reset();
        s.check_goes_on();
    }
}

TEST_CASE("unknown number: a block in a state that nobody knows takes hooks, and can only roll back", "[S9][S34]") {
    for (const ConnectionState state : states)
        for (const std::string way : {"atomic", "nested", "joined", "detach", "resolve", "captured", "rolled back"}) {
            CAPTURE(static_cast<int>(state), way);
            Scene s;
            std::optional<CapturedHooks> captured;
            std::optional<RolledBack> test;
            if (way == "captured") captured.emplace(s.db);
            if (way == "rolled back") test.emplace(s.db);
            const auto body = [&] {
                s.db.adapter().now = state;
                s.act();
                CHECK(ending([&] { s.db.atomic([&] { s.ran.note("never"); }); }) == "TransactionAborted rolled_back");
                CHECK(ending([&] { s.db.atomic({.join = true}, [] {}); }) == "TransactionAborted rolled_back");
            };
            s.db.clear_log();
            CHECK(ending([&] {
                      if (way == "detach") return s.db.atomic({.detach = &s.after}, body);
                      if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, body);
                      if (way == "nested") return s.db.atomic([&] { s.db.atomic(body); });
                      if (way == "joined") return s.db.atomic([&] { s.db.atomic({.join = true}, body); });
                      s.db.atomic(body);
                  }) == "TransactionAborted rolled_back");
            CHECK(s.ran.text() == "~1");
            CHECK_FALSE(s.db.get("1"));
            CHECK(s.after.size() == 0);
            CHECK_FALSE(s.doubt.in_doubt());
            if (captured) CHECK(captured->size() == 0);
            CHECK_FALSE(s.db.usable());
            s.db.adapter().now.reset();
            CHECK(s.db.usable());
            captured.reset();
            test.reset();
            s.check_goes_on();
        }
}

TEST_CASE("unknown number: a block around goes on once the state is known again", "[S26][S34]") {
    Scene s;
    s.db.atomic([&] {
        s.db.on_commit(s.ran.hook("outer"));
        CHECK(ending([&] {
                  s.db.atomic([&] {
                      s.act();
                      s.db.adapter().now = strange_state;
                  });
              }) == "TransactionAborted rolled_back");
        s.db.adapter().now.reset();
        CHECK(s.ran.text() == "~1");
    });
    CHECK(s.ran.text() == "~1,outer");
    CHECK_FALSE(s.db.committed("1"));
}

TEST_CASE("unknown number: a ROLLBACK that failed, in a state that nobody knows, breaks the connection", "[S49]") {
    Scene s;
    s.db.faults.fail(Verb::rollback, When::after_effect, Oops{});
    {
        Atomic tx{s.db};
        s.act();
        s.db.adapter().now = strange_state;
        CHECK(ending([&] { tx.rollback(); }) == "oops");
    }
    CHECK(s.ran.text() == "~1");
    s.db.adapter().now.reset();
    CHECK_FALSE(s.db.usable());
    s.db.reset();
    s.check_goes_on();
}

TEST_CASE("unknown number: a doubt is not resolved by a connection in a state that nobody knows", "[doubt]") {
    Scene s;
    s.db.adapter().answer = CommitResult{};
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [&] { s.act(); }), CommitUnknown);
    s.db.reset();
    s.db.adapter().now = strange_state;
    s.db.clear_log();
    CHECK(ending([&] { s.doubt.resolve(s.db); }) == "UsageError");
    CHECK(s.doubt.in_doubt());
    CHECK(s.db.log().empty());
    CHECK(s.ran.text().empty());
}

TEST_CASE("unknown number: a commit() without proof of its own proves nothing then", "[S47][S48][S55]") {
    struct Stateful {
        bool throws;
        void begin() {}
        void commit() {
            if (throws) throw Oops{};
        }
        void rollback() {}
        void savepoint(unsigned) {}
        void release(unsigned) {}
        void rollback_to(unsigned) {}
        ConnectionState state() const noexcept { return strange_state; }
    };
    for (const bool throws : {false, true}) {
        Stateful backend{throws};
        const CommitResult result = BackendAdapter<Stateful>{backend}.commit();
        CHECK(result.outcome == Outcome::unknown);
        CHECK(result.reported_error());
    }
}

// ---- HookFailure

TEST_CASE("unknown number: as a policy for hooks that throw it stops", "[S19][S24]") {
    for (const auto policy : {static_cast<HookFailure>(3), static_cast<HookFailure>(255)})
        for (const std::string way : {"atomic", "detach", "resolve", "captured"}) {
            CAPTURE(static_cast<int>(policy), way);
            Scene s;
            s.db.set_on_hook_failure(policy);
            const auto body = [&] {
                s.db.on_commit(s.ran.hook("1"));
                s.db.on_commit(s.ran.throwing("2", Oops{}));
                s.db.on_commit(s.ran.throwing("3", Oops{}));
            };
            const auto error = thrown_by<HookError>([&] {
                if (way == "atomic") s.db.atomic(body);
                if (way == "resolve") s.db.atomic({.resolve = &s.doubt}, body);
                if (way == "detach") {
                    s.db.atomic({.detach = &s.after}, body);
                    s.after.run();
                }
                if (way == "captured") {
                    CapturedHooks captured{s.db};
                    s.db.atomic(body);
                    captured.run();
                }
            });
            CHECK(error.position() == 1);
            CHECK(error.not_run() == 1);
            CHECK(s.ran.text() == "1,2");
            CHECK(s.sink.sentences().empty());
            s.check_goes_on();
        }
}

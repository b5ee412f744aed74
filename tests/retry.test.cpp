// SPDX-License-Identifier: MIT

#include <txhooks/retry.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace txhooks;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using support::ending;
using support::Log;
using support::name_of;
using support::Oops;
using support::Sink;
using support::Trace;
using support::without_cause;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

struct Busy : std::runtime_error {
    explicit Busy(const std::string& what = "busy") : std::runtime_error{what} {}
};
template <class E>
bool is(const std::exception_ptr& error) noexcept {
    try {
        std::rethrow_exception(error);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
}

const std::exception_ptr busy = std::make_exception_ptr(Busy{});

// A backend that knows what is worth another attempt.
struct Backend : FakeBackend {
    bool transient(const std::exception_ptr& error) const noexcept { return is<Busy>(error); }
};
using Db = HookedConnection<Backend>;

struct World {
    Db db;
    Sink sink{db};
    Trace ran;
    Trace between;  // what happened between the attempts
    int calls = 0;
    RetryPolicy policy{
        .attempts = 4,
        .before_retry =
            [this](unsigned attempt, const std::exception_ptr& error) {
                between.note(std::to_string(attempt) + ' ' + name_of(error));
            },
        .sleep = [this](nanoseconds) { between.note("sleep"); },
    };

    // A row, and a hook that says whether a second connection sees the row.
    void act(const std::string& name) {
        db.put(name);
        db.on_commit([this, name] { ran.note(db.committed(name) ? name : name + " too early"); });
    }

    // Writes the row `<call>`, and `failures` times throws `error`.
    template <class Error>
    auto failing(int failures, Error error) {
        return [this, failures, error] {
            act(std::to_string(++calls));
            if (calls <= failures) throw error;
            return calls;
        };
    }

    void expect_works() {
        ran.clear();
        CHECK(db.usable());
        db.atomic([&] {
            CHECK(db.pending_hooks() == 0);
            act("works");
        });
        CHECK(ran.text() == "works");
    }
};

struct Expected {
    bool has_value() const { return good; }
    int error() const { return 1; }
    bool good;
};

}  // namespace

// ---- What is done again

TEST_CASE("retry: does a block that succeeds once", "[retry]") {
    World w;
    CHECK(retry(w.db, w.policy, w.failing(0, Busy{})) == 1);
    CHECK(w.ran.text() == "1");
    CHECK(w.between.text().empty());
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "COMMIT"});
}

TEST_CASE("retry: every attempt is a block of its own, and the hooks of failed ones are discarded", "[retry][S25]") {
    World w;
    CHECK(retry(w.db, w.policy, w.failing(2, Busy{})) == 3);
    CHECK(w.ran.text() == "3");
    CHECK(w.between.text() == "1 busy,sleep,2 busy,sleep");
    CHECK(w.db.log() ==
          Log{"BEGIN", "INSERT 1", "ROLLBACK", "BEGIN", "INSERT 2", "ROLLBACK", "BEGIN", "INSERT 3", "COMMIT"});
    CHECK_FALSE(w.db.committed("1"));
    CHECK(w.sink.text().empty());
}

TEST_CASE("retry: a nested block that fails takes the whole block with it", "[retry][S33]") {
    World w;
    retry(w.db, w.policy, [&] {
        w.act("outer " + std::to_string(++w.calls));
        w.db.atomic([&] {
            w.act("inner " + std::to_string(w.calls));
            if (w.calls == 1) throw Busy{};
        });
    });
    CHECK(w.ran.text() == "outer 2,inner 2");
}

TEST_CASE("retry: a swallowed error that dooms the block is worth another attempt if it was transient",
          "[retry][S34]") {
    World w;
    const auto swallow = [&](auto error) {
        return [&w, error] {
            w.act(std::to_string(++w.calls));
            try {
                w.db.atomic({.join = true}, [&] {
                    if (w.calls == 1) throw error;
                });
            } catch (const std::runtime_error&) {
                // Nobody shall know.
            }
        };
    };
    SECTION("transient") {
        retry(w.db, w.policy, swallow(Busy{}));
        CHECK(w.ran.text() == "2");
    }
    SECTION("not transient") {
        CHECK(ending([&] { retry(w.db, w.policy, swallow(Oops{})); }) == "TransactionAborted rolled_back <- oops");
        CHECK(w.calls == 1);
    }
    w.expect_works();
}

TEST_CASE("retry: what ended without a commit is done again, wherever it failed", "[retry][S46][S47]") {
    World w;
    SECTION("BEGIN") {
        w.db.faults.fail(Verb::begin, GENERATE(When::before_effect, When::after_effect), Busy{});
    }
    SECTION("COMMIT: still open") {
        w.db.answer_commit({Outcome::still_open, busy});
    }
    SECTION("COMMIT: rolled back") {
        w.db.answer_commit({Outcome::rolled_back, busy});
    }
    SECTION("SAVEPOINT") {
        w.db.faults.fail(Verb::savepoint, GENERATE(When::before_effect, When::after_effect), Busy{});
    }
    SECTION("RELEASE") {
        w.db.faults.fail(Verb::release, GENERATE(When::before_effect, When::after_effect), Busy{});
    }
    const auto insert = [&] {
        w.act(std::to_string(++w.calls));
        w.db.atomic([&] { w.act("inner"); });
    };
    retry(w.db, w.policy, insert);
    CHECK(w.between.text() == "1 busy,sleep");
    CHECK(w.ran.text() == std::to_string(w.calls) + ",inner");
    CHECK(w.db.committed(std::to_string(w.calls)));
    if (w.calls == 2) CHECK_FALSE(w.db.committed("1"));
    w.expect_works();
}

TEST_CASE("retry: the policy can add errors to those the connection knows", "[retry]") {
    World w;
    w.policy.transient = [](const std::exception_ptr& error) noexcept { return is<int>(error); };
    SECTION("an int, which it names") {
        CHECK(retry(w.db, w.policy, w.failing(1, 42)) == 2);
    }
    SECTION("and what the connection knows") {
        CHECK(retry(w.db, w.policy, w.failing(1, Busy{})) == 2);
    }
    SECTION("but nothing else") {
        CHECK_THROWS_AS(retry(w.db, w.policy, w.failing(1, Oops{})), Oops);
        CHECK(w.calls == 1);
    }
}

// ---- What is not

TEST_CASE("retry: any other error reaches the caller at once, as it was", "[retry]") {
    World w;
    CHECK_THROWS_AS(retry(w.db, w.policy, w.failing(9, Oops{})), Oops);
    CHECK(w.calls == 1);
    CHECK(w.between.text().empty());
    CHECK(w.ran.text().empty());
    w.expect_works();
}

TEST_CASE("retry: the last failure reaches the caller as it was", "[retry]") {
    World w;
    const unsigned attempts = GENERATE(0u, 1u, 2u, 5u);
    const int made = static_cast<int>(std::max(attempts, 1u));
    w.policy.attempts = attempts;
    const Busy* thrown = nullptr;
    const Busy* caught = nullptr;
    try {
        retry(w.db, w.policy, [&] {
            w.act(std::to_string(++w.calls));
            try {
                throw Busy{"busy " + std::to_string(w.calls)};
            } catch (const Busy& error) {
                thrown = &error;
                throw;
            }
        });
    } catch (const Busy& error) {
        caught = &error;
        CHECK(error.what() == "busy " + std::to_string(made));
    }
    CHECK(caught != nullptr);
    CHECK(caught == thrown);
    CHECK(w.calls == made);
    CHECK(w.ran.text().empty());
    CHECK(std::count(w.db.log().begin(), w.db.log().end(), "ROLLBACK") == made);
    w.expect_works();
}

TEST_CASE("retry: errors after which the work may have been done are never taken for transient", "[retry][S48][S50]") {
    World w;
    w.policy.transient = [](const std::exception_ptr&) noexcept { return true; };
    const auto error = GENERATE(
        std::make_exception_ptr(CommitUnknown{busy}), std::make_exception_ptr(HookError{0, 0, 1, busy}),
        std::make_exception_ptr(TransactionLost{Outcome::committed, busy}),
        std::make_exception_ptr(TransactionLost{Outcome::unknown, busy}),
        std::make_exception_ptr(TransactionLost{Outcome::rolled_back}), std::make_exception_ptr(TransactionAborted{}),
        std::make_exception_ptr(TransactionAborted{std::make_exception_ptr(CommitUnknown{busy})}),
        std::make_exception_ptr(ConnectionBroken{}), std::make_exception_ptr(UsageError{"txhooks: no"}));
    CAPTURE(name_of(error));
    CHECK(ending([&] {
              retry(w.db, w.policy, [&] {
                  ++w.calls;
                  std::rethrow_exception(error);
              });
          }) == name_of(error));
    CHECK(w.calls == 1);
    CHECK(w.between.text().empty());
}

TEST_CASE("retry: errors that prove a rollback are as good as their cause", "[retry][S34][S50]") {
    World w;
    const auto error = GENERATE(std::make_exception_ptr(TransactionLost{Outcome::rolled_back, busy}),
                                std::make_exception_ptr(TransactionAborted{busy}));
    retry(w.db, w.policy, [&] {
        if (++w.calls == 1) std::rethrow_exception(error);
    });
    CHECK(w.calls == 2);
}

TEST_CASE("retry: a hook that throws does not undo the commit, so nothing is done again", "[retry][S20]") {
    World w;
    CHECK(ending([&] {
              retry(w.db, w.policy, [&] {
                  w.act(std::to_string(++w.calls));
                  w.db.on_commit([] { throw Busy{}; });
              });
          }) == "HookError committed <- busy");
    CHECK(w.calls == 1);
    CHECK(w.db.committed("1"));
    w.expect_works();
}

TEST_CASE("retry: a COMMIT in doubt is not sent again", "[retry][S48]") {
    const bool really_committed = GENERATE(true, false);
    World w;
    w.db.answer_commit({Outcome::unknown, busy, really_committed});
    CHECK(ending([&] { retry(w.db, w.policy, w.failing(0, Busy{})); }) == "CommitUnknown unknown <- busy");
    CHECK(w.calls == 1);
    CHECK(w.ran.text().empty());
    CHECK(w.between.text().empty());
}

TEST_CASE("retry: a transaction that was committed behind the block's back is not done again, whatever failed after",
          "[retry][S50]") {
    World w;
    w.db.set_witness(GENERATE(FakeBackend::Witness::client_side, FakeBackend::Witness::at_the_end));
    const char* const raw = GENERATE("COMMIT", "COMMIT; BEGIN");
    CHECK(ending([&] {
              retry(w.db, w.policy, [&] {
                  w.act(std::to_string(++w.calls));
                  w.db.execute(raw);
                  throw Busy{};
              });
          }) == "busy");
    CHECK(w.calls == 1);
    CHECK(w.ran.text().empty());
    CHECK(w.between.text().empty());
    CHECK(w.db.committed("1"));
    CHECK(w.sink.sentences() == Log{"txhooks: while rolling back a block"});
    w.expect_works();
}

TEST_CASE("retry: a transaction that the engine has rolled back already is done again", "[retry][S50]") {
    World w;
    w.db.set_witness(GENERATE(FakeBackend::Witness::client_side, FakeBackend::Witness::at_the_end));
    const char* const raw = GENERATE("ROLLBACK", "ROLLBACK; BEGIN");
    retry(w.db, w.policy, [&] {
        w.act(std::to_string(++w.calls));
        if (w.calls > 1) return;
        w.db.execute(raw);
        throw Busy{};
    });
    CHECK(w.between.text() == "1 busy,sleep");
    CHECK(w.ran.text() == "2");
    CHECK_FALSE(w.db.committed("1"));
    w.expect_works();
}

TEST_CASE("retry: a ROLLBACK that fails breaks the connection, and the first error reaches the caller",
          "[retry][S49]") {
    World w;
    w.db.faults.fail(Verb::rollback, When::before_effect, Busy{"ROLLBACK failed"});
    CHECK(ending([&] { retry(w.db, w.policy, w.failing(9, Busy{})); }) == "busy");
    CHECK(w.calls == 1);
    CHECK(w.sink.text() == "ROLLBACK failed");
    CHECK(ending([&] { retry(w.db, w.policy, w.failing(9, Busy{})); }) == "ConnectionBroken");
    CHECK(w.calls == 1);
}

TEST_CASE("retry: a connection that is lost is not tried again", "[retry][S49]") {
    World w;
    CHECK(ending([&] {
              retry(w.db, w.policy, [&] {
                  w.act(std::to_string(++w.calls));
                  w.db.lose_connection();
                  throw Busy{};
              });
          }) == "busy");
    CHECK(w.calls == 1);
    CHECK_FALSE(w.db.usable());
}

// ---- Where it stands

TEST_CASE("retry: in an open block it is refused before anything happens", "[retry]") {
    World w;
    Atomic tx{w.db};
    w.db.clear_log();
    const bool nested = GENERATE(true, false);
    std::optional<Atomic<Db>> inner;
    if (nested) inner.emplace(w.db, BlockOptions<>{.join = true});
    CHECK(ending([&] { retry(w.db, w.policy, w.failing(0, Busy{})); }) == "UsageError");
    CHECK(ending([&] { retry(w.db, w.policy, {.durable = true}, w.failing(0, Busy{})); }) == "UsageError");
    CHECK(w.calls == 0);
    CHECK(w.db.log().empty());
    w.act("goes on");
    if (nested) inner->commit();
    tx.commit();
    CHECK(w.ran.text() == "goes on");
}

TEST_CASE("retry: works in a hook, outside the block that it belongs to", "[retry][S13]") {
    World w;
    w.db.atomic([&] {
        w.db.on_commit([&] { retry(w.db, w.policy, w.failing(1, Busy{})); });
        w.db.on_commit(w.ran.hook("last"));
    });
    CHECK(w.ran.text() == "2,last");
}

TEST_CASE("retry: needs somebody to say what is transient", "[retry][S54]") {
    World w;
    Connection& any = w.db;
    HookedConnection<FakeBackend> unknowing;
    const auto fail = [&] {
        if (++w.calls == 1) throw Busy{};
    };
    SECTION("nobody does") {
        CHECK(ending([&] { retry(any, w.policy, fail); }) == "UsageError");
        CHECK(ending([&] { retry(unknowing, w.policy, fail); }) == "UsageError");
        CHECK(w.calls == 0);
        CHECK(w.db.log().empty());
        CHECK(unknowing.log().empty());
    }
    SECTION("the policy does") {
        w.policy.transient = [](const std::exception_ptr& error) noexcept { return is<Busy>(error); };
        retry(any, w.policy, fail);
        CHECK(w.calls == 2);
        w.calls = 0;
        retry(unknowing, w.policy, fail);
        CHECK(w.calls == 2);
    }
}

// ---- What the function gets and returns

TEST_CASE("retry: returns what the function returns", "[retry][S30]") {
    World w;
    int n = 0;
    static_assert(std::is_void_v<decltype(retry(w.db, w.policy, [] {}))>);
    static_assert(std::is_same_v<decltype(retry(w.db, w.policy, [&]() -> int& { return n; })), int&>);
    CHECK(&retry(w.db, w.policy, [&]() -> int& {
        if (++w.calls < 3) throw Busy{};
        return n;
    }) == &n);
    CHECK(*retry(w.db, w.policy, [&] { return std::make_unique<int>(++w.calls); }) == 4);
    struct Service {
        int sign_up() { return ++calls == 1 ? throw Busy{} : calls; }
        int calls = 0;
    } service;
    CHECK(retry(w.db, w.policy, [&] { return service.sign_up(); }) == 2);
}

TEST_CASE("retry: gives the function what runs SQL, in every attempt", "[retry]") {
    World w;
    retry(w.db, w.policy, [&](Backend& sql) {
        sql.put(std::to_string(++w.calls));
        if (w.calls == 1) throw Busy{};
    });
    CHECK_FALSE(w.db.committed("1"));
    CHECK(w.db.committed("2"));
}

TEST_CASE("retry: a function that may be called only as an lvalue is called as one, every time", "[retry]") {
    struct Counter {
        Counter() = default;
        Counter(const Counter&) = delete;
        int operator()() & { return ++calls == 1 ? throw Busy{} : calls; }
        int calls = 0;
    };
    World w;
    CHECK(retry(w.db, w.policy, Counter{}) == 2);
}

TEST_CASE("retry: a result that means failure rolls back and is not tried again", "[retry][S30]") {
    World w;
    const Expected result = retry(w.db, w.policy, [&] {
        w.act(std::to_string(++w.calls));
        return Expected{false};
    });
    CHECK_FALSE(result.good);
    CHECK(w.calls == 1);
    CHECK(w.ran.text().empty());
    CHECK_FALSE(w.db.committed("1"));
    CHECK(retry(w.db, w.policy, [&] {
              if (++w.calls < 3) throw Busy{};
              return Expected{true};
          }).good);
}

TEST_CASE("retry: every attempt has the options that were given", "[retry][S60]") {
    World w;
    DetachedHooks after;
    retry(w.db, w.policy, {.durable = true, .detach = &after}, w.failing(2, Busy{}));
    CHECK(w.ran.text().empty());
    CHECK(after.size() == 1);
    after.run();
    CHECK(w.ran.text() == "3");
}

TEST_CASE("retry: a joined block is an outermost one here", "[retry][S37]") {
    World w;
    CHECK(retry(w.db, w.policy, {.join = true}, w.failing(1, Busy{})) == 2);
    CHECK(w.ran.text() == "2");
}

// ---- Between the attempts

TEST_CASE("retry: no block is open between two attempts", "[retry]") {
    World w;
    w.policy.before_retry = [&](unsigned attempt, const std::exception_ptr&) {
        CHECK(w.db.usable());
        CHECK_FALSE(w.db.in_atomic_block());
        w.db.atomic([&] { w.act("after attempt " + std::to_string(attempt)); });
    };
    retry(w.db, w.policy, w.failing(2, Busy{}));
    CHECK(w.ran.text() == "after attempt 1,after attempt 2,3");
}

TEST_CASE("retry: what before_retry or sleep throws is the end", "[retry]") {
    World w;
    if (GENERATE(true, false))
        w.policy.before_retry = [](unsigned, const std::exception_ptr&) { throw Oops{}; };
    else
        w.policy.sleep = [](nanoseconds) { throw Oops{}; };
    CHECK_THROWS_AS(retry(w.db, w.policy, w.failing(9, Busy{})), Oops);
    CHECK(w.calls == 1);
    w.expect_works();
}

TEST_CASE("retry: a block that before_retry leaves open is not taken for the one to be done again", "[retry]") {
    World w;
    std::optional<Atomic<Db>> left;
    w.policy.before_retry = [&](unsigned, const std::exception_ptr&) { left.emplace(w.db); };
    CHECK(ending([&] { retry(w.db, w.policy, w.failing(9, Busy{})); }) == "UsageError");
    CHECK(w.calls == 1);
    left->rollback();
    w.expect_works();
}

TEST_CASE("retry: an error is let go before the pause", "[retry]") {
    World w;
    struct Counted : Busy {
        explicit Counted(std::shared_ptr<int> token) : held{std::move(token)} {}
        std::shared_ptr<int> held;
    };
    const auto alive = std::make_shared<int>();
    w.policy.before_retry = [&](unsigned, const std::exception_ptr&) { CHECK(alive.use_count() > 1); };
    w.policy.sleep = [&](nanoseconds) { CHECK(alive.use_count() == 1); };
    retry(w.db, w.policy, [&] {
        if (++w.calls == 1) throw Counted{alive};
    });
    CHECK(w.calls == 2);
}

TEST_CASE("retry: pauses are random below a ceiling that doubles", "[retry]") {
    Db db;
    std::vector<nanoseconds> longest(7), shortest(7, 1h);
    for (int round = 0; round != 400; ++round) {
        std::vector<nanoseconds> pauses;
        const RetryPolicy policy{
            .attempts = 8, .first_delay = 10ms, .longest_delay = 100ms, .sleep = [&](nanoseconds pause) {
                pauses.push_back(pause);
            }};
        CHECK_THROWS_AS(retry(db, policy, [] { throw Busy{}; }), Busy);
        REQUIRE(pauses.size() == 7);
        for (std::size_t i = 0; i != 7; ++i) {
            longest[i] = std::max(longest[i], pauses[i]);
            shortest[i] = std::min(shortest[i], pauses[i]);
        }
    }
    const nanoseconds ceilings[] = {10ms, 20ms, 40ms, 80ms, 100ms, 100ms, 100ms};
    for (std::size_t i = 0; i != 7; ++i) {
        CAPTURE(i, longest[i].count(), shortest[i].count());
        CHECK(longest[i] <= ceilings[i]);
        CHECK(longest[i] > ceilings[i] * 9 / 10);
        CHECK(shortest[i] >= 0ms);
        CHECK(shortest[i] < ceilings[i] / 10);
    }
}

TEST_CASE("retry: a pause can be nothing, or as long as time goes", "[retry]") {
    struct Row {
        nanoseconds first, longest;
        nanoseconds at_most;
    };
    const auto row = GENERATE(values<Row>({
        {0ms, 1s, 0ms},
        {-1s, 1s, 0ms},
        {1s, 0ms, 0ms},
        {1s, -1s, 0ms},
        {5ms, 1ms, 1ms},
        {nanoseconds::max(), nanoseconds::max(), nanoseconds::max()},
    }));
    Db db;
    const RetryPolicy policy{
        .attempts = 100, .first_delay = row.first, .longest_delay = row.longest, .sleep = [&](nanoseconds pause) {
            CHECK(pause >= 0ns);
            CHECK(pause <= row.at_most);
        }};
    CHECK_THROWS_AS(retry(db, policy, [] { throw Busy{}; }), Busy);
}

TEST_CASE("retry: sleeps when not told how", "[retry]") {
    Db db;
    int calls = 0;
    const auto start = std::chrono::steady_clock::now();
    nanoseconds slept{};
    while (slept < 5ms) {
        CHECK_THROWS_AS(retry(db, {.attempts = 2, .first_delay = 2ms},
                              [&] {
                                  ++calls;
                                  throw Busy{};
                              }),
                        Busy);
        slept = std::chrono::steady_clock::now() - start;
        if (calls > 10'000) FAIL("it does not sleep");
    }
}

// ---- Hooks of other kinds

TEST_CASE("retry: a transient error of a hook before COMMIT is tried again, as one of the function",
          "[retry][S62][S76]") {
    World w;
    const auto fn = [&] {
        const std::string call = std::to_string(++w.calls);
        w.db.on_rollback([&w, call] { w.between.note("undone " + call); });
        w.act(call);
        w.db.before_commit([&w] {
            w.db.put("late");
            if (w.calls < 3) throw Busy{};
        });
        w.db.before_commit([&w, call] { w.between.note("before " + call); });
        return w.calls;
    };
    CHECK(retry(w.db, w.policy, fn) == 3);
    CHECK(w.ran.text() == "3");
    CHECK(w.between.text() == "undone 1,1 busy,sleep,undone 2,2 busy,sleep,before 3");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "INSERT late", "ROLLBACK", "BEGIN", "INSERT 2", "INSERT late",
                            "ROLLBACK", "BEGIN", "INSERT 3", "INSERT late", "COMMIT"});
    CHECK(w.sink.empty());
}

TEST_CASE("retry: what a hook before COMMIT throws that is not transient is not tried again", "[retry][S62]") {
    World w;
    const auto fn = [&] {
        w.act(std::to_string(++w.calls));
        w.db.before_commit([] { throw Oops{}; });
    };
    CHECK(ending([&] { retry(w.db, w.policy, fn); }) == "oops");
    CHECK(w.calls == 1);
    CHECK(w.between.text().empty());
    w.expect_works();
}

TEST_CASE("retry: nothing is tried again after a hook before COMMIT that committed by raw SQL", "[retry][S50][S62]") {
    World w;
    const auto sql = GENERATE(as<std::string>{}, "COMMIT", "COMMIT; BEGIN");
    CAPTURE(sql);
    const auto fn = [&] {
        w.act(std::to_string(++w.calls));
        w.db.on_rollback([&] { w.between.note("undone"); });
        w.db.unless_committed([&] { w.between.note("not committed, as far as is known"); });
        w.db.before_commit([&] {
            w.db.execute(sql);
            throw Busy{};
        });
    };
    CHECK(ending([&] { retry(w.db, w.policy, fn); }) == "busy");
    CHECK(w.calls == 1);
    CHECK(w.between.text() == "not committed, as far as is known");
    CHECK(w.db.committed("1"));
    CHECK(w.ran.text().empty());
    CHECK(w.sink.lines() == Log{"txhooks: while rolling back a block: TransactionLost committed"});
    w.expect_works();
}

TEST_CASE("retry: a hook before COMMIT that lost the transaction, proven rolled back, is tried again",
          "[retry][S50][S62]") {
    World w;
    const auto fn = [&] {
        const std::string call = std::to_string(++w.calls);
        w.act(call);
        w.db.on_rollback([&w, call] { w.between.note("undone " + call); });
        w.db.before_commit([&] {
            if (w.calls != 1) return;
            w.db.execute("ROLLBACK");
            throw Busy{};
        });
    };
    retry(w.db, w.policy, fn);
    CHECK(w.calls == 2);
    CHECK(w.between.text() == "undone 1,1 busy,sleep");
    CHECK(w.ran.text() == "2");
    CHECK_FALSE(w.db.committed("1"));
}

TEST_CASE("retry: a failed result of a hook before COMMIT is returned, and not tried again", "[retry][S62]") {
    World w;
    w.policy.transient = [](const std::exception_ptr&) noexcept { return true; };
    SECTION("where the function returns the same type") {
        const Expected result = retry(w.db, w.policy, [&] {
            w.act(std::to_string(++w.calls));
            w.db.on_rollback([&] { w.between.note("undone"); });
            w.db.before_commit([] { return Expected{false}; });
            w.db.before_commit([&] { w.between.note("never"); });
            return Expected{true};
        });
        CHECK_FALSE(result.good);
    }
    SECTION("else it is TransactionAborted") {
        CHECK(ending([&] {
                  retry(w.db, w.policy, [&] {
                      w.act(std::to_string(++w.calls));
                      w.db.on_rollback([&] { w.between.note("undone"); });
                      w.db.before_commit([] { return Expected{false}; });
                      w.db.before_commit([&] { w.between.note("never"); });
                  });
              }) == "TransactionAborted rolled_back");
    }
    CHECK(w.calls == 1);
    CHECK(w.between.text() == "undone");
    CHECK(w.ran.text().empty());
    CHECK_FALSE(w.db.committed("1"));
    CHECK(w.sink.empty());
    w.expect_works();
}

TEST_CASE("retry: a function that failed, or asked for a rollback, runs no hook before COMMIT", "[retry][S62][S64]") {
    World w;
    const bool asks = GENERATE(false, true);
    const Expected result = retry(w.db, w.policy, [&] {
        ++w.calls;
        w.db.before_commit([&] { w.between.note("never"); });
        w.db.on_rollback([&] { w.between.note("undone"); });
        if (asks) w.db.set_rollback(true);
        return Expected{asks};
    });
    CHECK(result.good == asks);
    CHECK(w.calls == 1);
    CHECK(w.between.text() == "undone");
}

TEST_CASE("retry: hooks before COMMIT run once for each attempt, also when COMMIT stays open", "[retry][S47][S65]") {
    World w;
    w.db.answer_commit({Outcome::still_open, busy});
    retry(w.db, w.policy, [&] {
        const std::string call = std::to_string(++w.calls);
        w.act(call);
        w.db.before_commit([&w, call] { w.between.note("before " + call); });
        w.db.on_rollback([&w, call] { w.between.note("undone " + call); });
        w.db.unless_committed([&w, call] { w.between.note("not " + call); });
    });
    CHECK(w.between.text() == "before 1,not 1,undone 1,1 busy,sleep,before 2");
    CHECK(w.ran.text() == "2");
}

TEST_CASE("retry: a rollback hook that leaves a guard open, or throws, does not stop it", "[retry][S58][S71]") {
    World w;
    std::optional<Atomic<Db>> left;
    retry(w.db, w.policy, [&] {
        w.act(std::to_string(++w.calls));
        w.db.on_rollback([&] { left.emplace(w.db); });
        w.db.on_rollback([] { throw Oops{}; });
        if (w.calls == 1) throw Busy{};
    });
    CHECK(w.ran.text() == "2");
    CHECK_FALSE(left->active());
    CHECK(w.sink.lines() ==
          Log{"txhooks: a hook of on_rollback() threw: oops",
              "txhooks: a hook returned with an atomic block still open; it is rolled back: UsageError"});
}

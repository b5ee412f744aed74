// SPDX-License-Identifier: MIT

// Guards that code of the user's leaves open (S58), wherever the library calls it outside of any block: they are rolled
// back and reported, once, and the connection goes on. For hooks of a commit and discarded captures see reentrancy.test.cpp,
// for DetachedHooks detached_hooks.test.cpp.

#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/on_copy.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>

using namespace txhooks;
using support::AtDestruction;
using support::ending;
using support::Log;
using support::OnCopy;
using support::Oops;
using support::Sink;
using support::Trace;
using testing::CapturedHooks;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;
using Tx = Atomic<Db>;

constexpr const char* left_open = "txhooks: a hook returned with an atomic block still open; it is rolled back";

struct Scene {
    Db db;
    Sink sink{db};
    Trace ran;
    Doubt doubt;
    std::list<Tx> guards;

    // A row and a hook in a block whose guard outlives the caller.
    void leave_open() {
        guards.emplace_back(db);
        db.put("left");
        db.on_commit(ran.hook("left"));
    }

    void in_doubt(bool committed, auto body) {
        db.answer_commit({Outcome::unknown, nullptr, committed});
        CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, body), CommitUnknown);
        db.reset();
        ran.clear();
    }

    void check_closed(std::size_t left) {
        CHECK(guards.size() == left);
        for (const Tx& guard : guards) CHECK_FALSE(guard.active());
        CHECK_FALSE(db.in_atomic_block());
        CHECK_FALSE(db.get("left"));
        CHECK(ran.text().find("left") == std::string::npos);
        sink.listen_to(db);
        sink.clear();
        ran.clear();
        db.set_on_hook_failure(HookFailure::stop);
        CHECK(db.usable());
        db.atomic([&] { db.on_commit(ran.hook("next")); });
        guards.clear();
        CHECK(ran.text() == "next");
        CHECK(sink.sentences().empty());
    }
};

// A sink that leaves a guard open each time it is told something.
struct LeavingSink {
    explicit LeavingSink(Scene& scene) : s{scene} {
        s.db.set_error_sink(
            [](void* self, const char* what, const std::exception_ptr&) {
                LeavingSink& to = *static_cast<LeavingSink*>(self);
                to.said.emplace_back(what);
                if (to.said.size() < 10) to.s.leave_open();
            },
            this);
    }

    Scene& s;
    Log said{};
};

}  // namespace

TEST_CASE("left open: by a hook that runs at once", "[S1][S58]") {
    for (const bool any : {false, true})
        for (const bool is_robust : {false, true})
            for (const bool throws : {false, true}) {
                CAPTURE(any, is_robust, throws);
                Scene s;
                Connection& plain = s.db;
                const auto hook = [&] {
                    s.leave_open();
                    if (throws) throw Oops{};
                };
                const std::string left = ending([&] {
                    if (any) return is_robust ? plain.on_commit(robust, hook) : plain.on_commit(hook);
                    is_robust ? s.db.on_commit(robust, hook) : s.db.on_commit(hook);
                });
                CHECK(left == (throws and not is_robust ? "oops" : "returned"));
                CHECK(s.sink.sentences() ==
                      (throws and is_robust ? Log{"txhooks: a robust hook threw", left_open} : Log{left_open}));
                s.check_closed(1);
            }
}

TEST_CASE("left open: by the copy and the destructor of a capture of a hook that runs at once", "[S1][S58]") {
    for (const bool throws : {false, true}) {
        Scene s;
        const OnCopy copied{[&] {
            s.leave_open();
            if (throws) throw Oops{};
        }};
        CHECK(ending([&] { s.db.on_commit(copied); }) == (throws ? "oops" : "returned"));
        CHECK(s.sink.sentences() == Log{left_open});
        s.check_closed(1);
    }
    Scene s;
    s.db.on_commit(AtDestruction{[&] { s.leave_open(); }});
    CHECK(s.sink.sentences() == Log{left_open});
    s.check_closed(1);
}

TEST_CASE("left open: in resolve(), by a hook, by its capture, by one that is discarded", "[doubt][S58]") {
    for (const std::string way : {"hook", "hook that throws", "capture", "discarded after a throw", "rolled back"}) {
        CAPTURE(way);
        Scene s;
        s.in_doubt(way != "rolled back", [&] {
            if (way.starts_with("hook"))
                s.db.on_commit([&, way] {
                    s.leave_open();
                    if (way == "hook that throws") throw Oops{};
                });
            if (way == "discarded after a throw") s.db.on_commit([] { throw Oops{}; });
            if (not way.starts_with("hook")) s.db.on_commit(AtDestruction{[&] { s.leave_open(); }});
        });
        const bool throws = way == "hook that throws" or way == "discarded after a throw";
        CHECK(ending([&] { return s.doubt.resolve(s.db); }) == (throws                 ? "HookError committed <- oops"
                                                                : way == "rolled back" ? "rolled_back"
                                                                                       : "committed"));
        CHECK(s.sink.sentences() == Log{left_open});
        CHECK_FALSE(s.doubt.in_doubt());
        s.check_closed(1);
    }
}

TEST_CASE("left open: in CapturedHooks, by a hook, by its capture, by one that is discarded", "[capture][S58]") {
    for (const std::string way : {"hook", "hook that throws", "capture", "discard()", "destructor"}) {
        CAPTURE(way);
        Scene s;
        std::optional<CapturedHooks> hooks{std::in_place, s.db};
        s.db.atomic([&] {
            if (way.starts_with("hook"))
                s.db.on_commit([&, way] {
                    s.leave_open();
                    if (way == "hook that throws") throw Oops{};
                });
            else
                s.db.on_commit(AtDestruction{[&] { s.leave_open(); }});
        });
        CHECK(ending([&] {
                  if (way == "discard()") return hooks->discard();
                  if (way == "destructor") return hooks.reset();
                  hooks->run();
              }) == (way == "hook that throws" ? "HookError committed <- oops" : "returned"));
        CHECK(s.sink.sentences() == Log{left_open});
        hooks.reset();
        s.check_closed(1);
    }
}

TEST_CASE("left open: by the sink it is told once more, and no more", "[S22][S58]") {
    for (const std::string told :
         {"abandoned", "robust at once", "robust", "report", "commit", "rollback", "begin", "left open"}) {
        CAPTURE(told);
        Scene s;
        LeavingSink sink{s};
        const auto fail = [] { throw Oops{}; };
        const std::string left = ending([&] {
            if (told == "abandoned") const Tx tx{s.db};
            if (told == "robust at once") s.db.on_commit(robust, fail);
            if (told == "robust") s.db.atomic([&] { s.db.on_commit(robust, fail); });
            if (told == "report") {
                s.db.set_on_hook_failure(HookFailure::report);
                s.db.atomic([&] { s.db.on_commit(fail); });
            }
            if (told == "commit") {
                s.db.answer_commit({Outcome::committed, std::make_exception_ptr(Oops{})});
                s.db.atomic([] {});
            }
            if (told == "rollback") {
                s.db.faults.fail(Verb::rollback, When::after_effect, Oops{});
                s.db.atomic([] { throw Oops{}; });
            }
            if (told == "begin") {
                s.db.faults.fail(Verb::begin, When::after_effect, Oops{});
                s.db.faults.fail(Verb::rollback, When::after_effect, Oops{});
                s.db.atomic([] {});
            }
            if (told == "left open") s.db.atomic([&] { s.db.on_commit([&] { s.leave_open(); }); });
        });
        CHECK(left == (told == "rollback" or told == "begin" ? "oops" : "returned"));
        CHECK(sink.said.size() == (told == "left open" ? 1 : 2));
        CHECK(sink.said.back() == left_open);
        s.check_closed(2);
    }
}

TEST_CASE("left open: by what decides on a result, the block around is rolled back", "[S30][S39]") {
    struct Result {
        Scene* s;
        bool has_value() const {
            s->leave_open();
            return true;
        }
        int error() const { return 0; }
    };
    Scene s;
    CHECK(ending([&] { s.db.atomic([&] { return Result{&s}; }); }) == "UsageError");
    CHECK(s.db.log().back() == "ROLLBACK");
    s.check_closed(1);
}

TEST_CASE("left open: between two attempts, retry refuses to go on in it", "[retry][S58]") {
    for (const bool in_sleep : {false, true}) {
        Scene s;
        int calls = 0;
        RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
        policy.before_retry = [&](unsigned, const std::exception_ptr&) {
            if (not in_sleep) s.leave_open();
        };
        policy.sleep = [&](std::chrono::nanoseconds) {
            if (in_sleep) s.leave_open();
        };
        CHECK(ending([&] {
                  retry(s.db, policy, [&] {
                      ++calls;
                      throw Oops{};
                  });
              }) == "UsageError");
        CHECK(calls == 1);
        CHECK(s.guards.front().active());
        s.guards.front().rollback();
        s.check_closed(1);
    }
}

TEST_CASE("left open: by a hook before COMMIT, all is rolled back and the caller is told", "[S58][S66]") {
    for (const std::string way : {"atomic", "guard", "any", "captured", "detach", "throws", "joined"}) {
        CAPTURE(way);
        Scene s;
        Connection& plain = s.db;
        DetachedHooks after;
        std::optional<CapturedHooks> captured;
        if (way == "captured") captured.emplace(s.db);
        const auto body = [&] {
            s.db.on_rollback(s.ran.hook("undone"));
            s.db.put("row");
            s.db.on_commit(s.ran.hook("never"));
            s.db.before_commit([&] {
                s.leave_open();
                if (way == "joined") s.guards.emplace_back(s.db, BlockOptions<>{.join = true});
                if (way == "throws") throw Oops{};
            });
            s.db.before_commit(s.ran.hook("never"));
        };
        const std::string left = ending([&] {
            if (way == "any") return plain.atomic(body);
            if (way == "detach") return s.db.atomic({.detach = &after}, body);
            if (way != "guard") return s.db.atomic(body);
            Tx tx{s.db};
            body();
            tx.commit();
        });
        CHECK(left == (way == "throws" ? "oops" : "UsageError"));
        CHECK(s.ran.text() == "undone");
        CHECK(s.sink.sentences() == Log{left_open});
        CHECK_FALSE(s.db.committed("row"));
        CHECK(after.size() == 0);
        captured.reset();
        s.check_closed(way == "joined" ? 2 : 1);
    }
}

TEST_CASE("left open: by a hook before COMMIT that runs at once", "[S58][S67]") {
    Scene s;
    s.db.before_commit([&] { s.leave_open(); });
    CHECK(s.sink.sentences() == Log{left_open});
    s.check_closed(1);
}

TEST_CASE("left open: by each rollback hook it is rolled back before the next one runs", "[S58][S72]") {
    for (const std::string way : {"rollback()", "savepoint", "doubt", "lost", "throws", "captured", "connection"}) {
        CAPTURE(way);
        Scene s;
        std::optional<CapturedHooks> captured;
        if (way == "captured") captured.emplace(s.db);
        if (way == "doubt") s.db.answer_commit({Outcome::rolled_back});
        const auto body = [&] {
            s.db.on_rollback([&] {
                CHECK(s.db.in_atomic_block() == (way == "savepoint"));
                s.leave_open();
            });
            s.db.unless_committed([&] {
                s.leave_open();
                if (way == "throws") throw Oops{};
            });
        };
        static_cast<void>(ending([&] {
            if (way == "savepoint")
                return s.db.atomic([&] {
                    Tx inner{s.db};
                    body();
                    inner.rollback();
                    CHECK(s.db.pending_hooks() == 0);
                });
            Tx tx{s.db};
            body();
            if (way == "lost") s.db.execute("ROLLBACK");
            way == "doubt" or way == "lost" ? static_cast<void>(tx.commit()) : tx.rollback();
        }));
        Log expected{left_open, left_open};
        if (way == "throws") expected.insert(expected.begin() + 1, "txhooks: a hook of unless_committed() threw");
        CHECK(s.sink.sentences() == expected);
        captured.reset();
        s.check_closed(2);
    }
}

TEST_CASE("left open: by the copy and the destructor of a capture of a hook of any kind", "[S27][S58][S73]") {
    for (const int kind : {0, 1, 2})
        for (const bool commits : {false, true}) {
            CAPTURE(kind, commits);
            Scene s;
            const auto add = [&](auto&& hook) {
                if (kind == 0) s.db.before_commit(std::forward<decltype(hook)>(hook));
                if (kind == 1) s.db.on_rollback(std::forward<decltype(hook)>(hook));
                if (kind == 2) s.db.unless_committed(std::forward<decltype(hook)>(hook));
            };
            const OnCopy copied{[&] {
                s.leave_open();
                throw Oops{};
            }};
            Tx tx{s.db};
            CHECK(ending([&] { add(copied); }) == "oops");
            CHECK(s.sink.sentences() == Log{left_open});
            add(AtDestruction{[&] { s.leave_open(); }});
            // The destructor of a hook before COMMIT runs in the pass.
            CHECK(ending([&] { commits ? static_cast<void>(tx.commit()) : tx.rollback(); }) ==
                  (commits and kind == 0 ? "UsageError" : "returned"));
            CHECK(s.sink.sentences() == Log{left_open, left_open});
            s.check_closed(2);
        }
}

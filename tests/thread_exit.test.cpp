// SPDX-License-Identifier: MIT

// Threads that are ended (pthread_exit, pthread_cancel) in code of the user's that the library calls. glibc unwinds their
// stack: whatever can end well does. With libc++ it ends the program (see detail/forced_unwind.hpp).

#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/on_copy.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include <pthread.h>

#if defined __GLIBC__ && defined __GLIBCXX__

using namespace txhooks;
using support::AtDestruction;
using support::end_of_process;
using support::Log;
using support::Oops;
using support::Sink;
using support::Trace;
using testing::CapturedHooks;
using testing::FakeBackend;
using testing::RolledBack;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

[[noreturn]] void exit_thread() {
    pthread_exit(nullptr);
}

// A function of its own, so that AddressSanitizer looks for nothing on the stack that is unwound: the call of one that
// does not return tells it.
[[noreturn, gnu::noinline]] void wait_at_a_cancellation_point() {
    for (;;) pthread_testcancel();
}

// Somebody else has cancelled this thread.
void be_cancelled() {
    pthread_cancel(pthread_self());
    wait_at_a_cancellation_point();
}

using End = void (*)();
constexpr End ends[] = {exit_thread, be_cancelled};

// Whether `act()`, on a thread of its own, ended that: neither returned nor threw.
template <class Act>
bool ends_thread(Act act) {
    bool came_back = false;
    std::thread{[&] {
        act();
        came_back = true;
    }}.join();
    return not came_back;
}

struct Scene {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    Doubt doubt;

    // Hooks 1, 2 and 3, and the row "1". The second ends the thread.
    void act(End end) {
        db.put("1");
        db.on_commit(ran.probe("1"));
        db.on_commit([this, end, probe = ran.probe("2")] {
            ran.note("2");
            end();
        });
        db.on_commit(ran.probe("3"));
    }
    static constexpr const char* one_and_two = "1,~1,2,~2,~3";

    // Another thread than the one that ended can use it, as if nothing had been.
    void check_goes_on() {
        CHECK(db.usable());
        CHECK(db.pending_hooks() == 0);
        ran.clear();
        db.atomic([&] { db.on_commit(ran.hook("next")); });
        db.on_commit(ran.hook("at once"));
        CHECK(ran.text() == "next,at once");
        CHECK(sink.sentences().empty());
    }
};

// The program is ended, by std::terminate or by glibc, which sees that a thread was kept from ending.
template <class Act>
bool ends_program(Act act) {
    const support::ProcessEnd end = end_of_process([&] { std::thread{act}.join(); });
    return end.terminated or end.said.find("FATAL: exception not rethrown") != std::string::npos;
}

}  // namespace

// ---- Hooks: the thread ends, the data stays, later hooks are discarded

TEST_CASE("thread exit: in a commit hook it goes on, whatever the policy", "[S19][S24]") {
    for (const End end : ends)
        for (const HookFailure policy : {HookFailure::stop, HookFailure::run_all, HookFailure::report})
            for (const std::string way : {"atomic", "guard", "any", "rolled back", "resolve"}) {
                CAPTURE(static_cast<int>(policy), way);
                Scene s;
                Connection& any = s.db;
                s.db.set_on_hook_failure(policy);
                std::optional<RolledBack> test;
                if (way == "rolled back") test.emplace(s.db);
                CHECK(ends_thread([&] {
                    if (way == "any") return any.atomic([&] { s.act(end); });
                    if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, [&] { s.act(end); });
                    if (way != "guard") return s.db.atomic([&] { s.act(end); });
                    Atomic tx{s.db};
                    s.act(end);
                    tx.commit();
                }));
                CHECK(s.ran.text() == s.one_and_two);
                CHECK(s.db.get("1"));
                CHECK(s.db.committed("1").has_value() == not test);
                CHECK_FALSE(s.doubt.in_doubt());
                s.check_goes_on();
            }
}

TEST_CASE("thread exit: after another hook has thrown, too", "[S19][S24]") {
    for (const End end : ends)
        for (const HookFailure policy : {HookFailure::run_all, HookFailure::report}) {
            Scene s;
            s.db.set_on_hook_failure(policy);
            CHECK(ends_thread([&] {
                s.db.atomic([&] {
                    s.db.on_commit(s.ran.throwing("0", Oops{}));
                    s.act(end);
                });
            }));
            CHECK(s.ran.text() == "0,1,~1,2,~2,~3");
            CHECK(s.sink.text() == (policy == HookFailure::report ? "oops" : ""));
            s.db.set_on_hook_failure(HookFailure::stop);
            s.sink.clear();
            s.check_goes_on();
        }
}

TEST_CASE("thread exit: a robust hook does not swallow it", "[S21]") {
    for (const End end : ends) {
        Scene s;
        CHECK(ends_thread([&] {
            s.db.atomic([&] {
                s.db.put("1");
                s.db.on_commit(robust, [end] { end(); });
                s.db.on_commit(s.ran.probe("2"));
            });
        }));
        CHECK(s.ran.text() == "~2");
        CHECK(s.db.committed("1"));
        s.check_goes_on();
    }
}

TEST_CASE("thread exit: in a hook of a block that a hook has opened, it ends both runs", "[S16][S19]") {
    for (const End end : ends) {
        Scene s;
        CHECK(ends_thread([&] {
            s.db.atomic([&] {
                s.db.on_commit([&] { s.db.atomic([&] { s.act(end); }); });
                s.db.on_commit(s.ran.probe("4"));
            });
        }));
        CHECK(s.ran.text() == "1,~1,2,~2,~3,~4");
        CHECK(s.db.committed("1"));
        s.check_goes_on();
    }
}

TEST_CASE("thread exit: a block that the hook has open is rolled back", "[S17][S58]") {
    for (const End end : ends)
        for (const bool left_open : {false, true}) {
            Scene s;
            std::optional<Atomic<Db>> left;
            CHECK(ends_thread([&] {
                s.db.atomic([&] {
                    s.db.on_commit([&] {
                        if (left_open) left.emplace(s.db);
                        s.db.atomic([&] {
                            s.db.put("2");
                            s.db.on_commit(s.ran.probe("2"));
                            end();
                        });
                    });
                    s.db.on_commit(s.ran.probe("3"));
                });
            }));
            CHECK(s.ran.text() == "~2,~3");
            CHECK_FALSE(s.db.committed("2"));
            CHECK_FALSE((left and left->active()));
            CHECK(s.sink.sentences().size() == (left_open ? 1 : 0));
            s.sink.clear();
            s.check_goes_on();
        }
}

TEST_CASE("thread exit: in a hook that runs at once, and in the copy of one", "[S1][S7]") {
    for (const End end : ends)
        for (const bool in_block : {false, true}) {
            Scene s;
            if (not in_block) {
                CHECK(ends_thread([&] { s.db.on_commit([end] { end(); }); }));
                CHECK(ends_thread([&] { s.db.on_commit(robust, [end] { end(); }); }));
            }
            const support::OnCopy copied{[end] { end(); }};
            CHECK(ends_thread([&] {
                if (not in_block) return s.db.on_commit(copied);
                s.db.atomic([&] {
                    s.db.put("1");
                    s.db.on_commit(s.ran.probe("1"));
                    s.db.on_commit(copied);
                });
            }));
            CHECK(s.ran.text() == (in_block ? "~1" : ""));
            CHECK_FALSE(s.db.committed("1"));
            s.check_goes_on();
        }
}

TEST_CASE("thread exit: in DetachedHooks::run none is left, and the object can be used again", "[S60]") {
    for (const End end : ends)
        for (const bool with_connection : {false, true}) {
            Scene s;
            s.db.set_on_hook_failure(HookFailure::report);
            s.db.atomic({.detach = &s.after}, [&] { s.act(end); });
            CHECK(ends_thread([&] { with_connection ? s.after.run(s.db) : s.after.run(); }));
            CHECK(s.ran.text() == s.one_and_two);
            CHECK(s.after.size() == 0);
            s.after.run();
            s.db.atomic({.detach = &s.after}, [&] { s.db.on_commit(s.ran.hook("4")); });
            s.after.run();
            CHECK(s.ran.text() == std::string{s.one_and_two} + ",4");
            s.check_goes_on();
        }
}

TEST_CASE("thread exit: in CapturedHooks::run none is left", "[capture]") {
    for (const End end : ends) {
        Scene s;
        {
            CapturedHooks hooks{s.db};
            s.db.atomic([&] { s.act(end); });
            CHECK(ends_thread([&] { hooks.run(); }));
            CHECK(s.ran.text() == s.one_and_two);
            CHECK(hooks.size() == 0);
            s.db.atomic([&] { s.db.on_commit([] {}); });
            CHECK(hooks.size() == 1);
            hooks.discard();
        }
        s.check_goes_on();
    }
}

TEST_CASE("thread exit: in Doubt::resolve the doubt is resolved, and none is left", "[doubt]") {
    for (const End end : ends) {
        Scene s;
        s.db.answer_commit({Outcome::unknown, nullptr, true});
        CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [&] { s.act(end); }), CommitUnknown);
        s.db.reset();
        CHECK(ends_thread([&] { s.doubt.resolve(s.db); }));
        CHECK(s.ran.text() == s.one_and_two);
        CHECK_FALSE(s.doubt.in_doubt());
        CHECK(s.doubt.size() == 0);
        s.check_goes_on();
    }
}

// ---- The function: the block is rolled back

TEST_CASE("thread exit: in fn, or with a guard open, the block is rolled back", "[S30][S31]") {
    for (const End end : ends)
        for (const std::string way : {"atomic", "guard", "nested", "joined", "detach", "resolve", "rolled back"}) {
            CAPTURE(way);
            Scene s;
            std::optional<RolledBack> test;
            if (way == "rolled back") test.emplace(s.db);
            const auto body = [&] {
                s.db.put("1");
                s.db.on_commit(s.ran.probe("1"));
                end();
            };
            CHECK(ends_thread([&] {
                if (way == "detach") return s.db.atomic({.detach = &s.after}, body);
                if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, body);
                if (way == "nested") return s.db.atomic([&] { s.db.atomic(body); });
                if (way == "joined") return s.db.atomic([&] { s.db.atomic({.join = true}, body); });
                if (way != "guard") return s.db.atomic(body);
                const Atomic tx{s.db};
                body();
            }));
            CHECK(s.ran.text() == "~1");
            CHECK_FALSE(s.db.get("1"));
            CHECK(s.after.size() == 0);
            CHECK_FALSE(s.doubt.in_doubt());
            if (way == "guard") s.sink.clear();  // no exception was in flight that C++ knows of: it counts as forgotten
            s.check_goes_on();
        }
}

TEST_CASE("thread exit: in what decides on the result, the block is rolled back", "[S30]") {
    struct Result {
        End end;
        bool has_value() const {
            end();
            return true;
        }
        int error() const { return 0; }
    };
    for (const End end : ends) {
        Scene s;
        CHECK(ends_thread([&] {
            s.db.atomic([&] {
                s.db.on_commit(s.ran.probe("1"));
                return Result{end};
            });
        }));
        CHECK(s.ran.text() == "~1");
        CHECK(s.db.log().back() == "ROLLBACK");
        s.check_goes_on();
    }
}

TEST_CASE("thread exit: between two attempts of retry it goes on, and nothing is tried again", "[retry]") {
    for (const End end : ends)
        for (const std::string where : {"fn", "before_retry", "sleep"}) {
            CAPTURE(where);
            Scene s;
            int calls = 0;
            RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; },
                               .sleep = [](std::chrono::nanoseconds) {}};
            if (where == "before_retry") policy.before_retry = [&](unsigned, const std::exception_ptr&) { end(); };
            if (where == "sleep") policy.sleep = [&](std::chrono::nanoseconds) { end(); };
            CHECK(ends_thread([&] {
                retry(s.db, policy, [&] {
                    ++calls;
                    s.db.on_commit(s.ran.probe("1"));
                    if (where == "fn") end();
                    throw Oops{};
                });
            }));
            CHECK(calls == 1);
            CHECK(s.ran.text() == "~1");
            CHECK(s.db.log() == Log{"BEGIN", "ROLLBACK"});
            s.check_goes_on();
        }
}

// ---- Verbs

TEST_CASE("thread exit: in BEGIN, SAVEPOINT and RELEASE it goes on, and all is rolled back", "[S40][S51]") {
    for (const End end : ends)
        for (const Verb verb : {Verb::begin, Verb::savepoint, Verb::release})
            for (const When when : {When::before_effect, When::after_effect}) {
                CAPTURE(static_cast<int>(verb), static_cast<int>(when));
                Scene s;
                s.db.faults.act(verb, when, end);
                CHECK(ends_thread([&] {
                    s.db.atomic([&] {
                        s.db.atomic([&] {
                            s.db.put("1");
                            s.db.on_commit(s.ran.probe("1"));
                        });
                    });
                }));
                CHECK(s.ran.text() == (verb == Verb::release ? "~1" : ""));
                CHECK_FALSE(s.db.committed("1"));
                // As after an exception: a savepoint that was released cannot be rolled back to.
                const bool released = verb == Verb::release and when == When::after_effect;
                CHECK(s.sink.lines() == (released ? Log{"txhooks: while rolling back a block: no such savepoint: "
                                                        "txhooks_1"}
                                                  : Log{}));
                s.sink.clear();
                s.check_goes_on();
            }
}

// ---- Where nothing may leave: the program ends

TEST_CASE("thread exit: in a verb of COMMIT or of a rollback, it ends the program", "[S57]") {
    for (const Verb verb : {Verb::commit, Verb::rollback, Verb::rollback_to})
        for (const When when : {When::before_effect, When::after_effect}) {
            CAPTURE(static_cast<int>(verb), static_cast<int>(when));
            CHECK(ends_program([verb, when] {
                Db db;
                db.faults.act(verb, when, exit_thread);
                Atomic tx{db};
                Atomic inner{db};
                inner.rollback();
                if (verb == Verb::commit) tx.commit();
            }));
        }
}

TEST_CASE("thread exit: in the error sink, it ends the program", "[S22]") {
    CHECK(ends_program([] {
        Db db;
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) { exit_thread(); });
        db.on_commit(robust, [] { throw Oops{}; });
    }));
}

TEST_CASE("thread exit: in the destructor of a capture, it ends the program", "[S27]") {
    CHECK(ends_program([] {
        Db db;
        db.atomic([&] { db.on_commit(AtDestruction{exit_thread}); });
    }));
    CHECK(ends_program([] {
        Db db;
        Atomic tx{db};
        db.on_commit(AtDestruction{exit_thread});
        tx.rollback();
    }));
}

// ---- Hooks of other kinds

TEST_CASE("thread exit: in a hook before COMMIT it goes on, and the block is rolled back", "[S61][S62][S31]") {
    for (const End end : ends)
        for (const std::string way : {"atomic", "guard", "any", "detach", "resolve", "captured", "rolled back",
                                      "nested", "retry", "left open"}) {
            CAPTURE(way);
            Scene s;
            Connection& any = s.db;
            std::optional<CapturedHooks> captured;
            std::optional<RolledBack> test;
            std::optional<Atomic<Db>> left;
            if (way == "captured") captured.emplace(s.db);
            if (way == "rolled back") test.emplace(s.db);
            const auto body = [&] {
                s.db.on_rollback(s.ran.probe("rollback"));
                s.db.put("1");
                s.db.on_commit(s.ran.probe("commit"));
                s.db.before_commit([&] {
                    s.ran.note("before");
                    if (way == "left open") left.emplace(s.db);
                    if (way != "nested") end();
                    s.db.atomic([end] { end(); });
                });
                s.db.before_commit(s.ran.probe("never"));
                s.db.unless_committed(s.ran.probe("unless"));
            };
            CHECK(ends_thread([&] {
                if (way == "any") return any.atomic(body);
                if (way == "detach") return s.db.atomic({.detach = &s.after}, body);
                if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, body);
                if (way == "retry")
                    return retry(s.db, {.transient = [](const std::exception_ptr&) noexcept { return true; }}, body);
                if (way != "guard") return s.db.atomic(body);
                Atomic tx{s.db};
                body();
                tx.commit();
            }));
            CHECK(s.ran.text() == "before,unless,rollback,~rollback,~commit,~never,~unless");
            CHECK_FALSE(s.db.get("1"));
            CHECK(s.after.size() == 0);
            CHECK_FALSE(s.doubt.in_doubt());
            CHECK_FALSE((left and left->active()));
            CHECK(s.sink.sentences().size() == (way == "left open" ? 1 : 0));
            s.sink.clear();
            captured.reset();
            test.reset();
            s.check_goes_on();
        }
}

TEST_CASE("thread exit: in a hook before COMMIT that runs at once, and in the copy of one of any kind", "[S67][S74]") {
    for (const End end : ends) {
        Scene s;
        const support::OnCopy copied{[end] { end(); }};
        CHECK(ends_thread([&] { s.db.before_commit([end] { end(); }); }));
        CHECK(ends_thread([&] { s.db.on_rollback(copied); }));
        for (const int kind : {0, 1, 2}) {
            s.ran.clear();
            CHECK(ends_thread([&] {
                s.db.atomic([&] {
                    s.db.on_rollback(s.ran.probe("1"));
                    if (kind == 0) s.db.before_commit(copied);
                    if (kind == 1) s.db.on_rollback(copied);
                    if (kind == 2) s.db.unless_committed(copied);
                });
            }));
            CHECK(s.ran.text() == "1,~1");
        }
        s.check_goes_on();
    }
}

TEST_CASE("thread exit: in a hook of what is undone it ends the program", "[S71]") {
    for (const std::string way : {"rollback", "unless", "savepoint", "abandoned", "doubt", "Doubt"}) {
        CAPTURE(way);
        CHECK(ends_program([way] {
            Db db;
            Doubt doubt;
            if (way == "doubt" or way == "Doubt") db.answer_commit({Outcome::unknown, nullptr, false});
            try {
                Atomic tx{db, {.resolve = way == "Doubt" ? &doubt : nullptr}};
                if (way == "savepoint") {
                    Atomic inner{db};
                    db.on_rollback(exit_thread);
                    inner.rollback();
                }
                way == "unless" or way == "doubt" ? db.unless_committed(exit_thread) : db.on_rollback(exit_thread);
                if (way == "doubt" or way == "Doubt") tx.commit();
                if (way != "abandoned") tx.rollback();
            } catch (const CommitUnknown&) {
                db.reset();
                doubt.resolve(db);
            }
        }));
    }
}

#endif

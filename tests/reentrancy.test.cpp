// SPDX-License-Identifier: MIT

// Hooks, captures and sinks are code of the user's, called from within commit(), rollback() and on_commit(): all of them
// may come back to the connection.

#include <txhooks/doubt.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

using support::AtDestruction;
using support::ending;
using support::Log;
using support::Sink;
using support::Trace;
using txhooks::Atomic;
using txhooks::Connection;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::HookFailure;
using txhooks::Outcome;
using txhooks::testing::FakeBackend;

namespace {

using Fake = HookedConnection<FakeBackend>;

// A capture whose copy constructor does something.
template <class Act>
class AtCopy {
public:
    explicit AtCopy(Act act) : act_{std::move(act)} {}
    AtCopy(const AtCopy& other) : act_{other.act_} { act_(); }
    AtCopy& operator=(const AtCopy&) = delete;
    void operator()() const {}

private:
    Act act_;
};

// The next transaction is as if nothing had been before.
void check_clean(Fake& db) {
    CHECK(db.usable());
    CHECK_FALSE(db.in_atomic_block());
    CHECK(db.pending_hooks() == 0);
    db.clear_log();
    std::string ran;
    db.atomic([&] {
        db.on_commit([&] { ran += 'y'; });
        db.atomic([&] { db.on_commit([&] { ran += 'z'; }); });
    });
    CHECK(ran == "yz");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "COMMIT"});
}

// Whether `act()` returned true, in a process of its own: what damages memory may do anything.
template <class Act>
bool holds(Act act) {
    const pid_t child = fork();
    if (child == 0) {
        for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE}) std::signal(signal, SIG_DFL);
        alarm(20);
        bool held = false;
        if (ending([&] { held = act(); }) != "returned") held = false;
        _exit(held ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) and WEXITSTATUS(status) == 0;
}

}  // namespace

// ---- Hooks

TEST_CASE("hook: that opens a block runs that block's hooks before the next of its own", "[S13][S16]") {
    for (const bool durable : {false, true}) {
        Fake db;
        Trace ran;
        db.atomic([&] {
            for (int i : {1, 2})
                db.on_commit([&, i] {
                    ran.note(std::to_string(i));
                    db.atomic({.durable = durable}, [&] { db.on_commit(ran.hook(std::to_string(i + 10))); });
                });
        });
        CHECK(ran.text() == "1,11,2,12");
        CHECK(db.log() == Log{"BEGIN", "COMMIT", "BEGIN", "COMMIT", "BEGIN", "COMMIT"});
    }
}

TEST_CASE("hook: that registers a hook runs it at once, before its siblings, at any depth", "[S1][S15]") {
    Fake db;
    Trace ran;
    db.atomic([&] {
        db.on_commit([&] {
            ran.note("1");
            db.on_commit([&] {
                ran.note("11");
                db.on_commit(ran.hook("111"));
                ran.note("11.");
            });
            ran.note("1.");
        });
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,11,111,11.,1.,2");
}

TEST_CASE("hook: a block that it rolls back leaves the remaining hooks alone", "[S17][S25][S26]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    db.atomic([&] {
        db.on_commit([&] {
            ran.note("1");
            Atomic tx{db};
            for (int i = 0; i != 100; ++i) db.on_commit([&ran, text = std::string(50, 'x')] { ran.note(text); });
            tx.rollback();
        });
        db.on_commit([&] {
            ran.note("2");
            db.atomic([&] {
                db.on_commit(ran.hook("21"));
                CHECK(ending([&] {
                          db.atomic([&] {
                              db.on_commit(ran.hook("never"));
                              throw support::Oops{};
                          });
                      }) == "oops");
                db.on_commit(ran.hook("22"));
            });
        });
        db.on_commit([&] {
            ran.note("3");
            const Atomic abandoned{db};
            db.on_commit(ran.hook("never"));
        });
        db.on_commit(ran.hook("4"));
    });
    CHECK(ran.text() == "1,2,21,22,3,4");
    CHECK(sink.errors() == Log{"none"});  // abandoned
    check_clean(db);
}

TEST_CASE("hook: blocks inside hooks inside blocks, many deep", "[S11][S12][S16]") {
    Fake db;
    db.keep_log(false);
    std::string expected;
    std::string ran;
    const auto dive = [&](auto self, int depth) -> void {
        db.atomic([&, depth] {
            db.on_commit([&ran, depth] { ran += "<" + std::to_string(depth); });
            if (depth != 0) db.on_commit([&, depth] { self(self, depth - 1); });
            db.on_commit([&ran, depth, text = std::string(40, 'x')] {
                ran += (text.size() == 40 ? ">" : "?") + std::to_string(depth);
            });
        });
    };
    dive(dive, 100);
    for (int depth = 100; depth >= 0; --depth) expected += "<" + std::to_string(depth);
    for (int depth = 0; depth <= 100; ++depth) expected += ">" + std::to_string(depth);
    CHECK(ran == expected);
}

TEST_CASE("hook: one that throws inside a hook's block stops only the hooks around it that it leaves",
          "[S19][S20][S23]") {
    Fake db;
    Trace ran;
    const std::string left = ending([&] {
        db.atomic([&] {
            db.on_commit([&] {
                ran.note("1");
                CHECK(ending([&] {
                          db.atomic([&] {
                              db.on_commit(ran.throwing("11", 7));
                              db.on_commit(ran.hook("never"));
                          });
                      }) == "HookError committed <- 7");
            });
            db.on_commit([&] {
                ran.note("2");
                db.atomic([&] {
                    db.on_commit(ran.throwing("21", 8));
                    db.on_commit(ran.hook("never"));
                });
            });
            db.on_commit(ran.hook("never"));
        });
    });
    CHECK(left == "HookError committed <- HookError committed <- 8");
    CHECK(ran.text() == "1,11,2,21");
    check_clean(db);
}

TEST_CASE("hook: a guard that it leaves open is rolled back and reported", "[S58]") {
    for (const HookFailure policy : {HookFailure::stop, HookFailure::run_all, HookFailure::report}) {
        for (const bool throws : {false, true}) {
            Fake db;
            Sink sink{db};
            db.set_on_hook_failure(policy);
            Trace ran;
            std::optional<Atomic<Fake>> left_open;
            std::optional<Atomic<Fake>> inner;
            const std::string left = ending([&] {
                db.atomic([&] {
                    db.put("a");
                    db.on_commit([&] {
                        ran.note("1");
                        left_open.emplace(db);
                        db.put("b");
                        db.on_commit(ran.hook("never"));
                        inner.emplace(db);
                        db.put("c");
                        db.on_commit(ran.hook("never"));
                        if (throws) throw 7;
                    });
                });
            });
            CHECK(left == (throws and policy != HookFailure::report ? "HookError committed <- 7" : "returned"));
            CHECK(ran.text() == "1");
            const auto usage_errors = std::count(sink.errors().begin(), sink.errors().end(), "UsageError");
            CHECK(usage_errors == 1);
            REQUIRE(left_open);
            CHECK_FALSE(left_open->active());
            CHECK_FALSE(inner->active());
            CHECK(ending([&] { left_open->commit(); }) == "UsageError");
            CHECK(ending([&] { inner->commit(); }) == "UsageError");
            left_open->rollback();
            CHECK(db.committed("a"));
            CHECK_FALSE(db.committed("b"));
            CHECK_FALSE(db.committed("c"));
            CHECK(db.log().back() == "ROLLBACK");
            left_open.reset();
            inner.reset();
            check_clean(db);
        }
    }
}

TEST_CASE("hook: the block whose hooks run cannot be ended again from one of them", "[S14][S39][S42]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    std::optional<Atomic<Fake>> tx{std::in_place, db};
    db.put("a");
    db.on_commit([&] {
        CHECK_FALSE(tx->active());
        CHECK_FALSE(db.in_atomic_block());
        ran.note(ending([&] { tx->commit(); }));
        ran.note(ending([&] { tx->rollback(); }));
    });
    db.on_commit(ran.hook("2"));
    tx->commit();
    CHECK(ran.text() == "UsageError,returned,2");
    CHECK(db.log() == Log{"BEGIN", "INSERT a", "COMMIT"});
    CHECK(db.committed("a"));
    check_clean(db);
}

TEST_CASE("hook: an inner block that has ended cannot be ended again from a hook", "[S39][S42]") {
    Fake db;
    Trace ran;
    Atomic tx{db};
    Atomic inner{db};
    Atomic joined{db, {.join = true}};
    db.on_commit([&] {
        ran.note(ending([&] { inner.commit(); }));
        ran.note(ending([&] { inner.rollback(); }));
        ran.note(ending([&] { joined.commit(); }));
        ran.note(ending([&] { joined.rollback(); }));
    });
    joined.commit();
    inner.commit();
    tx.commit();
    CHECK(ran.text() == "UsageError,returned,UsageError,returned");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "COMMIT"});
}

TEST_CASE("hook: may destroy the guard whose hooks are running", "[S14][S42]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    auto tx = std::make_unique<std::optional<Atomic<Fake>>>();
    tx->emplace(db);
    db.on_commit([&] {
        ran.note("1");
        tx->reset();
        tx.reset();
    });
    db.on_commit(ran.hook("2"));
    (*tx)->commit();
    CHECK(ran.text() == "1,2");
    CHECK(sink.errors().empty());
    CHECK(db.log() == Log{"BEGIN", "COMMIT"});
    check_clean(db);
}

TEST_CASE("hook: may use the same guard's place for another block", "[S13][S42]") {
    Fake db;
    Trace ran;
    std::optional<Atomic<Fake>> tx{std::in_place, db};
    db.on_commit([&] {
        ran.note("1");
        tx.emplace(db);
        db.put("b");
        db.on_commit(ran.hook("11"));
        tx->commit();
    });
    db.on_commit(ran.hook("2"));
    tx->commit();
    CHECK(ran.text() == "1,11,2");
    CHECK(db.committed("b"));
}

TEST_CASE("hook: sees the connection idle, and may set everything about it", "[S13][S24]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    db.atomic([&] {
        db.on_commit([&] {
            CHECK(db.usable());
            CHECK_FALSE(db.in_atomic_block());
            CHECK(db.pending_hooks() == 0);
            CHECK(ending([&] { db.set_rollback(true); }) == "UsageError");
            db.set_on_hook_failure(HookFailure::report);
            db.set_error_sink(nullptr);
            db.reset();
            ran.note("1");
        });
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,2");
}

TEST_CASE("hook: a connection that a hook breaks still runs the hooks of the committed transaction", "[S13][S49]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    db.atomic([&] {
        db.on_commit([&] {
            ran.note("1");
            db.faults.lose_connection(support::Verb::commit, support::When::after_effect);
            ran.note(ending([&] { db.atomic([&] { db.on_commit(ran.hook("never")); }); }));
            ran.note(ending([&] { db.on_commit(ran.hook("never")); }));
        });
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,CommitUnknown unknown <- the connection was lost (on purpose),ConnectionBroken,2");
    db.reconnect();
    db.reset();
    check_clean(db);
}

TEST_CASE("detached hook: registers, opens blocks and throws like any other", "[S15][S16][S19][S60]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    db.atomic({.detach = &after}, [&] {
        db.on_commit([&] {
            ran.note("1");
            ran.note(ending([&] { after.run(); }));
            after.discard();
            db.atomic({.detach = nullptr}, [&] { db.on_commit(ran.hook("11")); });
            ran.note(ending([&] { Atomic tx{db, {.detach = &after}}; }));
        });
        db.on_commit(ran.hook("2"));
        db.on_commit(ran.throwing("3", 7));
        db.on_commit(ran.hook("never"));
    });
    CHECK(ran.text() == "");
    CHECK(ending([&] { after.run(); }) == "HookError committed <- 7");
    CHECK(ran.text() == "1,UsageError,11,UsageError,2,3");
    CHECK(after.size() == 0);
    check_clean(db);
}

// ---- Destructors of captures

TEST_CASE("capture: destroyed at a rollback of everything, may use the connection", "[S25][S27]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    Atomic tx{db};
    for (int i = 1; i <= 3; ++i)
        db.on_commit(AtDestruction{[&, i] {
            CHECK_FALSE(db.in_atomic_block());
            db.on_commit(ran.hook(std::to_string(i)));
            db.atomic([&] {
                db.put(std::to_string(i));
                db.on_commit(ran.hook(std::to_string(i) + "!"));
            });
            Atomic lost{db};
            db.on_commit(ran.hook("never"));
            lost.rollback();
        }});
    tx.rollback();
    CHECK(ran.text() == "1,1!,2,2!,3,3!");
    CHECK(db.committed("3"));
    check_clean(db);
}

TEST_CASE("capture: destroyed at a rollback of a savepoint, registers with the block around it", "[S26][S27]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        {
            Atomic tx{db};
            for (int i = 2; i <= 4; ++i)
                db.on_commit(AtDestruction{[&, i, text = std::string(100, 'x')] {
                    db.on_commit(ran.hook(std::to_string(i) + (text.size() == 100 ? "" : "?")));
                    db.atomic([&] { db.on_commit(ran.hook(std::to_string(i) + "!")); });
                    Atomic lost{db};
                    db.on_commit(ran.hook("never"));
                    lost.rollback();
                }});
            tx.rollback();
        }
        CHECK(ran.text() == "");
        CHECK(db.pending_hooks() == 7);
        db.on_commit(ran.hook("5"));
    });
    CHECK(ran.text() == "1,2,2!,3,3!,4,4!,5");
    check_clean(db);
}

TEST_CASE("capture: what its destructor registers can be rolled back with the block around", "[S26][S27]") {
    Fake db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        CHECK(ending([&] {
                  db.atomic([&] {
                      db.on_commit(ran.hook("never"));
                      Atomic tx{db};
                      db.on_commit(AtDestruction{[&] { db.on_commit(ran.hook("never")); }});
                      tx.rollback();
                      CHECK(db.pending_hooks() == 3);
                      throw support::Oops{};
                  });
              }) == "oops");
        CHECK(db.pending_hooks() == 1);
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,2");
    check_clean(db);
}

TEST_CASE("capture: destroyed after its hook ran, registers and opens blocks before the next hook", "[S15][S18]") {
    Fake db;
    Trace ran;
    db.atomic([&] {
        for (int i : {1, 2}) {
            db.on_commit([&, i, at_end = AtDestruction{[&, i] {
                                    ran.note("~" + std::to_string(i));
                                    db.on_commit(ran.hook(std::to_string(i) + "'"));
                                    db.atomic([&] { db.on_commit(ran.hook(std::to_string(i) + "!")); });
                                }}] { ran.note(std::to_string(i)); });
        }
    });
    CHECK(ran.text() == "1,~1,1',1!,2,~2,2',2!");
    check_clean(db);
}

TEST_CASE("capture: those discarded after a hook threw find the connection idle", "[S19][S23][S27]") {
    Fake db;
    Trace ran;
    const std::string left = ending([&] {
        db.atomic([&] {
            db.on_commit([&, at_end = AtDestruction{[&] { db.on_commit(ran.hook("~1")); }}] {
                ran.note("1");
                throw 7;
            });
            db.on_commit(AtDestruction{[&] { db.atomic([&] { db.on_commit(ran.hook("~2")); }); }});
            db.on_commit(AtDestruction{[&] {
                Atomic tx{db};
                db.on_commit(ran.hook("never"));
                tx.rollback();
                db.on_commit(ran.hook("~3"));
            }});
        });
    });
    CHECK(left == "HookError committed <- 7");
    CHECK(ran.text() == "1,~1,~2,~3");
    check_clean(db);
}

TEST_CASE("capture: its destructor may throw as long as it catches", "[S28]") {
    Fake db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(AtDestruction{[&] {
        ran.note(ending([&] {
            db.atomic([&] {
                db.on_commit(ran.throwing("1", 7));
                db.on_commit(ran.hook("never"));
            });
        }));
    }});
    db.on_commit(AtDestruction{ran.hook("2")});
    tx.rollback();
    CHECK(ran.text() == "1,HookError committed <- 7,2");
    check_clean(db);
}

TEST_CASE("capture: a guard that its destructor leaves open is rolled back and reported", "[S27][S58]") {
    for (const bool savepoint : {false, true}) {
        for (const bool empty : {false, true}) {
            INFO((savepoint ? "discarded with a savepoint" : "discarded with everything")
                 << (empty ? ", nothing in the block" : ""));
            CHECK(holds([&] {
                Fake db;
                Sink sink{db};
                Trace ran;
                std::optional<Atomic<Fake>> outer;
                std::optional<Atomic<Fake>> left_open;
                if (savepoint) outer.emplace(db);
                Atomic tx{db};
                for (int i = 0; i != 3; ++i) db.on_commit(ran.hook("never"));
                db.on_commit(AtDestruction{[&] {
                    left_open.emplace(db);
                    if (empty) return;
                    db.put("b");
                    db.on_commit(ran.hook("never"));
                }});
                tx.rollback();
                if (sink.errors() != Log{"UsageError"}) return false;
                if (left_open->active() or ending([&] { left_open->commit(); }) != "UsageError") return false;
                for (int i = 0; i != 2; ++i) db.on_commit(ran.hook("1"));
                if (db.pending_hooks() != (savepoint ? 2 : 0)) return false;
                if (savepoint) outer->commit();
                return db.usable() and ran.text() == "1,1" and not db.committed("b");
            }));
        }
    }
}

// ---- Copying captures

TEST_CASE("capture: its copy constructor registers a hook of its own, and both run", "[S3][S7]") {
    Fake db;
    Trace ran;
    db.atomic([&] {
        const AtCopy first{[&] { db.on_commit(ran.hook("copied")); }};
        db.on_commit([&ran, first] { ran.note("1"); });
        db.on_commit(ran.hook("2"));
    });
    const std::string both = ran.text();
    CHECK(std::count(both.begin(), both.end(), '1') == 1);
    CHECK(both.find("copied") != std::string::npos);
    CHECK(both.substr(both.size() - 2) == ",2");
    check_clean(db);
}

TEST_CASE("capture: its copy constructor opens and ends blocks, and the hook is kept", "[S3][S7][S26]") {
    for (const bool commits : {false, true}) {
        Fake db;
        Sink sink{db};
        Trace ran;
        db.atomic([&] {
            const AtCopy copied{[&] {
                Atomic tx{db};
                for (int i = 0; i != 20; ++i) db.on_commit([&ran, text = std::string(60, 'x')] { ran.note("in"); });
                commits ? static_cast<void>(tx.commit()) : tx.rollback();
            }};
            const auto hook = [&ran, copied] { ran.note("hook"); };
            ran.clear();
            const std::size_t before = db.pending_hooks();
            db.on_commit(hook);  // copies it
            CHECK(db.pending_hooks() == before + (commits ? 21 : 1));
            db.on_commit(ran.hook("last"));
        });
        const std::string text = ran.text();
        const std::size_t hook = text.find("hook");
        CHECK(hook != std::string::npos);
        CHECK(text.find("hook", hook + 1) == std::string::npos);
        CHECK(text.substr(text.size() - 4) == "last");
        if (not commits) CHECK(text == "hook,last");
        check_clean(db);
    }
}

TEST_CASE("capture: its copy constructor throws after it has registered a hook: only that one is kept", "[S7]") {
    Fake db;
    Trace ran;
    db.atomic([&] {
        bool armed = false;
        const AtCopy copied{[&] {
            if (not armed) return;
            db.on_commit(ran.hook("copied"));
            throw support::Oops{};
        }};
        const auto hook = [&ran, copied] { ran.note("never"); };
        db.on_commit(ran.hook("1"));
        armed = true;
        CHECK(ending([&] { db.on_commit(hook); }) == "oops");
        CHECK(ending([&] { db.on_commit(txhooks::robust, hook); }) == "oops");
        CHECK(ending([&] { db.on_commit([](const auto&) {}, hook); }) == "oops");
        CHECK(db.pending_hooks() == 4);
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,copied,copied,copied,2");
    check_clean(db);
}

TEST_CASE("capture: its copy constructor throws in a savepoint that is then rolled back", "[S7][S26]") {
    Fake db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        CHECK(ending([&] {
                  db.atomic([&] {
                      bool armed = false;
                      const AtCopy copied{[&] {
                          if (armed) throw support::Oops{};
                      }};
                      const auto hook = [&ran, copied] { ran.note("never"); };
                      db.on_commit(hook);
                      armed = true;
                      db.on_commit(hook);
                  });
              }) == "oops");
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,2");
    check_clean(db);
}

TEST_CASE("capture: its copy constructor throws and leaves a guard open: that is rolled back and reported",
          "[S7][S26][S58]") {
    CHECK(holds([] {
        Fake db;
        Sink sink{db};
        Trace ran;
        std::optional<Atomic<Fake>> left_open;
        bool armed = false;
        const AtCopy copied{[&] {
            if (not armed) return;
            left_open.emplace(db);
            db.put("b");
            throw support::Oops{};
        }};
        const auto hook = [&ran, copied, room = std::array<char, 100>{}] { ran.note(room.data()); };
        Atomic tx{db};
        db.on_commit(ran.hook("1"));
        armed = true;
        if (ending([&] { db.on_commit(hook); }) != "oops") return false;
        if (sink.errors() != Log{"UsageError"} or left_open->active()) return false;
        if (db.pending_hooks() != 1) return false;
        left_open->rollback();
        db.on_commit(ran.hook("2"));
        tx.commit();
        return ran.text() == "1,2" and not db.committed("b");
    }));
}

TEST_CASE("capture: its copy constructor ends the block that it is registered in, and nothing is damaged",
          "[S7][S28]") {
    for (const bool commits : {false, true}) {
        INFO((commits ? "commits" : "rolls back"));
        CHECK(holds([commits] {
            Fake db;
            const Sink sink{db};
            Trace ran;
            int alive = 0;
            struct Counted {
                int& count;
                explicit Counted(int& to) : count{to} { ++count; }
                Counted(const Counted& other) : count{other.count} { ++count; }
                Counted& operator=(const Counted&) = delete;
                ~Counted() { --count; }
            };
            {
                Atomic tx{db};
                bool armed = false;
                const AtCopy copied{[&] {
                    if (not std::exchange(armed, false)) return;
                    commits ? static_cast<void>(tx.commit()) : tx.rollback();
                    db.on_commit(ran.hook("2"));
                    db.atomic([&] { db.on_commit(ran.hook("3")); });
                }};
                const auto hook = [&ran, copied, counted = Counted{alive}] { ran.note("hook"); };
                db.on_commit(ran.hook("1"));
                armed = true;
                static_cast<void>(ending([&] { db.on_commit(hook); }));
            }
            if (alive != 0 or db.pending_hooks() != 0 or not db.usable()) return false;
            ran.clear();
            db.atomic([&] { db.on_commit(ran.hook("next")); });
            return ran.text() == "next";
        }));
    }
}

TEST_CASE("capture: its copy constructor runs at once where the hook does", "[S1][S3]") {
    Fake db;
    Trace ran;
    const AtCopy copied{[&] { db.atomic([&] { db.on_commit(ran.hook("copied")); }); }};
    const auto hook = [&ran, copied] { ran.note("hook"); };
    ran.clear();
    db.on_commit(hook);
    const std::string text = ran.text();
    CHECK(text.substr(text.size() - 4) == "hook");
    CHECK(text.find("copied") != std::string::npos);
    check_clean(db);
}

// ---- Sinks

TEST_CASE("sink: what it throws is dropped, wherever it is called", "[S22][S31][S49][S58]") {
    Fake db;
    Trace ran;
    static int called;
    called = 0;
    db.set_error_sink([](void*, const char*, const std::exception_ptr&) {
        ++called;
        throw 9;
    });
    db.atomic([&] {
        db.on_commit(txhooks::robust, ran.throwing("1", 7));
        db.on_commit(ran.hook("2"));
    });
    CHECK(called == 1);
    { const Atomic abandoned{db}; }
    CHECK(called == 2);
    db.answer_commit({Outcome::committed, std::make_exception_ptr(1)});
    db.atomic([&] { db.on_commit(ran.hook("3")); });
    CHECK(called == 3);
    std::optional<Atomic<Fake>> left_open;
    db.atomic([&] { db.on_commit([&] { left_open.emplace(db); }); });
    CHECK(called == 4);
    left_open.reset();
    db.set_on_hook_failure(HookFailure::report);
    db.atomic([&] {
        db.on_commit(ran.throwing("4", 7));
        db.on_commit(ran.hook("5"));
    });
    CHECK(called == 5);
    db.faults.fail(support::Verb::rollback, support::When::before_effect, 1);
    CHECK(ending([&] { db.atomic([] { throw support::Oops{}; }); }) == "oops");
    CHECK(called == 6);
    CHECK(ran.text() == "1,2,3,4,5");
    db.execute("ROLLBACK");
    db.reset();
    db.set_on_hook_failure(HookFailure::stop);
    check_clean(db);
}

TEST_CASE("sink: may use the connection that reports to it", "[S13][S22]") {
    struct Table {
        Fake& db;
        Trace& ran;
        int row = 0;
    };
    Fake db;
    Trace ran;
    Table table{db, ran};
    db.set_error_sink(
        [](void* self, const char*, const std::exception_ptr& error) {
            Table& to = *static_cast<Table*>(self);
            const std::string name = support::name_of(error);
            to.ran.note("sink " + name);
            to.db.atomic([&] {
                to.db.put("report " + std::to_string(++to.row));
                to.db.on_commit(to.ran.hook("told"));
            });
            to.db.on_commit(to.ran.hook("told."));
        },
        &table);
    db.atomic([&] {
        db.on_commit(txhooks::robust, ran.throwing("1", 7));
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,sink 7,told,told.,2");
    ran.clear();

    db.set_on_hook_failure(HookFailure::report);
    db.atomic([&] {
        db.on_commit(ran.throwing("1", 8));
        db.on_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,sink 8,told,told.,2");
    ran.clear();

    { const Atomic abandoned{db}; }
    CHECK(ran.text() == "sink none,told,told.");
    ran.clear();

    // In a block around the abandoned one, the report is part of it.
    db.atomic([&] {
        { const Atomic abandoned{db}; }
        CHECK(ran.text() == "sink none");
    });
    CHECK(ran.text() == "sink none,told,told.");
    CHECK(db.committed("report 4"));
    check_clean(db);
}

TEST_CASE("sink: may use the connection while a ROLLBACK or COMMIT that reported an error is reported",
          "[S22][S44][S49][S52]") {
    struct Told {
        Fake& db;
        std::string text;
    };
    Fake db;
    Told told{db, {}};
    db.set_error_sink(
        [](void* self, const char*, const std::exception_ptr& error) {
            Told& to = *static_cast<Told*>(self);
            to.text += support::name_of(error) + ": ";
            to.text += ending([&] { to.db.on_commit([] {}); }) + ", ";
            to.text += ending([&] { to.db.atomic([] {}); }) + "; ";
        },
        &told);
    db.faults.fail(support::Verb::rollback, support::When::before_effect, 7);
    CHECK(ending([&] { db.atomic([] { throw support::Oops{}; }); }) == "oops");
    CHECK(told.text == "7: ConnectionBroken, ConnectionBroken; ");
    told.text.clear();
    db.execute("ROLLBACK");
    db.reset();

    db.faults.fail(support::Verb::rollback, support::When::after_effect, 8);
    CHECK(ending([&] { db.atomic([] { throw support::Oops{}; }); }) == "oops");
    CHECK(told.text == "8: returned, returned; ");
    told.text.clear();
    check_clean(db);

    db.faults.fail(support::Verb::rollback, support::When::after_effect, 9);
    Atomic tx{db};
    CHECK(ending([&] { tx.rollback(); }) == "returned");
    CHECK(told.text == "9: returned, returned; ");
    told.text.clear();
    check_clean(db);

    db.answer_commit({Outcome::committed, std::make_exception_ptr(10)});
    std::string ran;
    CHECK(ending([&] {
              db.atomic([&] {
                  db.put("a");
                  db.on_commit([&] { ran += 'a'; });
              });
          }) == "returned");
    CHECK(told.text == "10: returned, returned; ");
    CHECK(ran == "a");
    db.set_error_sink(nullptr);
    check_clean(db);
}

namespace {

// A sink that does something, once, when it is told a sentence.
template <class Act>
class AtReport {
public:
    AtReport(Fake& db, std::string part, Act act) : part_{std::move(part)}, act_{std::move(act)} {
        db.set_error_sink(&AtReport::told, this);
    }
    AtReport(const AtReport&) = delete;
    AtReport& operator=(const AtReport&) = delete;
    ~AtReport() = default;

    int times = 0;

private:
    static void told(void* self, const char* what, const std::exception_ptr&) {
        AtReport& at = *static_cast<AtReport*>(self);
        if (std::string{what}.find(at.part_) == std::string::npos or at.times++ != 0) return;
        at.act_();
    }

    std::string part_;
    Act act_;
};

struct Verdict {
    std::function<void()> when_asked;
};

}  // namespace

template <>
struct txhooks::result_traits<Verdict> {
    static bool failed(const Verdict& verdict) {
        verdict.when_asked();
        return true;
    }
};

TEST_CASE("sink: may end the guard that a hook left open, of which it is told", "[S22][S58]") {
    for (const bool destroys : {false, true}) {
        Fake db;
        Trace ran;
        std::optional<Atomic<Fake>> left_open;
        const AtReport sink{db, "a hook returned with an atomic block still open", [&] {
                                ran.note(ending([&] { left_open->commit(); }));
                                ran.note(ending([&] { left_open->rollback(); }));
                                if (destroys) left_open.reset();
                            }};
        db.atomic([&] {
            db.on_commit([&] { left_open.emplace(db); });
            db.on_commit(ran.hook("2"));
        });
        CHECK(sink.times == 1);
        CHECK(ran.text() == "2,returned,returned");
        left_open.reset();
        check_clean(db);
    }
}

TEST_CASE("sink: may end the guard that was open when its connection died, of which it is told", "[S22][S57]") {
    for (const bool commits : {false, true}) {
        Trace ran;
        auto db = std::make_unique<Fake>();
        std::optional<Atomic<Fake>> tx;
        const AtReport sink{*db, "a connection was destroyed", [&] {
                                if (commits) ran.note(ending([&] { tx->commit(); }));
                                tx.reset();
                            }};
        tx.emplace(*db);
        db->on_commit(ran.hook("hook"));
        db.reset();
        CHECK(sink.times == 1);
        CHECK(ran.text() == (commits ? "hook,returned" : ""));
        CHECK_FALSE(tx);
    }
}

TEST_CASE("sink: may end the guard whose lost transaction left one that cannot be rolled back", "[S22][S49][S50]") {
    for (const bool explicitly : {false, true}) {
        Fake db;
        Trace ran;
        std::optional<Atomic<Fake>> tx;
        const AtReport sink{db, "ROLLBACK failed", [&] { tx.reset(); }};
        tx.emplace(db);
        db.on_commit(ran.hook("never"));
        db.execute("ROLLBACK; BEGIN");
        db.faults.fail(support::Verb::rollback, support::When::before_effect, 7);
        if (explicitly)
            CHECK(ending([&] { tx->commit(); }) == "TransactionLost rolled_back");
        else
            tx.reset();
        CHECK(sink.times == 1);
        CHECK_FALSE(tx);
        CHECK(ending([&] { db.on_commit([] {}); }) == "ConnectionBroken");
        db.execute("ROLLBACK");
        db.reset();
        CHECK(ran.text() == "");
        check_clean(db);
    }
}

TEST_CASE("sink: that destroys the connection which reports to it terminates the program", "[S22][S57]") {
    const auto after_commit = support::end_of_process([] {
        auto db = std::make_unique<Fake>();
        const AtReport sink{*db, "COMMIT reported an error", [&] { db.reset(); }};
        db->answer_commit({Outcome::committed, std::make_exception_ptr(7)});
        db->atomic([&] { db->on_commit([] {}); });
    });
    CHECK(after_commit.terminated);
    CHECK(after_commit.said == "txhooks: a connection was destroyed by its own error sink\n");

    for (const char* report : {"while rolling back a block", "an Atomic was destroyed without commit()"}) {
        INFO(report);
        const auto abandoned = support::end_of_process([report] {
            auto db = std::make_unique<Fake>();
            const AtReport sink{*db, report, [&] { db.reset(); }};
            db->faults.fail(support::Verb::rollback, support::When::before_effect, 7);
            const Atomic tx{*db};
        });
        CHECK(abandoned.terminated);
        CHECK(abandoned.said == "txhooks: a connection was destroyed by its own error sink\n");
    }
}

TEST_CASE("sink: may destroy the CapturedHooks whose block it is told about", "[S22][S44][capture]") {
    Fake db;
    Trace ran;
    std::optional<txhooks::testing::CapturedHooks> captured{std::in_place, db};
    const AtReport sink{db, "reported an error", [&] { captured.reset(); }};
    db.answer_commit({Outcome::committed, std::make_exception_ptr(7)});
    db.atomic([&] {
        db.put("a");
        db.on_commit(ran.hook("never"));
    });
    CHECK(sink.times == 1);
    CHECK(db.committed("a"));
    CHECK(ran.text() == "");
    check_clean(db);
}

TEST_CASE("sink: may destroy the CapturedHooks in which BEGIN failed", "[S22][S40][capture]") {
    Fake db;
    std::optional<txhooks::testing::CapturedHooks> captured{std::in_place, db};
    const AtReport sink{db, "ROLLBACK reported an error", [&] { captured.reset(); }};
    db.faults.fail(support::Verb::begin, support::When::after_effect, 7);
    db.faults.fail(support::Verb::rollback, support::When::after_effect, 8);
    CHECK(ending([&] { db.atomic([] {}); }) == "7");
    CHECK(sink.times == 1);
    check_clean(db);
}

// ---- Other functions

TEST_CASE("result_traits: may destroy the connection", "[S30][S57]") {
    for (const bool nested : {false, true}) {
        FakeBackend backend;
        Trace ran;
        auto db = std::make_unique<HookedConnection<FakeBackend&>>(backend);
        const Sink sink{*db};
        std::optional<Atomic<HookedConnection<FakeBackend&>>> outer;
        if (nested) outer.emplace(*db);
        CHECK(ending([&] {
                  static_cast<void>(db->atomic([&] {
                      backend.put("a");
                      db->on_commit(ran.hook("never"));
                      return Verdict{[&] { db.reset(); }};
                  }));
              }) == "UsageError");
        CHECK_FALSE(backend.committed("a"));
        CHECK(ran.text() == "");
        CHECK(sink.errors() == Log{"none"});
    }
}

TEST_CASE("detached hooks: those that are dropped when others are handed over may own the connection", "[S57][S60]") {
    Trace ran;
    FakeBackend backend;
    auto db = std::make_unique<HookedConnection<FakeBackend&>>(backend);
    HookedConnection<FakeBackend&>& filled_by = *db;
    Fake other;
    const Sink sink{other};
    DetachedHooks after;
    filled_by.atomic({.detach = &after}, [&] {
        backend.put("a");
        filled_by.on_commit(ran.hook("a"));
        DetachedHooks others;
        other.atomic({.detach = &others}, [&] { other.on_commit([db = std::move(db)] {}); });
        after = std::move(others);
    });
    CHECK(backend.committed("a"));
    CHECK(sink.errors() == Log{"none"});  // they were dropped, and the connection with them
    after.run();
    CHECK(ran.text() == "a");
}

namespace {

struct Questioned : FakeBackend {
    bool was_committed(const char* marker) {
        if (when_asked) when_asked();
        return FakeBackend::was_committed(marker);
    }
    std::function<void()> when_asked;
};

}  // namespace

TEST_CASE("Doubt: a callback of its question can give it up or ask again, but not destroy it", "[doubt]") {
    using Db = HookedConnection<Questioned>;
    const auto in_doubt = [](Db& db, txhooks::Doubt& doubt, Trace& ran) {
        db.answer_commit({Outcome::unknown, nullptr, true});
        CHECK(ending([&] { db.atomic({.resolve = &doubt}, [&] { db.on_commit(ran.hook("1")); }); }) ==
              "CommitUnknown unknown");
        db.reset();
    };
    Trace ran;
    {
        Db db;
        Db other;
        txhooks::Doubt doubt;
        in_doubt(db, doubt, ran);
        db.when_asked = [&] {
            ran.note(ending([&] { doubt.resolve(db); }));
            ran.note(ending([&] { doubt.resolve(other); }));
            doubt.discard();
        };
        CHECK(ending([&] { doubt.resolve(db); }) == "returned");
        CHECK(ran.text() == "UsageError,UsageError,1");
    }
    const auto destroyed = support::end_of_process([&] {
        Db db;
        auto doubt = std::make_unique<txhooks::Doubt>();
        in_doubt(db, *doubt, ran);
        db.when_asked = [&] { doubt.reset(); };
        doubt->resolve(db);
    });
    CHECK(destroyed.terminated);
    CHECK(destroyed.said.find("txhooks: ") == 0);
}

TEST_CASE("Doubt: a COMMIT without a marker is not resolved, though its own callback registered a hook", "[doubt]") {
    Fake db;
    Trace ran;
    txhooks::Doubt doubt;
    db.faults.act(support::Verb::commit, support::When::after_effect, [&] { db.on_commit(ran.hook("never")); });
    db.answer_commit({Outcome::unknown, nullptr, true});
    CHECK(ending([&] { db.atomic({.resolve = &doubt}, [&] { db.put("a"); }); }) == "CommitUnknown unknown");
    CHECK(db.committed("a"));
    CHECK_FALSE(doubt.in_doubt());
    db.reset();
    CHECK(ending([&] { doubt.resolve(db); }) == "UsageError");
    CHECK(ran.text() == "");
    check_clean(db);
}

TEST_CASE("RolledBack: destroyed while it ends, or by a callback of its savepoint, terminates the program",
          "[S57][rolled_back]") {
    const auto while_it_ends = support::end_of_process([] {
        Fake db;
        auto test = std::make_unique<txhooks::testing::RolledBack>(db);
        const Atomic tx{db};
        db.on_commit(AtDestruction{[&] { test.reset(); }});
        test->end();
    });
    CHECK(while_it_ends.terminated);
    CHECK(while_it_ends.said == "txhooks: a RolledBack was destroyed while it ends\n");

    const auto by_callback = support::end_of_process([] {
        Fake db;
        auto test = std::make_unique<txhooks::testing::RolledBack>(db);
        db.faults.act(support::Verb::savepoint, support::When::after_effect, [&] { test.reset(); });
        const Atomic tx{db};
    });
    CHECK(by_callback.terminated);
    CHECK(by_callback.said.find("txhooks: a block, or its connection, was destroyed by code that") == 0);
}

// ---- Lifetimes

TEST_CASE("connection: destroyed with blocks open rolls back, discards, ends the guards and reports", "[S57]") {
    Trace ran;
    FakeBackend backend;
    support::Log reported;
    auto db = std::make_unique<HookedConnection<FakeBackend&>>(backend);
    std::optional<Sink> sink{std::in_place, *db};
    Atomic tx{*db};
    backend.put("a");
    db->on_commit([&, at_end = AtDestruction{ran.hook("~1")}] { ran.note("never"); });
    Atomic inner{*db};
    Atomic joined{*db, {.join = true}};
    db->on_commit([&, at_end = AtDestruction{ran.hook("~2")}] { ran.note("never"); });
    db.reset();
    CHECK(sink->errors().size() == 1);
    CHECK(ran.text() == "~1,~2");
    CHECK(backend.log() == Log{"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "ROLLBACK"});
    for (Atomic<HookedConnection<FakeBackend&>>* guard : {&inner, &tx, &joined}) {
        CHECK_FALSE(guard->active());
        CHECK(ending([&] { guard->commit(); }) == "UsageError");
        guard->rollback();
    }
    CHECK(backend.log().size() == 4);
}

TEST_CASE("connection: destroyed with a detached block open, leaves nothing to run", "[S57][S60]") {
    Trace ran;
    FakeBackend backend;
    DetachedHooks after;
    auto db = std::make_unique<HookedConnection<FakeBackend&>>(backend);
    const Sink sink{*db};
    std::optional<Atomic<HookedConnection<FakeBackend&>>> tx;
    tx.emplace(*db, txhooks::BlockOptions<>{.detach = &after});
    db->on_commit([&, at_end = AtDestruction{ran.hook("~1")}] { ran.note("never"); });
    db.reset();
    CHECK(ran.text() == "~1");
    CHECK(after.size() == 0);
    after.run();
    CHECK(sink.errors().size() == 1);
}

TEST_CASE("connection: destroyed while its hooks run or are discarded, terminates the program", "[S57]") {
    const auto in_hook = support::end_of_process([] {
        auto db = std::make_unique<Fake>();
        auto* const tx = ::new std::optional<Atomic<Fake>>{std::in_place, *db};
        db->on_commit([&] { db.reset(); });
        (*tx)->commit();
    });
    CHECK(in_hook.terminated);
    CHECK(in_hook.said.find("txhooks:") != std::string::npos);

    const auto in_nested_hook = support::end_of_process([] {
        auto db = std::make_unique<Fake>();
        db->atomic([&] { db->on_commit([&] { db->atomic([&] { db->on_commit([&] { db.reset(); }); }); }); });
    });
    CHECK(in_nested_hook.terminated);

    const auto in_discarded_capture = support::end_of_process([] {
        auto db = std::make_unique<Fake>();
        auto* const tx = ::new std::optional<Atomic<Fake>>{std::in_place, *db};
        db->on_commit(AtDestruction{[&] { db.reset(); }});
        (*tx)->rollback();
    });
    CHECK(in_discarded_capture.terminated);
    CHECK(in_discarded_capture.said.find("txhooks:") != std::string::npos);

    const auto in_discarded_capture_of_savepoint = support::end_of_process([] {
        auto db = std::make_unique<Fake>();
        auto* const tx = ::new std::optional<Atomic<Fake>>{std::in_place, *db};
        auto* const inner = ::new std::optional<Atomic<Fake>>{std::in_place, *db};
        db->on_commit(AtDestruction{[&] { db.reset(); }});
        (*inner)->rollback();
        (*tx)->rollback();
    });
    CHECK(in_discarded_capture_of_savepoint.terminated);
}

TEST_CASE("connection: a hook that owns another one destroys it", "[S10][S57]") {
    Fake db;
    Trace ran;
    auto other = std::make_unique<Fake>();
    Sink sink{*other};
    auto tx = std::make_unique<std::optional<Atomic<Fake>>>(std::in_place, *other);
    other->on_commit(AtDestruction{[&] { db.on_commit(ran.hook("2")); }});
    db.atomic([&] {
        db.on_commit([&, other = std::move(other)]() mutable {
            ran.note("1");
            other.reset();
        });
        db.on_commit(ran.hook("3"));
    });
    CHECK(ran.text() == "1,2,3");
    CHECK_FALSE((*tx)->active());
    CHECK(sink.errors().size() == 1);
}

// ---- Out of order

namespace {

// Three nested guards; the outer ones come first. `joined`: which of the inner two are.
struct Three {
    Three(Fake& on, Trace& ran, std::array<bool, 2> joined) {
        for (std::size_t i = 0; i != 3; ++i) {
            guards[i].emplace(on, txhooks::BlockOptions<>{.join = i != 0 and joined[i - 1]});
            const std::string key(1, static_cast<char>('a' + i));
            on.put(key);
            on.on_commit(ran.hook(key));
        }
    }
    std::array<std::optional<Atomic<Fake>>, 3> guards;
};

template <class Act>
void for_all_orders(Act act) {
    for (const std::array<bool, 2> joined : {std::array{false, false}, {false, true}, {true, false}, {true, true}}) {
        std::array<std::size_t, 3> order{0, 1, 2};
        do {
            INFO("order " << order[0] << order[1] << order[2] << ", joined " << joined[0] << joined[1]);
            act(order, joined);
        } while (std::next_permutation(order.begin(), order.end()));
    }
}

// The savepoint of guard `i`, counted among those that are not joined.
std::string savepoint(std::size_t i, const std::array<bool, 2>& joined) {
    return "txhooks_" + std::to_string(i == 2 and not joined[0] ? 2 : 1);
}

}  // namespace

TEST_CASE("Atomic: destroyed before the guards inside, rolls back its level and ends them", "[S57]") {
    for_all_orders([](const std::array<std::size_t, 3>& order, const std::array<bool, 2>& joined) {
        Fake db;
        Sink sink{db};
        Trace ran;
        {
            Three three{db, ran, joined};
            db.clear_log();
            Log expected;
            std::size_t open = 3;
            for (const std::size_t i : order) {
                three.guards[i].reset();
                if (i < open) {
                    if (i == 0)
                        expected.emplace_back("ROLLBACK");
                    else if (not joined[i - 1])
                        expected.push_back("ROLLBACK TO " + savepoint(i, joined));
                    open = i;
                }
                CHECK(db.log() == expected);
                for (std::size_t other = 0; other != 3; ++other)
                    if (three.guards[other]) CHECK(three.guards[other]->active() == (other < open));
                CHECK(db.in_atomic_block() == (open != 0));
            }
        }
        CHECK(ran.text() == "");
        for (const char* key : {"a", "b", "c"}) CHECK_FALSE(db.committed(key));
        check_clean(db);
    });
}

TEST_CASE("Atomic: ended before the guards inside, refuses and changes nothing", "[S39][S57]") {
    for (const bool commits : {false, true}) {
        for_all_orders([commits](const std::array<std::size_t, 3>& order, const std::array<bool, 2>& joined) {
            Fake db;
            Sink sink{db};
            Trace ran;
            Three three{db, ran, joined};
            const auto end = [&](std::size_t i) {
                return ending(
                    [&] { commits ? static_cast<void>(three.guards[i]->commit()) : three.guards[i]->rollback(); });
            };
            std::size_t open = 3;
            for (const std::size_t i : order) {
                const Log before = db.log();
                const std::size_t pending = db.pending_hooks();
                const std::string told = end(i);
                if (i + 1 == open) {
                    CHECK(told == "returned");
                    --open;
                    continue;
                }
                CHECK(told == "UsageError");
                CHECK(db.log() == before);
                CHECK(db.pending_hooks() == pending);
                for (std::size_t other = 0; other != 3; ++other) CHECK(three.guards[other]->active() == (other < open));
            }
            while (open != 0) CHECK(end(--open) == "returned");
            CHECK(ran.text() == (commits ? "a,b,c" : ""));
            for (const char* key : {"a", "b", "c"}) CHECK(db.committed(key).has_value() == commits);
            CHECK(sink.errors().empty());
            check_clean(db);
        });
    }
}

TEST_CASE("Atomic: when one in the middle was destroyed, those around it end as they may", "[S34][S57]") {
    for (const std::array<bool, 2> joined : {std::array{false, false}, {false, true}, {true, false}, {true, true}}) {
        INFO("joined " << joined[0] << joined[1]);
        Fake db;
        Sink sink{db};
        Trace ran;
        Three three{db, ran, joined};
        three.guards[1].reset();
        CHECK(ending([&] { three.guards[2]->commit(); }) == "UsageError");
        three.guards[2]->rollback();
        // A joined block dooms the one around it.
        CHECK(ending([&] { three.guards[0]->commit(); }) ==
              (joined[0] ? "TransactionAborted rolled_back" : "returned"));
        CHECK(ran.text() == (joined[0] ? "" : "a"));
        CHECK(db.committed("a").has_value() == not joined[0]);
        CHECK_FALSE(db.committed("b"));
        CHECK_FALSE(db.committed("c"));
        three.guards[2].reset();
        check_clean(db);
    }
}

TEST_CASE("Atomic: one that was ended by an outer one does not disturb a later transaction", "[S42][S57]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    std::optional<Three> three;
    three.emplace(db, ran, std::array{false, false});
    three->guards[0].reset();
    db.clear_log();
    db.atomic([&] {
        db.put("z");
        db.on_commit(ran.hook("z"));
        three->guards[1]->rollback();
        CHECK(ending([&] { three->guards[1]->commit(); }) == "UsageError");
        three.reset();
    });
    CHECK(ran.text() == "z");
    CHECK(db.log() == Log{"BEGIN", "INSERT z", "COMMIT"});
    check_clean(db);
}

TEST_CASE("rollback: a block cannot end while hooks are discarded from it", "[S26][S27][S39]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    std::string told;
    {
        Atomic tx{db};
        db.on_commit(ran.hook("a"));
        {
            Atomic inner{db};
            db.on_commit(AtDestruction{[&] { told = ending([&] { tx.commit(); }); }});
            db.on_commit(ran.hook("b"));
            inner.rollback();
        }
        CHECK(told == "UsageError");
        CHECK(ran.text().empty());
        tx.commit();
    }
    CHECK(ran.text() == "a");
    check_clean(db);
}

TEST_CASE("rollback: hooks that a discarded capture commits into the same DetachedHooks are not lost", "[S27][S60]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    const auto commit_another = [&] { db.atomic({.detach = &after}, [&] { db.on_commit(ran.hook("b")); }); };
    CHECK(ending([&] {
              db.atomic({.detach = &after}, [&] {
                  db.on_commit(AtDestruction{commit_another});
                  throw support::Oops{};
              });
          }) == "oops");
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "b");
    check_clean(db);
}

TEST_CASE("atomic: a block that is ended in the function given to it is told so", "[S42][S57]") {
    Fake db;
    Sink sink{db};
    std::optional<Atomic<Fake>> outer{std::in_place, db};
    CHECK(ending([&] { db.atomic([&] { outer.reset(); }); }) == "UsageError");
    check_clean(db);
}

TEST_CASE("atomic: nothing that could throw is done with the result after COMMIT", "[S30]") {
    struct Fragile {
        Fragile() = default;
        Fragile(Fragile&&) { throw support::Oops{}; }
    };
    Fake db;
    Trace ran;
    CHECK(ending([&] {
              static_cast<void>(db.atomic([&] {
                  db.on_commit(ran.hook("1"));
                  return Fragile{};
              }));
          }) == "returned");
    CHECK(ran.text() == "1");
    check_clean(db);
}

// ---- Hooks before COMMIT

TEST_CASE("hook before COMMIT: may do all that can be done in its block, but end it", "[S39][S61][S63]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    std::optional<Atomic<Fake>> tx{std::in_place, db};
    DetachedHooks after;
    txhooks::Doubt doubt;
    db.before_commit([&] {
        CHECK(db.in_atomic_block());
        CHECK_FALSE(db.usable());
        CHECK(db.pending_hooks() == 0);
        CHECK(tx->active());
        CHECK(ending([&] { tx->commit(); }) == "UsageError");
        CHECK(ending([&] { tx->rollback(); }) == "UsageError");
        CHECK(ending([&] { db.reset(); }) == "UsageError");
        CHECK(ending([&] { db.atomic({.durable = true}, [] {}); }) == "UsageError");
        CHECK(ending([&] { db.atomic({.detach = &after}, [] {}); }) == "UsageError");
        CHECK(ending([&] { db.atomic({.resolve = &doubt}, [] {}); }) == "UsageError");
        CHECK(ending([&] { txhooks::testing::RolledBack test{db}; }) == "UsageError");
        CHECK(ending([&] { txhooks::testing::CapturedHooks hooks{db}; }) == "UsageError");
        db.set_rollback(true);
        db.set_rollback(false);
        db.atomic([&] {
            db.put("nested");
            db.on_commit(ran.hook("commit"));
            db.before_commit(ran.hook("before"));
            db.on_rollback(ran.hook("rollback"));
            db.unless_committed(ran.hook("unless"));
            CHECK(db.pending_hooks() == 1);
        });
        db.atomic({.join = true}, [&] { db.put("joined"); });
        sink.listen_to(db);
        db.set_on_hook_failure(HookFailure::run_all);
    });
    CHECK(tx->commit() == Outcome::committed);
    tx.reset();
    CHECK(ran.text() == "before,commit");
    CHECK(db.log() ==
          Log{"BEGIN", "SAVEPOINT txhooks_1", "INSERT nested", "RELEASE txhooks_1", "INSERT joined", "COMMIT"});
    CHECK(sink.empty());
    check_clean(db);
}

TEST_CASE("hook before COMMIT: that ends its block by destroying something, ends the program with a sentence",
          "[S39][S57][S61]") {
    for (const std::string destroys : {"its guard", "the connection"}) {
        CAPTURE(destroys);
        const auto end = support::end_of_process([destroys] {
            FakeBackend backend;
            std::optional<HookedConnection<FakeBackend&>> db{std::in_place, backend};
            std::optional<Atomic<HookedConnection<FakeBackend&>>> tx{std::in_place, *db};
            db->before_commit([&] {
                if (destroys == "its guard") tx.reset();
                if (destroys == "the connection") db.reset();
            });
            tx->commit();
        });
        CHECK(end.terminated);
        CHECK(end.said ==
              (destroys == "its guard"
                   ? "txhooks: a block was destroyed while one of its hooks was being copied, called or destroyed\n"
                   : "txhooks: a connection was destroyed while its hooks are being called\n"));
    }
}

TEST_CASE("hook before COMMIT: uses another connection, and that uses this one", "[S10][S61]") {
    Fake db;
    Fake other;
    Trace ran;
    db.atomic([&] {
        db.before_commit([&] {
            other.atomic([&] {
                other.on_commit([&] {
                    ran.note("other committed");
                    db.put("row");
                    db.before_commit(ran.hook("before"));
                    db.on_commit(ran.hook("committed"));
                });
                other.before_commit([&] { db.atomic([&] { db.put("nested"); }); });
            });
        });
    });
    CHECK(ran.text() == "other committed,before,committed");
    CHECK(db.committed("nested"));
    CHECK(db.committed("row"));
    check_clean(db);
}

// ---- Hooks of what is undone

TEST_CASE("rollback hook: where the block around goes on it may do all that can be done there, but end it",
          "[S39][S72]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    Atomic tx{db};
    Atomic inner{db};
    db.on_rollback([&] {
        CHECK(db.in_atomic_block());
        CHECK_FALSE(inner.active());
        CHECK(ending([&] { inner.commit(); }) == "UsageError");
        CHECK(ending([&] { inner.rollback(); }) == "returned");
        CHECK(ending([&] { tx.commit(); }) == "UsageError");
        CHECK(ending([&] { tx.rollback(); }) == "UsageError");
        CHECK(ending([&] { db.reset(); }) == "UsageError");
        CHECK(ending([&] { db.atomic({.durable = true}, [] {}); }) == "UsageError");
        CHECK(ending([&] { txhooks::testing::RolledBack test{db}; }) == "UsageError");
        db.put("row");
        db.on_commit(ran.hook("commit"));
        db.before_commit(ran.hook("before"));
        db.on_rollback(ran.hook("never"));
        db.atomic([&] { db.on_commit(ran.hook("nested")); });
        ran.note("undone");
    });
    inner.rollback();
    CHECK(tx.active());
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "undone,before,commit,nested");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "INSERT row", "SAVEPOINT txhooks_1",
                          "RELEASE txhooks_1", "COMMIT"});
    CHECK(sink.empty());
    check_clean(db);
}

TEST_CASE("rollback hook: one that asks the block around to roll back, or dooms it, gets that", "[S34][S36][S72]") {
    for (const bool asks : {true, false}) {
        Fake db;
        Trace ran;
        const std::string left = ending([&] {
            db.atomic([&] {
                db.on_rollback(ran.hook("outer"));
                db.on_commit(ran.hook("never"));
                Atomic inner{db};
                db.on_rollback([&] {
                    ran.note("inner");
                    if (asks) return db.set_rollback(true);
                    Atomic joined{db, {.join = true}};
                    joined.rollback();
                });
                inner.rollback();
            });
        });
        CHECK(left == (asks ? "returned" : "TransactionAborted rolled_back"));
        CHECK(ran.text() == "inner,outer");
        check_clean(db);
    }
}

TEST_CASE("rollback hook: with the connection idle it may do all, but destroy the connection", "[S57][S72]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    std::optional<Atomic<Fake>> tx{std::in_place, db};
    db.on_rollback([&] {
        CHECK_FALSE(db.in_atomic_block());
        CHECK(db.usable());
        CHECK(db.pending_hooks() == 0);
        CHECK(ending([&] { db.set_rollback(true); }) == "UsageError");
        db.reset();
        tx.reset();  // its block has ended
        db.atomic({.durable = true}, [&] { db.on_commit(ran.hook("durable")); });
        db.atomic({.detach = &after}, [&] { db.on_commit(ran.hook("detached")); });
        CHECK(ending([&] {
                  db.atomic([&] {
                      db.on_rollback(ran.hook("nested"));
                      throw support::Oops{};
                  });
              }) == "oops");
        {
            txhooks::testing::CapturedHooks kept{db};
            db.atomic([&] { db.on_commit(ran.hook("captured")); });
            kept.run();
        }
        {
            txhooks::testing::RolledBack test{db};
            db.atomic([&] { db.on_commit(ran.hook("in a test")); });
        }
        db.on_commit(ran.hook("at once"));
        db.on_rollback(ran.hook("never"));
    });
    db.on_commit(ran.probe("discarded"));
    tx->rollback();
    CHECK(ran.text() == "durable,nested,captured,in a test,at once,~discarded");
    after.run();
    CHECK(sink.empty());
    check_clean(db);

    for (const bool unless : {false, true}) {
        const auto end = support::end_of_process([unless] {
            FakeBackend backend;
            std::optional<HookedConnection<FakeBackend&>> dies{std::in_place, backend};
            Atomic block{*dies};
            unless ? dies->unless_committed([&] { dies.reset(); }) : dies->on_rollback([&] { dies.reset(); });
            block.rollback();
        });
        CHECK(end.terminated);
        CHECK(end.said == "txhooks: a connection was destroyed while its hooks are being called\n");
    }
}

TEST_CASE("rollback hook: one that repairs a broken connection is followed by others that use it", "[S49][S69][S72]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    db.answer_commit({Outcome::unknown, nullptr, false});
    CHECK(ending([&] {
              db.atomic([&] {
                  db.unless_committed([&] { db.atomic([&] { db.on_commit(ran.hook("used")); }); });
                  db.unless_committed([&] {
                      CHECK_FALSE(db.usable());
                      CHECK(ending([&] { db.on_commit([] {}); }) == "ConnectionBroken");
                      CHECK(ending([&] { db.on_rollback([] {}); }) == "ConnectionBroken");
                      CHECK(ending([&] { Atomic refused{db}; }) == "ConnectionBroken");
                      db.reset();
                  });
              });
          }) == "CommitUnknown unknown");
    CHECK(ran.text() == "used");
    check_clean(db);
}

TEST_CASE("rollback hook: a chain of blocks, each rolled back in a hook of the one before", "[S16][S68][S72]") {
    Fake db;
    Trace ran;
    const std::function<void(int)> roll_back = [&](int depth) {
        Atomic tx{db};
        db.on_rollback(ran.probe(std::to_string(depth)));
        if (depth != 30) db.on_rollback([&roll_back, depth] { roll_back(depth + 1); });
        tx.rollback();
    };
    roll_back(0);
    Log expected;
    for (int depth = 30; depth >= 0; --depth) {
        expected.push_back(std::to_string(depth));
        expected.push_back("~" + std::to_string(depth));
    }
    CHECK(ran.text() == support::join(expected));
    check_clean(db);
}

// SPDX-License-Identifier: MIT
#include <txhooks/ambient.hpp>
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/fiber.hpp"
#include "support/sqlite_database.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <string>
#include <vector>

using support::Fiber;
using support::Sink;
using txhooks::Atomic;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;

namespace {

using Log = std::vector<std::string>;

// A driver made for fibers: while the server works it lets others run. What ends a fiber that waits is an exception, so
// nobody knows then how COMMIT ended, and no fiber may be ended that waits in a ROLLBACK or in a robust hook: whatever
// is thrown there goes no further.
struct Waiting : FakeBackend {
    Fiber* fiber = nullptr;

    void wait() {
        if (fiber != nullptr) fiber->wait();
    }
    void begin() { wait(), FakeBackend::begin(); }
    txhooks::CommitResult commit(const char* marker = nullptr) noexcept {
        try {
            wait();
        } catch (...) {
            return {txhooks::Outcome::unknown, std::current_exception()};
        }
        return FakeBackend::commit(marker);
    }
    void rollback() { wait(), FakeBackend::rollback(); }
    void savepoint(unsigned n) { wait(), FakeBackend::savepoint(n); }
    void release(unsigned n) { wait(), FakeBackend::release(n); }
    void rollback_to(unsigned n) { wait(), FakeBackend::rollback_to(n); }
};

using Fake = HookedConnection<FakeBackend>;
using Slow = HookedConnection<Waiting>;

// Writes row a; in a savepoint row b, which is rolled back by an exception; row c. Waits wherever a hook could get lost.
template <class Db>
void sign_up(Fiber& self, Db& db, std::string& ran, int oops) {
    const auto hook = [&ran](char key) { ran += key; };
    Atomic tx{db};
    db.put("a");
    db.on_commit(hook, 'a');
    self.wait();
    try {
        db.atomic([&] {
            db.put("b");
            db.on_commit(hook, 'b');
            self.wait();
            throw oops;
        });
    } catch (int caught) {
        ran += static_cast<char>('0' + caught);
    }
    self.wait();
    db.put("c");
    db.on_commit(hook, 'c');
    tx.commit();
    ran += '.';
}

const Log signed_up{"BEGIN",    "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "ROLLBACK TO txhooks_1",
                    "INSERT c", "COMMIT"};

// Every order in which two can take so many turns.
std::vector<std::string> all_turns(std::size_t one, std::size_t other) {
    std::string turns = std::string(one, 'x') + std::string(other, 'y');
    std::vector<std::string> all;
    do all.push_back(turns);
    while (std::next_permutation(turns.begin(), turns.end()));
    return all;
}

}  // namespace

TEST_CASE("fiber: blocks interleave on one thread, each on its own connection", "[S10][S56]") {
    for (const std::string& turns : all_turns(4, 4)) {
        INFO(turns);
        Fake one, other;
        std::string ran_one, ran_other;
        Fiber x{[&](Fiber& self) { sign_up(self, one, ran_one, 1); }};
        Fiber y{[&](Fiber& self) { sign_up(self, other, ran_other, 2); }};
        for (const char turn : turns) (turn == 'x' ? x : y).resume();
        CHECK((x.done() and y.done()));
        CHECK(ran_one == "1ac.");
        CHECK(ran_other == "2ac.");
        CHECK(one.log() == signed_up);
        CHECK(other.log() == signed_up);
    }
}

TEST_CASE("fiber: a driver may wait in every verb, also while an exception is handled", "[S10][S51][S56]") {
    for (const std::string& turns : all_turns(8, 8)) {
        Slow one, other;
        std::string ran_one, ran_other;
        Fiber x{[&](Fiber& self) { one.fiber = &self, sign_up(self, one, ran_one, 1); }};
        Fiber y{[&](Fiber& self) { other.fiber = &self, sign_up(self, other, ran_other, 2); }};
        for (const char turn : turns) (turn == 'x' ? x : y).resume();
        if (x.done() and y.done() and ran_one == "1ac." and ran_other == "2ac." and one.log() == signed_up and
            other.log() == signed_up)
            continue;
        FAIL(turns << ": " << ran_one << " and " << ran_other);
    }
}

TEST_CASE("fiber: on SQLite a hook ran if and only if a second connection sees its row", "[S2][S26][S56]") {
    struct Sqlite {
        support::DatabaseFile file;
        support::Handle handle{file.path("main.db")};
        HookedConnection<sqlite3*> db{handle.get()};
        std::string ran;

        void work(Fiber& self, bool fails) {
            const auto add = [this](int n) {
                support::run(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")");
                db.on_commit([this, n] { ran += (ran.empty() ? "" : ",") + std::to_string(n); });
            };
            db.atomic([&] {
                add(1);
                self.wait();
                {
                    Atomic inner{db};
                    add(2);
                    self.wait();
                    inner.rollback();
                }
                add(3);
                self.wait();
                if (fails) throw 7;
            });
        }
    };
    for (const bool fails : {false, true}) {
        for (const std::string& turns : all_turns(4, 4)) {
            INFO(turns);
            Sqlite one, other;
            for (Sqlite* each : {&one, &other})
                support::run(each->handle, "PRAGMA synchronous = OFF; CREATE TABLE t (n INTEGER)");
            Fiber x{[&](Fiber& self) { one.work(self, fails); }};
            Fiber y{[&](Fiber& self) { other.work(self, false); }};
            for (const char turn : turns) {
                (turn == 'x' ? x : y).resume();
                CHECK(support::truth(one.file) == one.ran);
                CHECK(support::truth(other.file) == other.ran);
            }
            CHECK(x.error() == (fails ? "7" : "none"));
            CHECK(one.ran == (fails ? "" : "1,3"));
            CHECK(other.ran == "1,3");
        }
    }
}

TEST_CASE("fiber: a block goes on on the thread that resumes it", "[S13][S56]") {
    Slow db;
    std::string ran;
    Fiber fiber{[&](Fiber& self) { db.fiber = &self, sign_up(self, db, ran, 1); }};
    while (not fiber.done()) fiber.resume_on_another_thread();
    CHECK(ran == "1ac.");
    CHECK(db.log() == signed_up);
}

TEST_CASE("fiber: that another fiber unwinds decides nothing", "[S31][S56]") {
    struct WaitAtTheEnd {
        Fiber& self;
        ~WaitAtTheEnd() { self.wait(); }
    };
    Fake failing, db;
    Sink of_failing{failing}, sink{db};
    std::string ran;
    Fiber unwinds{[&](Fiber& self) {
        Atomic tx{failing};
        failing.put("x");
        failing.on_commit([&] { ran += 'x'; });
        const WaitAtTheEnd last{self};
        throw 7;
    }};
    Fiber works{[&](Fiber& self) {
        db.atomic([&] { db.on_commit([&] { ran += 'a'; }); });
        {
            const Atomic abandoned{db};
            db.on_commit([&] { ran += 'b'; });
        }
        Atomic tx{db};
        db.on_commit([&] { ran += 'c'; });
        self.wait();
        tx.commit();
    }};
    unwinds.resume();  // up to the middle of it
    works.resume();
    CHECK(ran == "a");
    unwinds.resume();
    CHECK(unwinds.error() == "7");
    works.resume();
    CHECK(ran == "ac");
    CHECK(failing.log() == Log{"BEGIN", "INSERT x", "ROLLBACK"});
    CHECK(of_failing.errors() == Log{});
    CHECK(db.log() == Log{"BEGIN", "COMMIT", "BEGIN", "ROLLBACK", "BEGIN", "COMMIT"});
    CHECK(sink.errors() == Log{"none"});  // the abandoned one
}

TEST_CASE("fiber: one destroyed while it waits in a block rolls it back", "[S25][S28][S31][S56]") {
    const std::vector<Log> logs{
        {},
        {"BEGIN", "INSERT a", "ROLLBACK"},
        {"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "ROLLBACK TO txhooks_1", "ROLLBACK"},
        {"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "ROLLBACK TO txhooks_1", "ROLLBACK"},
    };
    for (std::size_t resumed = 0; resumed != logs.size(); ++resumed) {
        Fake db;
        Sink sink{db};
        std::string ran;
        {
            Fiber fiber{[&](Fiber& self) { sign_up(self, db, ran, 1); }};
            for (std::size_t i = 0; i != resumed; ++i) fiber.resume();
        }
        CHECK(db.log() == logs[resumed]);
        CHECK(ran == (resumed == 3 ? "1" : ""));
        CHECK(sink.errors() == Log{});  // an exception is in flight
        db.atomic([&] { db.on_commit([&] { ran += 'z'; }); });
        CHECK(ran.back() == 'z');
    }
}

TEST_CASE("fiber: one destroyed while it waits for the server", "[S25][S40][S48][S51][S56]") {
    const Log opened{"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b"};
    const auto and_then = [](Log log, const Log& more) {
        log.insert(log.end(), more.begin(), more.end());
        return log;
    };
    const std::vector<Log> logs{
        {},                                                       // BEGIN
        {"BEGIN", "INSERT a", "ROLLBACK"},                        // SAVEPOINT
        and_then(opened, {"ROLLBACK TO txhooks_1", "ROLLBACK"}),  // RELEASE
        and_then(opened, {"RELEASE txhooks_1"}),                  // COMMIT: in doubt
    };
    for (std::size_t verb = 0; verb != logs.size(); ++verb) {
        Slow db;
        Sink sink{db};
        std::string ran;
        {
            Fiber fiber{[&](Fiber& self) {
                db.fiber = &self;
                db.atomic([&] {
                    db.put("a");
                    db.on_commit([&] { ran += 'a'; });
                    db.atomic([&] {
                        db.put("b");
                        db.on_commit([&] { ran += 'b'; });
                    });
                });
            }};
            for (std::size_t i = 0; i <= verb; ++i) fiber.resume();
        }
        CHECK(db.log() == logs[verb]);
        CHECK(ran == "");
        CHECK(sink.errors() == Log{});
        CHECK(db.usable() == (verb != 3));
    }
}

TEST_CASE("fiber: one destroyed while it waits in a hook has committed", "[S19][S24][S56]") {
    for (const auto policy : {txhooks::HookFailure::stop, txhooks::HookFailure::run_all}) {
        Fake db;
        db.set_on_hook_failure(policy);
        std::string ran;
        {
            Fiber fiber{[&](Fiber& self) {
                db.atomic([&] {
                    db.put("a");
                    db.on_commit([&] {
                        ran += 'a';
                        self.wait();
                        ran += '-';
                    });
                    db.on_commit([&] { ran += 'b'; });
                });
                ran += '-';
            }};
            fiber.resume();
        }
        CHECK(db.committed("a"));
        CHECK(ran == (policy == txhooks::HookFailure::run_all ? "ab" : "a"));
        db.atomic([&] { db.on_commit([&] { ran += 'z'; }); });
        CHECK(ran.back() == 'z');
    }
}

// So a fiber that waits while it holds a scope lends its connection to the others.
TEST_CASE("fiber: an ambient connection is bound to the thread, not to the fiber", "[ambient]") {
    Fake db;
    std::string ran;
    Fiber binds{[&](Fiber& self) {
        const txhooks::AmbientConnection here{db};
        Atomic tx{db};
        self.wait();
        tx.commit();
    }};
    Fiber calls{[&](Fiber&) { txhooks::call_after_commit([&] { ran += 'a'; }); }};
    binds.resume();
    calls.resume();
    CHECK(ran == "");
    binds.resume();
    CHECK(ran == "a");
}

TEST_CASE("fiber: hooks before COMMIT and of what is undone may wait, each on its own connection",
          "[S10][S56][S61][S72]") {
    for (const std::string& turns : all_turns(3, 3)) {
        Fake dbs[2];
        Sink sinks[2];
        std::string ran[2];
        const auto story = [&](Fiber& self, std::size_t i) {
            sinks[i].listen_to(dbs[i]);
            dbs[i].atomic([&] {
                dbs[i].put("a");
                dbs[i].on_commit([&, i] { ran[i] += 'c'; });
                dbs[i].before_commit([&, i] {
                    ran[i] += 'b';
                    self.wait();
                    dbs[i].put("b");
                    Atomic tx{dbs[i]};
                    dbs[i].on_rollback([&, i] {
                        ran[i] += 'r';
                        self.wait();
                        dbs[i].put("r");
                    });
                    tx.rollback();
                    ran[i] += 'B';
                });
            });
        };
        {
            Fiber one{[&](Fiber& self) { story(self, 0); }};
            Fiber other{[&](Fiber& self) { story(self, 1); }};
            for (const char turn : turns) (turn == 'x' ? one : other).resume();
        }
        for (std::size_t i = 0; i != 2; ++i) {
            CHECK(ran[i] == "brBc");
            CHECK(dbs[i].log() == Log{"BEGIN", "INSERT a", "INSERT b", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1",
                                      "INSERT r", "COMMIT"});
            CHECK(sinks[i].errors().empty());
            CHECK(dbs[i].usable());
        }
    }
}

TEST_CASE("fiber: one destroyed while it waits in a hook before COMMIT rolls back, with its rollback hooks",
          "[S31][S56][S61][S62][S68]") {
    for (const bool guard : {false, true}) {
        Fake db;
        Sink sink{db};
        std::string ran;
        {
            Fiber fiber{[&](Fiber& self) {
                const auto body = [&] {
                    db.put("a");
                    db.on_rollback([&] { ran += 'r'; });
                    db.on_commit([&] { ran += 'c'; });
                    db.before_commit([&] {
                        ran += 'b';
                        self.wait();
                        ran += '-';
                    });
                };
                if (not guard) return db.atomic(body);
                Atomic tx{db};
                body();
                tx.commit();
            }};
            fiber.resume();
            CHECK(db.in_atomic_block());
        }
        CHECK(ran == "br");
        CHECK_FALSE(db.committed("a"));
        CHECK(db.log() == Log{"BEGIN", "INSERT a", "ROLLBACK"});
        CHECK(sink.errors().empty());
        db.atomic([&] { db.on_commit([&] { ran += 'z'; }); });
        CHECK(ran.back() == 'z');
    }
}

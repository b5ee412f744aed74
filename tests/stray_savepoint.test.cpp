// SPDX-License-Identifier: MIT

// A SAVEPOINT that failed although the engine has set it leaves a stray one behind. If its number were used again, a
// ROLLBACK TO meant for another block could hit it, and undo rows of the block around without a word.

#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/sqlite_database.hpp"
#include "support/story.hpp"
#include "support/trace.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

using support::Fault;
using support::Kind;
using support::Story;
using support::Verb;
using support::When;
using txhooks::Atomic;
using txhooks::BackendAdapter;
using txhooks::Connection;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;
using txhooks::testing::FaultyAdapter;

namespace {

using Log = std::vector<std::string>;
using Fake = HookedConnection<FakeBackend>;

long times(const Log& log, const std::string& statement) {
    return std::count(log.begin(), log.end(), statement);
}

}  // namespace

TEST_CASE("savepoint: the number of one that failed is not used for the next", "[S40][S43]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        Fake db;
        std::string ran;
        db.faults.fail(Verb::savepoint, when, 1);
        db.atomic([&] {
            db.put("a");
            db.on_commit([&] { ran += 'a'; });
            CHECK(support::ending([&] { Atomic tx{db}; }) == "1");
            db.put("b");
            db.on_commit([&] { ran += 'b'; });
            CHECK(support::ending([&] {
                      db.atomic([&] {
                          db.put("c");
                          db.on_commit([&] { ran += 'c'; });
                          throw support::Oops{};
                      });
                  }) == "oops");
        });
        CHECK(ran == "ab");
        CHECK(db.committed("b"));
        CHECK_FALSE(db.committed("c"));
        Log log{"BEGIN", "INSERT a"};
        if (when == When::after_effect) log.emplace_back("SAVEPOINT txhooks_1");
        for (const char* statement : {"INSERT b", "SAVEPOINT txhooks_2", "INSERT c", "ROLLBACK TO txhooks_2", "COMMIT"})
            log.emplace_back(statement);
        CHECK(db.log() == log);
    }
}

TEST_CASE("savepoint: rolling back after a failed RELEASE cannot hit a stray one", "[S40][S51]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        Fake db;
        support::Sink sink{db};
        std::string ran;
        db.faults.fail(Verb::savepoint, When::after_effect, 1);
        db.faults.fail(Verb::release, when, 2);
        const std::string left = support::ending([&] {
            db.atomic([&] {
                CHECK(support::ending([&] { Atomic tx{db}; }) == "1");
                db.put("b");
                db.on_commit([&] { ran += 'b'; });
                CHECK(support::ending([&] { db.atomic([&] { db.put("c"); }); }) == "2");
                CHECK(db.get("b"));
            });
        });
        // Released already, the savepoint cannot be gone back to: then all of it is rolled back.
        CHECK(left == (when == When::before_effect ? "returned" : "TransactionAborted rolled_back <- 2"));
        CHECK(ran == (when == When::before_effect ? "b" : ""));
        CHECK(db.committed("b").has_value() == (when == When::before_effect));
        CHECK_FALSE(db.committed("c"));
    }
}

TEST_CASE("savepoint: the number of one that failed at any depth is used once in that transaction", "[S40]") {
    for (const Story& story :
         {Story{"B{[S{+a}] [S{+b}]}"}, Story{"B{[S{[S{+a}] [S{+b !}]}] [S{[S{+c}]}]}"},
          Story{"B{[S{[S{+a}] !}] [S{[S{[S{+b}]}]}]}"}, Story{"B{[J{[S{+a}] [S{+b}]}] [S{+c}]}"}}) {
        for (std::size_t nth = 1; nth <= 4; ++nth) {
            for (const bool functions : {false, true}) {
                Fake db;
                db.faults.fail(Verb::savepoint, When::after_effect, 1, nth);
                support::Player<Fake> player{db, functions, [&](char key) { db.put(std::string{key}); }};
                play(player, story);
                if (db.faults.planned() != 0) continue;  // the story has fewer savepoints
                Log later = db.log();
                for (std::size_t savepoints = 0; savepoints != nth; later.erase(later.begin()))
                    if (later.front().starts_with("SAVEPOINT") and ++savepoints == nth) break;
                const std::string failed = later.front();
                INFO(story.text() << " " << failed);
                CHECK(times(later, failed) == 1);
            }
        }
    }
}

TEST_CASE("savepoint: numbers start anew with the next transaction", "[S40][S43]") {
    Fake db;
    db.faults.fail(Verb::savepoint, When::after_effect, 1);
    db.faults.fail(Verb::savepoint, When::after_effect, 2, 2);
    db.atomic([&] {
        CHECK(support::ending([&] { db.atomic([] {}); }) == "1");
        CHECK(support::ending([&] { db.atomic([] {}); }) == "2");
        db.atomic([] {});
    });
    Connection& any = db;
    any.atomic([&] { any.atomic([] {}); });
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "SAVEPOINT txhooks_2", "SAVEPOINT txhooks_3",
                          "RELEASE txhooks_3", "COMMIT", "BEGIN", "SAVEPOINT txhooks_1", "RELEASE txhooks_1",
                          "COMMIT"});
}

TEST_CASE("savepoint: the number of one whose ROLLBACK TO failed is not used again", "[S40][S49]") {
    Fake db;
    support::Sink sink{db};
    std::string ran;
    db.faults.fail(Verb::rollback_to, When::before_effect, 1);
    db.atomic([&] {
        db.put("a");
        db.on_commit([&] { ran += 'a'; });
        CHECK(support::ending([&] {
                  db.atomic([&] {
                      CHECK(support::ending([&] {
                                Atomic tx{db};
                                db.put("b");
                                tx.rollback();
                            }) == "1");
                  });
              }) == "TransactionAborted rolled_back <- 1");
        db.atomic([&] {
            db.put("c");
            db.atomic([&] {
                db.put("d");
                db.on_commit([&] { ran += 'd'; });
            });
        });
    });
    CHECK(ran == "ad");
    CHECK_FALSE(db.committed("b"));
    CHECK(times(db.log(), "SAVEPOINT txhooks_2") == 1);
}

TEMPLATE_TEST_CASE("savepoint: a stray one in SQLite is never hit", "[S40][S51]", BackendAdapter<sqlite3*>,
                   txhooks::sqlite::Counting<sqlite3*>) {
    const support::DatabaseFile file;
    const support::Handle handle{file.path()};
    const support::Handle second{file.path()};
    support::run(handle, "CREATE TABLE t(k TEXT)");
    HookedConnection<sqlite3*, FaultyAdapter<TestType>> db{handle.get()};
    support::Sink sink{db};
    const auto put = [&](const char* key) { support::run(handle, std::string{"INSERT INTO t VALUES('"} + key + "')"); };
    std::string ran;

    SECTION("by a block that rolls back") {
        // More than are kept as prepared statements.
        for (int strays = 1; strays != 7; ++strays) {
            ran.clear();
            support::run(handle, "DELETE FROM t");
            db.atomic([&] {
                put("a");
                for (int i = 0; i != strays; ++i) {
                    db.adapter().faults.fail(Verb::savepoint, When::after_effect, i);
                    CHECK_THROWS_AS(Atomic(db), int);
                    put("b");
                    db.on_commit([&] { ran += 'b'; });
                    CHECK(support::ending([&] {
                              db.atomic([&] {
                                  put("c");
                                  db.on_commit([&] { ran += 'c'; });
                                  throw support::Oops{};
                              });
                          }) == "oops");
                }
            });
            CHECK(ran == std::string(static_cast<std::size_t>(strays), 'b'));
            CHECK(support::values(second, "SELECT count(*) FROM t WHERE k = 'b'") == std::to_string(strays));
            CHECK(support::values(second, "SELECT count(*) FROM t WHERE k = 'c'") == "0");
        }
    }

    SECTION("by a block whose RELEASE failed after it had taken effect") {
        db.adapter().faults.fail(Verb::savepoint, When::after_effect, 1);
        db.adapter().faults.fail(Verb::release, When::after_effect, 2);
        bool lasted = false;
        const std::string left = support::ending([&] {
            db.atomic([&] {
                CHECK_THROWS_AS(Atomic(db), int);
                put("b");
                db.on_commit([&] { ran += 'b'; });
                CHECK(support::ending([&] { db.atomic([&] { put("c"); }); }) == "2");
                lasted = support::values(handle, "SELECT k FROM t WHERE k = 'b'") == "b";
            });
        });
        CHECK(lasted);
        CHECK(left == "TransactionAborted rolled_back <- 2");
        CHECK(ran == "");
        CHECK(support::values(second, "SELECT k FROM t") == "");
        CHECK(db.usable());
    }

    SECTION("by a block whose RELEASE failed before it took effect") {
        db.adapter().faults.fail(Verb::savepoint, When::after_effect, 1);
        db.adapter().faults.fail(Verb::release, When::before_effect, 2);
        db.atomic([&] {
            CHECK_THROWS_AS(Atomic(db), int);
            put("b");
            db.on_commit([&] { ran += 'b'; });
            CHECK(support::ending([&] { db.atomic([&] { put("c"); }); }) == "2");
        });
        CHECK(ran == "b");
        CHECK(support::values(second, "SELECT k FROM t") == "b");
    }
}

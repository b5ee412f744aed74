// SPDX-License-Identifier: MIT
//
// Transactions that end behind the block's back, by each way SQLite has for that. A lost transaction runs no hook; the
// caller is told, and the connection goes on.

#include "support/catch.hpp"
#include "support/sqlite_scene.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <string>
#include <vector>

using namespace support;
using txhooks::Outcome;
using Lines = std::vector<std::string>;

namespace {

// One way to end a transaction that has one row, with the rows that stay.
struct Ender {
    const char* name;
    void (*end)(sqlite3*);
    Outcome outcome;    // what became of the transaction
    const char* truth;  // what a fresh connection sees when all is over
};

void expect(int code, sqlite3* db, const std::string& sql) {
    const int got = attempt(db, sql);
    if (got != code) throw std::runtime_error{sql + " gave " + code_name(got)};
}

void raw_rollback(sqlite3* db) {
    run(db, "ROLLBACK");
}
void raw_commit(sqlite3* db) {
    run(db, "COMMIT");
}
void or_rollback(sqlite3* db) {
    expect(SQLITE_CONSTRAINT_PRIMARYKEY, db, "INSERT OR ROLLBACK INTO t VALUES (1)");
}
void raise_rollback(sqlite3* db) {
    run(db, "CREATE TEMP TRIGGER no BEFORE INSERT ON t WHEN new.n = 13 BEGIN SELECT RAISE(ROLLBACK, 'no'); END");
    expect(SQLITE_CONSTRAINT_TRIGGER, db, "INSERT INTO t VALUES (13)");
}
void full(sqlite3* db) {
    run(db, "CREATE TABLE big (b)");
    run(db, "PRAGMA max_page_count = 10");
    expect(SQLITE_FULL, db, "INSERT INTO big VALUES (randomblob(1000000))");
    run(db, "PRAGMA max_page_count = 1000000");
}
void out_of_memory(sqlite3* db) {
    run(db, "CREATE TABLE big (b)");
    sqlite3_hard_heap_limit64(sqlite3_memory_used() + 100'000);
    const int got = attempt(db, "INSERT INTO big VALUES (randomblob(10000000))");
    sqlite3_hard_heap_limit64(0);
    if (got != SQLITE_NOMEM) throw std::runtime_error{"not out of memory: " + code_name(got)};
}
void interrupted_write(sqlite3* db) {
    sqlite3_progress_handler(db, 100, [](void*) { return 1; }, nullptr);
    expect(
        SQLITE_INTERRUPT, db,
        "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 100 UNION ALL SELECT x + 1 FROM c LIMIT 1000) SELECT x FROM c");
    sqlite3_progress_handler(db, 0, nullptr, nullptr);
}
void rollback_begin(sqlite3* db) {
    run(db, "ROLLBACK; BEGIN");
}
void rollback_begin_write(sqlite3* db) {
    run(db, "ROLLBACK; BEGIN; INSERT INTO t VALUES (50)");
}
void rollback_savepoint(sqlite3* db) {
    run(db, "ROLLBACK; SAVEPOINT mine; INSERT INTO t VALUES (50)");
}
void commit_begin(sqlite3* db) {
    run(db, "COMMIT; BEGIN");
}
void commit_begin_write(sqlite3* db) {
    run(db, "COMMIT; BEGIN; INSERT INTO t VALUES (50)");
}
void or_rollback_begin(sqlite3* db) {
    or_rollback(db);
    run(db, "BEGIN; INSERT INTO t VALUES (50)");
}

// The connection is in no transaction afterwards: anybody can see the loss.
Ender enders_to_idle() {
    return GENERATE(values<Ender>({
        {"ROLLBACK", &raw_rollback, Outcome::rolled_back, ""},
        {"COMMIT", &raw_commit, Outcome::committed, "1"},
        {"OR ROLLBACK", &or_rollback, Outcome::rolled_back, ""},
        {"RAISE(ROLLBACK)", &raise_rollback, Outcome::rolled_back, ""},
        {"FULL", &full, Outcome::rolled_back, ""},
        {"NOMEM", &out_of_memory, Outcome::rolled_back, ""},
        {"INTERRUPT", &interrupted_write, Outcome::rolled_back, ""},
    }));
}

// It is in another one: only the witness knows.
Ender enders_to_another() {
    return GENERATE(values<Ender>({
        {"ROLLBACK; BEGIN", &rollback_begin, Outcome::rolled_back, ""},
        {"ROLLBACK; BEGIN; INSERT", &rollback_begin_write, Outcome::rolled_back, ""},
        {"ROLLBACK; SAVEPOINT; INSERT", &rollback_savepoint, Outcome::rolled_back, ""},
        {"COMMIT; BEGIN", &commit_begin, Outcome::committed, "1"},
        {"COMMIT; BEGIN; INSERT", &commit_begin_write, Outcome::committed, "1"},
        {"OR ROLLBACK, BEGIN; INSERT", &or_rollback_begin, Outcome::rolled_back, ""},
    }));
}

// The default witness does not know what became of it.
template <class W>
std::string loss(const Ender& ender) {
    return "TransactionLost " + name(W::counts ? ender.outcome : Outcome::unknown);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: commit() reports a transaction that has ended and runs no hook", "[S50]",
                        EveryWay) {
    const Ender ender = GENERATE(true, false) ? enders_to_idle() : enders_to_another();
    CAPTURE(ender.name);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    ender.end(scene.handle);
    CHECK(without_cause(ending([&] { return tx.commit(); })) == loss<TestType>(ender));
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: rollback() reports a transaction that has ended", "[S50]", EveryWay) {
    const Ender ender = GENERATE(true, false) ? enders_to_idle() : enders_to_another();
    CAPTURE(ender.name);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    ender.end(scene.handle);
    CHECK(without_cause(ending([&] { tx.rollback(); })) == loss<TestType>(ender));
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { tx.rollback(); }) == "returned");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: a destructor reports a transaction that has ended to the sink", "[S50]",
                        EveryWay) {
    const Ender ender = GENERATE(true, false) ? enders_to_idle() : enders_to_another();
    CAPTURE(ender.name);
    Scene<TestType> scene;
    {
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        scene.row(1);
        ender.end(scene.handle);
    }
    REQUIRE_FALSE(scene.sink.empty());
    CHECK(without_cause(scene.sink.lines().front()) == "txhooks: while rolling back a block: " + loss<TestType>(ender));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: atomic(fn) reports a transaction that has ended, or what fn threw", "[S50][S30]",
                        EveryWay) {
    const Ender ender = GENERATE(true, false) ? enders_to_idle() : enders_to_another();
    CAPTURE(ender.name);
    Scene<TestType> scene;
    SECTION("fn returns") {
        CHECK(without_cause(ending([&] {
                  scene.db.atomic(scene.options, [&] {
                      scene.row(1);
                      ender.end(scene.handle);
                  });
              })) == loss<TestType>(ender));
        CHECK(scene.sink.empty());
    }
    SECTION("fn throws: that is the first exception, the loss goes to the sink") {
        CHECK(ending([&] {
                  scene.db.atomic(scene.options, [&] {
                      scene.row(1);
                      ender.end(scene.handle);
                      throw std::runtime_error{"fn's own"};
                  });
              }) == "fn's own");
        REQUIRE(scene.sink.lines().size() == 1);
        CHECK(without_cause(scene.sink.lines().front()) ==
              "txhooks: while rolling back a block: " + loss<TestType>(ender));
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: on_commit and nested blocks notice an engine that is idle at once", "[S50][S9]",
                        EveryWay) {
    const Ender ender = enders_to_idle();
    CAPTURE(ender.name);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    ender.end(scene.handle);
    CHECK(ending([&] { scene.hook(2); }) == loss<TestType>(ender));
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db}; }) == loss<TestType>(ender));
    CHECK(ending([&] { typename Scene<TestType>::Tx inner{scene.db, {.join = true}}; }) == loss<TestType>(ender));
    CHECK(ending([&] { return tx.commit(); }) == loss<TestType>(ender));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: the counters notice another transaction at once, the savepoint at the end",
                        "[S50][S9]", EveryWay) {
    const Ender ender = enders_to_another();
    CAPTURE(ender.name);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    ender.end(scene.handle);
    const std::string at_once = TestType::counts ? loss<TestType>(ender) : "returned";
    CHECK(ending([&] { scene.row(2); }) == at_once);
    CHECK(ending([&] {
              typename Scene<TestType>::Tx inner{scene.db};
              scene.row(3);
              inner.commit();
          }) == at_once);
    CHECK(without_cause(ending([&] { return tx.commit(); })) == loss<TestType>(ender));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: a transaction lost in a nested block is lost for all of them", "[S50]",
                        EveryWay) {
    const Ender ender = GENERATE(true, false) ? enders_to_idle() : enders_to_another();
    const bool commits = GENERATE(true, false);
    CAPTURE(ender.name, commits);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.hook(2);
        ender.end(scene.handle);
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) ==
              loss<TestType>(ender));
        CHECK_FALSE(inner.active());
        CHECK_FALSE(tx.active());
    }
    CHECK(ending([&] { scene.hook(3); }) == loss<TestType>(ender));
    CHECK(ending([&] { return tx.commit(); }) == loss<TestType>(ender));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(sqlite3_get_autocommit(scene.handle) != 0);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: what was written after it is not ours, and its hooks do not run", "[S50]",
                        EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    raw_rollback(scene.handle);
    run(scene.handle, "INSERT INTO t VALUES (2)");  // commits by itself
    // The counters have seen a rollback and a commit, of which the second was not ours: they do not guess.
    CHECK(ending([&] { scene.hook(2); }) == "TransactionLost unknown");
    CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: an error of one statement ends no transaction", "[S50]", EveryWay) {
    Scene<TestType> scene;
    run(scene.handle, "CREATE TABLE big (b)");
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    SECTION("a constraint") {
        expect(SQLITE_CONSTRAINT_PRIMARYKEY, scene.handle, "INSERT INTO t VALUES (1)");
    }
    SECTION("OR FAIL") {
        expect(SQLITE_CONSTRAINT_PRIMARYKEY, scene.handle, "INSERT OR FAIL INTO t VALUES (1)");
    }
    SECTION("a BEGIN in a transaction") {
        expect(SQLITE_ERROR, scene.handle, "BEGIN");
    }
    SECTION("an interrupted read") {
        sqlite3_progress_handler(scene.handle, 100, [](void*) { return 1; }, nullptr);
        expect(SQLITE_INTERRUPT, scene.handle,
               "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000) SELECT count(*) FROM c");
        sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    }
    SECTION("a disk that is full for a statement with a journal of its own") {
        run(scene.handle, "PRAGMA max_page_count = 10");
        expect(SQLITE_FULL, scene.handle,
               "INSERT INTO big WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100) "
               "SELECT randomblob(10000) FROM c");
        run(scene.handle, "PRAGMA max_page_count = 1000000");
    }
    SECTION("what cannot be done in a transaction") {
        expect(SQLITE_ERROR, scene.handle, "VACUUM");
        run(scene.handle, "PRAGMA journal_mode = MEMORY");
        run(scene.handle, "ATTACH ':memory:' AS another");
    }
    scene.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: a raw ROLLBACK TO and RELEASE of the user's own savepoints is no loss", "[S50]",
                        EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    run(scene.handle, "SAVEPOINT mine; INSERT INTO t VALUES (50); ROLLBACK TO mine; RELEASE mine");
    run(scene.handle, "SAVEPOINT mine");
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(2);
        run(scene.handle, "SAVEPOINT mine; INSERT INTO t VALUES (51); ROLLBACK TO mine");
        inner.commit();
    }
    scene.row(3);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2,3");
    CHECK(scene.truth() == "1,2,3");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: a nested block whose savepoint the user released is not trusted any more",
                        "[S50]", EveryWay) {
    const bool commits = GENERATE(true, false);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    run(scene.handle, "SAVEPOINT mine");
    {
        typename Scene<TestType>::Tx inner{scene.db};
        scene.row(2);
        run(scene.handle, "RELEASE mine");
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) ==
              "TransactionLost unknown");
    }
    CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: an interrupt does not hide it from the savepoint", "[S50]", WitnessWays) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    int calls = 0;
    const auto interrupt_once = [](void* n) { return ++*static_cast<int*>(n) == 1 ? 1 : 0; };
    SECTION("in another transaction that has written nothing") {
        commit_begin(scene.handle);
        sqlite3_progress_handler(scene.handle, 1, interrupt_once, &calls);
    }
    SECTION("in another transaction that has written") {
        commit_begin_write(scene.handle);
        sqlite3_progress_handler(scene.handle, 1, interrupt_once, &calls);
        CHECK(ending([&] { return tx.commit(); }) == "EngineError INTERRUPT still_open");
    }
    CHECK(without_cause(ending([&] { return tx.commit(); })) == "TransactionLost unknown");
    sqlite3_progress_handler(scene.handle, 0, nullptr, nullptr);
    CHECK(calls > 1);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEST_CASE("sqlite3 loss: the counters do not see COMMIT; BEGIN before anything was written", "[S50]") {
    Scene<Way<Counting, Begin::deferred>> scene;
    Scene<Way<Counting, Begin::deferred>>::Tx tx{scene.db};
    run(scene.handle, "COMMIT; BEGIN");
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEST_CASE("sqlite3 loss: the savepoint sees COMMIT; BEGIN even before anything was written", "[S50]") {
    Scene<Way<Witness, Begin::deferred>> scene;
    Scene<Way<Witness, Begin::deferred>>::Tx tx{scene.db};
    run(scene.handle, "COMMIT; BEGIN");
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown <- EngineError ERROR rolled_back");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 loss: the counters count a transaction as lost when their slots are taken", "[S50]",
                        CountingWays) {
    const bool commits = GENERATE(true, false);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db, scene.options};
    scene.row(1);
    SECTION("the commit hook's") {
        sqlite3_commit_hook(scene.handle, [](void*) { return 0; }, nullptr);
    }
    SECTION("the rollback hook's") {
        sqlite3_rollback_hook(scene.handle, [](void*) {}, nullptr);
    }
    SECTION("by another counting connection that is destroyed") {
        txhooks::HookedConnection<sqlite3*, Counting> another{scene.handle.get()};
    }
    CHECK(ending([&] { commits ? static_cast<void>(tx.commit()) : tx.rollback(); }) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

// SPDX-License-Identifier: MIT
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/rules.hpp"
#include "support/story.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <exception>
#include <string>
#include <vector>

using support::Fault;
using support::Kind;
using support::Story;
using txhooks::Atomic;
using txhooks::CommitUnknown;
using txhooks::Connection;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::Outcome;
using txhooks::TransactionAborted;
using txhooks::testing::FakeBackend;
using txhooks::testing::FakeError;

namespace {

using Log = std::vector<std::string>;
using Fake = HookedConnection<FakeBackend>;

bool has(const std::vector<std::string>& lines, const std::string& part) {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

// The next transaction works, or says why not and works after the repair. Returns how it went.
std::string try_next(Fake& db) {
    db.clear_log();
    std::string ran;
    const auto next = [&] {
        return support::ending([&] {
            db.atomic([&] {
                db.on_commit([&] { ran += 'y'; });
                db.put("y");
                db.atomic([&] {
                    db.on_commit([&] { ran += 'z'; });
                    db.put("z");
                });
            });
        });
    };
    std::string first = next();
    if (first != "returned") {
        if (not db.log().empty() or not ran.empty() or db.in_atomic_block()) return first + " but something was done";
        if (db.FakeBackend::state() == txhooks::ConnectionState::lost)
            db.reconnect();
        else if (db.FakeBackend::state() != txhooks::ConnectionState::idle)
            db.execute("ROLLBACK");
        db.reset();
        db.clear_log();
        if (const std::string again = next(); again != "returned") return first + ", then " + again;
    }
    const Log expected{"BEGIN", "INSERT y", "SAVEPOINT txhooks_1", "INSERT z", "RELEASE txhooks_1", "COMMIT"};
    if (db.log() != expected or ran != "yz") return first + ", then something else than it should";
    return first;
}

enum class Form { guards, functions, guards_of_any_connection, functions_of_any_connection };

void check(const Story& story, const std::vector<Fault>& faults, Form form) {
    // As the rules have it.
    support::Rules rules;
    for (std::size_t i = 0; i != faults.size(); ++i) faults[i].plan(rules.engine.faults, static_cast<int>(i + 1));
    const support::History expected = play(rules, story);
    if (rules.engine.faults.planned() != 0) return;  // not all of them came up: that is another case

    // As it is.
    Fake db;
    support::Sink sink{db};
    for (std::size_t i = 0; i != faults.size(); ++i) faults[i].plan(db.faults, static_cast<int>(i + 1));
    const bool functions = form == Form::functions or form == Form::functions_of_any_connection;
    const auto put = [&](char key) { db.put(std::string{key}); };
    support::History real;
    if (form == Form::guards or form == Form::functions) {
        support::Player<Fake> player{db, functions, put};
        real = play(player, story);
    } else {
        Connection& any = db;
        support::Player<Connection> player{any, functions, put};
        real = play(player, story);
    }

    // The gold check: a hook ran if and only if its row is there, or the caller was told of the doubt.
    std::string gold;
    for (const char key : story.keys()) {
        const bool ran = real.ran.find(key) != std::string::npos;
        const bool visible = db.committed(std::string{key}).has_value();
        const bool doubt =
            has(real.told, "CommitUnknown") or has(real.told, "TransactionLost") or has(real.told, "HookError");
        if (ran ? not visible : visible and not doubt) gold += key;
        // The hook of on_rollback() that is called like the row.
        const bool undone = real.ran.find(static_cast<char>(std::toupper(key))) != std::string::npos;
        if (undone and (ran or visible)) gold += key;
    }
    // Nothing is swallowed without a line.
    std::string swallowed;
    for (const std::string& failure : rules.failures())
        if (not has(real.told, failure) and not has(sink.errors(), failure)) swallowed += failure;
    Log hooks_that_threw = sink.sentences();
    hooks_that_threw.erase(
        std::remove_if(hooks_that_threw.begin(), hooks_that_threw.end(),
                       [](const std::string& line) { return line.find("txhooks: a hook of ") == std::string::npos; }),
        hooks_that_threw.end());

    const auto whole = [](const support::History& history, Log log, bool usable, bool idle, const std::string& next) {
        Log all = history.told;
        all.push_back("hooks: " + history.ran);
        all.insert(all.end(), log.begin(), log.end());
        all.push_back(usable ? "usable" : "not usable");
        all.push_back(idle ? "idle" : "in a block");
        all.push_back("next: " + next);
        return all;
    };
    const bool usable = db.usable();
    const bool idle = not db.in_atomic_block() and db.pending_hooks() == 0 and db.faults.planned() == 0;
    const Log log = db.log();
    const std::string next = try_next(db);

    std::string name = story.text();
    for (const Fault& fault : faults) name += " " + fault.name();
    INFO(name << (functions ? " functions" : " guards"));
    CHECK(whole(real, log, usable, idle, next) == whole(expected, rules.engine.log(), not rules.broken(), true,
                                                        rules.broken() ? "ConnectionBroken" : "returned"));
    CHECK(gold + swallowed == "");
    CHECK(hooks_that_threw == rules.hooks_that_threw());
}

void check_all(const std::vector<Story>& stories) {
    const std::vector<Fault> single = support::all_faults(3, {Kind::own, Kind::an_int, Kind::odd, Kind::loss});
    for (const Story& story : stories) {
        for (const Form form :
             {Form::guards, Form::functions, Form::guards_of_any_connection, Form::functions_of_any_connection}) {
            check(story, {}, form);
            for (const Fault& fault : single) check(story, {fault}, form);
        }
    }
}

// What must be wrong is wrong twice.
void check_pairs(const std::vector<Story>& stories, const std::vector<Kind>& kinds = {Kind::own, Kind::loss}) {
    const std::vector<Fault> faults = support::all_faults(2, kinds);
    for (const Story& story : stories)
        for (const Fault& first : faults)
            for (const Fault& second : faults)
                if (first.verb != second.verb or first.nth != second.nth)  // else one hides the other
                    for (const Form form : {Form::guards, Form::functions}) check(story, {first, second}, form);
}

}  // namespace

TEST_CASE("failure matrix: every verb of an outermost block fails in every way",
          "[S1][S34][S36][S40][S44][S46][S47][S48][S49]") {
    check_all(support::outermost_stories());
}

TEST_CASE("failure matrix: every verb of a block with savepoints fails in every way",
          "[S26][S33][S36][S40][S49][S50][S51]") {
    check_all(support::savepoint_stories());
}

TEST_CASE("failure matrix: every verb of a block with joined blocks fails in every way", "[S34][S40][S49][S50][S51]") {
    check_all(support::joined_stories());
}

TEST_CASE("failure matrix: every verb of a block that a hook opens fails in every way",
          "[S13][S16][S17][S19][S40][S48][S49][S51]") {
    check_all(support::hook_stories());
}

TEST_CASE("failure matrix: every verb of a block with hooks before COMMIT fails in every way",
          "[S61][S62][S63][S64][S65][S66]") {
    check_all(support::before_commit_stories());
}

TEST_CASE("failure matrix: every verb of a block with hooks of what is undone fails in every way",
          "[S68][S69][S70][S71][S72][S73]") {
    check_all(support::undo_stories());
}

TEST_CASE("failure matrix: any two verbs of a block with hooks before COMMIT fail", "[S61][S62][S63][S65]") {
    check_pairs(support::before_commit_stories(), {Kind::own});
}

TEST_CASE("failure matrix: any two verbs of a block with hooks of what is undone fail", "[S68][S69][S70][S72]") {
    check_pairs(support::undo_stories(), {Kind::own});
    check_pairs(support::undo_stories(), {Kind::loss});
}

TEST_CASE("failure matrix: any two verbs of an outermost block fail", "[S40][S46][S47][S48][S49]") {
    check_pairs(support::outermost_stories());
}

TEST_CASE("failure matrix: any two verbs of a block with savepoints fail", "[S40][S49][S50][S51]") {
    check_pairs(support::savepoint_stories());
}

TEST_CASE("failure matrix: any two verbs of a block with joined blocks fail", "[S34][S49][S50][S51]") {
    check_pairs(support::joined_stories());
}

TEST_CASE("failure matrix: any two verbs of a block that a hook opens fail", "[S13][S17][S49][S51]") {
    check_pairs(support::hook_stories());
}

namespace {

// One answer to COMMIT; `error` is none if it is 0.
FakeBackend::CommitAnswer answer(Outcome proven, int error, bool really_committed = false) {
    return {proven, error == 0 ? nullptr : std::make_exception_ptr(error), really_committed};
}

struct Answers {
    const char* what;
    std::vector<FakeBackend::CommitAnswer> answers;
    // What each commit() of a guard throws; if the block is open after the last, it is rolled back.
    std::vector<std::string> told;
    // After them, as statements of the log.
    Log ending;
    bool hook_runs;
    bool row_visible;
    bool usable;
    std::vector<std::string> reported;
};

const std::vector<Answers>& all_answers() {
    constexpr auto committed = Outcome::committed;
    constexpr auto rolled_back = Outcome::rolled_back;
    constexpr auto still_open = Outcome::still_open;
    constexpr auto unknown = Outcome::unknown;
    static const std::vector<Answers> all{
        {"committed", {answer(committed, 0)}, {"returned"}, {"COMMIT"}, true, true, true, {}},
        {"committed, and an error all the same",
         {answer(committed, 7)},
         {"returned"},
         {"COMMIT"},
         true,
         true,
         true,
         {"7"}},
        {"rolled back with an error", {answer(rolled_back, 7)}, {"7"}, {"COMMIT"}, false, false, true, {}},
        {"rolled back without an error",
         {answer(rolled_back, 0)},
         {"TransactionAborted rolled_back"},
         {"COMMIT"},
         false,
         false,
         true,
         {}},
        {"still open, then committed",
         {answer(still_open, 7), answer(committed, 0)},
         {"7", "returned"},
         {"COMMIT", "COMMIT"},
         true,
         true,
         true,
         {}},
        {"still open twice, then committed with an error",
         {answer(still_open, 7), answer(still_open, 8), answer(committed, 9)},
         {"7", "8", "returned"},
         {"COMMIT", "COMMIT", "COMMIT"},
         true,
         true,
         true,
         {"9"}},
        {"still open, then rolled back by the caller",
         {answer(still_open, 7)},
         {"7"},
         {"COMMIT", "ROLLBACK"},
         false,
         false,
         true,
         {}},
        {"still open without an error, then committed",
         {answer(still_open, 0), answer(committed, 0)},
         {"UsageError", "returned"},
         {"COMMIT", "COMMIT"},
         true,
         true,
         true,
         {}},
        {"still open, then rolled back by the engine",
         {answer(still_open, 7), answer(rolled_back, 8)},
         {"7", "8"},
         {"COMMIT", "COMMIT"},
         false,
         false,
         true,
         {}},
        {"still open, then unknown and committed",
         {answer(still_open, 7), answer(unknown, 8, true)},
         {"7", "CommitUnknown unknown <- 8"},
         {"COMMIT", "COMMIT"},
         false,
         true,
         false,
         {}},
        {"unknown and committed",
         {answer(unknown, 7, true)},
         {"CommitUnknown unknown <- 7"},
         {"COMMIT"},
         false,
         true,
         false,
         {}},
        {"unknown and not committed",
         {answer(unknown, 7, false)},
         {"CommitUnknown unknown <- 7"},
         {"COMMIT"},
         false,
         false,
         false,
         {}},
        {"unknown without an error",
         {answer(unknown, 0, true)},
         {"CommitUnknown unknown"},
         {"COMMIT"},
         false,
         true,
         false,
         {}},
    };
    return all;
}

struct Played {
    std::vector<std::string> told;
    std::string ran;
    Log log;
};

// The block that is answered: a, and b in a savepoint.
template <class Db>
void fill(Db& db, Fake& rows, std::string& ran) {
    rows.put("a");
    db.on_commit([&ran] { ran += 'a'; });
    db.atomic([&] { db.on_commit(txhooks::robust, [&ran] { ran += 'b'; }); });
}

template <class Db>
void play_guard(Db& db, Fake& rows, DetachedHooks* after, const Answers& row, Played& played) {
    Atomic tx{db, {.detach = after}};
    fill(db, rows, played.ran);
    for (std::size_t i = 0; i != row.told.size(); ++i) {
        CHECK(tx.active());
        CHECK(db.pending_hooks() == 2);
        CHECK(played.ran == "");
        if (after != nullptr) CHECK(after->size() == 0);
        Outcome outcome = Outcome::committed;
        played.told.push_back(support::ending([&] { outcome = tx.commit(); }));
        CHECK(outcome == Outcome::committed);
    }
    if (tx.active()) tx.rollback();
    CHECK_FALSE(tx.active());
    CHECK(support::ending([&] { tx.commit(); }) == "UsageError");
    tx.rollback();
}

template <class Db>
void play_function(Db& db, Fake& rows, DetachedHooks* after, Played& played) {
    played.told.push_back(support::ending([&] { db.atomic({.detach = after}, [&] { fill(db, rows, played.ran); }); }));
}

void check_answers(const Answers& row, bool function, bool any_connection, bool detached) {
    INFO(row.what << (function ? ", function" : ", guard") << (any_connection ? ", any connection" : "")
                  << (detached ? ", detached" : ""));
    Fake db;
    support::Sink sink{db};
    for (const auto& one : row.answers) db.answer_commit(one);
    Connection& any = db;
    DetachedHooks after;
    DetachedHooks* const detach = detached ? &after : nullptr;
    Played played;
    if (function)
        any_connection ? play_function(any, db, detach, played) : play_function(db, db, detach, played);
    else
        any_connection ? play_guard(any, db, detach, row, played) : play_guard(db, db, detach, row, played);

    // The function form does not retry: it rolls back.
    const bool gave_up = function and row.answers.front().proven == Outcome::still_open;
    Answers expected = row;
    if (gave_up) {
        expected.told.resize(1);
        expected.ending = {"COMMIT", "ROLLBACK"};
        expected.hook_runs = expected.row_visible = false;
        expected.usable = true;
        expected.reported.clear();
    }

    if (detached) {
        CHECK(played.ran == "");
        CHECK(after.size() == (expected.hook_runs ? 2 : 0));
        after.run();
    }
    CHECK(played.told == expected.told);
    CHECK(played.ran == (expected.hook_runs ? "ab" : ""));
    CHECK(db.committed("a").has_value() == expected.row_visible);
    CHECK(db.usable() == expected.usable);
    CHECK(sink.errors() == expected.reported);
    CHECK_FALSE(db.in_atomic_block());
    CHECK(db.pending_hooks() == 0);
    Log log{"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "RELEASE txhooks_1"};
    log.insert(log.end(), expected.ending.begin(), expected.ending.end());
    CHECK(db.log() == log);

    if (gave_up) return;  // answers are left
    CHECK(try_next(db) == (expected.usable ? "returned" : "ConnectionBroken"));
}

}  // namespace

TEST_CASE("commit: hooks run if and only if the answer to COMMIT proves it, however the block was opened",
          "[S30][S44][S45][S46][S47][S48][S54][S60]") {
    for (const Answers& row : all_answers())
        for (const bool function : {false, true})
            for (const bool any_connection : {false, true})
                for (const bool detached : {false, true}) check_answers(row, function, any_connection, detached);
}

TEST_CASE("commit: a transaction that the engine has failed is answered with a rollback", "[S45]") {
    Fake db;
    std::string ran;
    Atomic tx{db};
    db.put("a");
    db.on_commit([&] { ran += 'a'; });
    db.fail_transaction();
    CHECK_THROWS_AS(tx.commit(), TransactionAborted);
    CHECK(ran == "");
    CHECK_FALSE(db.committed("a"));
    CHECK(try_next(db) == "returned");
}

TEST_CASE("commit: a broken connection refuses everything, saying so, until it is reset", "[S9][S48][S49]") {
    Fake db;
    support::Sink sink{db};
    db.faults.fail(support::Verb::commit, support::When::after_effect, 1);
    CHECK_THROWS_AS(db.atomic([&] { db.put("a"); }), CommitUnknown);
    db.clear_log();
    CHECK(support::ending([&] { db.on_commit([] {}); }) == "ConnectionBroken");
    CHECK(support::ending([&] { db.on_commit(txhooks::robust, [] {}); }) == "ConnectionBroken");
    CHECK(support::ending([&] { Atomic tx{db}; }) == "ConnectionBroken");
    CHECK(support::ending([&] { db.atomic([] {}); }) == "ConnectionBroken");
    CHECK(support::ending([&] { db.set_rollback(true); }) == "ConnectionBroken");
    CHECK_FALSE(db.usable());
    CHECK(db.log().empty());
    db.reset();
    CHECK(db.usable());
    CHECK(try_next(db) == "returned");
}

TEST_CASE("reset: is refused while the engine is in a transaction or gone", "[S49]") {
    Fake db;
    support::Sink sink{db};
    Atomic tx{db};
    db.put("a");
    CHECK(support::ending([&] { db.reset(); }) == "UsageError");
    CHECK(tx.active());

    db.faults.fail(support::Verb::rollback, support::When::before_effect, 1);
    CHECK(support::ending([&] { tx.rollback(); }) == "1");
    CHECK(support::ending([&] { db.reset(); }) == "UsageError");
    db.lose_connection();
    CHECK(support::ending([&] { db.reset(); }) == "UsageError");
    CHECK_FALSE(db.usable());
    db.reconnect();
    db.reset();
    CHECK(try_next(db) == "returned");
    CHECK_FALSE(db.committed("a"));
}

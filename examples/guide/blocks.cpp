// SPDX-License-Identifier: MIT
//
// The page on blocks and savepoints (blocks.md): what begins and ends one, its options, and its result.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/testing/fake_backend.hpp>

#include "say.hpp"

#include <optional>
#include <stdexcept>
#include <string>

namespace {

using Fake = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

void hook(char name) {
    say("hook ", name);
}

void savepoints() {
    Fake db;
    txhooks::Atomic tx{db};  // BEGIN
    db.on_commit(hook, 'a');
    {
        txhooks::Atomic inner{db};  // SAVEPOINT txhooks_1
        db.on_commit(hook, 'b');
        inner.rollback();  // ROLLBACK TO: b is discarded, a is not
    }
    tx.commit();  // COMMIT, and then the hooks

    check(said() == "hook a;");
    check(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "COMMIT"});
}

// ---- The guard

enum class Answer { done, no_such_user };

Answer rename(Fake& db, const std::string& from, const std::string& to) {
    txhooks::Atomic tx{db};
    db.put(to);
    if (not db.get(from)) return Answer::no_such_user;  // rolls back: half the work must not stay
    db.erase(from);
    db.on_commit([=] { say(from, " is now ", to); });
    tx.commit();
    return Answer::done;
}

void guard() {
    Fake db;
    db.put("Ann");
    check(rename(db, "Bob", "Rob") == Answer::no_such_user);
    check(not db.committed("Rob"));
    check(rename(db, "Ann", "Anna") == Answer::done);
    check(said() == "Ann is now Anna;");
}

// ---- Options

void join(Fake& db) {
    for (const char* name : {"Ann", "Bob", "Cleo"})
        db.atomic({.join = true}, [&] { db.put(name); });  // in a block: no savepoint for each of them
}

void options() {
    Fake db;
    db.atomic([&] { join(db); });
    check(db.log() == Log{"BEGIN", "INSERT Ann", "INSERT Bob", "INSERT Cleo", "COMMIT"});

    try {
        db.atomic([&] {
            db.atomic({.durable = true}, [] {});  // must not be part of anything
        });
        check(false);
    } catch (const txhooks::UsageError& error) {
        say(error.what());
    }

    txhooks::DetachedHooks after;
    db.atomic({.detach = &after}, [&] { db.on_commit(hook, 'd'); });
    say("the connection is free");
    after.run();
    check(said().ends_with("the connection is free;hook d;"));
}

void begin_options() {
    txhooks::HookedConnection<SQLite::Database> db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.atomic({.begin = txhooks::sqlite::Begin::immediate}, [&] { db.exec("CREATE TABLE t (x)"); });
    check(db.tableExists("t"));
}

// ---- Results

// Holds a value, or an error: as std::expected does.
struct Result {
    std::optional<int> value;
    std::string why;
    bool has_value() const { return value.has_value(); }
    const std::string& error() const { return why; }
};

void results() {
    Fake db;
    const int answer = db.atomic([&] { return 42; });
    check(answer == 42);

    const Result result = db.atomic([&]() -> Result {
        db.put("Ann");
        db.on_commit(hook, 'e');
        return {{}, "no more room"};  // holds an error: rolled back, and returned
    });
    check(not result.has_value() and not db.committed("Ann") and said().empty());

    db.atomic([&] {
        db.put("Ann");
        db.set_rollback(true);  // at the clean end of this block: rolled back, silently
    });
    check(not db.committed("Ann"));
}

// ---- A service that knows no driver

void forget_cached_user(txhooks::Connection& db, const std::string& name) {
    db.on_commit([name] { say(name, " is forgotten"); });
}

void any_connection() {
    Fake db;
    db.atomic([&] { forget_cached_user(db, "Ann"); });
    check(said() == "Ann is forgotten;");
}

}  // namespace

int main() {
    savepoints();
    guard();
    options();
    begin_options();
    results();
    any_connection();
    return verdict();
}

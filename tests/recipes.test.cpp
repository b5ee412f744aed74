// SPDX-License-Identifier: MIT

// The recipes of include/txhooks/README.md, followed step by step: a backend, and a begin option of it.

#include <txhooks/testing/faults.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/rules.hpp"
#include "support/scene.hpp"
#include "support/sqlite_database.hpp"
#include "support/story.hpp"
#include "support/trace.hpp"

#include <cstddef>
#include <string>
#include <vector>

using namespace support;
using txhooks::Atomic;
using txhooks::ConnectionState;
using txhooks::HookedConnection;
using txhooks::TransactionLost;
using txhooks::UsageError;
using txhooks::testing::FaultyAdapter;

namespace {

// What somebody brings: it speaks SQL, throws, and knows whether a transaction is open.
class MyDatabase {
public:
    explicit MyDatabase(const std::string& path) : handle_{path} { support::run(handle_, "PRAGMA journal_mode = WAL"); }

    void run(const std::string& sql) { support::run(handle_, sql); }
    bool in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }
    std::string values(const std::string& sql) { return support::values(handle_, sql); }

private:
    Handle handle_;
};

}  // namespace

// ---- Add a backend

// Its adapter.
template <>
struct txhooks::BackendAdapter<MyDatabase> : txhooks::SqlAdapter<txhooks::BackendAdapter<MyDatabase>> {
    explicit BackendAdapter(MyDatabase& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    ConnectionState state() const noexcept {
        return db.in_transaction() ? ConnectionState::open : ConnectionState::idle;
    }
    MyDatabase& db;
};

namespace {

using Adapter = txhooks::BackendAdapter<MyDatabase>;

// Its scene: rows and hooks that must share their fate.
template <class A = FaultyAdapter<Adapter>>
class OwnScene : public RowsAndHooks<OwnScene<A>, HookedConnection<MyDatabase, A>> {
public:
    OwnScene() {
        db.run("CREATE TABLE t (n)");
        this->sink.listen_to(db);
    }

    DatabaseFile file;
    HookedConnection<MyDatabase, A> db{file.path()};

    void insert(int n) { db.run("INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() const { return support::truth(file); }
    bool idle() const { return not db.in_transaction(); }
};

// Of the row that a story calls by a letter.
int number(char key) {
    return key - 'a' + 1;
}

// Plays `story` on the rules and on a new connection, with `fault` in both. They must agree.
void compare(const Story& story, const Fault& fault, bool functions) {
    CAPTURE(story.text(), fault.name(), functions);
    Rules rules;
    fault.plan(rules.engine.faults, 1);
    const History expected = play(rules, story);
    if (rules.engine.faults.planned() != 0) return;  // it did not come up: that is another case
    std::string rows;
    for (const char key : story.keys())
        if (rules.engine.committed(std::string{key})) rows += (rows.empty() ? "" : ",") + std::to_string(number(key));

    OwnScene<> scene;
    fault.plan(scene.db.adapter().faults, 1);
    Player<decltype(scene.db)> player{scene.db, functions, [&](char key) { scene.insert(number(key)); }};
    const History real = play(player, story);
    CHECK(real.told == expected.told);
    CHECK(real.ran == expected.ran);
    CHECK(scene.truth() == rows);
    CHECK(scene.db.usable() == not rules.broken());
    if (rules.broken()) {
        if (not scene.idle()) scene.db.run("ROLLBACK");
        scene.db.reset();
    }
    CHECK(scene.goes_on());
}

}  // namespace

TEST_CASE("recipes: each hook on a backend of one's own shares the fate of its row", "[S55][S11][S25][S26]") {
    OwnScene<> scene;
    CHECK(scene.goes_on());
    CHECK(scene.sink.text().empty());
}

TEST_CASE("recipes: whichever verb of it fails, it ends as the rules say", "[S55][S40][S46][S47][S48][S49][S51]") {
    const Story story{"B{+a [S{+b}] [S{+c !}] +d}"};
    for (const bool functions : {false, true})
        for (const Fault& fault : all_faults(2, {Kind::own, Kind::an_int})) compare(story, fault, functions);
}

TEST_CASE("recipes: a transaction that ended behind its back runs no hook", "[S55][S50]") {
    for (const char* ended_by : {"ROLLBACK", "COMMIT", "ROLLBACK; BEGIN", "COMMIT; BEGIN"}) {
        CAPTURE(ended_by);
        OwnScene<> scene;
        CHECK_THROWS_AS(scene.db.atomic([&] {
            scene.row(1);
            scene.db.run(ended_by);
        }),
                        TransactionLost);
        CHECK(scene.hooks.empty());
        CHECK(scene.goes_on());
    }
}

// ---- Add a begin option

namespace {

// The adapter with one option more. In WAL mode SQLite chooses what a transaction sees at its first read.
struct WithSnapshot : Adapter {
    struct begin_options {
        bool snapshot = false;  // see what is committed now, not at the first read
        friend bool operator==(const begin_options&, const begin_options&) = default;
    };

    using Adapter::Adapter;
    void begin(const begin_options& options) {
        Adapter::begin({});
        if (options.snapshot) execute("SELECT count(*) FROM sqlite_schema");
    }
};

}  // namespace

TEST_CASE("recipes: a begin option of one's own changes how the transaction begins", "[S38]") {
    for (const bool snapshot : {false, true}) {
        CAPTURE(snapshot);
        OwnScene<FaultyAdapter<WithSnapshot>> scene;
        MyDatabase other{scene.file.path()};
        std::string seen;
        scene.db.atomic({.begin = {.snapshot = snapshot}}, [&] {
            other.run("INSERT INTO t VALUES (1)");
            seen = scene.db.values("SELECT n FROM t");
        });
        CHECK(seen == (snapshot ? "" : "1"));
        scene.options.begin.snapshot = snapshot;
        CHECK(scene.goes_on());
    }
}

TEST_CASE("recipes: a nested block refuses that option, and a begin with it that fails leaves nothing", "[S38][S40]") {
    OwnScene<FaultyAdapter<WithSnapshot>> scene;
    scene.db.atomic([&] {
        CHECK_THROWS_AS(scene.db.atomic({.begin = {.snapshot = true}}, [] {}), UsageError);
        scene.db.atomic({.begin = {}}, [] {});
    });
    for (const When when : {When::before_effect, When::after_effect}) {
        scene.db.adapter().faults.fail(Verb::begin, when, Oops{});
        CHECK_THROWS_AS((Atomic{scene.db, {.begin = {.snapshot = true}}}), Oops);
        CHECK(scene.idle());
    }
    CHECK(scene.goes_on());
}

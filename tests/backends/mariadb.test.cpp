// SPDX-License-Identifier: MIT
//
// Blocks and hooks on a MYSQL*, with both ways to send statements: what a second connection sees, what it costs, how
// blocks begin, and what is refused.

#include "support/catch.hpp"
#include "support/mariadb_interrupter.hpp"
#include "support/mariadb_scene.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

using namespace support;
using txhooks::mariadb::Begin;
using txhooks::mariadb::Isolation;

namespace {

using Words = std::vector<std::string>;

// How many commands the server was sent by `act()`.
template <class Act>
long round_trips(MYSQL* db, Act act) {
    const auto asked = [db] {
        return std::stol(values(db,
                                "SELECT variable_value FROM information_schema.session_status "
                                "WHERE variable_name = 'QUESTIONS'"));
    };
    const long before = asked();
    act();
    return asked() - before - 1;
}

template <class Adapter>
constexpr bool one_by_one = std::is_same_v<Adapter, Plain>;

// The error sink of a block that was refused before it began, or nothing.
const Words nothing_told{};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb: a hook runs when everybody sees the row", "[S2][S11][S13]", EveryWay) {
    Scene<TestType> scene;
    std::string seen;
    scene.db.atomic([&] {
        scene.insert(1);
        scene.db.on_commit([&] { seen = scene.truth(); });
        CHECK(scene.truth().empty());
    });
    CHECK(seen == "1");
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: a savepoint that is rolled back takes its rows and hooks with it", "[S26][S33]",
                        EveryWay) {
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    scene.db.atomic([&] {
        scene.row(1);
        for (int n = 2; n < 6; ++n) {
            Tx tx{scene.db};
            scene.row(n);
            {
                Tx inner{scene.db};
                scene.row(10 * n);
                if (n % 2 == 0)
                    inner.commit();
                else
                    inner.rollback();
            }
            if (n < 4)
                tx.commit();
            else
                tx.rollback();
        }
        scene.row(6);
    });
    CHECK(scene.hooks == "1,2,20,3,6");
    CHECK(scene.truth() == "1,2,3,6,20");
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: a block that throws leaves no row and runs no hook", "[S25][S30]", EveryWay) {
    Scene<TestType> scene;
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  scene.db.atomic([&] { scene.row(2); });
                  throw std::runtime_error{"fn's own"};
              });
          }) == "fn's own");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: a hook may open blocks of its own", "[S13][S16]", EveryWay) {
    Scene<TestType> scene;
    scene.db.atomic([&] {
        scene.db.on_commit([&] { scene.db.atomic({.durable = true}, [&] { scene.row(1); }); });
        scene.row(2);
    });
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
}

TEST_CASE("mariadb: a connection that goes away with an open block rolls it back", "[S57]") {
    Handle handle;
    Handle other;
    run(other, "CREATE OR REPLACE TABLE t (n INT PRIMARY KEY)");
    using Db = txhooks::HookedConnection<MYSQL*>;
    auto db = std::make_unique<Db>(handle.get());
    db->set_error_sink([](void*, const char*, const std::exception_ptr&) {});
    bool ran = false;
    txhooks::Atomic tx{*db};
    db->on_commit([&] { ran = true; });
    run(handle, "INSERT INTO t VALUES (1)");
    db.reset();
    CHECK_FALSE(ran);
    CHECK_FALSE(tx.active());
    run(handle, "DO 0");
    CHECK((handle.get()->server_status & SERVER_STATUS_IN_TRANS) == 0);
    CHECK(values(other, "SELECT n FROM t").empty());
}

TEST_CASE("mariadb: a null handle is refused", "[S53]") {
    MYSQL* const none = nullptr;
    CHECK(ending([&] { txhooks::HookedConnection db{none}; }) == "UsageError");
}

TEMPLATE_LIST_TEST_CASE("mariadb: round trips", "[S33][cost]", EveryWay) {
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    MYSQL* const handle = scene.handle;
    auto& db = scene.db;
    const bool plain = one_by_one<TestType>;
    const auto extra = [&](auto act) {  // over the block around it
        return round_trips(handle, [&] { db.atomic(act); }) - round_trips(handle, [&] { db.atomic([] {}); });
    };

    CHECK(round_trips(handle, [&] { db.atomic([] {}); }) == (plain ? 4 : 2));
    CHECK(round_trips(handle, [&] {
              Tx tx{db};
              for (int i = 0; i < 10; ++i) db.on_commit([] {});
              tx.commit();
          }) == (plain ? 4 : 2));
    CHECK(round_trips(handle, [&] {
              Tx tx{db};
              tx.rollback();
          }) == (plain ? 4 : 2));
    CHECK(round_trips(handle, [&] { db.on_commit([] {}); }) == 0);
    CHECK(round_trips(handle, [&] { db.atomic({.begin = {Isolation::serializable, true, true}}, [] {}); }) ==
          (plain ? 5 : 2));
    CHECK(extra([&] { db.atomic([] {}); }) == 2);
    CHECK(extra([&] {
              Tx tx{db};
              tx.rollback();
          }) == (plain ? 3 : 2));
    CHECK(extra([&] { db.atomic({.join = true}, [] {}); }) == 0);
    CHECK(extra([&] { attempt(handle, "SELECT nonsense"); }) == 2);  // itself, and what it did to the transaction
}

// ---- How a block begins

TEMPLATE_LIST_TEST_CASE("mariadb: the isolation level is the block's own", "[S38]", EveryWay) {
    Scene<TestType> scene;
    auto& db = scene.db;
    const std::string read = "SELECT n FROM t ORDER BY n";
    const auto sees_later_commits = [&](const Begin& begin) {
        run(scene.other, "DELETE FROM t");
        std::string before;
        std::string after;
        db.atomic({.begin = begin}, [&] {
            before = values(scene.handle, read);
            run(scene.other, "INSERT INTO t VALUES (1)");
            after = values(scene.handle, read);
        });
        CHECK(before.empty());
        return after == "1";
    };
    const auto sees_the_uncommitted = [&](const Begin& begin) {
        run(scene.other, "DELETE FROM t");
        run(scene.other, "BEGIN");
        run(scene.other, "INSERT INTO t VALUES (1)");
        std::string seen;
        db.atomic({.begin = begin}, [&] { seen = values(scene.handle, read); });
        run(scene.other, "ROLLBACK");
        return seen == "1";
    };
    const auto locks_what_it_reads = [&](const Begin& begin) {
        run(scene.other, "DELETE FROM t");
        run(scene.other, "INSERT INTO t VALUES (1)");
        run(scene.other, "SET innodb_lock_wait_timeout = 0");
        return db.atomic({.begin = begin}, [&] {
            values(scene.handle, read);
            return attempt(scene.other, "UPDATE t SET n = 2") == 1205;
        });
    };

    CHECK_FALSE(sees_later_commits({}));
    CHECK(sees_later_commits({.isolation = Isolation::read_committed}));
    CHECK_FALSE(sees_later_commits({}));
    CHECK_FALSE(sees_later_commits({.isolation = Isolation::repeatable_read}));
    CHECK(sees_the_uncommitted({.isolation = Isolation::read_uncommitted}));
    CHECK_FALSE(sees_the_uncommitted({}));
    CHECK(locks_what_it_reads({.isolation = Isolation::serializable}));
    CHECK_FALSE(locks_what_it_reads({}));

    run(scene.handle, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    CHECK(sees_later_commits({}));
    CHECK_FALSE(sees_later_commits({.isolation = Isolation::repeatable_read}));
    CHECK(sees_later_commits({}));
    CHECK(values(scene.handle, "SELECT @@tx_isolation") == "READ-COMMITTED");
}

TEMPLATE_LIST_TEST_CASE("mariadb: a read-only block refuses writes and commits the rest", "[S38]", EveryWay) {
    Scene<TestType> scene;
    const typename Scene<TestType>::Db::Options read_only{.begin = {.read_only = true}};
    CHECK(ending([&] {
              scene.db.atomic(read_only, [&] {
                  scene.hook(1);
                  CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == 1792);
              });
          }) == "returned");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb: a consistent snapshot is taken when the block begins", "[S38]", EveryWay) {
    Scene<TestType> scene;
    const bool snapshot = GENERATE(true, false);
    const bool read_only = GENERATE(true, false);
    typename Scene<TestType>::Tx tx{scene.db, {.begin = {.read_only = read_only, .consistent_snapshot = snapshot}}};
    run(scene.other, "INSERT INTO t VALUES (1)");
    CHECK(values(scene.handle, "SELECT n FROM t") == (snapshot ? "" : "1"));
    tx.commit();
}

TEMPLATE_LIST_TEST_CASE("mariadb: begin options on a nested block are refused", "[S38]", EveryWay) {
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    const Begin given = GENERATE(
        values<Begin>({{.isolation = Isolation::serializable}, {.read_only = true}, {.consistent_snapshot = true}}));
    CHECK(given == given);
    CHECK_FALSE(given == Begin{});
    Tx tx{scene.db};
    CHECK(round_trips(scene.handle,
                      [&] { CHECK(ending([&] { Tx inner{scene.db, {.begin = given}}; }) == "UsageError"); }) == 0);
    Tx same_as_default{scene.db, {.begin = {}}};
    scene.row(1);
    same_as_default.commit();
    tx.commit();
    CHECK(scene.hooks == "1");
}

TEMPLATE_LIST_TEST_CASE("mariadb: the isolation level of a block that could not begin is not the next one's",
                        "[S38][S40]", EveryWay) {
    Scene<TestType> scene;
    run(scene.other, "BEGIN");
    run(scene.other, "INSERT INTO t VALUES (1)");
    Interrupter interrupter{scene.handle};
    int failed = 0;
    for (int i = 0; i < 20'000 and failed < 10; ++i) {
        interrupter.start();
        const std::string opened = ending([&] {
            typename Scene<TestType>::Tx tx{scene.db, {.begin = {.isolation = Isolation::read_uncommitted}}};
            interrupter.stop();
            tx.commit();
        });
        interrupter.stop();
        scene.sink.clear();
        if (opened == "committed" or opened == "returned") continue;
        ++failed;
        CAPTURE(opened);
        CHECK((opened == "EngineError 1317 rolled_back" or opened == "TransactionLost rolled_back"));
        run(scene.handle, "ROLLBACK");
        if (not scene.db.usable()) scene.db.reset();
        REQUIRE(values(scene.handle, "SELECT n FROM t").empty());
    }
    CHECK(failed > 0);
    run(scene.other, "ROLLBACK");
}

TEMPLATE_LIST_TEST_CASE("mariadb: an isolation level that nobody knows is refused", "[S38][S40]", EveryWay) {
    Scene<TestType> scene;
    for (const unsigned level : {5U, 255U}) {
        const auto unknown = static_cast<Isolation>(level);
        CHECK(ending([&] { scene.db.atomic({.begin = {.isolation = unknown}}, [] {}); }) == "UsageError");
        CHECK(scene.db.usable());
    }
    CHECK(scene.goes_on());
}

// ---- A transaction that is not ours

TEMPLATE_LIST_TEST_CASE("mariadb: a transaction begun by hand is left alone", "[S8][S41]", EveryWay) {
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    SECTION("seen by the client") {
        run(scene.handle, "BEGIN");
    }
    SECTION("begun by a statement that failed then: the client is not told") {
        CHECK(attempt(scene.handle, "BEGIN NOT ATOMIC START TRANSACTION; SIGNAL SQLSTATE '45000'; END") == 1644);
        CHECK((scene.handle.get()->server_status & SERVER_STATUS_IN_TRANS) == 0);
    }
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Tx tx{scene.db}; }) == "UsageError");
    scene.insert(1);
    run(scene.handle, "COMMIT");
    CHECK(scene.truth() == "1");
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: an XA transaction is left alone, in each of its states", "[S8][S41][M16]", EveryWay) {
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    const unsigned steps = GENERATE(1u, 2u, 3u);
    const std::string state[] = {"XA START 'mine'", "XA END 'mine'", "XA PREPARE 'mine'"};
    CAPTURE(state[steps - 1]);
    for (unsigned i = 0; i != steps; ++i) {
        run(scene.handle, state[i]);
        if (i == 0) scene.insert(1);
    }
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Tx tx{scene.db}; }) == "UsageError");
    CHECK(attempt(scene.handle, "COMMIT") == 1399);
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(scene.truth().empty());
    for (unsigned i = steps; i != 3; ++i) run(scene.handle, state[i]);
    run(scene.handle, "XA COMMIT 'mine'");
    CHECK(scene.truth() == "1");
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: a transaction that is over is not held against a block", "[S41]", EveryWay) {
    Scene<TestType> scene;
    run(scene.handle, "BEGIN");
    scene.insert(1);
    SECTION("mysql_reset_connection: the client still thinks that it is open") {
        REQUIRE(mysql_reset_connection(scene.handle) == 0);
        CHECK((scene.handle.get()->server_status & SERVER_STATUS_IN_TRANS) != 0);
    }
    SECTION("mysql_change_user") {
        REQUIRE(mysql_change_user(scene.handle, "txhooks", mariadb().password().c_str(), "txhooks") == 0);
    }
    SECTION("a failed statement that committed it: the same") {
        CHECK(attempt(scene.handle, "CREATE TABLE t (n INT)") == 1050);
        CHECK((scene.handle.get()->server_status & SERVER_STATUS_IN_TRANS) != 0);
    }
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: with autocommit off no block begins and nothing is sent", "[S8][S41][M05]",
                        EveryWay) {
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    const bool pending = GENERATE(true, false);
    run(scene.handle, "SET autocommit = 0");
    if (pending) scene.insert(1);
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Tx tx{scene.db}; }) == "UsageError");
    CHECK(scene.truth().empty());
    run(scene.handle, "COMMIT");
    CHECK(scene.truth() == (pending ? "1" : ""));
    CHECK_FALSE(scene.db.usable());
    run(scene.handle, "SET autocommit = 1");
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: another wrapper on the same handle is somebody else", "[S41]", EveryWay) {
    Scene<TestType> scene;
    txhooks::HookedConnection<MYSQL*, TestType> twin{scene.handle.get()};
    typename Scene<TestType>::Tx tx{scene.db};
    CHECK(ending([&] { txhooks::Atomic inner{twin}; }) == "UsageError");
    CHECK(ending([&] { twin.on_commit([] {}); }) == "UsageError");
    scene.row(1);
    tx.commit();
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(twin.usable());
}

// ---- Results that were not read

namespace {

// A statement of which something is left to read, and how to read it.
struct Unread {
    const char* name;
    void (*send)(MYSQL*);
    std::string (*rest)(MYSQL*);
};

MYSQL_RES* in_hand = nullptr;
MYSQL_STMT* statement = nullptr;

std::string rows_of(MYSQL_RES* result) {
    std::string all;
    while (const MYSQL_ROW row = mysql_fetch_row(result)) all += row[0];
    mysql_free_result(result);
    return all;
}

void query(MYSQL* db, const char* sql) {
    if (mysql_query(db, sql) != 0) throw std::runtime_error{mysql_error(db)};
}

std::string all_results(MYSQL* db) {
    std::string all;
    do
        if (MYSQL_RES* const result = mysql_store_result(db)) all += rows_of(result) + ";";
    while (mysql_next_result(db) == 0);
    return all;
}

std::vector<Unread> unread_by_anybody() {
    return {
        {"not stored", [](MYSQL* db) { query(db, "SELECT 1 UNION SELECT 2"); }, &all_results},
        {"more results", [](MYSQL* db) { query(db, "SELECT 1; SELECT 2; SELECT 3"); }, &all_results},
        {"CALL with a result, without its end",
         [](MYSQL* db) {
             query(db, "CALL show_one()");
             mysql_free_result(mysql_store_result(db));
         },
         &all_results},
    };
}

std::vector<Unread> unread_in_hand() {
    return {
        {"begun to fetch",
         [](MYSQL* db) {
             query(db, "SELECT 1 UNION SELECT 2");
             in_hand = mysql_use_result(db);
             mysql_fetch_row(in_hand);
         },
         [](MYSQL*) { return rows_of(in_hand); }},
        {"prepared statement not stored",
         [](MYSQL* db) {
             statement = mysql_stmt_init(db);
             const std::string sql = "SELECT 1 UNION SELECT 2";
             if (mysql_stmt_prepare(statement, sql.data(), sql.size()) != 0 or mysql_stmt_execute(statement) != 0)
                 throw std::runtime_error{mysql_stmt_error(statement)};
         },
         [](MYSQL*) {
             std::string all;
             while (mysql_stmt_fetch(statement) == 0) all += "row";
             mysql_stmt_close(statement);
             return all;
         }},
    };
}

const std::vector<std::string> rest_by_anybody{"12;", "1;2;3;", ""};
const std::vector<std::string> rest_in_hand{"2", "rowrow"};

// A scene with a procedure, in which several statements may be sent at once.
template <class Adapter>
struct UnreadScene : Scene<Adapter> {
    UnreadScene() : Scene<Adapter>{Login{.flags = CLIENT_MULTI_STATEMENTS}} {
        run(this->other, "CREATE OR REPLACE PROCEDURE show_one() SELECT 1");
    }
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb: unread results stop every verb, and are not lost", "[S47][S35]", EveryWay) {
    UnreadScene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    const bool held = GENERATE(true, false);
    const std::vector<Unread> all = held ? unread_in_hand() : unread_by_anybody();
    const std::vector<std::string>& rests = held ? rest_in_hand : rest_by_anybody;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const Unread& unread = all[i];
        CAPTURE(unread.name);
        run(scene.other, "DELETE FROM t");
        scene.hooks.clear();

        unread.send(scene.handle);
        CHECK(ending([&] { scene.hook(1); }) == "UsageError");
        CHECK(ending([&] { Tx tx{scene.db}; }) == "UsageError");
        CHECK(unread.rest(scene.handle) == rests[i]);

        Tx tx{scene.db};
        scene.row(1);
        unread.send(scene.handle);
        CHECK(ending([&] { Tx inner{scene.db}; }) == "UsageError");
        CHECK(ending([&] { return tx.commit(); }) == "UsageError");
        CHECK(tx.active());
        CHECK(unread.rest(scene.handle) == rests[i]);
        scene.row(2);
        CHECK(ending([&] { return tx.commit(); }) == "committed");
        CHECK(scene.hooks == "1,2");
        CHECK(scene.truth() == "1,2");
        CHECK(scene.goes_on());
    }
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: a rollback reads what nobody has begun to read", "[S25][S26]", EveryWay) {
    UnreadScene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    for (const Unread& unread : unread_by_anybody()) {
        CAPTURE(unread.name);
        run(scene.other, "DELETE FROM t");
        scene.hooks.clear();
        {
            Tx tx{scene.db};
            scene.row(1);
            {
                Tx inner{scene.db};
                scene.row(2);
                unread.send(scene.handle);
                inner.rollback();
            }
            unread.send(scene.handle);
            tx.rollback();
        }
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
        CHECK(scene.goes_on());
    }
    CHECK(scene.sink.lines() == nothing_told);
}

TEMPLATE_LIST_TEST_CASE("mariadb: a rollback that somebody's half read result is in the way of breaks the connection",
                        "[S49]", EveryWay) {
    UnreadScene<TestType> scene;
    for (const Unread& unread : unread_in_hand()) {
        CAPTURE(unread.name);
        run(scene.other, "DELETE FROM t");
        scene.hooks.clear();
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        unread.send(scene.handle);
        CHECK(ending([&] { tx.rollback(); }) == "UsageError");
        CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
        unread.rest(scene.handle);
        CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
        run(scene.handle, "ROLLBACK");
        scene.db.reset();
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
        CHECK(scene.goes_on());
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb: an answer to something else is not taken for COMMIT's", "[S48]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    // After this libmariadb no longer knows that there is something to read, and its answers are one behind.
    query(scene.handle, "SELECT 1");
    REQUIRE(attempt(scene.handle, "DO 0") == 2014);
    MYSQL_STMT* const refused = mysql_stmt_init(scene.handle);
    REQUIRE(mysql_stmt_prepare(refused, "DO 0", 4) != 0);
    mysql_stmt_close(refused);
    REQUIRE(scene.handle.get()->status == MYSQL_STATUS_READY);

    CHECK(without_cause(ending([&] { return tx.commit(); })) == "CommitUnknown unknown");
    CHECK(scene.hooks.empty());
}

// ---- Servers and proxies that answer something else

namespace {

// Sends another statement instead of the compound that has `word` in it.
struct Mistaken : txhooks::mariadb::detail::Compounds {
    static inline const char* word = "";
    static inline const char* sent = "";

    static unsigned run(MYSQL* db, std::string_view compound) noexcept {
        const bool mistaken = compound.find(word) != std::string_view::npos;
        return Compounds::run(db, mistaken ? std::string_view{sent} : compound);
    }
};
using MistakenScene = Scene<txhooks::mariadb::SavepointWitness<Mistaken>>;

}  // namespace

TEST_CASE("mariadb: a server that does not know compound statements is told to be used with Plain", "[S40]") {
    Mistaken::word = "START";
    Mistaken::sent = "BEGIN NOT;";  // what a MySQL server would say
    MistakenScene scene;
    try {
        MistakenScene::Tx tx{scene.db};
        FAIL("it began");
    } catch (const txhooks::UsageError& error) {
        CHECK(std::string{error.what()}.find("txhooks::mariadb::Plain") != std::string::npos);
    }
    CHECK(scene.db.usable());
}

TEST_CASE("mariadb: an OK that leaves no transaction is no BEGIN, one that leaves it open no COMMIT", "[S40][S48]") {
    MistakenScene scene;
    Mistaken::sent = "DO 0";
    Mistaken::word = "START";
    CHECK(ending([&] { MistakenScene::Tx tx{scene.db}; }) == "TransactionLost rolled_back");
    CHECK(scene.db.usable());
    Mistaken::word = "COMMIT";
    CHECK(ending([&] { scene.db.atomic([&] { scene.row(1); }); }) == "CommitUnknown unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    run(scene.handle, "ROLLBACK");
    scene.db.reset();
    Mistaken::word = "nothing";
    CHECK(scene.goes_on());
}

TEST_CASE("mariadb: a COMMIT that failed before it did anything can be tried again, and runs the hooks once", "[S47]") {
    MistakenScene scene;
    Mistaken::word = "COMMIT";
    Mistaken::sent = "SIGNAL SQLSTATE '45000'";
    MistakenScene::Tx tx{scene.db};
    scene.row(1);
    for (int i = 0; i < 3; ++i) {
        CHECK(ending([&] { return tx.commit(); }) == "EngineError 1644 still_open");
        CHECK(tx.active());
        CHECK(scene.hooks.empty());
    }
    Mistaken::word = "nothing";
    scene.row(2);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEST_CASE("mariadb: an error during COMMIT that proves nothing leaves it in doubt", "[S48]") {
    const std::string code = GENERATE("1180", "1927");
    const std::string sent = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = " + code;
    MistakenScene scene;
    Mistaken::word = "COMMIT";
    Mistaken::sent = sent.c_str();
    CHECK(ending([&] { scene.db.atomic([&] { scene.row(1); }); }) ==
          "CommitUnknown unknown <- EngineError " + code + " unknown");
    Mistaken::word = "nothing";
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    run(scene.handle, "ROLLBACK");
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEST_CASE("mariadb: a COMMIT that failed in another transaction, or between RELEASE and COMMIT, is not tried again",
          "[S50]") {
    MistakenScene scene;
    Mistaken::word = "COMMIT";
    MistakenScene::Tx tx{scene.db};
    scene.row(1);
    SECTION("another transaction") {
        Mistaken::sent = "SIGNAL SQLSTATE '45000'";
        run(scene.handle, "ROLLBACK");
        run(scene.handle, "BEGIN");
    }
    SECTION("between the two: nobody knows") {
        Mistaken::sent = "BEGIN NOT ATOMIC RELEASE SAVEPOINT txhooks_0; SIGNAL SQLSTATE '45000'; END";
    }
    CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown <- EngineError 1644 unknown");
    Mistaken::word = "nothing";
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.lines() == nothing_told);
}

TEST_CASE("mariadb: sent one by one, a COMMIT that fails after RELEASE can be tried again", "[S47]") {
    struct Stumbling : txhooks::mariadb::detail::Statements {
        static unsigned run(MYSQL* db, std::string_view compound) noexcept {
            if (std::string_view{Mistaken::word} == "nothing" or compound.find("COMMIT") == std::string_view::npos)
                return Statements::run(db, compound);
            return Statements::run(db,
                                   "BEGIN NOT ATOMIC RELEASE SAVEPOINT txhooks_0;SIGNAL SQLSTATE '45000';COMMIT;END");
        }
    };
    using StumblingScene = Scene<txhooks::mariadb::SavepointWitness<Stumbling>>;
    StumblingScene scene;
    Mistaken::word = "COMMIT";
    StumblingScene::Tx tx{scene.db};
    scene.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "EngineError 1644 still_open");
    CHECK(ending([&] { return tx.commit(); }) == "EngineError 1644 still_open");
    Mistaken::word = "nothing";
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

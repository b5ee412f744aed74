// SPDX-License-Identifier: MIT
//
// What the client does not know: what an error did to the transaction, once a later call has cleared it, and whether a
// query that was sent has been answered. Nobody's work is committed or rolled back silently, and no hook runs for it.

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/mariadb_scene.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <poll.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

using namespace support;

namespace {

// A call that clears the client's error, or leaves it without the server's latest word.
struct Call {
    const char* name;
    void (*make)(MYSQL*);
};

void read_all(MYSQL* db) {
    do mysql_free_result(mysql_store_result(db));
    while (mysql_next_result(db) == 0);
}

MYSQL_STMT* prepared(MYSQL* db, const std::string& sql) {
    MYSQL_STMT* const statement = mysql_stmt_init(db);
    mysql_stmt_prepare(statement, sql.data(), sql.size());
    return statement;
}

const std::vector<Call>& calls() {
    static const std::vector<Call> all{
        {"none", [](MYSQL*) {}},
        {"the usual loop", &read_all},
        {"mysql_store_result", [](MYSQL* db) { mysql_store_result(db); }},
        {"mysql_stmt_init", [](MYSQL* db) { mysql_stmt_close(mysql_stmt_init(db)); }},
        {"a statement prepared and closed", [](MYSQL* db) { mysql_stmt_close(prepared(db, "SELECT 1")); }},
        {"mysql_ping", [](MYSQL* db) { mysql_ping(db); }},
        {"mysql_select_db", [](MYSQL* db) { mysql_select_db(db, "txhooks"); }},
        {"mysql_stat", [](MYSQL* db) { mysql_stat(db); }},
        {"mysql_set_server_option", [](MYSQL* db) { mysql_set_server_option(db, MYSQL_OPTION_MULTI_STATEMENTS_OFF); }},
        {"rows fetched one by one",
         [](MYSQL* db) {
             mysql_query(db, "SELECT 1");
             MYSQL_RES* const rows = mysql_use_result(db);
             while (mysql_fetch_row(rows) != nullptr) {}
             mysql_free_result(rows);
         }},
        {"a prepared SELECT",
         [](MYSQL* db) {
             MYSQL_STMT* const statement = prepared(db, "SELECT 1");
             mysql_stmt_execute(statement);
             mysql_stmt_store_result(statement);
             mysql_stmt_close(statement);
         }},
    };
    return all;
}

void make_procedure(MYSQL* other) {
    run(other,
        "CREATE OR REPLACE PROCEDURE begins_and_fails() "
        "BEGIN START TRANSACTION; INSERT INTO t VALUES (50); SIGNAL SQLSTATE '45000'; END");
}

void send(MYSQL* db, const std::string& sql) {
    REQUIRE(mysql_send_query(db, sql.data(), sql.size()) == 0);
}

// Until the first of an answer is there, to be read.
void wait_for_answer(MYSQL* db) {
    pollfd socket{mysql_get_socket(db), POLLIN, 0};
    REQUIRE(poll(&socket, 1, 10'000) == 1);
}

// Every way that what is sent can take.
Login every_transport() {
    Login login;
    login.tls = GENERATE(false, true);
    login.compressed = GENERATE(false, true);
    return login;
}

// So that a query of more than 16 MB, which libmariadb sends in several packets, is not refused.
Login for_big_queries() {
    static const MariadbServer server{"max-allowed-packet=64M"};
    return Login{.server = server, .tls = GENERATE(false, true)};
}

std::string with_comment(const std::string& sql, std::size_t size) {
    return sql + " /*" + std::string(size, 'x') + "*/";
}

}  // namespace

TEMPLATE_LIST_TEST_CASE(
    "mariadb client: what a failed procedure has begun is the user's, also when the error is cleared", "[S8][S41][M24]",
    EveryWay) {
    const bool by_statement = GENERATE(false, true);
    const unsigned first = GENERATE(0u, 1u, 2u);
    const std::string end = GENERATE("COMMIT", "ROLLBACK");
    for (const Call& call : calls()) {
        CAPTURE(call.name, by_statement, first, end);
        Scene<TestType> scene;
        make_procedure(scene.other);
        if (by_statement) {
            MYSQL_STMT* const statement = prepared(scene.handle, "CALL begins_and_fails()");
            CHECK(mysql_stmt_execute(statement) != 0);
            mysql_stmt_close(statement);
        } else {
            CHECK(mysql_query(scene.handle, "CALL begins_and_fails()") != 0);
        }
        call.make(scene.handle);
        if (first == 0) CHECK(ending([&] { scene.hook(1); }) == "UsageError");
        if (first == 1) CHECK(ending([&] { typename Scene<TestType>::Tx tx{scene.db}; }) == "UsageError");
        CHECK_FALSE(scene.db.usable());
        CHECK(ending([&] { typename Scene<TestType>::Tx tx{scene.db}; }) == "UsageError");
        CHECK(ending([&] { scene.hook(1); }) == "UsageError");
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
        run(scene.handle, "INSERT INTO t VALUES (51)");
        run(scene.handle, end);
        CHECK(scene.truth() == (end == "COMMIT" ? "50,51" : ""));
        CHECK(scene.goes_on());
        CHECK(scene.sink.empty());
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb client: where the client does not know, BEGIN looks, and what is not its own stays",
                        "[S38][S41][M05][M16][M24]", EveryWay) {
    struct Begun {
        std::vector<std::string> by, ended_by;
    };
    const Begun begun = GENERATE(
        Begun{{"START TRANSACTION"}, {"COMMIT"}}, Begun{{"XA START 'x'"}, {"XA END 'x'", "XA COMMIT 'x' ONE PHASE"}},
        Begun{{"SET autocommit = 0"}, {"COMMIT", "SET autocommit = 1"}},
        Begun{{"SET autocommit = 0", "INSERT INTO t VALUES (51)"}, {"COMMIT", "SET autocommit = 1"}});
    const int way = GENERATE(0, 1, 2, 3);
    CAPTURE(begun.by, way);
    Scene<TestType> scene;
    txhooks::Connection& connection = scene.db;
    typename txhooks::HookedConnection<MYSQL*, TestType>::Options options;
    if (way == 1) options.begin = {.isolation = txhooks::mariadb::Isolation::serializable, .read_only = true};
    txhooks::DetachedHooks after;
    if (way == 2) options.detach = &after;
    const auto open = [&](auto fn) { way == 3 ? connection.atomic(fn) : scene.db.atomic(options, fn); };
    const auto says_how = [](auto act) {
        const std::string text = thrown_by<txhooks::UsageError>(act).what();
        CHECK(text.find("SET autocommit = 1") != std::string::npos);
    };
    for (const std::string& sql : begun.by) run(scene.handle, sql);
    read_all(scene.handle);
    says_how([&] { open([] {}); });
    says_how([&] { scene.hook(1); });
    read_all(scene.handle);
    CHECK(ending([&] { open([] {}); }) == "UsageError");
    CHECK_FALSE(scene.db.usable());
    run(scene.handle, "INSERT INTO t VALUES (50)");
    for (const std::string& sql : begun.ended_by) run(scene.handle, sql);
    CHECK(scene.truth() == (begun.by.size() == 2 ? "50,51" : "50"));
    read_all(scene.handle);
    CHECK(ending([&] { open([&] { scene.hook(1); }); }) == "returned");
    CHECK(scene.db.usable());
    CHECK(scene.sink.empty());
    after.run(scene.db);
    CHECK(scene.hooks == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb client: a BEGIN that is interrupted while it looks leaves alone what is not its own",
                        "[S40][S41][M24]", EveryWay) {
    Scene<TestType> scene;
    make_procedure(scene.other);
    for (int n = 0; n < 200; ++n) {
        CAPTURE(n);
        run(scene.handle, "SET max_statement_time = 0.0000" + std::to_string(10 + n % 80));
        const bool begun = n % 2 == 0 and mysql_query(scene.handle, "CALL begins_and_fails()") != 0 and
                           mysql_errno(scene.handle) == 1644;
        read_all(scene.handle);
        const std::string opened = ending([&] { scene.db.atomic({.begin = {.consistent_snapshot = true}}, [] {}); });
        while (attempt(scene.handle, "SET max_statement_time = 0") != 0) {}
        if (begun) {
            CHECK(opened != "returned");
            run(scene.handle, "INSERT INTO t VALUES (51)");
        }
        CHECK(attempt(scene.handle, "COMMIT") == 0);
        if (begun) CHECK(scene.truth() == "50,51");
        run(scene.handle, "DELETE FROM t");
        if (not scene.db.usable()) scene.db.reset();
    }
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb client: what a call has ended is not held against a block or a hook", "[S1][S41]",
                        EveryWay) {
    for (const Call& call : calls()) {
        CAPTURE(call.name);
        Scene<TestType> scene;
        call.make(scene.handle);
        CHECK(ending([&] { scene.row(1); }) == "returned");
        call.make(scene.handle);
        CHECK(ending([&] { scene.hook(2); }) == "returned");
        call.make(scene.handle);
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(3);
                      call.make(scene.handle);
                      scene.db.atomic([&] {
                          scene.row(4);
                          call.make(scene.handle);
                      });
                      call.make(scene.handle);
                      CHECK(ending([&] {
                                scene.db.atomic([&] {
                                    scene.row(5);
                                    call.make(scene.handle);
                                    throw std::runtime_error{"fn's own"};
                                });
                            }) == "fn's own");
                      call.make(scene.handle);
                  });
              }) == "returned");
        CHECK(scene.hooks == "1,2,3,4");
        CHECK(scene.truth() == "1,3,4");
        CHECK(scene.goes_on());
        CHECK(scene.sink.empty());
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb client: a transaction that an error has ended is lost, also when the error is cleared",
                        "[S50][M24]", EveryWay) {
    const bool nested = GENERATE(false, true);
    for (const Call& call : calls()) {
        CAPTURE(call.name, nested);
        Scene<TestType> scene;
        run(scene.other,
            "CREATE OR REPLACE PROCEDURE rolls_back_and_fails() BEGIN ROLLBACK; SIGNAL SQLSTATE '45000'; END");
        CHECK(without_cause(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      CHECK(mysql_query(scene.handle, "CALL rolls_back_and_fails()") != 0);
                      call.make(scene.handle);
                      if (nested) scene.db.atomic([&] { scene.hook(2); });
                  });
              })) == "TransactionLost unknown");
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
        CHECK(scene.goes_on());
        CHECK(scene.sink.empty());
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb client: a query whose answer is unread stops every verb, and the answer is not lost",
                        "[S1][S8][S41][S47][M25]", EveryWay) {
    const std::size_t size = GENERATE(std::size_t{0}, std::size_t{20} << 20);
    CAPTURE(size);
    Scene<TestType> scene{for_big_queries()};
    using Tx = typename Scene<TestType>::Tx;
    const auto leave_unread = [&](int row) {
        send(scene.handle, with_comment("INSERT INTO t VALUES (" + std::to_string(row) + ")", size));
        wait_for_answer(scene.handle);
    };
    leave_unread(50);
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Tx tx{scene.db}; }) == "UsageError");
    CHECK_FALSE(scene.db.usable());
    CHECK(mysql_read_query_result(scene.handle) == 0);
    CHECK(mysql_affected_rows(scene.handle) == 1);
    CHECK(scene.truth() == "50");

    Tx tx{scene.db};
    scene.row(1);
    leave_unread(51);
    CHECK(ending([&] { Tx inner{scene.db}; }) == "UsageError");
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(tx.active());
    CHECK(mysql_read_query_result(scene.handle) == 0);
    {
        Tx inner{scene.db};
        scene.row(2);
        leave_unread(52);
        CHECK(ending([&] { return inner.commit(); }) == "UsageError");  // and it is rolled back
    }
    scene.row(3);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3,50,51");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb client: a rollback reads the answer that nobody has read", "[S25][S26][M25]",
                        EveryWay) {
    const std::size_t size = GENERATE(std::size_t{0}, std::size_t{20} << 20);
    CAPTURE(size);
    Scene<TestType> scene{for_big_queries()};
    using Tx = typename Scene<TestType>::Tx;
    {
        Tx tx{scene.db};
        scene.row(1);
        {
            Tx inner{scene.db};
            send(scene.handle, with_comment("INSERT INTO t VALUES (50)", size));
            wait_for_answer(scene.handle);
            inner.rollback();
        }
        send(scene.handle, with_comment("SELECT n FROM t", size));
        wait_for_answer(scene.handle);
        tx.rollback();
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE(
    "mariadb client: a query that is still at work stops every verb, and its answer stays the user's",
    "[S1][S8][S41][S47][M26]", EveryWay) {
    const std::size_t size = GENERATE(std::size_t{0}, std::size_t{10'000}, std::size_t{100'000}, std::size_t{20} << 20);
    Login login = for_big_queries();
    login.compressed = GENERATE(false, true);
    if (login.compressed and (size == 10'000 or size > 10'000'000)) return;  // not seen: the next test
    CAPTURE(size, login.tls, login.compressed);
    Scene<TestType> scene{login};
    using Tx = typename Scene<TestType>::Tx;
    const auto leave_at_work = [&](int row) {
        send(scene.handle,
             with_comment("INSERT INTO t SELECT " + std::to_string(row) + " FROM (SELECT SLEEP(0.2)) AS s", size));
    };
    const auto read_answer = [&] {
        CHECK(mysql_read_query_result(scene.handle) == 0);
        CHECK(mysql_affected_rows(scene.handle) == 1);
    };
    leave_at_work(50);
    CHECK(ending([&] { scene.hook(1); }) == "UsageError");
    CHECK(ending([&] { Tx tx{scene.db}; }) == "UsageError");
    CHECK_FALSE(scene.db.usable());
    read_answer();
    CHECK(scene.truth() == "50");

    Tx tx{scene.db};
    scene.row(1);
    leave_at_work(51);
    CHECK(ending([&] { Tx inner{scene.db}; }) == "UsageError");
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(tx.active());
    read_answer();
    {
        Tx inner{scene.db};
        scene.row(2);
        leave_at_work(52);
        CHECK(ending([&] { return inner.commit(); }) == "UsageError");  // and it is rolled back
    }
    scene.row(3);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3,50,51");
    {
        Tx lost{scene.db};
        scene.row(4);
        leave_at_work(53);
    }
    CHECK(scene.truth() == "1,3,50,51");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb client: an answer that is not to what was asked closes the connection",
                        "[S8][S41][S48][S49][M26]", EveryWay) {
    const std::string rest =
        GENERATE("DO 0", "ROLLBACK", "BEGIN NOT ATOMIC ROLLBACK; START TRANSACTION; END", "SELECT n FROM t", "nonsense",
                 "RELEASE SAVEPOINT nowhere", "INSERT INTO t VALUES (50)");
    const std::string query = "BEGIN NOT ATOMIC DO SLEEP(0.3); EXECUTE IMMEDIATE '" + rest + "'; END";
    enum class Way { hook, block, commit, nested, nested_commit, rollback, destructor };
    const Way way =
        GENERATE(Way::hook, Way::block, Way::commit, Way::nested, Way::nested_commit, Way::rollback, Way::destructor);
    CAPTURE(rest, static_cast<int>(way));
    Scene<TestType> scene{Login{.compressed = true}};
    using Tx = typename Scene<TestType>::Tx;
    // Of this size what is compressed cannot be seen to be at work.
    const auto leave_at_work = [&] { send(scene.handle, with_comment(query, 10'000)); };
    if (way == Way::hook or way == Way::block) {
        leave_at_work();
        if (way == Way::hook) CHECK(ending([&] { scene.hook(1); }) != "returned");
        CHECK(ending([&] { Tx tx{scene.db}; }) != "returned");
    } else {
        Tx tx{scene.db};
        scene.row(1);
        if (way == Way::nested_commit) {
            Tx inner{scene.db};
            scene.row(2);
            leave_at_work();
            CHECK(ending([&] { inner.commit(); }) != "returned");
        } else {
            leave_at_work();
        }
        if (way == Way::nested) CHECK(ending([&] { Tx inner{scene.db}; }) != "returned");
        if (way == Way::rollback) CHECK(ending([&] { tx.rollback(); }) != "returned");
        if (way == Way::commit or way == Way::nested or way == Way::nested_commit)
            CHECK(ending([&] { return tx.commit(); }) != "committed");
    }
    CHECK(scene.hooks.empty());
    if (scene.db.usable()) return;  // the answer has come in time, on a slow machine: it was refused, or read
    CHECK(mysql_query(scene.handle, "DO 0") != 0);
    mysql_read_query_result(scene.handle);  // waits for nothing
}

TEMPLATE_LIST_TEST_CASE("mariadb client: what nothing answers is not taken for a query at work", "[S1][S25][S41][M26]",
                        EveryWay) {
    const std::size_t size =
        GENERATE(std::size_t{10}, std::size_t{10'000}, std::size_t{100'000}, std::size_t{20} << 20);
    Login login = for_big_queries();
    login.compressed = GENERATE(false, true);
    CAPTURE(size, login.tls, login.compressed);
    Scene<TestType> scene{login};
    using Tx = typename Scene<TestType>::Tx;
    MYSQL_STMT* const statement = prepared(scene.handle, "SELECT LENGTH(?)");
    MYSQL_BIND parameter{};
    parameter.buffer_type = MYSQL_TYPE_LONG_BLOB;
    REQUIRE(mysql_stmt_bind_param(statement, &parameter) == 0);
    const std::string piece(size, 'x');
    const auto send_piece = [&] { REQUIRE(mysql_stmt_send_long_data(statement, 0, piece.data(), piece.size()) == 0); };
    send_piece();
    CHECK(ending([&] { scene.row(1); }) == "returned");
    send_piece();
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(2);
                  send_piece();
                  scene.db.atomic([&] { scene.row(3); });
                  send_piece();
              });
          }) == "returned");
    {
        Tx tx{scene.db};
        scene.row(4);
        send_piece();
        tx.rollback();
    }
    CHECK((mysql_stmt_execute(statement) == 0) == (size < 1'000'000));  // the pieces are more than a packet may hold
    mysql_stmt_close(statement);
    CHECK(scene.hooks == "1,2,3");
    CHECK(scene.truth() == "1,2,3");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb client: rows fetched one by one, however many, are not taken for a query at work",
                        "[S1][S41][M26]", EveryWay) {
    Login login;
    login.compressed = GENERATE(false, true);
    CAPTURE(login.compressed);
    Scene<TestType> scene{login};
    for (int rows = 0; rows < 520; ++rows) {
        CAPTURE(rows);
        const std::string sql = "SELECT seq FROM seq_1_to_600 LIMIT " + std::to_string(rows);
        REQUIRE(mysql_query(scene.handle, sql.c_str()) == 0);
        MYSQL_RES* const result = mysql_use_result(scene.handle);
        while (mysql_fetch_row(result) != nullptr) {}
        mysql_free_result(result);
        REQUIRE(ending([&] { scene.db.atomic([] {}); }) == "returned");
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb client: a connection that ended meanwhile is not taken for one with an unread answer",
                        "[S41][S48]", EveryWay) {
    for (const Call& call : calls()) {
        CAPTURE(call.name);
        Scene<TestType> scene;
        call.make(scene.handle);
        run(scene.other, "KILL CONNECTION " + std::to_string(mysql_thread_id(scene.handle)));
        wait_for_answer(scene.handle);  // its end
        const std::string opened = ending([&] { typename Scene<TestType>::Tx tx{scene.db}; });
        CHECK((opened == "ConnectionBroken" or opened.substr(0, 11) == "EngineError"));
        CHECK(ending([&] { scene.hook(1); }) == "ConnectionBroken");
        CHECK(scene.hooks.empty());
    }
}

TEMPLATE_LIST_TEST_CASE("mariadb client: over TLS and compressed it is the same", "[S2][S26][S48][S50]", EveryWay) {
    const Login login = every_transport();
    CAPTURE(login.tls, login.compressed);
    Scene<TestType> scene{login};
    using Tx = typename Scene<TestType>::Tx;
    CHECK((mysql_get_ssl_cipher(scene.handle) != nullptr) == login.tls);
    make_procedure(scene.other);
    scene.db.atomic([&] {
        scene.row(1);
        Tx tx{scene.db};
        scene.row(2);
        tx.rollback();
        mysql_stmt_close(prepared(scene.handle, "SELECT 1"));
        scene.row(3);
    });
    CHECK(scene.hooks == "1,3");
    CHECK(scene.truth() == "1,3");

    CHECK(mysql_query(scene.handle, "CALL begins_and_fails()") != 0);
    read_all(scene.handle);
    CHECK(ending([&] { scene.hook(4); }) == "UsageError");
    run(scene.handle, "ROLLBACK");

    {
        Tx tx{scene.db};
        scene.row(5);
        send(scene.handle, "ROLLBACK");
        wait_for_answer(scene.handle);
        CHECK(ending([&] { return tx.commit(); }) == "UsageError");
        CHECK(mysql_read_query_result(scene.handle) == 0);
        CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(scene.goes_on());

    {
        Tx tx{scene.db};
        scene.row(6);
        send(scene.handle, "BEGIN NOT ATOMIC DO SLEEP(0.3); ROLLBACK; END");
        CHECK(ending([&] { return tx.commit(); }) == "UsageError");
        CHECK(mysql_read_query_result(scene.handle) == 0);
        CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb client: what it costs to ask", "[cost]", EveryWay) {
    constexpr bool plain = std::is_same_v<TestType, Plain>;
    Scene<TestType> scene;
    using Tx = typename Scene<TestType>::Tx;
    const auto cost = [&](auto act) {
        const std::string count =
            "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'QUESTIONS'";
        const long before = std::stol(values(scene.handle, count));
        act();
        return std::stol(values(scene.handle, count)) - before - 1;
    };
    const auto read_by_loop = [&] { read_all(scene.handle); };  // asks the server nothing
    CHECK(cost([&] {
              read_by_loop();
              scene.db.on_commit([] {});
              scene.db.on_commit([] {});
          }) == 1);
    CHECK(cost([&] {
              read_by_loop();
              scene.db.atomic([] {});
          }) == (plain ? 5 : 2));
    CHECK(cost([&] { scene.db.atomic([&] { read_by_loop(); }); }) == (plain ? 5 : 2));
    CHECK(cost([&] {
              Tx tx{scene.db};
              for (int i = 0; i < 10; ++i) {
                  read_by_loop();
                  scene.db.on_commit([] {});
              }
              tx.rollback();
          }) == (plain ? 5 : 2));
    CHECK(cost([&] {
              scene.db.atomic([&] {
                  read_by_loop();
                  Tx inner{scene.db};
                  read_by_loop();
                  inner.commit();
                  read_by_loop();
              });
          }) == (plain ? 4 + 2 + 3 : 4));
}

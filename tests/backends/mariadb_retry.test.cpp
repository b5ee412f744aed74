// SPDX-License-Identifier: MIT
//
// retry() where other sessions are in the way.

#include "support/catch.hpp"
#include "support/mariadb_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/mariadb.hpp>
#include <txhooks/retry.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

using namespace support;
using namespace std::chrono_literals;
using txhooks::EngineError;
using txhooks::retry;
using txhooks::RetryPolicy;

namespace {

using Strings = std::vector<std::string>;

// As an application with a C handle should: the server's error as an exception.
void execute(MYSQL* db, const std::string& sql) {
    if (attempt(db, sql) != 0)
        throw EngineError{static_cast<int>(mysql_errno(db)), mysql_sqlstate(db), mysql_error(db)};
}

// The same in a prepared statement, which is closed before the exception says what happened.
void execute_prepared(MYSQL* db, const std::string& sql) {
    MYSQL_STMT* const statement = mysql_stmt_init(db);
    if (mysql_stmt_prepare(statement, sql.data(), sql.size()) == 0 and mysql_stmt_execute(statement) == 0) {
        mysql_stmt_close(statement);
        return;
    }
    const EngineError error{static_cast<int>(mysql_stmt_errno(statement)), mysql_stmt_sqlstate(statement),
                            mysql_stmt_error(statement)};
    mysql_stmt_close(statement);
    throw error;
}

// A statement that fails with error number `code`, and does nothing to the transaction.
std::string fails_with(int code) {
    return "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = " + std::to_string(code);
}

// A policy that does `act` before it tries again, at once, and notes why.
template <class Act>
RetryPolicy then(std::vector<std::string>& errors, Act act) {
    return {
        .before_retry =
            [&errors, act](unsigned, const std::exception_ptr& error) {
                errors.push_back(name_of(error));
                act();
            },
        .sleep = [](std::chrono::nanoseconds) {},
    };
}
RetryPolicy at_once(std::vector<std::string>& errors) {
    return then(errors, [] {});
}

template <class Adapter>
struct World : Scene<Adapter> {
    using Scene<Adapter>::Scene;

    std::vector<std::string> errors;
    int calls = 0;
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb retry: both sides of a deadlock are done in the end", "[retry][M02]", EveryWay) {
    const bool nested = GENERATE(false, true);
    const auto execute_it = GENERATE(&execute, &execute_prepared);
    CAPTURE(nested, execute_it == &execute_prepared);
    World<TestType> w;
    run(w.other, "CREATE OR REPLACE TABLE locks (n INT PRIMARY KEY, x INT)");
    run(w.other, "INSERT INTO locks VALUES (1, 0), (2, 0)");
    std::atomic<int> ready{0};
    struct Side {
        std::string told;
        std::vector<std::string> errors;
        int hooks = 0;
    } sides[2];
    const auto play = [&](int n) {
        Side& side = sides[n];
        Handle handle;
        txhooks::HookedConnection<MYSQL*, TestType> db{handle.get()};
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        side.told = ending([&] {
            retry(db, at_once(side.errors), [&] {
                db.on_commit([&side] { ++side.hooks; });
                execute(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")");
                execute(handle, "UPDATE locks SET x = x + 1 WHERE n = " + std::to_string(1 + n));
                ++ready;
                while (ready < 2) std::this_thread::yield();
                const auto update = [&] {
                    execute_it(handle, "UPDATE locks SET x = x + 1 WHERE n = " + std::to_string(2 - n));
                };
                if (nested)
                    db.atomic(update);
                else
                    update();
            });
        });
    };
    std::thread other{play, 0};
    play(1);
    other.join();
    for (const Side& side : sides) {
        CHECK(side.told == "returned");
        CHECK(side.hooks == 1);
    }
    Strings errors = sides[0].errors;
    errors.insert(errors.end(), sides[1].errors.begin(), sides[1].errors.end());
    REQUIRE_FALSE(errors.empty());
    for (const std::string& error : errors) CHECK(error == "EngineError 1213 rolled_back");
    CHECK(w.truth() == "0,1");
    CHECK(values(w.other, "SELECT x FROM locks") == "2,2");
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: a lock that is not given in time", "[retry][M03]", EveryWay) {
    const bool nested = GENERATE(false, true);
    World<TestType> w;
    run(w.other, "INSERT INTO t VALUES (50)");
    run(w.other, "BEGIN");
    run(w.other, "UPDATE t SET n = 51 WHERE n = 50");
    run(w.handle, "SET innodb_lock_wait_timeout = 0");
    retry(w.db, then(w.errors, [&] { run(w.other, "COMMIT"); }), [&] {
        w.row(++w.calls);
        const auto update = [&] { execute(w.handle, "UPDATE t SET n = n + 10 WHERE n > 40"); };
        if (nested)
            w.db.atomic(update);
        else
            update();
    });
    CHECK(w.errors == Strings{"EngineError 1205 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2,61");
    CHECK(w.sink.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: a COMMIT that is not let through in time", "[retry][S46][M09]", EveryWay) {
    World<TestType> w;
    run(w.handle, "SET lock_wait_timeout = 0");
    retry(w.db, then(w.errors, [&] { run(w.other, "UNLOCK TABLES"); }), [&] {
        w.row(++w.calls);
        if (w.calls == 1) run(w.other, "FLUSH TABLES WITH READ LOCK");
    });
    CHECK(w.errors == Strings{"EngineError 1205 rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "2");
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: a timeout that may have ended the transaction by a commit is not tried again",
                        "[retry][S50][M01][M21]", EveryWay) {
    static const MariadbServer strict{"innodb_rollback_on_timeout=ON"};
    const bool ddl = GENERATE(true, false);
    World<TestType> w{Login{.server = ddl ? mariadb() : strict}};
    if (ddl) {
        run(w.other, "CREATE OR REPLACE TABLE u (n INT)");
        run(w.other, "BEGIN");
        run(w.other, "INSERT INTO u VALUES (1)");
        run(w.handle, "SET lock_wait_timeout = 0");
    } else {
        run(w.other, "INSERT INTO t VALUES (50)");
        run(w.other, "BEGIN");
        run(w.other, "DELETE FROM t WHERE n = 50");
        run(w.handle, "SET innodb_lock_wait_timeout = 0");
    }
    CHECK(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(++w.calls);
                  execute(w.handle, ddl ? "ALTER TABLE u ADD m INT" : "UPDATE t SET n = 51 WHERE n = 50");
              });
          }) == "EngineError 1205 rolled_back");
    run(w.other, "ROLLBACK");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(w.truth() == (ddl ? "1" : "50"));
    CHECK(w.sink.lines() == Strings{"txhooks: while rolling back a block: TransactionLost unknown"});
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: what was committed behind the block's back is not done twice",
                        "[retry][S50][M01][M07]", EveryWay) {
    const std::string sql = GENERATE("COMMIT", "CREATE OR REPLACE TABLE u (n INT)");
    const auto fail = GENERATE(&execute, &execute_prepared);
    World<TestType> w;
    CHECK(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(++w.calls);
                  execute(w.handle, sql);
                  fail(w.handle, fails_with(1213));
              });
          }) == "EngineError 1213 rolled_back");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(w.truth() == "1");
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: gives up with the last error, and takes no other for transient", "[retry]",
                        EveryWay) {
    struct Row {
        int code;
        std::size_t retries;
    };
    const auto row = GENERATE(values<Row>({{1213, 4}, {1205, 4}, {1062, 0}, {1317, 0}, {1180, 0}, {1927, 0}}));
    World<TestType> w;
    CHECK(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(1);
                  execute(w.handle, fails_with(row.code));
              });
          }) == "EngineError " + std::to_string(row.code) + " rolled_back");
    CHECK(w.errors.size() == row.retries);
    CHECK(w.hooks.empty());
    CHECK(w.truth().empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: a COMMIT without an answer is not sent again", "[retry][S48][M20]", EveryWay) {
    const Cut how = GENERATE(Cut::request, Cut::reply);
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    World<TestType> w{Login{.port = proxy.port()}};
    CHECK(without_cause(ending([&] {
              retry(w.db, at_once(w.errors), [&] {
                  w.row(++w.calls);
                  proxy.arm("COMMIT", how);
              });
          })) == "CommitUnknown unknown");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(ending([&] { retry(w.db, at_once(w.errors), [&] { ++w.calls; }); }) == "ConnectionBroken");
    CHECK(w.calls == 1);
}

TEMPLATE_LIST_TEST_CASE("mariadb retry: two threads that read and then write lose nothing", "[retry][M02]", EveryWay) {
    constexpr int each = 40;
    World<TestType> w;
    run(w.other, "CREATE OR REPLACE TABLE counter (n INT)");
    run(w.other, "INSERT INTO counter VALUES (0)");
    struct Side {
        std::string told;
        int hooks = 0;
    } sides[2];
    const auto work = [&](Side& side) {
        Handle handle;
        txhooks::HookedConnection<MYSQL*, TestType> db{handle.get()};
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        side.told = ending([&] {
            for (int i = 0; i != each; ++i)
                retry(db, {.attempts = 1'000'000, .first_delay = 10us, .longest_delay = 2ms}, [&] {
                    db.on_commit([&side] { ++side.hooks; });
                    execute(handle, "SELECT n INTO @n FROM counter LOCK IN SHARE MODE");
                    execute(handle, "UPDATE counter SET n = @n + 1");
                });
        });
    };
    std::thread other{[&] { work(sides[0]); }};
    work(sides[1]);
    other.join();
    for (const Side& side : sides) {
        CHECK(side.told == "returned");
        CHECK(side.hooks == each);
    }
    CHECK(values(w.other, "SELECT n FROM counter") == std::to_string(2 * each));
}

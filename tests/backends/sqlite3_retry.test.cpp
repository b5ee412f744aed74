// SPDX-License-Identifier: MIT
//
// retry() where another connection is in the way.

#include "support/catch.hpp"
#include "support/sqlite_database.hpp"
#include "support/sqlite_scene.hpp"

#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/retry.hpp>

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

// As an application with a C handle should: the engine's error as an exception.
void execute(sqlite3* db, const std::string& sql) {
    if (attempt(db, sql) != SQLITE_OK) throw EngineError{sqlite3_extended_errcode(db), "", sqlite3_errmsg(db)};
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

template <class W>
struct World : Scene<W> {
    using Scene<W>::Scene;

    Handle other{this->file.path()};
    std::vector<std::string> errors;
    int calls = 0;
};

using Strings = std::vector<std::string>;

}  // namespace

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: a statement that finds the database locked", "[retry]", DeferredWays) {
    World<TestType> w;
    run(w.other, "BEGIN IMMEDIATE");
    retry(w.db, then(w.errors, [&] { run(w.other, "COMMIT"); }), w.options, [&] {
        w.hook(++w.calls);
        execute(w.handle, "INSERT INTO t VALUES (1)");
    });
    CHECK(w.errors == Strings{"EngineError BUSY rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "1");
    CHECK(w.sink.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: a block that cannot begin while another writes", "[retry]", LockingWays) {
    World<TestType> w;
    run(w.other, "BEGIN IMMEDIATE");
    run(w.other, "INSERT INTO t VALUES (1)");
    retry(w.db, then(w.errors, [&] { run(w.other, "COMMIT"); }), w.options, [&] {
        ++w.calls;
        w.row(2);
    });
    CHECK(w.errors == Strings{"EngineError BUSY rolled_back"});
    CHECK(w.calls == 1);
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "1,2");
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: a COMMIT that waits for a reader", "[retry][S47][L01]", SharingWays) {
    World<TestType> w;
    run(w.other, "INSERT INTO t VALUES (1)");
    Unfinished reader{w.other, "SELECT n FROM t"};
    retry(w.db, then(w.errors, [&] { reader.finish(); }), w.options, [&] {
        ++w.calls;
        w.row(2);
    });
    CHECK(w.errors == Strings{"EngineError BUSY still_open"});
    CHECK(w.calls == 2);
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "1,2");
    CHECK(w.sink.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: a snapshot that is out of date is taken anew", "[retry][L11a]", DeferredWays) {
    World<TestType> w{"WAL"};
    run(w.other, "INSERT INTO t VALUES (1)");
    retry(w.db, then(w.errors, [] {}), w.options, [&] {
        w.hook(++w.calls);
        const std::string last = values(w.handle, "SELECT max(n) FROM t");
        if (w.calls == 1) run(w.other, "INSERT INTO t VALUES (2)");
        execute(w.handle, "INSERT INTO t VALUES (" + last + " + 10)");
    });
    CHECK(w.errors == Strings{"EngineError BUSY_SNAPSHOT rolled_back"});
    CHECK(w.hooks == "2");
    CHECK(w.truth() == "1,2,12");
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: gives up with the last error, and leaves nothing behind", "[retry]", EveryWay) {
    World<TestType> w;
    run(w.other, "BEGIN IMMEDIATE");
    CHECK(ending([&] {
              retry(w.db, then(w.errors, [] {}), w.options, [&] {
                  w.hook(1);
                  execute(w.handle, "INSERT INTO t VALUES (1)");
              });
          }) == "EngineError BUSY rolled_back");
    CHECK(w.errors.size() == 4);
    run(w.other, "COMMIT");
    CHECK(w.hooks.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: errors that would come again are not tried again", "[retry]", EveryWay) {
    World<TestType> w;
    run(w.other, "INSERT INTO t VALUES (1)");
    CHECK(ending([&] {
              retry(w.db, then(w.errors, [] {}), w.options, [&] {
                  ++w.calls;
                  execute(w.handle, "INSERT INTO t VALUES (1)");
              });
          }) == "EngineError CONSTRAINT_PRIMARYKEY rolled_back");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: what a raw COMMIT has made durable is not done twice", "[retry][S50][L07a]",
                        EveryWay) {
    World<TestType> w;
    CHECK(ending([&] {
              retry(w.db, then(w.errors, [] {}), w.options, [&] {
                  w.row(++w.calls);
                  execute(w.handle, "COMMIT");
                  run(w.other, "BEGIN IMMEDIATE");
                  execute(w.handle, "INSERT INTO t VALUES (9)");
              });
          }) == "EngineError BUSY rolled_back");
    run(w.other, "COMMIT");
    CHECK(w.calls == 1);
    CHECK(w.errors.empty());
    CHECK(w.hooks.empty());
    CHECK(w.truth() == "1");
    CHECK(w.sink.lines().size() == 1);
    CHECK(w.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlite3 retry: two threads that read and then write lose nothing", "[retry]", EveryWay) {
    constexpr int each = 50;
    World<TestType> w{"WAL"};
    run(w.handle, "INSERT INTO t VALUES (0)");
    int hooks[2] = {0, 0};
    const Handle handles[2] = {Handle{w.file.path()}, Handle{w.file.path()}};
    const auto work = [&](const Handle& handle, int& ran) {
        txhooks::HookedConnection<sqlite3*, typename TestType::Adapter> db{handle.get()};
        for (int i = 0; i != each; ++i)
            retry(db, {.attempts = 1'000'000, .first_delay = 10us, .longest_delay = 2ms}, {.begin = TestType::begin},
                  [&] {
                      db.on_commit([&ran] { ++ran; });
                      const std::string last = values(handle, "SELECT max(n) FROM t");
                      execute(handle, "INSERT INTO t VALUES (" + last + " + 1)");
                  });
    };
    std::exception_ptr failed;
    std::thread thread{[&] {
        try {
            work(handles[0], hooks[0]);
        } catch (...) {
            failed = std::current_exception();
        }
    }};
    try {
        work(handles[1], hooks[1]);
    } catch (...) {
        thread.join();
        throw;
    }
    thread.join();
    CHECK((failed ? name_of(failed) : "") == "");
    CHECK(hooks[0] == each);
    CHECK(hooks[1] == each);
    CHECK(values(w.other, "SELECT max(n) || ' of ' || count(*) FROM t") == "100 of 101");
}

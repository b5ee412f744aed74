// SPDX-License-Identifier: MIT

#include <txhooks/error_sink.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/foreign.hpp"
#include "support/trace.hpp"

#include <exception>
#include <stdexcept>
#include <string>

#include <pthread.h>

using namespace txhooks;
using support::Log;
using support::Oops;
using support::Sink;
using support::stderr_of;
using support::Trace;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

}  // namespace

TEST_CASE("error sink: the default prints one line to stderr", "[S22]") {
    CHECK(stderr_of([] { print_to_stderr(nullptr, "txhooks: what happened", nullptr); }) == "txhooks: what happened\n");
    CHECK(stderr_of([] { print_to_stderr(nullptr, "txhooks: what", std::make_exception_ptr(Oops{})); }) ==
          "txhooks: what: oops\n");
    CHECK(stderr_of([] { print_to_stderr(nullptr, "txhooks: what", std::make_exception_ptr(42)); }) ==
          "txhooks: what: an exception that is not a std::exception\n");
}

TEST_CASE("error sink: a connection that was given none prints each failure on a line", "[S22][S21]") {
    Db db;
    const std::string said = stderr_of([&] {
        db.atomic([&] {
            db.on_commit(robust, [] { throw Oops{}; });
            db.on_commit(robust, [] { throw 42; });
        });
    });
    CHECK(said ==
          "txhooks: a robust hook threw: oops\n"
          "txhooks: a robust hook threw: an exception that is not a "
          "std::exception\n");
}

TEST_CASE("error sink: an abandoned block prints one line", "[S22][S31]") {
    Db db;
    CHECK(stderr_of([&] { const Atomic tx{db}; }) ==
          "txhooks: an Atomic was destroyed without commit() or rollback(), so it was rolled back; call commit() at "
          "the end of its block\n");
}

TEST_CASE("error sink: nothing is printed where nothing was swallowed", "[S22]") {
    Db db;
    CHECK(stderr_of([&] {
              db.atomic([&] { db.on_commit([] {}); });
              CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
              CHECK_THROWS_AS(db.atomic([&] { db.on_commit([] { throw Oops{}; }); }), HookError);
              CHECK_THROWS_AS(db.on_commit([] { throw Oops{}; }), Oops);
              db.answer_commit({Outcome::rolled_back, std::make_exception_ptr(Oops{})});
              CHECK_THROWS_AS(db.atomic([] {}), Oops);
              db.answer_commit({Outcome::unknown, std::make_exception_ptr(Oops{})});
              CHECK_THROWS_AS(db.atomic([] {}), CommitUnknown);
          }).empty());
}

TEST_CASE("error sink: is a function and a context; null restores the default", "[S22]") {
    Db db;
    int calls = 0;
    const auto fail = [&] { db.on_commit(robust, [] { throw Oops{}; }); };
    db.set_error_sink(
        [](void* context, const char*, const std::exception_ptr& error) {
            ++*static_cast<int*>(context);
            CHECK_THROWS_AS(std::rethrow_exception(error), Oops);
        },
        &calls);
    CHECK(stderr_of(fail).empty());
    CHECK(calls == 1);
    db.set_error_sink(nullptr);
    CHECK(stderr_of(fail) == "txhooks: a robust hook threw: oops\n");
    CHECK(calls == 1);
}

TEST_CASE("error sink: what it throws is dropped", "[S22]") {
    Db db;
    Trace ran;
    int calls = 0;
    db.set_error_sink(
        [](void* context, const char*, const std::exception_ptr&) {
            ++*static_cast<int*>(context);
            throw Oops{};
        },
        &calls);
    db.atomic([&] {
        db.on_commit(robust, ran.throwing("1", 42));
        db.on_commit(ran.hook("2"));
    });
    { const Atomic tx{db}; }
    db.faults.fail(Verb::rollback, When::after_effect, 42);
    CHECK_THROWS_AS(db.atomic([] { throw 7; }), int);
    CHECK(ran.text() == "1,2");
    CHECK(calls == 3);
    CHECK(db.usable());
}

TEST_CASE("error sink: an exception of another language is null, and the sentence says so", "[S22]") {
    const detail::Reporter report;
    CHECK(stderr_of([&] { report.failure("txhooks: a robust hook threw", nullptr); }) ==
          "txhooks: a robust hook threw (an exception of another language)\n");
    CHECK(stderr_of([&] { report.failure("txhooks: a robust hook threw", std::make_exception_ptr(Oops{})); }) ==
          "txhooks: a robust hook threw: oops\n");
    CHECK(stderr_of([&] { report("txhooks: what happened"); }) == "txhooks: what happened\n");
}

TEST_CASE("error sink: an exception of another language thrown by it is dropped too", "[S22]") {
    Db db;
    db.set_error_sink([](void*, const char*, const std::exception_ptr&) { support::raise_foreign(); }, nullptr);
    { const Atomic tx{db}; }
    CHECK(db.usable());
}

#if defined __GLIBC__ && defined __GLIBCXX__
TEST_CASE("error sink: to end the thread in it ends the program", "[S22]") {
    const support::ProcessEnd end = support::end_of_process([] {
        const detail::Reporter report{[](void*, const char*, const std::exception_ptr&) { pthread_exit(nullptr); }};
        report("txhooks: what happened");
    });
    CHECK(end.said.find("FATAL: exception not rethrown") != std::string::npos);
}
#endif

TEST_CASE("error sink: each connection has its own", "[S22][S56]") {
    Db a;
    Db b;
    Sink sink_a{a};
    Sink sink_b{b};
    a.on_commit(robust, [] { throw Oops{}; });
    { const Atomic tx{b}; }
    CHECK(sink_a.text() == "oops");
    CHECK(sink_b.text() == "none");
}

TEST_CASE("error sink: may use the connection", "[S22]") {
    Db db;
    db.set_error_sink(
        [](void* context, const char* what, const std::exception_ptr&) {
            Db& connection = *static_cast<Db*>(context);
            connection.atomic([&] { connection.put(what); });
        },
        &db);
    db.atomic([&] {
        db.on_commit(robust, [] { throw Oops{}; });
        db.on_commit([] {});
    });
    CHECK(db.committed("txhooks: a robust hook threw"));
}

TEST_CASE("error sink: names the verb of a hook that threw after a rollback", "[S22][S71][S77]") {
    Db db;
    const std::string said = stderr_of([&] {
        Atomic tx{db};
        db.unless_committed([] { throw 42; });
        db.on_rollback([] { throw Oops{}; });
        db.on_rollback([] { support::raise_foreign(); });
        tx.rollback();
    });
    CHECK(said ==
          "txhooks: a hook of on_rollback() threw (an exception of another language)\n"
          "txhooks: a hook of on_rollback() threw: oops\n"
          "txhooks: a hook of unless_committed() threw: an exception that is not a std::exception\n");
    CHECK(db.usable());
}

TEST_CASE("error sink: nothing is printed of a hook before COMMIT, whose failure the caller gets", "[S22][S62]") {
    Db db;
    CHECK(stderr_of([&] {
              CHECK_THROWS_AS(db.atomic([&] { db.before_commit([] { throw Oops{}; }); }), Oops);
              db.atomic([&] {
                  db.before_commit([] {});
                  db.on_rollback([] { throw Oops{}; });
                  db.unless_committed([] { throw Oops{}; });
              });
          }).empty());
}

TEST_CASE("error sink: is told of rollback hooks where the block around goes on, and may use it", "[S22][S71][S72]") {
    Db db;
    db.set_error_sink(
        [](void* context, const char* what, const std::exception_ptr&) {
            Db& connection = *static_cast<Db*>(context);
            connection.atomic([&] { connection.put(what); });
        },
        &db);
    db.atomic([&] {
        Atomic tx{db};
        db.on_rollback([] { throw Oops{}; });
        tx.rollback();
    });
    CHECK(db.committed("txhooks: a hook of on_rollback() threw"));
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "SAVEPOINT txhooks_1",
                          "INSERT txhooks: a hook of on_rollback() threw", "RELEASE txhooks_1", "COMMIT"});
}

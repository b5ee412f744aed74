// SPDX-License-Identifier: MIT

#include <txhooks/options.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <string>
#include <type_traits>

using namespace txhooks;
using support::Log;
using support::Trace;
using testing::FakeBackend;

namespace {

// A backend whose transactions can begin in several ways.
class Moody {
public:
    enum class Mode : unsigned char { deferred, immediate };
    struct begin_options {
        Mode mode = Mode::deferred;
        bool read_only = false;
        friend bool operator==(const begin_options&, const begin_options&) = default;
    };

    Log log;

    void begin(const begin_options& options) {
        log.push_back(std::string{"BEGIN"} + (options.mode == Mode::immediate ? " IMMEDIATE" : "") +
                      (options.read_only ? " READ ONLY" : ""));
    }
    CommitResult commit() noexcept {
        log.emplace_back("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { log.emplace_back("ROLLBACK"); }
    void savepoint(unsigned) { log.emplace_back("SAVEPOINT"); }
    void release(unsigned) { log.emplace_back("RELEASE"); }
    void rollback_to(unsigned) { log.emplace_back("ROLLBACK TO"); }
};

using Db = HookedConnection<Moody>;

}  // namespace

static_assert(std::is_same_v<Db::Options, BlockOptions<Moody::begin_options>>);
static_assert(std::is_same_v<HookedConnection<FakeBackend>::Options, BlockOptions<>>);

TEST_CASE("options: durable is refused in an open block before the database is touched", "[S35]") {
    HookedConnection<FakeBackend> db;
    Trace ran;
    bool called = false;
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        db.clear_log();
        CHECK_THROWS_AS(db.atomic({.durable = true}, [&] { called = true; }), UsageError);
        CHECK_THROWS_AS((Atomic{db, {.durable = true}}), UsageError);
        db.atomic({.join = true}, [&] { CHECK_THROWS_AS(db.atomic({.durable = true}, [] {}), UsageError); });
        CHECK(db.log().empty());
        CHECK(db.pending_hooks() == 1);
    });
    CHECK_FALSE(called);
    CHECK(ran.text() == "1");
}

TEST_CASE("options: durable with join is refused, in a block or not", "[S35]") {
    HookedConnection<FakeBackend> db;
    const BlockOptions<> both{.durable = true, .join = true};
    CHECK_THROWS_AS(db.atomic(both, [] {}), UsageError);
    CHECK_THROWS_AS((Atomic{db, both}), UsageError);
    CHECK(db.log().empty());
    db.atomic([&] { CHECK_THROWS_AS(db.atomic(both, [] {}), UsageError); });
    CHECK(db.log() == Log{"BEGIN", "COMMIT"});
}

TEST_CASE("options: a joined or durable outermost block begins a transaction like any other", "[S37]") {
    for (const BlockOptions<>& options :
         {BlockOptions<>{}, BlockOptions<>{.durable = true}, BlockOptions<>{.join = true}}) {
        CAPTURE(options.durable, options.join);
        HookedConnection<FakeBackend> db;
        Trace ran;
        db.atomic(options, [&] {
            db.put("row");
            db.on_commit(ran.hook("1"));
            db.atomic([&] { db.on_commit(ran.hook("2")); });
        });
        CHECK_THROWS_AS(db.atomic(options,
                                  [&] {
                                      db.on_commit(ran.hook("never"));
                                      throw 42;
                                  }),
                        int);
        CHECK(db.log() ==
              Log{"BEGIN", "INSERT row", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "COMMIT", "BEGIN", "ROLLBACK"});
        CHECK(ran.text() == "1,2");
        CHECK(db.usable());
    }
}

TEST_CASE("options: begin options are the backend's own, and the outermost block passes them on", "[S38]") {
    Db db;
    db.atomic({.begin = {.mode = Moody::Mode::immediate}}, [] {});
    {
        Atomic tx{db, {.durable = true, .begin = {.read_only = true}}};
        tx.commit();
    }
    db.atomic({.begin = {.mode = Moody::Mode::immediate, .read_only = true}}, [] {});
    db.atomic([] {});
    Connection& any = db;
    any.atomic([] {});
    CHECK(db.log == Log{"BEGIN IMMEDIATE", "COMMIT", "BEGIN READ ONLY", "COMMIT", "BEGIN IMMEDIATE READ ONLY", "COMMIT",
                        "BEGIN", "COMMIT", "BEGIN", "COMMIT"});
}

TEST_CASE("options: begin options on a nested block are refused, and nothing is sent", "[S38]") {
    Db db;
    db.atomic([&] {
        CHECK_THROWS_AS(db.atomic({.begin = {.read_only = true}}, [] {}), UsageError);
        CHECK_THROWS_AS((Atomic{db, {.join = true, .begin = {.mode = Moody::Mode::immediate}}}), UsageError);
        CHECK(db.log == Log{"BEGIN"});
        db.atomic({.begin = {}}, [] {});
    });
    CHECK(db.log == Log{"BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"});
}

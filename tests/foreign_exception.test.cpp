// SPDX-License-Identifier: MIT

// Exceptions that are no C++ exceptions: nothing may be decided by whether there is an exception_ptr.

#include <txhooks/backend_adapter.hpp>
#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/foreign.hpp"
#include "support/on_copy.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>

using namespace txhooks;
using support::ending;
using support::Log;
using support::name_of;
using support::Oops;
using support::raise_foreign;
using support::raises_foreign;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::FaultyAdapter;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

// A commit() of which nothing is known but that it threw, and what the client sees afterwards.
struct Stateful {
    void begin() { now = ConnectionState::open; }
    void commit() {
        now = after_commit;
        raise_foreign();
    }
    void rollback() { now = ConnectionState::idle; }
    void savepoint(unsigned) {}
    void release(unsigned) {}
    void rollback_to(unsigned) {}
    ConnectionState after_commit = ConnectionState::idle;
    ConnectionState now = ConnectionState::idle;
    ConnectionState state() const noexcept { return now; }
};

// Statements of which some throw.
struct Sql : SqlAdapter<Sql> {
    Log log;
    Log refused;
    ConnectionState now = ConnectionState::open;

    void execute(const char* sql) {
        log.emplace_back(sql);
        for (const std::string& one : refused)
            if (one == sql) raise_foreign();
    }
    ConnectionState state() const noexcept { return now; }
};

void check(const CommitResult& result, Outcome outcome, bool lost = false) {
    CHECK(static_cast<unsigned>(result.outcome) == static_cast<unsigned>(outcome));
    CHECK(result.lost == lost);
    CHECK(result.failed);
    CHECK(result.reported_error());
    CHECK_FALSE(result.error);
}

}  // namespace

// ---- COMMIT

TEST_CASE("CommitResult: an error is reported if it says so, or has one") {
    CHECK_FALSE(CommitResult{Outcome::committed}.reported_error());
    CHECK(CommitResult{Outcome::committed, std::make_exception_ptr(42)}.reported_error());
    CHECK(CommitResult{.outcome = Outcome::committed, .failed = true}.reported_error());
}

TEST_CASE("foreign exception: a commit() that throws one has proved nothing", "[S55][S47][S48]") {
    Stateful stateful;
    for (const ConnectionState now : {ConnectionState::idle, ConnectionState::lost}) {
        stateful.after_commit = now;
        check(BackendAdapter<Stateful>{stateful}.commit(), Outcome::unknown);
    }
    for (const ConnectionState now : {ConnectionState::open, ConnectionState::failed}) {
        stateful.after_commit = now;
        check(BackendAdapter<Stateful>{stateful}.commit(), Outcome::still_open);
    }
}

TEST_CASE("foreign exception: no hook runs after a COMMIT that threw one", "[S48]") {
    Trace ran;
    HookedConnection<Stateful> db;
    CHECK_THROWS_AS(db.atomic([&] { db.on_commit(ran.probe("1")); }), CommitUnknown);
    CHECK(ran.text() == "~1");
    CHECK_FALSE(db.usable());
}

TEST_CASE("SqlAdapter: a foreign exception of each statement of COMMIT and ROLLBACK", "[S55][S47][S48][S50]") {
    Sql sql;
    SECTION("COMMIT: open") {
        sql.refused = {"COMMIT"};
        check(sql.commit(), Outcome::still_open);
        CHECK(sql.log == Log{"RELEASE SAVEPOINT txhooks_0", "COMMIT", "SAVEPOINT txhooks_0"});
    }
    SECTION("COMMIT: idle") {
        sql.refused = {"COMMIT"};
        sql.now = ConnectionState::idle;
        check(sql.commit(), Outcome::unknown);
    }
    SECTION("COMMIT, and the new witness") {
        sql.refused = {"COMMIT", "SAVEPOINT txhooks_0"};
        check(sql.commit(), Outcome::unknown);
    }
    SECTION("RELEASE of the witness") {
        sql.refused = {"RELEASE SAVEPOINT txhooks_0"};
        check(sql.commit(), Outcome::unknown, true);
        CHECK(sql.log == Log{"RELEASE SAVEPOINT txhooks_0"});
    }
    SECTION("ROLLBACK TO the witness") {
        sql.refused = {"ROLLBACK TO SAVEPOINT txhooks_0"};
        const auto lost = thrown_by<TransactionLost>([&] { sql.rollback(); });
        CHECK(lost.outcome() == Outcome::unknown);
        CHECK_FALSE(lost.cause());
        CHECK(sql.log == Log{"ROLLBACK TO SAVEPOINT txhooks_0", "ROLLBACK"});
    }
    SECTION("both of them: nothing is replaced, nothing is being handled") {
        sql.refused = {"ROLLBACK TO SAVEPOINT txhooks_0", "ROLLBACK"};
        CHECK(raises_foreign([&] { sql.rollback(); }));
    }
}

// ---- Hooks: each is a failure like any other, with no cause

namespace {

// A connection, what it tells its sink, and a row with three hooks of which one throws.
struct Scene {
    Db db;
    Sink sink{db};
    Trace ran;
    DetachedHooks after;
    Doubt doubt;

    static constexpr std::size_t hooks = 3;

    void act(std::size_t thrower) {
        db.put("1");
        for (std::size_t n = 0; n != hooks; ++n)
            db.on_commit([n, thrower, probe = ran.probe(std::to_string(n))] {
                probe();
                if (n == thrower) raise_foreign();
            });
    }

    std::string run(std::size_t thrower, const std::string& way) {
        Connection& any = db;
        const auto body = [&] { act(thrower); };
        return ending([&] {
            if (way == "any") return any.atomic(body);
            if (way == "resolve") return db.atomic({.resolve = &doubt}, body);
            if (way == "detach") {
                db.atomic({.detach = &after}, body);
                return after.run();
            }
            if (way == "captured") {
                testing::CapturedHooks captured{db};
                db.atomic(body);
                return captured.run();
            }
            if (way == "resolved") {
                db.answer_commit({Outcome::unknown, nullptr, true});
                CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, body), CommitUnknown);
                db.reset();
                doubt.resolve(db);
                return;
            }
            if (way == "rolled back") {
                const testing::RolledBack test{db};
                return db.atomic(body);
            }
            if (way == "guard") {
                Atomic tx{db};
                body();
                tx.commit();
                return;
            }
            db.atomic(body);
        });
    }

    // A new block is as if nothing had been before.
    void check_goes_on() {
        if (not db.usable()) {
            if (db.FakeBackend::state() != ConnectionState::idle) db.execute("ROLLBACK");
            db.reset();
        }
        CHECK(db.pending_hooks() == 0);
        db.set_on_hook_failure(HookFailure::stop);
        sink.clear();
        ran.clear();
        db.atomic([&] {
            db.on_commit(ran.hook("a"));
            db.atomic([&] { db.on_commit(ran.hook("b")); });
        });
        CHECK(ran.text() == "a,b");
        CHECK(sink.sentences().empty());
    }
};

const char* const ways[] = {"atomic", "any", "guard", "resolve", "detach", "captured", "resolved", "rolled back"};

constexpr const char* a_hook_threw =
    "txhooks: a hook threw, after its transaction was committed (an exception of another language)";

}  // namespace

TEST_CASE("foreign exception: of a hook is a HookError without a cause, and later hooks are discarded", "[S19][S20]") {
    for (const std::string way : ways)
        for (std::size_t n = 0; n != Scene::hooks; ++n) {
            CAPTURE(way, n);
            Scene s;
            CHECK(s.run(n, way) == "HookError committed");
            CHECK(s.ran.text() == (n == 0 ? "0,~0,~1,~2" : n == 1 ? "0,~0,1,~1,~2" : "0,~0,1,~1,2,~2"));
            CHECK(s.db.committed("1").has_value() == (way != "rolled back"));
            CHECK(s.sink.sentences().empty());
            s.check_goes_on();
        }
    Scene s;
    const auto error = thrown_by<HookError>([&] { s.db.atomic([&] { s.act(1); }); });
    CHECK(error.position() == 1);
    CHECK(error.not_run() == 1);
    CHECK(error.failed() == 1);
    CHECK_FALSE(error.cause());
    CHECK(std::string{error.what()}.find("hook number 2 threw an exception of another language") != std::string::npos);
}

TEST_CASE("foreign exception: of a hook is counted under run_all, and reported under report", "[S24]") {
    for (const HookFailure policy : {HookFailure::run_all, HookFailure::report})
        for (const std::string way : ways)
            for (std::size_t n = 0; n != Scene::hooks; ++n) {
                CAPTURE(static_cast<int>(policy), way, n);
                Scene s;
                s.db.set_on_hook_failure(policy);
                CHECK(s.run(n, way) == (policy == HookFailure::run_all ? "HookError committed" : "returned"));
                CHECK(s.ran.text() == "0,~0,1,~1,2,~2");
                CHECK(s.sink.sentences() == (policy == HookFailure::run_all ? Log{} : Log{a_hook_threw}));
                s.check_goes_on();
            }
}

TEST_CASE("foreign exception: of a hook and a C++ exception of another are both told", "[S24]") {
    for (const bool foreign_first : {true, false})
        for (const HookFailure policy : {HookFailure::run_all, HookFailure::report}) {
            Scene s;
            s.db.set_on_hook_failure(policy);
            const auto act = [&] {
                s.db.atomic([&] {
                    for (const bool foreign : {foreign_first, not foreign_first})
                        s.db.on_commit([foreign] {
                            if (foreign) raise_foreign();
                            throw Oops{};
                        });
                });
            };
            if (policy == HookFailure::run_all) {
                const auto error = thrown_by<HookError>(act);
                CHECK(error.failed() == 2);
                CHECK(name_of(error.cause()) == (foreign_first ? "none" : "oops"));
                CHECK(s.sink.text() == (foreign_first ? "oops" : "none"));
            } else {
                act();
                CHECK(s.sink.text() == (foreign_first ? "none,oops" : "oops,none"));
            }
            s.check_goes_on();
        }
}

TEST_CASE("foreign exception: of a robust hook goes to the sink, and the later hooks run", "[S21]") {
    const Log told{"txhooks: a robust hook threw (an exception of another language)"};
    Scene s;
    s.db.on_commit(robust, raise_foreign);
    CHECK(s.sink.sentences() == told);
    s.sink.clear();
    s.db.atomic([&] {
        s.db.on_commit(robust, raise_foreign);
        s.db.on_commit(s.ran.hook("1"));
    });
    CHECK(s.ran.text() == "1");
    CHECK(s.sink.sentences() == told);
    s.check_goes_on();
}

TEST_CASE("foreign exception: of a hook that runs at once passes through", "[S1]") {
    Scene s;
    CHECK(raises_foreign([&] { s.db.on_commit([probe = s.ran.probe("1")] { raise_foreign(); }); }));
    CHECK(raises_foreign([&] { s.db.on_commit(support::OnCopy{raise_foreign}); }));
    CHECK(s.ran.text() == "~1");
    s.check_goes_on();
}

TEST_CASE("foreign exception: of the copy of a hook stores nothing, and the block goes on", "[S7]") {
    Scene s;
    const support::OnCopy copied{raise_foreign};
    s.db.atomic([&] {
        s.db.on_commit(s.ran.hook("1"));
        CHECK(raises_foreign([&] { s.db.on_commit(copied); }));
        CHECK(raises_foreign([&] { s.db.on_commit(robust, copied); }));
        CHECK(s.db.pending_hooks() == 1);
        s.db.on_commit(s.ran.hook("2"));
    });
    CHECK(s.ran.text() == "1,2");
    s.check_goes_on();
}

// ---- The function, and what decides on its result

TEST_CASE("foreign exception: of fn passes through when the block is rolled back", "[S30]") {
    for (const std::string way : {"atomic", "any", "guard", "nested", "joined", "detach", "resolve", "captured",
                                  "rolled back", "rollback failed"}) {
        CAPTURE(way);
        Scene s;
        Connection& any = s.db;
        std::optional<testing::CapturedHooks> captured;
        std::optional<testing::RolledBack> test;
        if (way == "captured") captured.emplace(s.db);
        if (way == "rolled back") test.emplace(s.db);
        if (way == "rollback failed") s.db.faults.fail(Verb::rollback, When::before_effect, Oops{});
        const auto body = [&] {
            s.db.put("1");
            s.db.on_commit(s.ran.probe("1"));
            raise_foreign();
        };
        CHECK(raises_foreign([&] {
            if (way == "any") return any.atomic(body);
            if (way == "detach") return s.db.atomic({.detach = &s.after}, body);
            if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, body);
            if (way == "nested") return s.db.atomic([&] { s.db.atomic(body); });
            if (way == "joined") return s.db.atomic([&] { s.db.atomic({.join = true}, body); });
            if (way != "guard") return s.db.atomic(body);
            const Atomic tx{s.db};
            body();
        }));
        CHECK(s.ran.text() == "~1");
        CHECK_FALSE(s.db.committed("1"));
        CHECK(s.after.size() == 0);
        CHECK_FALSE(s.doubt.in_doubt());
        // To a destructor no exception is in flight: it counts as forgotten.
        CHECK(s.sink.text() == (way == "guard" ? "none" : way == "rollback failed" ? "oops" : ""));
        captured.reset();
        test.reset();
        s.check_goes_on();
    }
}

TEST_CASE("foreign exception: of a nested block leaves the block around as any other does", "[S26][S34]") {
    for (const bool join : {false, true}) {
        Scene s;
        CHECK(ending([&] {
                  s.db.atomic([&] {
                      s.db.put("outer");
                      s.db.on_commit(s.ran.probe("outer"));
                      CHECK(raises_foreign([&] {
                          s.db.atomic({.join = join}, [&] {
                              s.db.on_commit(s.ran.probe("inner"));
                              raise_foreign();
                          });
                      }));
                  });
              }) == (join ? "TransactionAborted rolled_back" : "returned"));
        CHECK(s.ran.text() == (join ? "~outer,~inner" : "~inner,outer,~outer"));
        CHECK(s.db.committed("outer").has_value() == not join);
        s.check_goes_on();
    }
}

TEST_CASE("foreign exception: of result_traits rolls back and passes through", "[S30]") {
    struct Result {
        bool has_value() const { raise_foreign(); }
        int error() const { return 0; }
    };
    Scene s;
    CHECK(raises_foreign([&] {
        s.db.atomic([&] {
            s.db.put("1");
            s.db.on_commit(s.ran.probe("1"));
            return Result{};
        });
    }));
    CHECK(s.ran.text() == "~1");
    CHECK_FALSE(s.db.committed("1"));
    s.check_goes_on();
}

// ---- Verbs

TEST_CASE("foreign exception: of any verb, a hook runs if and only if its row is committed", "[S28][S40][S49][S51]") {
    for (const Verb verb :
         {Verb::begin, Verb::commit, Verb::rollback, Verb::savepoint, Verb::release, Verb::rollback_to})
        for (const When when : {When::before_effect, When::after_effect})
            for (std::size_t nth = 1; nth != 4; ++nth)
                for (const std::string way : {"atomic", "any", "detach", "resolve", "captured", "rolled back"}) {
                    CAPTURE(static_cast<int>(verb), static_cast<int>(when), nth, way);
                    Scene s;
                    Connection& any = s.db;
                    std::string committed;
                    std::string hooks;
                    const auto row = [&](const std::string& key) {
                        s.db.put(key);
                        s.db.on_commit([&hooks, key] { hooks += key; });
                    };
                    const auto swallow = [](const auto& act) {
                        static_cast<void>(raises_foreign([&] {
                            try {
                                act();
                            } catch (const std::exception&) {
                                static_cast<void>(0);
                            }
                        }));
                    };
                    const auto body = [&] {
                        row("a");
                        swallow([&] { s.db.atomic([&] { row("b"); }); });
                        swallow([&] {
                            s.db.atomic([&] {
                                row("c");
                                throw Oops{};
                            });
                        });
                        swallow([&] {
                            Atomic tx{s.db};
                            row("d");
                            tx.rollback();
                        });
                        swallow([&] { s.db.atomic({.join = true}, [&] { row("e"); }); });
                    };
                    std::optional<testing::CapturedHooks> captured;
                    std::optional<testing::RolledBack> test;
                    if (way == "captured") captured.emplace(s.db);
                    if (way == "rolled back") test.emplace(s.db);
                    s.db.faults.act(verb, when, raise_foreign, nth);
                    std::string left;
                    const bool foreign = raises_foreign([&] {
                        try {
                            if (way == "any") return any.atomic(body);
                            if (way == "detach") return s.db.atomic({.detach = &s.after}, body);
                            if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, body);
                            s.db.atomic(body);
                        } catch (const Error& e) {
                            left = name_of(std::current_exception());
                        }
                    });
                    CAPTURE(left, foreign);
                    CHECK_FALSE(s.db.in_atomic_block());
                    s.db.faults.clear();
                    if (way == "detach") s.after.run();
                    if (captured and s.db.usable()) captured->run();
                    for (const std::string key : {"a", "b", "c", "d", "e"})
                        if (s.db.get(key)) committed += key;
                    const bool in_doubt = left.starts_with("CommitUnknown");
                    // The second RELEASE is that of the outermost block in a RolledBack.
                    const Verb end = test ? Verb::release : Verb::commit;
                    CHECK(in_doubt == (verb == end and when == When::after_effect and nth == (test ? 2 : 1)));
                    if (in_doubt)
                        CHECK(hooks.empty());
                    else
                        CHECK(hooks == committed);
                    if (way == "resolve" and in_doubt) {
                        s.db.reset();
                        CHECK(s.doubt.resolve(s.db) == Outcome::committed);
                        CHECK(hooks == committed);
                    }
                    captured.reset();
                    test.reset();
                    s.check_goes_on();
                }
}

TEST_CASE("foreign exception: of BEGIN, SAVEPOINT and RELEASE passes through", "[S40][S51]") {
    for (const When when : {When::before_effect, When::after_effect})
        for (const Verb verb : {Verb::begin, Verb::savepoint, Verb::release})
            for (const bool guard : {false, true}) {
                CAPTURE(static_cast<int>(when), static_cast<int>(verb), guard);
                Scene s;
                s.db.faults.act(verb, when, raise_foreign);
                CHECK(raises_foreign([&] {
                    const auto inner = [&] {
                        if (not guard) return s.db.atomic([] {});
                        Atomic tx{s.db};
                        tx.commit();
                    };
                    if (verb == Verb::begin) return inner();
                    s.db.atomic([&] {
                        s.db.on_commit(s.ran.probe("1"));
                        inner();
                    });
                }));
                CHECK(s.ran.text() == (verb == Verb::begin ? "" : "~1"));
                const bool released = verb == Verb::release and when == When::after_effect;
                CHECK(s.sink.text() == (released ? "no such savepoint: txhooks_1" : ""));
                CHECK(s.db.usable());
                s.check_goes_on();
            }
}

TEST_CASE("foreign exception: of ROLLBACK has an EngineError in its place", "[S49]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        Scene s;
        s.db.faults.act(Verb::rollback, when, raise_foreign);
        const std::string left = ending([&] {
            Atomic tx{s.db};
            s.act(9);
            tx.rollback();
        });
        CHECK(s.ran.text() == "~0,~1,~2");
        if (when == When::before_effect) {
            CHECK(left == "EngineError without SQLSTATE unknown");
            CHECK_FALSE(s.db.usable());
            CHECK(s.sink.sentences().empty());
        } else {
            CHECK(left == "returned");
            CHECK(
                s.sink.sentences() ==
                Log{"txhooks: ROLLBACK reported an error, but the transaction is rolled back (an exception of another "
                    "language)"});
        }
        s.check_goes_on();
    }
}

TEST_CASE("foreign exception: of ROLLBACK TO has an EngineError in its place, and dooms the parent", "[S49]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        Scene s;
        s.db.faults.act(Verb::rollback_to, when, raise_foreign);
        CHECK(ending([&] {
                  s.db.atomic([&] {
                      s.db.on_commit(s.ran.probe("1"));
                      Atomic tx{s.db};
                      CHECK(ending([&] { tx.rollback(); }) == "EngineError without SQLSTATE unknown");
                  });
              }) == "TransactionAborted rolled_back");
        CHECK(s.ran.text() == "~1");
        s.check_goes_on();
    }
}

TEST_CASE("foreign exception: of COMMIT that is still open has an EngineError in its place", "[S47]") {
    Scene s;
    s.db.faults.act(Verb::commit, When::before_effect, raise_foreign);
    Atomic tx{s.db};
    s.db.on_commit(s.ran.hook("1"));
    CHECK(ending([&] { tx.commit(); }) == "EngineError without SQLSTATE still_open");
    CHECK(tx.active());
    CHECK(s.ran.text().empty());
    CHECK(tx.commit() == Outcome::committed);
    CHECK(s.ran.text() == "1");
    s.check_goes_on();
}

TEST_CASE("foreign exception: of RELEASE, and then of ROLLBACK TO, in a RolledBack is in doubt", "[rolled_back][S48]") {
    Scene s;
    {
        testing::RolledBack test{s.db};
        s.db.faults.act(Verb::release, When::before_effect, raise_foreign);
        CHECK(ending([&] { s.db.atomic([&] { s.db.on_commit(s.ran.probe("1")); }); }) ==
              "EngineError without SQLSTATE rolled_back");
        CHECK(s.ran.text() == "~1");
        CHECK(s.db.usable());
        s.db.faults.act(Verb::release, When::before_effect, raise_foreign);
        s.db.faults.act(Verb::rollback_to, When::before_effect, raise_foreign);
        CHECK(ending([&] { s.db.atomic([&] { s.db.on_commit(s.ran.probe("2")); }); }) == "CommitUnknown unknown");
        CHECK(s.ran.text() == "~1,~2");
    }
    s.check_goes_on();
}

// ---- The sink

TEST_CASE("foreign exception: of the sink is dropped", "[S22]") {
    Scene s;
    static int called;
    called = 0;
    s.db.set_error_sink([](void*, const char*, const std::exception_ptr&) {
        ++called;
        raise_foreign();
    });
    s.db.on_commit(robust, [] { throw Oops{}; });
    CHECK(called == 1);
    s.db.set_on_hook_failure(HookFailure::report);
    s.db.atomic([&] {
        s.db.on_commit([] { throw Oops{}; });
        s.db.on_commit(robust, raise_foreign);
        s.db.on_commit(raise_foreign);
    });
    CHECK(called == 4);
    { const Atomic abandoned{s.db}; }
    CHECK(called == 5);
    s.db.answer_commit({Outcome::committed, std::make_exception_ptr(Oops{})});
    s.db.atomic([&] { s.db.on_commit(s.ran.hook("1")); });
    CHECK(called == 6);
    CHECK(s.ran.text() == "1");
    s.db.faults.act(Verb::rollback, When::before_effect, raise_foreign);
    CHECK_THROWS_AS(s.db.atomic([] { throw Oops{}; }), Oops);
    CHECK(called == 7);
    s.sink.listen_to(s.db);
    s.check_goes_on();
}

// ---- Where it ends the program: one that is caught while another exception is being handled

TEST_CASE("foreign exception: thrown while another exception is handled, it ends the program", "[S22][S40][S51]") {
    // By the ROLLBACK of a BEGIN that threw.
    CHECK(support::end_of_process([] {
              Db db;
              db.faults.fail(Verb::begin, When::after_effect, Oops{});
              db.faults.act(Verb::rollback, When::before_effect, raise_foreign);
              db.atomic([] {});
          }).terminated);
    // By the ROLLBACK TO of a RELEASE that threw.
    CHECK(support::end_of_process([] {
              Db db;
              db.faults.fail(Verb::release, When::before_effect, Oops{});
              db.faults.act(Verb::rollback_to, When::before_effect, raise_foreign);
              db.atomic([&] { db.atomic([] {}); });
          }).terminated);
    // By the ROLLBACK after fn has thrown one, which only its handler can pass on.
    CHECK(support::end_of_process([] {
              Db db;
              db.faults.act(Verb::rollback, When::before_effect, raise_foreign);
              db.atomic(raise_foreign);
          }).terminated);
    // By the sink that is told of a ROLLBACK that failed then.
    CHECK(support::end_of_process([] {
              Db db;
              db.set_error_sink([](void*, const char*, const std::exception_ptr&) { raise_foreign(); });
              db.faults.fail(Verb::rollback, When::before_effect, Oops{});
              db.atomic(raise_foreign);
          }).terminated);
    // By a hook, where the handler is the caller's.
    CHECK(support::end_of_process([] {
              Db db;
              try {
                  throw Oops{};
              } catch (const Oops&) {
                  db.atomic([&] { db.on_commit(raise_foreign); });
              }
          }).terminated);
}

// ---- Hooks of other kinds

TEST_CASE("foreign exception: of a hook before COMMIT passes through when the block is rolled back", "[S61][S62]") {
    for (const std::string way :
         {"atomic", "any", "guard", "detach", "resolve", "captured", "rolled back", "rollback failed", "retry"}) {
        CAPTURE(way);
        Scene s;
        Connection& any = s.db;
        std::optional<testing::CapturedHooks> captured;
        std::optional<testing::RolledBack> test;
        if (way == "captured") captured.emplace(s.db);
        if (way == "rolled back") test.emplace(s.db);
        if (way == "rollback failed") s.db.faults.fail(Verb::rollback, When::before_effect, Oops{});
        int calls = 0;
        const auto body = [&] {
            ++calls;
            s.db.on_rollback(s.ran.probe("rollback"));
            s.db.put("1");
            s.db.on_commit(s.ran.probe("commit"));
            s.db.before_commit([] { raise_foreign(); });
            s.db.before_commit(s.ran.probe("never"));
            s.db.unless_committed(s.ran.probe("unless"));
        };
        CHECK(raises_foreign([&] {
            if (way == "any") return any.atomic(body);
            if (way == "detach") return s.db.atomic({.detach = &s.after}, body);
            if (way == "resolve") return s.db.atomic({.resolve = &s.doubt}, body);
            if (way == "retry")
                return retry(s.db, {.transient = [](const std::exception_ptr&) noexcept { return true; }}, body);
            if (way != "guard") return s.db.atomic(body);
            Atomic tx{s.db};
            body();
            tx.commit();
        }));
        CHECK(calls == 1);
        CHECK(s.ran.text() == (way == "rollback failed" ? "unless,~rollback,~commit,~never,~unless"
                                                        : "unless,rollback,~rollback,~commit,~never,~unless"));
        CHECK_FALSE(s.db.committed("1"));
        CHECK(s.after.size() == 0);
        CHECK_FALSE(s.doubt.in_doubt());
        CHECK(s.sink.text() == (way == "rollback failed" ? "oops" : ""));
        captured.reset();
        test.reset();
        s.check_goes_on();
    }
}

TEST_CASE("foreign exception: of a hook before COMMIT that runs at once passes through", "[S67]") {
    Scene s;
    CHECK(raises_foreign([&] { s.db.before_commit([probe = s.ran.probe("1")] { raise_foreign(); }); }));
    CHECK(s.ran.text() == "~1");
    s.check_goes_on();
}

TEST_CASE("foreign exception: of the copy of a hook of any kind stores nothing, and the block goes on", "[S74]") {
    Scene s;
    const support::OnCopy copied{raise_foreign};
    s.db.atomic([&] {
        s.db.on_commit(s.ran.hook("1"));
        CHECK(raises_foreign([&] { s.db.before_commit(copied); }));
        CHECK(raises_foreign([&] { s.db.on_rollback(copied); }));
        CHECK(raises_foreign([&] { s.db.unless_committed(copied); }));
        s.db.on_commit(s.ran.hook("2"));
    });
    CHECK(s.ran.text() == "1,2");
    s.check_goes_on();
}

TEST_CASE("foreign exception: of a hook of what is undone goes to the sink, and the others run", "[S71]") {
    const Log told{"txhooks: a hook of unless_committed() threw (an exception of another language)",
                   "txhooks: a hook of on_rollback() threw (an exception of another language)"};
    for (const std::string way :
         {"rollback()", "destructor", "atomic", "savepoint", "COMMIT", "hook before COMMIT", "rolled back"}) {
        CAPTURE(way);
        Scene s;
        std::optional<testing::RolledBack> test;
        if (way == "rolled back") test.emplace(s.db);
        if (way == "COMMIT") s.db.answer_commit({Outcome::rolled_back});
        const auto body = [&] {
            s.db.on_rollback(s.ran.hook("1"));
            s.db.on_rollback(raise_foreign);
            s.db.unless_committed(s.ran.hook("2"));
            s.db.unless_committed(raise_foreign);
            s.db.on_rollback(s.ran.hook("3"));
        };
        const std::string left = ending([&] {
            if (way == "savepoint")
                return s.db.atomic([&] {
                    Atomic inner{s.db};
                    body();
                    inner.rollback();
                });
            if (way == "atomic")
                return s.db.atomic([&] {
                    body();
                    throw Oops{};
                });
            if (way == "hook before COMMIT")
                return s.db.atomic([&] {
                    body();
                    s.db.before_commit([] { throw Oops{}; });
                });
            Atomic tx{s.db};
            body();
            if (way == "COMMIT") static_cast<void>(tx.commit());
            if (way == "rollback()" or way == "rolled back") tx.rollback();
        });
        CHECK(left == (way == "COMMIT"                                  ? "TransactionAborted rolled_back"
                       : way == "atomic" or way == "hook before COMMIT" ? "oops"
                                                                        : "returned"));
        CHECK(s.ran.text() == "3,2,1");
        Log sentences = s.sink.sentences();
        if (way == "destructor" and sentences.size() == 3) sentences.pop_back();  // it was abandoned
        CHECK(sentences == told);
        s.sink.clear();
        test.reset();
        s.check_goes_on();
    }
}

TEST_CASE("foreign exception: of a rollback hook of a Doubt goes to the sink too", "[doubt][S71][S75]") {
    Scene s;
    s.db.answer_commit({Outcome::unknown, nullptr, false});
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt},
                                [&] {
                                    s.db.on_rollback(s.ran.hook("1"));
                                    s.db.on_rollback(raise_foreign);
                                    s.db.unless_committed(raise_foreign);
                                }),
                    CommitUnknown);
    s.db.reset();
    CHECK(s.doubt.resolve(s.db) == Outcome::rolled_back);
    CHECK(s.ran.text() == "1");
    CHECK(s.sink.sentences() == Log{"txhooks: a hook of unless_committed() threw (an exception of another language)",
                                    "txhooks: a hook of on_rollback() threw (an exception of another language)"});
    s.sink.clear();
    s.check_goes_on();
}

TEST_CASE("foreign exception: a C++ exception of a rollback hook is told while one of another language passes",
          "[S62][S71]") {
    Scene s;
    CHECK(raises_foreign([&] {
        s.db.atomic([&] {
            s.db.on_rollback([] { throw Oops{}; });
            s.db.on_rollback(s.ran.hook("1"));
            s.db.before_commit(raise_foreign);
        });
    }));
    CHECK(s.ran.text() == "1");
    CHECK(s.sink.lines() == Log{"txhooks: a hook of on_rollback() threw: oops"});
    s.sink.clear();
    s.check_goes_on();
    // Another one of another language meets the handler of the first.
    CHECK(support::end_of_process([] {
              Db db;
              db.atomic([&] {
                  db.on_rollback(raise_foreign);
                  db.before_commit(raise_foreign);
              });
          }).terminated);
}

// ---- testing/

TEST_CASE("FakeBackend: a foreign exception of COMMIT before effect is still open, after it in doubt", "[S47][S48]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        FakeBackend backend;
        backend.begin();
        backend.faults.act(Verb::commit, when, raise_foreign);
        check(backend.commit(), when == When::before_effect ? Outcome::still_open : Outcome::unknown);
    }
}

TEST_CASE("FaultyAdapter: a foreign exception of COMMIT before effect is still open, after it in doubt", "[S47][S48]") {
    FakeBackend backend;
    FaultyAdapter<BackendAdapter<FakeBackend>> adapter{backend};
    adapter.begin({});
    adapter.faults.act(Verb::commit, When::before_effect, raise_foreign);
    check(adapter.commit(), Outcome::still_open);
    adapter.faults.act(Verb::commit, When::after_effect, raise_foreign);
    check(adapter.commit(), Outcome::unknown);
    adapter.begin({});
    backend.answer_commit({static_cast<Outcome>(4), nullptr});
    adapter.faults.act(Verb::commit, When::after_effect, raise_foreign);
    check(adapter.commit(), Outcome::unknown);
}

TEST_CASE("FakeBackend: a foreign exception of any other verb passes through it") {
    for (const Verb verb : {Verb::begin, Verb::rollback, Verb::savepoint, Verb::release, Verb::rollback_to}) {
        for (const When when : {When::before_effect, When::after_effect}) {
            CAPTURE(static_cast<int>(verb), static_cast<int>(when));
            FakeBackend backend;
            backend.faults.act(verb, when, raise_foreign);
            CHECK(raises_foreign([&] {
                backend.begin();
                backend.savepoint(1);
                backend.release(1);
                backend.savepoint(1);
                backend.rollback_to(1);
                backend.rollback();
            }));
            CHECK(backend.faults.planned() == 0);
        }
    }
}

// ---- retry

TEST_CASE("retry: an exception of another language passes through at once", "[retry]") {
    Db db;
    Trace ran;
    int calls = 0;
    bool asked = false;
    RetryPolicy policy{
        .transient = [](const std::exception_ptr&) noexcept { return true; },
        .before_retry = [&](unsigned, const std::exception_ptr&) { asked = true; },
        .sleep = [&](std::chrono::nanoseconds) { asked = true; },
    };
    SECTION("from fn") {
        CHECK(raises_foreign([&] {
            retry(db, policy, [&] {
                ++calls;
                db.on_commit(ran.probe("1"));
                raise_foreign();
            });
        }));
        CHECK(ran.text() == "~1");
        CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
    }
    SECTION("from a nested block") {
        CHECK(raises_foreign([&] {
            retry(db, policy, [&] {
                ++calls;
                db.atomic([] { raise_foreign(); });
            });
        }));
    }
    CHECK(calls == 1);
    CHECK_FALSE(asked);
    db.atomic([&] { db.on_commit(ran.hook("works")); });
}

TEST_CASE("retry: one that happens between two attempts ends it", "[retry]") {
    Db db;
    int calls = 0;
    RetryPolicy policy{
        .transient = [](const std::exception_ptr&) noexcept { return true; },
        .sleep = [](std::chrono::nanoseconds) {},
    };
    SECTION("in before_retry") {
        policy.before_retry = [](unsigned, const std::exception_ptr&) { raise_foreign(); };
    }
    SECTION("in sleep") {
        policy.sleep = [](std::chrono::nanoseconds) { raise_foreign(); };
    }
    CHECK(raises_foreign([&] {
        retry(db, policy, [&] {
            ++calls;
            throw 42;
        });
    }));
    CHECK(calls == 1);
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
}

TEST_CASE("retry: a COMMIT in doubt is not sent again, whatever it threw", "[retry][S48]") {
    Db db;
    int calls = 0;
    db.faults.act(Verb::commit, When::after_effect, raise_foreign);
    const RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
    CHECK_THROWS_AS(retry(db, policy, [&] { ++calls; }), CommitUnknown);
    CHECK(calls == 1);
}

#if defined __GLIBC__ && defined __GLIBCXX__
TEST_CASE("retry: a thread that is ended in fn ends, and its block is rolled back", "[retry][S31]") {
    Db db;
    int calls = 0;
    bool went_on = false;
    std::thread{[&] {
        const RetryPolicy policy{.transient = [](const std::exception_ptr&) noexcept { return true; }};
        retry(db, policy, [&] {
            ++calls;
            pthread_exit(nullptr);
        });
        went_on = true;
    }}.join();
    CHECK(calls == 1);
    CHECK_FALSE(went_on);
    CHECK(db.log() == Log{"BEGIN", "ROLLBACK"});
    CHECK(db.usable());
}
#endif

// SPDX-License-Identifier: MIT

#include <txhooks/doubt.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>

using namespace txhooks;
using support::Log;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::FakeError;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

struct Scene {
    Db db;
    Sink sink{db};
    Trace ran;
    Doubt doubt;

    void act(const std::string& name) {
        db.put(name);
        db.on_commit(ran.hook(name));
    }

    // A block with rows 1 and 2, whose COMMIT is not answered.
    void lose_reply(bool really_committed) {
        db.answer_commit({Outcome::unknown, std::make_exception_ptr(FakeError{"no reply"}), really_committed});
        CHECK_THROWS_AS(db.atomic({.resolve = &doubt},
                                  [&] {
                                      act("1");
                                      act("2");
                                  }),
                        CommitUnknown);
        CHECK(ran.text().empty());
        CHECK(doubt.in_doubt());
        CHECK(doubt.size() == 2);
        db.reset();
    }
};

std::string marker_row(const Doubt& doubt) {
    return std::string{"txhooks_commit/"} + doubt.marker();
}

}  // namespace

TEST_CASE("Doubt: a block that is answered runs its hooks and leaves nothing to resolve", "[doubt][S44]") {
    Scene s;
    s.db.atomic({.resolve = &s.doubt}, [&] {
        s.act("1");
        s.db.atomic([&] { s.act("2"); });
        CHECK(s.ran.text().empty());
    });
    CHECK(s.ran.text() == "1,2");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 0);
    CHECK(s.db.committed(marker_row(s.doubt)));
    CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
    CHECK(s.db.usable());
}

TEST_CASE("Doubt: writes no marker when no hook waits", "[doubt]") {
    Scene s;
    s.db.atomic({.resolve = &s.doubt}, [&] { s.db.put("1"); });
    CHECK(s.db.log() == Log{"BEGIN", "INSERT 1", "COMMIT"});
    s.db.answer_commit({Outcome::unknown, nullptr, true});
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [&] { s.db.put("2"); }), CommitUnknown);
    CHECK_FALSE(s.doubt.in_doubt());
}

TEST_CASE("Doubt: resolved to committed, the hooks run once", "[doubt][S48]") {
    Scene s;
    s.lose_reply(true);
    CHECK(s.doubt.resolve(s.db) == Outcome::committed);
    CHECK(s.ran.text() == "1,2");
    CHECK(s.db.committed("1"));
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
    CHECK(s.ran.text() == "1,2");
}

TEST_CASE("Doubt: resolved to rolled back, the hooks are discarded and the marker is taken", "[doubt][S48]") {
    Scene s;
    s.lose_reply(false);
    CHECK(s.doubt.resolve(s.db) == Outcome::rolled_back);
    CHECK(s.ran.text().empty());
    CHECK(s.doubt.size() == 0);
    CHECK_FALSE(s.db.committed("1"));
    CHECK(s.db.committed(marker_row(s.doubt)));  // a COMMIT still on its way would find it
}

TEST_CASE("Doubt: a database that cannot be asked leaves the doubt as it was", "[doubt]") {
    Scene s;
    s.lose_reply(true);
    s.db.lose_connection();
    CHECK_THROWS_AS(s.doubt.resolve(s.db), ConnectionBroken);
    CHECK(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 2);
    s.db.reconnect();
    {
        Atomic tx{s.db};
        CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
        tx.rollback();
    }
    CHECK(s.doubt.resolve(s.db) == Outcome::committed);
    CHECK(s.ran.text() == "1,2");
}

TEST_CASE("Doubt: dropped, it discards its hooks and reports that", "[doubt][S60]") {
    Db db;
    Sink sink{db};
    Trace ran;
    {
        Doubt doubt;
        db.answer_commit({Outcome::unknown, nullptr, true});
        CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, [&] { db.on_commit(ran.hook("1")); }), CommitUnknown);
    }
    CHECK(ran.text().empty());
    CHECK(sink.sentences() ==
          Log{"txhooks: detached hooks were destroyed without run() or discard(); they are discarded"});
}

TEST_CASE("Doubt: is not given to another block before it is resolved or discarded", "[doubt]") {
    Scene s;
    s.lose_reply(true);
    s.db.clear_log();
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [] {}), UsageError);
    CHECK(s.db.log().empty());
    s.doubt.discard();
    CHECK(s.doubt.size() == 0);
    s.db.atomic({.resolve = &s.doubt}, [&] { s.act("3"); });
    CHECK(s.ran.text() == "3");
}

TEST_CASE("Doubt: every block has a marker of its own", "[doubt]") {
    Scene s;
    std::set<std::string> markers;
    for (int i = 0; i != 100; ++i) {
        s.db.atomic({.resolve = &s.doubt}, [&] { s.db.on_commit([] {}); });
        markers.insert(s.doubt.marker());
        CHECK(std::string{s.doubt.marker()}.find_first_not_of("0123456789abcdef") == std::string::npos);
    }
    CHECK(markers.size() == 100);
    CHECK(markers.begin()->size() == 32);
}

TEST_CASE("Doubt: a block that rolls back discards, and leaves nothing to resolve", "[doubt][S25][S45]") {
    Scene s;
    const auto fail = GENERATE(0, 1, 2, 3);
    if (fail == 1) s.db.answer_commit({Outcome::rolled_back});
    if (fail == 2) s.db.faults.fail(Verb::begin, When::before_effect, FakeError{"no"});
    CHECK_THROWS(s.db.atomic({.resolve = &s.doubt}, [&] {
        s.act("1");
        if (fail == 0) throw std::runtime_error{"no"};
        if (fail == 3) s.db.execute("ROLLBACK; BEGIN");
    }));
    CHECK(s.ran.text().empty());
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 0);
    CHECK_FALSE(s.db.committed("1"));
    CHECK_FALSE(s.db.committed(marker_row(s.doubt)));
    s.db.atomic({.resolve = &s.doubt}, [&] { s.act("2"); });
    CHECK(s.ran.text() == "2");
}

TEST_CASE("Doubt: a COMMIT that stays open may be sent again", "[doubt][S47]") {
    Scene s;
    s.db.answer_commit({Outcome::still_open, std::make_exception_ptr(FakeError{"busy"})});
    Atomic tx{s.db, {.resolve = &s.doubt}};
    s.act("1");
    CHECK_THROWS_AS(tx.commit(), FakeError);
    CHECK(tx.active());
    CHECK(tx.commit() == Outcome::committed);
    CHECK(s.ran.text() == "1");
}

TEST_CASE("Doubt: a hook that throws, or leaves a block open, is told as after any COMMIT", "[doubt][S20][S58]") {
    Scene s;
    std::optional<Atomic<Db>> left;
    const auto error = thrown_by<HookError>([&] {
        s.db.atomic({.resolve = &s.doubt}, [&] {
            s.db.on_commit([&] { left.emplace(s.db); });
            s.db.on_commit(s.ran.throwing("1", FakeError{"bad"}));
            s.db.on_commit(s.ran.hook("2"));
        });
    });
    CHECK(error.position() == 1);
    CHECK(error.not_run() == 1);
    CHECK(s.ran.text() == "1");
    CHECK_FALSE(left->active());
    CHECK(s.sink.sentences() == Log{"txhooks: a hook returned with an atomic block still open; it is rolled back"});
    CHECK(s.doubt.size() == 0);
    CHECK(s.db.usable());
}

TEST_CASE("Doubt: a hook may open a block with a Doubt, but not with the one that is busy with it", "[doubt][S16]") {
    Scene s;
    s.db.atomic({.resolve = &s.doubt}, [&] {
        s.db.on_commit([&] {
            s.ran.note("1");
            CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [] {}), UsageError);
            Doubt another;
            s.db.atomic({.resolve = &another}, [&] { s.act("11"); });
        });
        s.db.on_commit(s.ran.hook("2"));
    });
    CHECK(s.ran.text() == "1,11,2");
    CHECK(s.sink.text().empty());
}

TEST_CASE("Doubt: is for the outermost block, of a backend with markers, and not with detach", "[doubt]") {
    Scene s;
    DetachedHooks after;
    CHECK_THROWS_AS(s.db.atomic({.detach = &after, .resolve = &s.doubt}, [] {}), UsageError);
    {
        Atomic tx{s.db};
        CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [] {}), UsageError);
        tx.rollback();
    }
    struct Plain {
        void begin() {}
        CommitResult commit() noexcept { return {Outcome::committed}; }
        void rollback() {}
    };
    HookedConnection<Plain> plain;
    CHECK_THROWS_AS(plain.atomic({.resolve = &s.doubt}, [] {}), UsageError);
    CHECK(plain.usable());
    s.lose_reply(true);
    CHECK_THROWS_AS(s.doubt.resolve(plain), UsageError);
    CHECK(s.doubt.resolve(s.db) == Outcome::committed);
}

TEST_CASE("Doubt: works through Connection&, and resolves on another connection type", "[doubt][S54]") {
    Scene s;
    Connection& any = s.db;
    s.db.answer_commit({Outcome::unknown, nullptr, true});
    CHECK_THROWS_AS(any.atomic({.resolve = &s.doubt}, [&] { s.act("1"); }), CommitUnknown);
    s.db.reset();
    FakeBackend& same_database = s.db.backend();
    HookedConnection fresh{same_database};
    CHECK(s.doubt.resolve(fresh) == Outcome::committed);
    CHECK(s.ran.text() == "1");
}

TEST_CASE("Doubt: in the scopes of tests there is none, and the hooks run or are kept",
          "[doubt][rolled_back][capture]") {
    Scene s;
    {
        testing::RolledBack test{s.db};
        s.db.atomic({.resolve = &s.doubt}, [&] { s.act("1"); });
        CHECK(s.ran.text() == "1");
    }
    CHECK_FALSE(s.db.committed(marker_row(s.doubt)));
    testing::CapturedHooks hooks{s.db};
    s.db.atomic({.resolve = &s.doubt}, [&] { s.act("2"); });
    CHECK(s.ran.text() == "1");
    CHECK(hooks.size() == 1);
    hooks.run();
    CHECK(s.ran.text() == "1,2");
}

TEST_CASE("Doubt: is lent to one open block at a time, also on another connection", "[doubt][S60]") {
    Scene s;
    Db other;
    DetachedHooks after;
    s.db.atomic({.resolve = &s.doubt}, [&] {
        s.act("1");
        CHECK_THROWS_AS(other.atomic({.resolve = &s.doubt}, [] {}), UsageError);
    });
    s.db.atomic({.detach = &after}, [&] { CHECK_THROWS_AS(other.atomic({.detach = &after}, [] {}), UsageError); });
    CHECK(s.ran.text() == "1");
    CHECK(other.log().empty());
}

TEST_CASE("Doubt: is refused in the scopes of tests where it would be in production", "[doubt][rolled_back]") {
    Scene s;
    DetachedHooks after;
    testing::RolledBack test{s.db};
    CHECK_THROWS_AS(s.db.atomic({.detach = &after, .resolve = &s.doubt}, [] {}), UsageError);
}

TEST_CASE("Doubt: a database that is asked twice says the same twice", "[doubt]") {
    Scene s;
    s.lose_reply(false);
    Db other;
    const std::string marker = s.doubt.marker();
    CHECK_FALSE(s.db.was_committed(marker.c_str()));
    CHECK_FALSE(s.db.was_committed(marker.c_str()));
    CHECK(s.doubt.resolve(s.db) == Outcome::rolled_back);
    CHECK(s.ran.text().empty());
}

// ---- Hooks of other kinds

namespace {

struct EachKind : Scene {
    void register_each_kind() {
        db.on_commit(ran.probe("commit"));
        db.on_rollback(ran.probe("rollback 1"));
        db.before_commit([this] { db.put("before"); });
        db.unless_committed(ran.probe("unless"));
        db.on_rollback(ran.probe("rollback 2"));
    }

    void lose_reply_to_each_kind(bool really_committed) {
        db.answer_commit({Outcome::unknown, std::make_exception_ptr(FakeError{"no reply"}), really_committed});
        CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, [&] { register_each_kind(); }), CommitUnknown);
    }
};

}  // namespace

TEST_CASE("Doubt: of a block that is answered the hooks of the outcome run, and nothing is left", "[doubt][S75]") {
    EachKind s;
    SECTION("committed") {
        s.db.atomic({.resolve = &s.doubt}, [&] { s.register_each_kind(); });
        CHECK(s.ran.text() == "commit,~commit,~rollback 1,~unless,~rollback 2");
        CHECK(s.db.log() == Log{"BEGIN", "INSERT before", "INSERT " + marker_row(s.doubt), "COMMIT"});
    }
    SECTION("rolled back") {
        s.db.answer_commit({Outcome::rolled_back});
        CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [&] { s.register_each_kind(); }), TransactionAborted);
        CHECK(s.ran.text() == "rollback 2,unless,rollback 1,~commit,~rollback 1,~unless,~rollback 2");
    }
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 0);
    CHECK(s.sink.empty());
}

TEST_CASE("Doubt: unless_committed runs before CommitUnknown arrives, the others wait for the answer",
          "[doubt][S69][S75][S77]") {
    EachKind s;
    const bool committed = GENERATE(true, false);
    s.lose_reply_to_each_kind(committed);
    CHECK(s.ran.text() == "unless,~unless");
    CHECK(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 1);
    s.ran.clear();
    s.db.reset();
    CHECK(s.doubt.resolve(s.db) == (committed ? Outcome::committed : Outcome::rolled_back));
    CHECK(s.ran.text() == (committed ? "commit,~commit,~rollback 1,~rollback 2"
                                     : "rollback 2,rollback 1,~commit,~rollback 1,~rollback 2"));
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 0);
    CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
    CHECK(s.db.committed("before").has_value() == committed);
    CHECK(s.sink.empty());
}

TEST_CASE("Doubt: discarded, no hook of any kind runs", "[doubt][S75]") {
    EachKind s;
    s.lose_reply_to_each_kind(false);
    s.ran.clear();
    s.doubt.discard();
    CHECK(s.ran.text() == "~commit,~rollback 1,~rollback 2");
    s.db.reset();
    CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
}

TEST_CASE("Doubt: a marker is written if a commit or rollback hook waits, and not for the others", "[doubt][S75]") {
    Scene s;
    const auto marked = [&](const auto& register_hook) {
        s.db.clear_log();
        s.db.atomic({.resolve = &s.doubt}, register_hook);
        return s.db.log() == Log{"BEGIN", "INSERT " + marker_row(s.doubt), "COMMIT"};
    };
    CHECK(marked([&] { s.db.on_commit([] {}); }));
    CHECK(marked([&] { s.db.on_rollback([] {}); }));
    CHECK(marked([&] { s.db.before_commit([&] { s.db.on_rollback([] {}); }); }));
    CHECK_FALSE(marked([&] { s.db.before_commit([] {}); }));
    CHECK_FALSE(marked([&] { s.db.unless_committed([] {}); }));
    CHECK_FALSE(marked([&] {
        Atomic tx{s.db, {.join = true}};
        tx.commit();
    }));
}

TEST_CASE("Doubt: without a marker there is no doubt, and unless_committed has run", "[doubt][S75]") {
    Scene s;
    s.db.answer_commit({Outcome::unknown, nullptr, true});
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [&] { s.db.unless_committed(s.ran.probe("1")); }),
                    CommitUnknown);
    CHECK(s.ran.text() == "1,~1");
    CHECK_FALSE(s.doubt.in_doubt());
    s.db.reset();
    s.db.atomic({.resolve = &s.doubt}, [&] { s.act("2"); });
    CHECK(s.ran.text() == "1,~1,2");
}

TEST_CASE("Doubt: dropped with rollback hooks alone, that is reported too", "[doubt][S60][S75]") {
    Db db;
    Sink sink{db};
    Trace ran;
    {
        Doubt doubt;
        db.answer_commit({Outcome::unknown, nullptr, false});
        CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, [&] { db.on_rollback(ran.probe("1")); }), CommitUnknown);
        CHECK(doubt.in_doubt());
        CHECK(doubt.size() == 0);
    }
    CHECK(ran.text() == "~1");
    CHECK(sink.sentences() ==
          Log{"txhooks: detached hooks were destroyed without run() or discard(); they are discarded"});
}

TEST_CASE("Doubt: what a rollback hook throws, or leaves open, goes to the sink, and the others run",
          "[doubt][S58][S71][S75]") {
    Scene s;
    std::optional<Atomic<Db>> left;
    s.db.answer_commit({Outcome::unknown, nullptr, false});
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt},
                                [&] {
                                    s.db.on_rollback([&] { left.emplace(s.db); });
                                    s.db.on_rollback(s.ran.hook("1"));
                                    s.db.on_rollback(s.ran.throwing("2", FakeError{"bad"}));
                                }),
                    CommitUnknown);
    s.db.reset();
    CHECK(s.doubt.resolve(s.db) == Outcome::rolled_back);
    CHECK(s.ran.text() == "2,1");
    CHECK_FALSE(left->active());
    CHECK(s.sink.lines() ==
          Log{"txhooks: a hook of on_rollback() threw: bad",
              "txhooks: a hook returned with an atomic block still open; it is rolled back: UsageError"});
    CHECK(s.db.usable());
}

TEST_CASE("Doubt: its hooks may use the connection, and not the Doubt", "[doubt][S57][S72][S75]") {
    Scene s;
    s.db.answer_commit({Outcome::unknown, nullptr, false});
    CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt},
                                [&] {
                                    s.db.unless_committed([&] {
                                        CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
                                        s.doubt.discard();
                                        CHECK_THROWS_AS(s.act("broken"), ConnectionBroken);
                                    });
                                    s.db.on_rollback([&] {
                                        s.doubt.discard();
                                        CHECK_THROWS_AS(s.doubt.resolve(s.db), UsageError);
                                        CHECK_THROWS_AS(s.db.atomic({.resolve = &s.doubt}, [] {}), UsageError);
                                        s.db.atomic([&] { s.act("2"); });
                                    });
                                }),
                    CommitUnknown);
    CHECK(s.doubt.in_doubt());
    s.db.reset();
    CHECK(s.doubt.resolve(s.db) == Outcome::rolled_back);
    CHECK(s.ran.text() == "2");
}

TEST_CASE("Doubt: a rollback hook that destroys the Doubt ends the program with a sentence", "[doubt][S57][S75]") {
    const bool in_doubt = GENERATE(false, true);
    const auto end = support::end_of_process([in_doubt] {
        Db db;
        auto doubt = std::make_unique<Doubt>();
        db.answer_commit({Outcome::unknown, nullptr, false});
        try {
            db.atomic({.resolve = doubt.get()}, [&] {
                db.on_rollback([&] { doubt.reset(); });
                if (in_doubt) db.unless_committed([&] { doubt.reset(); });
            });
        } catch (const CommitUnknown&) {
            db.reset();
            doubt->resolve(db);
        }
    });
    CHECK(end.terminated);
    CHECK(end.said == (in_doubt
                           ? "txhooks: DetachedHooks or a Doubt destroyed before the block that fills it has ended\n"
                           : "txhooks: DetachedHooks destroyed while its hooks are being called\n"));
}

TEST_CASE("Doubt: used again and again, hooks of other kinds need no more memory", "[doubt][S52][S75]") {
    Scene s;
    s.db.keep_log(false);
    for (int i = 0; i != 50; ++i) {
        s.db.atomic({.resolve = &s.doubt}, [&] {
            for (int j = 0; j != 20; ++j) s.db.on_rollback([] {});
            s.db.unless_committed([] {});
        });
        CHECK(s.doubt.size() == 0);
    }
    CHECK(s.db.usable());
}

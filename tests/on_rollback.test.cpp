// SPDX-License-Identifier: MIT

// Hooks after a rollback, and unless committed.

#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

using namespace txhooks;
using support::AtDestruction;
using support::end_of_process;
using support::ending;
using support::Log;
using support::Oops;
using support::Sink;
using support::Trace;
using testing::FakeBackend;
using testing::FakeError;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;
using Tx = Atomic<Db>;

// One of each kind that waits for the end, in the order of their names.
template <class AnyDb>
void register_all(AnyDb& db, Trace& ran, const std::string& number) {
    db.on_commit(ran.hook("commit " + number));
    db.on_rollback(ran.hook("rollback " + number));
    db.unless_committed(ran.hook("unless " + number));
}

}  // namespace

TEST_CASE("on_rollback: runs after the ROLLBACK, and unless_committed too, the last registered first",
          "[S68][S69][S70]") {
    Db db;
    Trace ran;
    const auto body = [&] {
        db.put("row");
        register_all(db, ran, "1");
        db.on_rollback([&] {
            ran.note("rollback 2");
            CHECK(db.log().back() != "INSERT row");
            CHECK(db.usable());
        });
    };
    SECTION("by an exception") {
        CHECK_THROWS_AS(db.atomic([&] {
            body();
            throw Oops{};
        }),
                        Oops);
    }
    SECTION("by set_rollback") {
        db.atomic([&] {
            body();
            db.set_rollback(true);
        });
    }
    SECTION("by rollback()") {
        Tx tx{db};
        body();
        tx.rollback();
    }
    SECTION("by a destructor") {
        Sink sink{db};
        Tx tx{db};
        body();
    }
    SECTION("through a Connection") {
        Connection& connection = db;
        connection.atomic([&] {
            body();
            connection.set_rollback(true);
        });
    }
    SECTION("by a COMMIT that says so") {
        db.answer_commit({Outcome::rolled_back});
        CHECK_THROWS_AS(db.atomic(body), TransactionAborted);
    }
    CHECK(ran.text() == "rollback 2,unless 1,rollback 1");
}

TEST_CASE("on_rollback: each end of an outermost block runs what it proves", "[S68][S69][S73]") {
    Db db;
    Sink sink{db};
    Trace ran;
    const auto block = [&] {
        return ending([&] {
            db.atomic([&] {
                db.put("row");
                register_all(db, ran, "1");
            });
        });
    };
    const std::exception_ptr error = std::make_exception_ptr(FakeError{"error"});
    SECTION("committed") {
        CHECK(block() == "returned");
        CHECK(ran.text() == "commit 1");
    }
    SECTION("committed, with an error") {
        db.answer_commit({Outcome::committed, error});
        CHECK(block() == "returned");
        CHECK(ran.text() == "commit 1");
    }
    SECTION("rolled back, with an error") {
        db.answer_commit({Outcome::rolled_back, error});
        CHECK(block() == "error");
        CHECK(ran.text() == "unless 1,rollback 1");
    }
    SECTION("still open, then rolled back by the function form") {
        db.answer_commit({Outcome::still_open, error});
        CHECK(block() == "error");
        CHECK(ran.text() == "unless 1,rollback 1");
    }
    SECTION("in doubt, and committed in truth") {
        db.answer_commit({Outcome::unknown, error, true});
        CHECK(block() == "CommitUnknown unknown <- error");
        CHECK(ran.text() == "unless 1");
        CHECK(db.committed("row"));
    }
    SECTION("in doubt, and rolled back in truth") {
        db.answer_commit({Outcome::unknown, error, false});
        CHECK(block() == "CommitUnknown unknown <- error");
        CHECK(ran.text() == "unless 1");
    }
    SECTION("a number that nobody knows") {
        db.answer_commit({static_cast<Outcome>(17), error, true});
        CHECK(block() == "CommitUnknown unknown <- error");
        CHECK(ran.text() == "unless 1");
    }
    SECTION("a ROLLBACK that fails, with the engine in the transaction") {
        db.answer_commit({Outcome::still_open, error});
        db.faults.fail(Verb::rollback, When::before_effect, FakeError{"disk full"});
        CHECK(block() == "error");
        CHECK(ran.text() == "unless 1");
    }
    SECTION("a ROLLBACK that fails, with the engine idle") {
        db.answer_commit({Outcome::still_open, error});
        db.faults.fail(Verb::rollback, When::after_effect, FakeError{"disk full"});
        CHECK(block() == "error");
        CHECK(ran.text() == "unless 1,rollback 1");
    }
    SECTION("a connection lost before COMMIT has its effect") {
        db.faults.lose_connection(Verb::commit, When::before_effect);
        block();
        CHECK(ran.text() == "unless 1");
        CHECK_FALSE(db.committed("row"));
    }
    SECTION("a connection lost after that") {
        db.faults.lose_connection(Verb::commit, When::after_effect);
        block();
        CHECK(ran.text() == "unless 1");
        CHECK(db.committed("row"));
    }
}

TEST_CASE("on_rollback: a loss runs it if it is told as rolled back, unless_committed in any case", "[S68][S69][S50]") {
    Db db;
    Trace ran;
    const auto lost_by = [&](const char* sql) {
        return ending([&] {
            db.atomic([&] {
                db.put("row");
                register_all(db, ran, "1");
                db.execute(sql);
            });
        });
    };
    SECTION("rolled back") {
        CHECK(lost_by("ROLLBACK") == "TransactionLost rolled_back");
        CHECK(ran.text() == "unless 1,rollback 1");
    }
    SECTION("rolled back, and another begun") {
        CHECK(lost_by("ROLLBACK; BEGIN") == "TransactionLost rolled_back");
        CHECK(ran.text() == "unless 1,rollback 1");
        CHECK(db.log().back() == "ROLLBACK");
    }
    SECTION("committed") {
        CHECK(lost_by("COMMIT") == "TransactionLost committed");
        CHECK(ran.text() == "unless 1");
        CHECK(db.committed("row"));
    }
    CHECK(db.usable());
}

TEST_CASE("on_rollback: a savepoint runs its own, where the block around it goes on", "[S68][S72][S26]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        register_all(db, ran, "outer");
        {
            Tx inner{db};
            db.put("undone");
            register_all(db, ran, "1");
            db.atomic([&] { register_all(db, ran, "2"); });
            db.on_rollback([&] {
                CHECK(db.log().back() == "ROLLBACK TO txhooks_1");
                CHECK(db.in_atomic_block());
                db.put("by a rollback hook");
                register_all(db, ran, "from a hook");
                db.atomic([&] { register_all(db, ran, "nested in a hook"); });
            });
            inner.rollback();
            CHECK(ran.text() == "unless 2,rollback 2,unless 1,rollback 1");
        }
        db.put("kept");
        ran.clear();
    });
    CHECK(ran.text() == "commit outer,commit from a hook,commit nested in a hook");
    CHECK(db.committed("kept"));
    CHECK(db.committed("by a rollback hook"));
    CHECK_FALSE(db.committed("undone"));
}

TEST_CASE("on_rollback: what a savepoint's hook writes and registers is undone with the block around it", "[S72]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        {
            Tx inner{db};
            db.on_rollback([&] {
                db.put("by a hook");
                db.on_rollback(ran.hook("outer, from a hook"));
            });
            inner.rollback();
        }
        db.on_rollback(ran.hook("outer"));
        db.set_rollback(true);
    });
    CHECK(ran.text() == "outer,outer, from a hook");
    CHECK_FALSE(db.committed("by a hook"));
}

TEST_CASE("on_rollback: a joined block's hooks wait for what it is part of", "[S68][S34]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        Tx savepoint{db};
        CHECK_THROWS_AS(db.atomic({.join = true},
                                  [&] {
                                      register_all(db, ran, "1");
                                      throw Oops{};
                                  }),
                        Oops);
        CHECK(ran.text().empty());
        register_all(db, ran, "in a doomed block");
        CHECK_THROWS_AS(savepoint.commit(), TransactionAborted);
        CHECK(ran.text() == "unless in a doomed block,rollback in a doomed block,unless 1,rollback 1");
    });
}

TEST_CASE("on_rollback: where ROLLBACK TO fails, the hooks wait for the block around it", "[S68][S49]") {
    Db db;
    Sink sink{db};
    Trace ran;
    CHECK_THROWS_AS(db.atomic([&] {
        Tx inner{db};
        register_all(db, ran, "1");
        db.faults.fail(Verb::rollback_to, When::before_effect, FakeError{"disk full"});
        CHECK_THROWS_AS(inner.rollback(), FakeError);
        CHECK(ran.text().empty());
    }),
                    TransactionAborted);
    CHECK(ran.text() == "unless 1,rollback 1");
}

TEST_CASE("on_rollback: a RELEASE that fails runs them, and not twice", "[S68][S51]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.faults.fail(Verb::release, When::before_effect, FakeError{"disk full"});
        CHECK_THROWS_AS(db.atomic([&] { register_all(db, ran, "1"); }), FakeError);
        CHECK(ran.text() == "unless 1,rollback 1");
        db.set_rollback(true);
    });
    CHECK(ran.text() == "unless 1,rollback 1");
}

TEST_CASE("on_rollback: discarded hooks are destroyed when all have run, in order of registration", "[S70][S27]") {
    Db db;
    Trace ran;
    Tx tx{db};
    auto owned = std::make_unique<std::string>("owned by a commit hook");
    const std::string& seen = *owned;
    db.on_commit([owned = std::move(owned), probe = ran.probe("1")] { static_cast<void>(owned); });
    db.on_rollback([&seen, &ran, probe = ran.probe("2")] { ran.note(seen); });
    db.before_commit(ran.probe("3"));
    db.unless_committed(ran.probe("4"));
    db.on_commit(ran.probe("5"));
    tx.rollback();
    CHECK(ran.text() == "4,owned by a commit hook,~1,~2,~3,~4,~5");
}

TEST_CASE("on_rollback: after a commit it is destroyed with the commit hooks around it, without running", "[S73]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.probe("1"));
        db.on_rollback(ran.probe("2"));
        db.before_commit(ran.probe("3"));
        db.on_commit(ran.probe("4"));
        db.unless_committed(ran.probe("5"));
    });
    CHECK(ran.text() == "3,~3,1,~1,~2,4,~4,~5");
}

TEST_CASE("on_rollback: what it throws goes to the sink, and the others run", "[S71]") {
    Db db;
    Sink sink{db};
    Trace ran;
    const auto registers = [&] {
        db.on_rollback(ran.throwing("1", Oops{}));
        db.unless_committed(ran.throwing("2", 42));
        db.on_rollback(ran.hook("3"));
    };
    SECTION("of an outermost block, in a destructor that an exception has called") {
        CHECK_THROWS_AS(
            [&] {
                Tx tx{db};
                registers();
                throw FakeError{"on its way"};
            }(),
            FakeError);
    }
    SECTION("of a savepoint") {
        db.atomic([&] {
            Tx inner{db};
            registers();
            inner.rollback();
            CHECK(db.in_atomic_block());
        });
    }
    CHECK(ran.text() == "3,2,1");
    CHECK(sink.lines() ==
          Log{"txhooks: a hook of unless_committed() threw: 42", "txhooks: a hook of on_rollback() threw: oops"});
    CHECK(db.usable());
}

TEST_CASE("on_rollback: outside a block it is destroyed at once", "[S73][S67][S8]") {
    Db db;
    Trace ran;
    db.on_rollback(ran.probe("1"));
    db.unless_committed(ran.probe("2"));
    db.on_rollback(ran.hook("never"));
    CHECK(ran.text() == "~1,~2");
    db.execute("BEGIN");
    CHECK_THROWS_WITH(db.on_rollback([] {}), Catch::StartsWith("txhooks: on_rollback() in a transaction that this"));
    CHECK_THROWS_WITH(db.unless_committed([] {}),
                      Catch::StartsWith("txhooks: unless_committed() in a transaction that this"));
}

TEST_CASE("on_rollback: registered on a lost or broken connection it is refused", "[S9][S74]") {
    Db db;
    Sink sink{db};
    Trace ran;
    {
        Tx tx{db};
        db.on_rollback(ran.hook("1"));
        db.execute("ROLLBACK");
        CHECK_THROWS_AS(db.on_rollback(ran.hook("never")), TransactionLost);
        CHECK_THROWS_AS(db.unless_committed(ran.hook("never")), TransactionLost);
        CHECK_THROWS_AS(db.before_commit(ran.hook("never")), TransactionLost);
    }
    CHECK(ran.text() == "1");
    db.lose_connection();
    CHECK_THROWS_AS(db.on_rollback(ran.hook("never")), ConnectionBroken);
    CHECK(ran.text() == "1");
}

TEST_CASE("on_rollback: in a doomed block too a loss is noticed at registration", "[S9][S50][S68]") {
    Db db;
    Trace ran;
    Tx tx{db};
    CHECK_THROWS_AS(db.atomic({.join = true}, [] { throw Oops{}; }), Oops);
    db.on_rollback(ran.hook("1"));
    db.execute("ROLLBACK");
    db.put("row");  // on its own
    CHECK_THROWS_AS(db.on_rollback(ran.hook("never")), TransactionLost);
    CHECK_THROWS_AS(db.on_commit(ran.hook("never")), TransactionLost);
    CHECK_THROWS_AS(tx.commit(), TransactionLost);
    CHECK(ran.text() == "1");
}

TEST_CASE("on_rollback: when copying throws nothing was registered", "[S74][S7]") {
    struct Bad {
        Bad() = default;
        Bad(const Bad&) { throw Oops{}; }
        void operator()() const {}
    };
    Db db;
    Trace ran;
    Tx tx{db};
    const Bad bad;
    CHECK_THROWS_AS(db.on_rollback(bad), Oops);
    CHECK_THROWS_AS(db.unless_committed(bad), Oops);
    CHECK_THROWS_AS(db.before_commit(bad), Oops);
    db.on_rollback(ran.hook("1"));
    tx.rollback();
    CHECK(ran.text() == "1");
}

TEST_CASE("on_rollback: the block around cannot end in it, and a guard it leaves open is rolled back",
          "[S72][S58][S39]") {
    Db db;
    Sink sink{db};
    Trace ran;
    std::optional<Tx> left;
    Tx tx{db};
    {
        Tx inner{db};
        db.on_rollback(ran.hook("1"));
        db.on_rollback([&] {
            ran.note(ending([&] { return tx.commit(); }));
            left.emplace(db);
            db.on_rollback(ran.hook("left open"));
        });
        inner.rollback();
    }
    CHECK(ran.text() == "UsageError,left open,1");
    CHECK(sink.lines() ==
          Log{"txhooks: a hook returned with an atomic block still open; it is rolled back: UsageError"});
    CHECK(tx.commit() == Outcome::committed);
}

TEST_CASE("on_rollback: with the connection idle a hook may open blocks, and what it registers ends at once", "[S72]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.unless_committed(ran.hook("1"));
        db.on_rollback([&] {
            db.on_commit(ran.hook("at once"));
            db.on_rollback(ran.hook("never"));
            db.atomic({.durable = true}, [&] {
                db.put("another");
                db.on_commit(ran.hook("another"));
            });
        });
        db.set_rollback(true);
    });
    CHECK(ran.text() == "at once,another,1");
    CHECK(db.committed("another"));
}

TEST_CASE("on_rollback: a connection destroyed with a block open runs it", "[S68][S57]") {
    Trace ran;
    Sink sink;
    std::optional<Tx> tx;
    {
        Db db;
        sink.listen_to(db);
        tx.emplace(db);
        register_all(db, ran, "1");
    }
    CHECK(ran.text() == "unless 1,rollback 1");
    CHECK_FALSE(tx->active());
}

TEST_CASE("on_rollback: a connection destroyed by one ends the program with a sentence", "[S57][S72][posix]") {
    const auto dies = [](bool nested) {
        return end_of_process([nested] {
            auto db = std::make_unique<Db>();
            Tx tx{*db};
            if (nested) {
                Tx inner{*db};
                db->on_rollback([&] { db.reset(); });
                inner.rollback();
            }
            db->on_rollback([&] { db.reset(); });
            tx.rollback();
        });
    };
    CHECK_THAT(dies(true).said,
               Catch::Contains("txhooks: a connection was destroyed while its hooks are being called"));
    CHECK_THAT(dies(false).said,
               Catch::Contains("txhooks: a connection was destroyed while its hooks are being called"));
}

TEST_CASE("on_rollback: detach hands commit hooks over, and the rest ends with the block", "[S75]") {
    Db db;
    Trace ran;
    DetachedHooks after;
    db.atomic({.detach = &after}, [&] {
        register_all(db, ran, "1");
        db.before_commit(ran.probe("before"));
        db.on_rollback(ran.probe("2"));
        db.unless_committed(ran.probe("3"));
    });
    CHECK(ran.text() == "before,~before,~2,~3");
    CHECK(after.size() == 1);
    after.run();
    CHECK(ran.text() == "before,~before,~2,~3,commit 1");
    db.atomic({.detach = &after}, [&] {
        register_all(db, ran, "rolled back");
        db.set_rollback(true);
    });
    CHECK(ran.text() == "before,~before,~2,~3,commit 1,unless rolled back,rollback rolled back");
    CHECK(after.size() == 0);
}

TEST_CASE("on_rollback: a block that committed in a RolledBack does not run it when the base is rolled back", "[S76]") {
    Db db;
    Trace ran;
    {
        testing::RolledBack test{db};
        db.atomic([&] {
            register_all(db, ran, "1");
            db.before_commit(ran.hook("before 1"));
        });
        db.atomic([&] {
            register_all(db, ran, "2");
            db.before_commit(ran.hook("never"));
            db.set_rollback(true);
        });
    }
    CHECK(ran.text() == "before 1,commit 1,unless 2,rollback 2");
}

TEST_CASE("on_rollback: CapturedHooks keeps commit hooks, and the rest ends with the block", "[S76][S77]") {
    Db db;
    Trace ran;
    testing::CapturedHooks hooks{db};
    db.atomic([&] {
        register_all(db, ran, "1");
        db.before_commit([&] {
            ran.note("before 1");
            CHECK(hooks.size() == 0);
        });
        db.on_rollback(ran.probe("captured by"));
    });
    db.atomic([&] {
        register_all(db, ran, "2");
        db.before_commit([&] { CHECK(hooks.size() == 1); });
    });
    CHECK(ran.text() == "before 1,~captured by");
    CHECK(hooks.size() == 2);
    hooks.run();
    CHECK(ran.text() == "before 1,~captured by,commit 1,commit 2");
}

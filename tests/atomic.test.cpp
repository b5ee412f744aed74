// SPDX-License-Identifier: MIT

#include <txhooks/atomic.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

using namespace txhooks;
using support::Log;
using support::name_of;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::ConnectionLostError;
using testing::FakeBackend;
using testing::FakeError;
using testing::Verb;
using testing::When;

namespace {

using Db = HookedConnection<FakeBackend>;

struct World {
    Db db;
    Sink sink{db};
    Trace ran;

    // A row, and a hook that says whether a second connection sees the row.
    void act(const std::string& name) {
        db.put(name);
        db.on_commit([this, name] { ran.note(db.committed(name) ? name : name + " too early"); });
    }

    // Nothing of what went before is in the way of a new transaction.
    void expect_works() {
        ran.clear();
        CHECK(db.usable());
        db.atomic([&] {
            CHECK(db.pending_hooks() == 0);
            act("works");
        });
        CHECK(ran.text() == "works");
    }
};

template <class T>
concept Allocatable = requires(Db& db) { new T(db); };

}  // namespace

// ---- The two forms

TEST_CASE("Atomic: can be neither copied, moved nor allocated, and its destructor does not throw", "[S31][S32]") {
    STATIC_REQUIRE(not std::is_copy_constructible_v<Atomic<Db>>);
    STATIC_REQUIRE(not std::is_move_constructible_v<Atomic<Db>>);
    STATIC_REQUIRE(not std::is_copy_assignable_v<Atomic<Db>>);
    STATIC_REQUIRE(not std::is_move_assignable_v<Atomic<Db>>);
    STATIC_REQUIRE(not Allocatable<Atomic<Db>>);
    STATIC_REQUIRE(not Allocatable<Atomic<>>);
    STATIC_REQUIRE(std::is_nothrow_destructible_v<Atomic<Db>>);
}

TEST_CASE("atomic(fn): commits when fn returns and returns its value: references, void, move-only", "[S30]") {
    World w;
    int variable = 1;
    const int constant = 2;
    static_assert(std::is_same_v<decltype(w.db.atomic([] {})), void>);
    static_assert(std::is_same_v<decltype(w.db.atomic([] { return 7; })), int>);
    static_assert(std::is_same_v<decltype(w.db.atomic([&]() -> int& { return variable; })), int&>);
    static_assert(std::is_same_v<decltype(w.db.atomic([&]() -> const int& { return constant; })), const int&>);
    static_assert(std::is_same_v<decltype(w.db.atomic([&]() -> int&& { return std::move(variable); })), int&&>);

    CHECK(w.db.atomic([] { return 7; }) == 7);
    CHECK(&w.db.atomic([&]() -> int& { return variable; }) == &variable);
    CHECK(&w.db.atomic([&]() -> const int& { return constant; }) == &constant);
    int&& moved = w.db.atomic([&]() -> int&& { return std::move(variable); });
    CHECK(&moved == &variable);
    const std::unique_ptr<int> owner = w.db.atomic([] { return std::make_unique<int>(3); });
    CHECK(*owner == 3);
    std::unique_ptr<int> named = w.db.atomic([] {
        auto local = std::make_unique<int>(4);
        return local;
    });
    CHECK(*named == 4);
    CHECK(w.db.log().size() == 12);
    CHECK(w.db.log().back() == "COMMIT");
    CHECK(w.sink.text().empty());
}

TEST_CASE("atomic(fn): rolls back when fn throws and rethrows the original", "[S30]") {
    World w;
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("1");
        throw Oops{};
    }),
                    Oops);
    CHECK_THROWS_AS(w.db.atomic([&]() -> int {
        w.act("2");
        throw 42;
    }),
                    int);
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "ROLLBACK", "BEGIN", "INSERT 2", "ROLLBACK"});
    CHECK(w.sink.text().empty());
    w.expect_works();
}

TEST_CASE("atomic(fn): fn may take what runs SQL, and is called as the rvalue it was given", "[S30]") {
    World w;
    w.db.atomic([](FakeBackend& backend) { backend.put("by reference"); });
    struct OnlyOnce {
        std::unique_ptr<int> n;
        int operator()() && { return *n; }
    };
    CHECK(w.db.atomic(OnlyOnce{std::make_unique<int>(5)}) == 5);
    CHECK(w.db.log() == Log{"BEGIN", "INSERT by reference", "COMMIT", "BEGIN", "COMMIT"});
}

TEST_CASE("atomic(fn): needs no template parameter", "[S30][S54]") {
    World w;
    Connection& any = w.db;
    CHECK(any.atomic([&] {
        w.act("1");
        return 7;
    }) == 7);
    CHECK_THROWS_AS(any.atomic({.durable = true},
                               [&] {
                                   w.act("2");
                                   throw Oops{};
                               }),
                    Oops);
    CHECK(w.ran.text() == "1");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "COMMIT", "BEGIN", "INSERT 2", "ROLLBACK"});
}

TEST_CASE("Atomic: commits on commit(), else its destructor rolls back", "[S31]") {
    World w;
    {
        Atomic tx{w.db};
        CHECK(tx.active());
        w.act("1");
        CHECK(tx.commit() == Outcome::committed);
        CHECK_FALSE(tx.active());
    }
    {
        Atomic tx{w.db};
        w.act("2");
        tx.rollback();
        CHECK_FALSE(tx.active());
    }
    CHECK(w.sink.text().empty());
    {
        Atomic tx{w.db};
        w.act("3");
    }
    CHECK(w.ran.text() == "1");
    CHECK(w.db.log() ==
          Log{"BEGIN", "INSERT 1", "COMMIT", "BEGIN", "INSERT 2", "ROLLBACK", "BEGIN", "INSERT 3", "ROLLBACK"});
}

TEST_CASE("Atomic: abandoned is reported, rolled back by an exception is not", "[S31]") {
    World w;
    { const Atomic tx{w.db}; }
    CHECK(w.sink.text() == "none");
    CHECK(w.sink.sentences().at(0).find("without commit() or rollback()") != std::string::npos);
    w.sink.clear();
    w.db.atomic([&] { const Atomic inner{w.db}; });
    CHECK(w.sink.text() == "none");
    w.sink.clear();
    CHECK_THROWS_AS(
        [&] {
            const Atomic tx{w.db};
            const Atomic inner{w.db};
            throw Oops{};
        }(),
        Oops);
    CHECK(w.sink.text().empty());
    CHECK(w.db.log() == Log{"BEGIN", "ROLLBACK", "BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "COMMIT",
                            "BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "ROLLBACK"});
}

TEST_CASE("Atomic: a destructor that cannot roll back tells the sink and breaks the connection", "[S31][S49]") {
    World w;
    w.db.faults.fail(Verb::rollback, When::before_effect, Oops{});
    CHECK_THROWS_AS(
        [&] {
            const Atomic tx{w.db};
            w.act("1");
            throw 42;
        }(),
        int);
    CHECK(w.sink.text() == "oops");
    CHECK(w.ran.text().empty());
    CHECK_THROWS_AS(Atomic{w.db}, ConnectionBroken);
}

// ---- Nesting

TEST_CASE("atomic: a nested block undoes its own work and hooks only", "[S33][S43]") {
    World w;
    w.db.atomic([&] {
        w.act("1");
        CHECK_THROWS_AS(w.db.atomic([&] {
            w.act("2");
            throw Oops{};
        }),
                        Oops);
        CHECK_FALSE(w.db.get("2"));
        w.db.atomic([&] {
            w.act("3");
            w.db.atomic([&] { w.act("4"); });
        });
    });
    CHECK(w.ran.text() == "1,3,4");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "ROLLBACK TO txhooks_1",
                            "SAVEPOINT txhooks_1", "INSERT 3", "SAVEPOINT txhooks_2", "INSERT 4", "RELEASE txhooks_2",
                            "RELEASE txhooks_1", "COMMIT"});
}

TEST_CASE("joined: its failure dooms the nearest block with a savepoint, and the doom ends there", "[S34]") {
    World w;
    w.db.atomic([&] {
        w.act("1");
        const auto aborted = thrown_by<TransactionAborted>([&] {
            w.db.atomic([&] {
                w.act("2");
                w.db.atomic({.join = true}, [&] {
                    CHECK_THROWS_AS(w.db.atomic({.join = true}, [&] { throw Oops{}; }), Oops);
                    CHECK(thrown_by<TransactionAborted>([&] { const Atomic never{w.db}; }).outcome() ==
                          Outcome::rolled_back);
                });
            });
        });
        CHECK(name_of(aborted.cause()) == "oops");
        CHECK(aborted.outcome() == Outcome::rolled_back);
        w.db.atomic([&] { w.act("3"); });
    });
    CHECK(w.ran.text() == "1,3");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "ROLLBACK TO txhooks_1",
                            "SAVEPOINT txhooks_1", "INSERT 3", "RELEASE txhooks_1", "COMMIT"});
    CHECK(w.sink.text().empty());
}

TEST_CASE("joined: without a savepoint around it its failure dooms the outermost", "[S34]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    CHECK_THROWS_AS(w.db.atomic({.join = true}, [&] { throw Oops{}; }), Oops);
    CHECK_THROWS_AS(w.db.atomic({.join = true}, [&] { throw 42; }), TransactionAborted);
    w.db.clear_log();
    CHECK(name_of(thrown_by<TransactionAborted>([&] { const Atomic never{w.db}; }).cause()) == "oops");
    CHECK(name_of(thrown_by<TransactionAborted>([&] { const Atomic never{w.db, {.join = true}}; }).cause()) == "oops");
    CHECK(w.db.log().empty());
    CHECK(tx.active());
    const auto aborted = thrown_by<TransactionAborted>([&] { tx.commit(); });
    CHECK(name_of(aborted.cause()) == "oops");
    CHECK_FALSE(tx.active());
    CHECK(w.db.log() == Log{"ROLLBACK"});
    CHECK(w.ran.text().empty());
    w.expect_works();
}

TEST_CASE("joined: a guard that rolls back or is abandoned dooms too; a doomed block may be rolled back", "[S34]") {
    World w;
    {
        Atomic tx{w.db};
        w.act("1");
        { const Atomic joined{w.db, {.join = true}}; }
        CHECK(w.sink.text() == "none");
        tx.rollback();
    }
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "ROLLBACK"});
    w.expect_works();
}

TEST_CASE("doom: the rollback of a savepoint inside does not lift the doom of the block around it", "[S34]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    {
        Atomic inner{w.db};
        w.act("2");
        Atomic{w.db, {.join = true}}.rollback();
        CHECK_THROWS_AS(inner.commit(), TransactionAborted);
    }
    w.act("3");
    Atomic{w.db, {.join = true}}.rollback();
    CHECK_THROWS_AS(w.db.atomic([] {}), TransactionAborted);
    CHECK_THROWS_AS(tx.commit(), TransactionAborted);
    CHECK(w.ran.text().empty());
    CHECK(w.db.log() ==
          Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "ROLLBACK TO txhooks_1", "INSERT 3", "ROLLBACK"});
}

TEST_CASE("doom: a transaction that the engine has failed can only roll back", "[S34]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    w.db.fail_transaction();
    CHECK_THROWS_AS(w.db.put("refused by the engine"), FakeError);
    w.db.on_commit(w.ran.hook("stored, to be discarded"));
    w.db.clear_log();
    CHECK_THROWS_AS(w.db.atomic([] {}), TransactionAborted);
    CHECK(w.db.log().empty());
    CHECK_THROWS_AS(tx.commit(), TransactionAborted);
    CHECK(w.db.log() == Log{"ROLLBACK"});
    CHECK(w.ran.text().empty());
    w.expect_works();
}

TEST_CASE("doom: the rollback of a savepoint repairs what the engine has failed in it", "[S34]") {
    World w;
    w.db.atomic([&] {
        w.act("1");
        CHECK_THROWS_AS(w.db.atomic([&] {
            w.act("2");
            w.db.fail_transaction();
        }),
                        TransactionAborted);
        CHECK_THROWS_AS(w.db.atomic([&] {
            w.db.fail_transaction();
            w.db.put("refused");
        }),
                        FakeError);
        w.act("3");
    });
    CHECK(w.ran.text() == "1,3");
    CHECK(w.sink.text().empty());
}

TEST_CASE("doom: an engine failure in a joined block goes to the block it is part of", "[S34]") {
    World w;
    w.db.atomic([&] {
        w.act("1");
        CHECK_THROWS_AS(w.db.atomic([&] {
            w.act("2");
            CHECK_THROWS_AS(w.db.atomic({.join = true}, [&] { w.db.fail_transaction(); }), TransactionAborted);
            w.ran.note("still in S");
        }),
                        TransactionAborted);
        w.act("3");
    });
    CHECK(w.ran.text() == "still in S,1,3");
}

// ---- Ending out of order, ending twice

TEST_CASE("Atomic: ending an outer block while an inner one is open is refused and changes nothing", "[S39]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    Atomic inner{w.db};
    w.act("2");
    Atomic joined{w.db, {.join = true}};
    w.db.clear_log();
    CHECK_THROWS_AS(tx.commit(), UsageError);
    CHECK_THROWS_AS(tx.rollback(), UsageError);
    CHECK_THROWS_AS(inner.commit(), UsageError);
    CHECK_THROWS_AS(inner.rollback(), UsageError);
    CHECK(w.db.log().empty());
    CHECK((tx.active() and inner.active() and joined.active()));
    CHECK(w.db.pending_hooks() == 2);
    joined.commit();
    inner.commit();
    tx.commit();
    CHECK(w.ran.text() == "1,2");
}

TEST_CASE("Atomic: commit() from one of its own hooks is refused", "[S39]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    w.db.on_commit([&] {
        CHECK_THROWS_AS(tx.commit(), UsageError);
        tx.rollback();
        w.ran.note("refused");
    });
    w.act("2");
    tx.commit();
    CHECK(w.ran.text() == "1,refused,2");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "INSERT 2", "COMMIT"});
}

TEST_CASE("Atomic: commit() on an ended block throws, rollback() does nothing", "[S42]") {
    World w;
    const auto ended = [&](Atomic<Db>& tx) {
        w.db.clear_log();
        CHECK_THROWS_AS(tx.commit(), UsageError);
        tx.rollback();
        CHECK(w.db.log().empty());
    };
    {
        Atomic tx{w.db};
        tx.commit();
        ended(tx);
    }
    {
        Atomic tx{w.db};
        tx.rollback();
        ended(tx);
    }
    {
        Atomic tx{w.db};
        Atomic inner{w.db};
        inner.commit();
        ended(inner);
        tx.commit();
    }
    CHECK(w.sink.text().empty());
}

TEST_CASE("Atomic: every throwing commit() ends the block", "[S42]") {
    World w;
    const auto ends = [&](Atomic<Db>& tx) {
        try {
            tx.commit();
            FAIL("nothing was thrown");
        } catch (const HookError&) {
        } catch (const TransactionAborted&) {
        } catch (const TransactionLost&) {
        } catch (const CommitUnknown&) {
        } catch (const Oops&) {}
        CHECK_FALSE(tx.active());
        CHECK_FALSE(w.db.in_atomic_block());
        CHECK_THROWS_AS(tx.commit(), UsageError);
        tx.rollback();
    };
    {
        Atomic tx{w.db};
        w.db.on_commit([] { throw Oops{}; });
        ends(tx);
    }
    {
        Atomic tx{w.db};
        Atomic{w.db, {.join = true}}.rollback();
        ends(tx);
    }
    {
        Atomic tx{w.db};
        w.db.execute("COMMIT");
        ends(tx);
    }
    {
        Atomic tx{w.db};
        w.db.answer_commit({Outcome::rolled_back, std::make_exception_ptr(Oops{})});
        ends(tx);
    }
    {
        Atomic tx{w.db};
        w.db.answer_commit({Outcome::unknown});
        ends(tx);
    }
    CHECK(w.sink.text().empty());
}

// ---- Opening that fails

TEST_CASE("BEGIN: one that throws leaves no block and no transaction of ours", "[S40]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        CAPTURE(static_cast<int>(when));
        World w;
        w.db.faults.fail(Verb::begin, when, Oops{});
        CHECK_THROWS_AS(Atomic{w.db}, Oops);
        CHECK(w.db.log() == (when == When::before_effect ? Log{} : Log{"BEGIN", "ROLLBACK"}));
        CHECK_FALSE(w.db.in_atomic_block());
        CHECK(w.sink.text().empty());
        w.expect_works();
        w.db.faults.fail(Verb::begin, when, 42);
        bool called = false;
        CHECK_THROWS_AS(w.db.atomic([&] { called = true; }), int);
        CHECK_FALSE(called);
        w.expect_works();
    }
}

TEST_CASE("BEGIN: one that took effect, threw and cannot be rolled back breaks the connection", "[S40][S49]") {
    World w;
    w.db.faults.fail(Verb::begin, When::after_effect, Oops{});
    w.db.faults.fail(Verb::rollback, When::before_effect, 42);
    CHECK_THROWS_AS(Atomic{w.db}, Oops);
    CHECK(w.sink.text() == "42");
    CHECK_THROWS_AS(Atomic{w.db}, ConnectionBroken);
    w.db.execute("ROLLBACK");
    w.db.reset();
    w.expect_works();
}

TEST_CASE("SAVEPOINT: one that throws leaves no block; its number is not used again", "[S40]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    for (const When when : {When::before_effect, When::after_effect}) {
        w.db.faults.fail(Verb::savepoint, when, Oops{});
        CHECK_THROWS_AS(Atomic{w.db}, Oops);
        CHECK(w.db.pending_hooks() == 1);
    }
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("2");
        throw Oops{};
    }),
                    Oops);
    w.db.atomic([&] { w.act("3"); });
    CHECK(tx.commit() == Outcome::committed);
    CHECK(w.ran.text() == "1,3");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_2", "SAVEPOINT txhooks_3", "INSERT 2",
                            "ROLLBACK TO txhooks_3", "SAVEPOINT txhooks_3", "INSERT 3", "RELEASE txhooks_3", "COMMIT"});
    w.db.clear_log();
    w.db.atomic([&] { w.db.atomic([] {}); });
    CHECK(w.db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "COMMIT"});
}

TEST_CASE("SAVEPOINT: the number of a stray one in a released block is not used again either", "[S40]") {
    World w;
    w.db.atomic([&] {
        w.db.atomic([&] {
            w.db.faults.fail(Verb::savepoint, When::after_effect, Oops{});
            CHECK_THROWS_AS(Atomic{w.db}, Oops);
        });
        w.db.atomic([&] { w.db.atomic([] {}); });
    });
    std::size_t uses = 0;
    for (const std::string& statement : w.db.log()) uses += statement == "SAVEPOINT txhooks_2" ? 1u : 0u;
    CHECK(uses == 1);
}

TEST_CASE("Atomic: a transaction begun by raw SQL is refused, and nothing is sent", "[S41]") {
    World w;
    w.db.execute("BEGIN");
    w.db.put("theirs");
    CHECK_THROWS_AS(Atomic{w.db}, UsageError);
    CHECK_THROWS_AS(w.db.atomic({.join = true}, [] {}), UsageError);
    CHECK_FALSE(w.db.in_atomic_block());
    w.db.execute("COMMIT");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT theirs", "COMMIT"});
    w.expect_works();
}

TEST_CASE("Atomic: a block of another HookedConnection on the same database is refused", "[S41][S8]") {
    FakeBackend backend;
    HookedConnection one{backend};
    HookedConnection two{backend};
    Trace ran;
    {
        Atomic tx{one};
        CHECK_THROWS_AS(Atomic{two}, UsageError);
        CHECK_THROWS_AS(two.on_commit(ran.hook("2")), UsageError);
        one.on_commit(ran.hook("1"));
        tx.commit();
    }
    two.atomic([&] { two.on_commit(ran.hook("2")); });
    CHECK(ran.text() == "1,2");
    CHECK(backend.log() == Log{"BEGIN", "COMMIT", "BEGIN", "COMMIT"});
}

// ---- How a COMMIT ended

TEST_CASE("commit: an error with proof of the commit runs the hooks and goes to the sink", "[S44]") {
    World w;
    w.db.answer_commit({Outcome::committed, std::make_exception_ptr(Oops{})});
    Atomic tx{w.db};
    w.act("1");
    CHECK(tx.commit() == Outcome::committed);
    CHECK(w.ran.text() == "1");
    CHECK(w.sink.text() == "oops");
    w.expect_works();
}

TEST_CASE("commit: a COMMIT answered with a rollback and no error is TransactionAborted", "[S45]") {
    World w;
    w.db.answer_commit({Outcome::rolled_back});
    Atomic tx{w.db};
    w.act("1");
    CHECK(thrown_by<TransactionAborted>([&] { tx.commit(); }).outcome() == Outcome::rolled_back);
    CHECK(w.ran.text().empty());
    CHECK_FALSE(w.db.committed("1"));
    CHECK(w.sink.text().empty());
    w.expect_works();
}

TEST_CASE("commit: a rollback with an error throws the engine's exception as it was", "[S46]") {
    World w;
    w.db.answer_commit({Outcome::rolled_back, std::make_exception_ptr(Oops{})});
    CHECK_THROWS_AS(w.db.atomic([&] { w.act("1"); }), Oops);
    w.db.answer_commit({Outcome::rolled_back, std::make_exception_ptr(42)});
    Atomic tx{w.db};
    w.act("2");
    CHECK(thrown_by<int>([&] { tx.commit(); }) == 42);
    CHECK(w.ran.text().empty());
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "COMMIT", "BEGIN", "INSERT 2", "COMMIT"});
    w.expect_works();
}

TEST_CASE("commit: still open keeps the block and its hooks, and commit() may be called again", "[S47]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    w.db.answer_commit({Outcome::still_open, std::make_exception_ptr(Oops{})});
    w.db.answer_commit({Outcome::still_open, std::make_exception_ptr(42)});
    CHECK_THROWS_AS(tx.commit(), Oops);
    CHECK(tx.active());
    CHECK(w.db.pending_hooks() == 1);
    CHECK_THROWS_AS(tx.commit(), int);
    CHECK(tx.active());
    w.act("2");
    w.db.atomic([&] { w.act("3"); });
    CHECK(w.ran.text().empty());
    CHECK(tx.commit() == Outcome::committed);
    CHECK(w.ran.text() == "1,2,3");
    CHECK(w.sink.text().empty());
    w.expect_works();
}

TEST_CASE("commit: still open may be rolled back, and a destructor does so", "[S47]") {
    World w;
    const auto busy = [&] { w.db.answer_commit({Outcome::still_open, std::make_exception_ptr(Oops{})}); };
    {
        Atomic tx{w.db};
        w.act("1");
        busy();
        CHECK_THROWS_AS(tx.commit(), Oops);
        tx.rollback();
    }
    w.expect_works();
    CHECK_THROWS_AS(
        [&] {
            Atomic tx{w.db};
            w.act("2");
            busy();
            tx.commit();
        }(),
        Oops);
    w.expect_works();
    busy();
    CHECK_THROWS_AS(w.db.atomic([&] { w.act("3"); }), Oops);
    CHECK(w.db.log().back() == "ROLLBACK");
    w.expect_works();
    CHECK(w.sink.text().empty());
}

TEST_CASE("commit: a driver that threw before COMMIT reached the engine left it still open", "[S47]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    w.db.faults.fail(Verb::commit, When::before_effect, Oops{});
    CHECK_THROWS_AS(tx.commit(), Oops);
    CHECK(tx.active());
    CHECK(tx.commit() == Outcome::committed);
    CHECK(w.ran.text() == "1");
}

TEST_CASE("commit: unknown runs no hook and breaks the connection, committed or not", "[S48]") {
    for (const bool really_committed : {false, true}) {
        CAPTURE(really_committed);
        World w;
        Atomic tx{w.db};
        w.db.on_commit(w.ran.probe("1"));
        w.db.put("row");
        w.db.answer_commit({Outcome::unknown, std::make_exception_ptr(Oops{}), really_committed});
        const auto error = thrown_by<CommitUnknown>([&] { tx.commit(); });
        CHECK(error.outcome() == Outcome::unknown);
        CHECK(name_of(error.cause()) == "oops");
        CHECK(w.ran.text() == "~1");
        CHECK(w.db.committed("row").has_value() == really_committed);
        CHECK(w.db.log() == Log{"BEGIN", "INSERT row", "COMMIT"});
        CHECK_THROWS_AS(w.db.atomic([] {}), ConnectionBroken);
        CHECK(w.sink.text().empty());
        w.db.reset();
        w.expect_works();
    }
}

TEST_CASE("commit: a connection lost after COMMIT was sent is unknown, until reconnect and reset()", "[S48]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        CAPTURE(static_cast<int>(when));
        World w;
        w.db.faults.lose_connection(Verb::commit, when);
        const auto error = thrown_by<CommitUnknown>([&] { w.db.atomic([&] { w.act("1"); }); });
        CHECK_THROWS_AS(std::rethrow_exception(error.cause()), ConnectionLostError);
        CHECK(w.ran.text().empty());
        CHECK_THROWS_AS(w.db.on_commit(w.ran.hook("2")), ConnectionBroken);
        CHECK_THROWS_AS(w.db.reset(), UsageError);
        w.db.reconnect();
        CHECK_THROWS_AS(w.db.atomic([] {}), ConnectionBroken);
        w.db.reset();
        CHECK(w.db.committed("1").has_value() == (when == When::after_effect));
        w.expect_works();
    }
}

// ---- ROLLBACK and RELEASE that fail

TEST_CASE("rollback: a failed ROLLBACK breaks the connection, discards the hooks and throws", "[S49]") {
    World w;
    Atomic tx{w.db};
    w.db.on_commit(w.ran.probe("1"));
    w.db.faults.fail(Verb::rollback, When::before_effect, Oops{});
    CHECK_THROWS_AS(tx.rollback(), Oops);
    CHECK(w.ran.text() == "~1");
    CHECK_FALSE(tx.active());
    CHECK_THROWS_AS(tx.commit(), UsageError);
    CHECK_THROWS_AS(w.db.atomic([] {}), ConnectionBroken);
    w.db.execute("ROLLBACK");
    w.db.reset();
    w.expect_works();
}

TEST_CASE("rollback: the first exception wins over that of cleaning up, which goes to the sink", "[S49]") {
    World w;
    w.db.faults.fail(Verb::rollback, When::before_effect, 42);
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("1");
        throw Oops{};
    }),
                    Oops);
    CHECK(w.sink.text() == "42");
    CHECK_THROWS_AS(w.db.atomic([] {}), ConnectionBroken);
    CHECK(w.ran.text().empty());
}

TEST_CASE("rollback: one that reported an error with the engine idle is a rollback", "[S49]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    w.db.faults.fail(Verb::rollback, When::after_effect, Oops{});
    tx.rollback();
    CHECK(w.sink.text() == "oops");
    CHECK(w.ran.text().empty());
    w.expect_works();
}

TEST_CASE("rollback: a failed ROLLBACK TO dooms the parent", "[S49]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    {
        Atomic inner{w.db};
        w.act("2");
        w.db.faults.fail(Verb::rollback_to, When::before_effect, Oops{});
        CHECK_THROWS_AS(inner.rollback(), Oops);
        CHECK_FALSE(inner.active());
    }
    CHECK_THROWS_AS(w.db.atomic([] {}), TransactionAborted);
    CHECK(name_of(thrown_by<TransactionAborted>([&] { tx.commit(); }).cause()) == "oops");
    CHECK(w.ran.text().empty());
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "ROLLBACK"});
    w.expect_works();
}

TEST_CASE("rollback: a ROLLBACK TO that fails in a savepoint dooms only the savepoint around it", "[S49]") {
    World w;
    w.db.atomic([&] {
        w.act("1");
        const auto aborted = thrown_by<TransactionAborted>([&] {
            w.db.atomic([&] {
                w.act("2");
                w.db.faults.fail(Verb::rollback_to, When::before_effect, 42);
                CHECK_THROWS_AS(w.db.atomic([&] {
                    w.act("3");
                    throw Oops{};
                }),
                                Oops);
            });
        });
        CHECK(name_of(aborted.cause()) == "oops");
        CHECK(w.sink.text() == "42");
        w.act("4");
    });
    CHECK(w.ran.text() == "1,4");
}

TEST_CASE("release: one that fails undoes the block, whatever the type of its exception", "[S51]") {
    World w;
    w.db.atomic([&] {
        w.act("1");
        w.db.faults.fail(Verb::release, When::before_effect, Oops{});
        CHECK_THROWS_AS(w.db.atomic([&] { w.act("2"); }), Oops);
        w.db.faults.fail(Verb::release, When::before_effect, 42);
        Atomic inner{w.db};
        w.act("3");
        CHECK_THROWS_AS(inner.commit(), int);
        CHECK_FALSE(inner.active());
        w.act("4");
    });
    CHECK(w.ran.text() == "1,4");
    CHECK(w.sink.text().empty());
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "ROLLBACK TO txhooks_1",
                            "SAVEPOINT txhooks_1", "INSERT 3", "ROLLBACK TO txhooks_1", "INSERT 4", "COMMIT"});
}

TEST_CASE("release: when undoing fails too the parent is doomed and the first exception wins", "[S51]") {
    for (const When when : {When::before_effect, When::after_effect}) {
        CAPTURE(static_cast<int>(when));
        World w;
        Atomic tx{w.db};
        w.act("1");
        w.db.faults.fail(Verb::release, when, Oops{});
        if (when == When::before_effect) w.db.faults.fail(Verb::rollback_to, When::before_effect, 42);
        CHECK_THROWS_AS(w.db.atomic([&] { w.act("2"); }), Oops);
        CHECK(w.sink.text() == (when == When::before_effect ? "42" : "no such savepoint: txhooks_1"));
        CHECK(name_of(thrown_by<TransactionAborted>([&] { tx.commit(); }).cause()) == "oops");
        CHECK(w.ran.text().empty());
        w.expect_works();
    }
}

// ---- Lost transactions

TEST_CASE("lost: however the transaction ended behind the block's back, no hook runs and it says how", "[S50]") {
    struct Cell {
        std::string sql;
        Outcome outcome;
    };
    for (const auto witness : {FakeBackend::Witness::client_side, FakeBackend::Witness::at_the_end}) {
        for (const Cell& cell :
             {Cell{"ROLLBACK", Outcome::rolled_back}, Cell{"COMMIT", Outcome::committed},
              Cell{"ROLLBACK; BEGIN", Outcome::rolled_back}, Cell{"COMMIT; BEGIN", Outcome::committed},
              Cell{"ROLLBACK; BEGIN; COMMIT; BEGIN", Outcome::rolled_back}}) {
            CAPTURE(cell.sql, static_cast<int>(witness));
            World w;
            w.db.set_witness(witness);
            Atomic tx{w.db};
            w.db.put("before");
            w.db.on_commit(w.ran.probe("1"));
            w.db.execute(cell.sql);
            const bool theirs = cell.sql.ends_with("BEGIN");
            if (theirs) w.db.put("theirs");
            const auto lost = thrown_by<TransactionLost>([&] { tx.commit(); });
            CHECK(lost.outcome() == cell.outcome);
            CHECK(w.ran.text() == "~1");
            CHECK_FALSE(tx.active());
            CHECK(w.db.committed("before").has_value() == (cell.outcome == Outcome::committed));
            CHECK_FALSE(w.db.committed("theirs"));
            CHECK(w.sink.text().empty());
            w.expect_works();
        }
    }
}

TEST_CASE("lost: is noticed at the next on_commit and nested block where the client can see it", "[S50]") {
    World w;
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("1");
        w.db.execute("ROLLBACK; BEGIN");
        w.act("2");
    }),
                    TransactionLost);
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "ROLLBACK", "BEGIN", "INSERT 2", "ROLLBACK"});
    w.expect_works();

    w.db.clear_log();
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("1");
        w.db.execute("ROLLBACK; BEGIN");
        w.db.atomic([&] { w.act("2"); });
    }),
                    TransactionLost);
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "ROLLBACK", "BEGIN", "ROLLBACK"});
    CHECK(w.sink.text().empty());
    w.expect_works();
}

TEST_CASE("lost: swallowed where it was noticed, it is told again at every end", "[S50]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    Atomic inner{w.db};
    w.act("2");
    w.db.execute("COMMIT; BEGIN");
    CHECK_THROWS_AS(w.db.on_commit([] {}), TransactionLost);
    CHECK_FALSE(inner.active());
    CHECK_FALSE(tx.active());
    CHECK_THROWS_AS(w.db.atomic({.join = true}, [] {}), TransactionLost);
    CHECK_THROWS_AS(inner.commit(), TransactionLost);
    CHECK(thrown_by<TransactionLost>([&] { tx.commit(); }).outcome() == Outcome::committed);
    CHECK(w.ran.text().empty());
    CHECK(w.sink.text().empty());
    w.expect_works();
}

TEST_CASE("lost: at the end of the outermost block at the latest", "[S50]") {
    World w;
    w.db.set_witness(FakeBackend::Witness::at_the_end);
    const auto lost = thrown_by<TransactionLost>([&] {
        w.db.atomic([&] {
            w.act("1");
            w.db.execute("ROLLBACK; BEGIN");
            w.act("2");
            w.db.atomic([&] { w.act("3"); });
        });
    });
    CHECK(lost.outcome() == Outcome::rolled_back);
    CHECK(w.ran.text().empty());
    CHECK_FALSE(w.db.committed("2"));
    CHECK(w.sink.text().empty());
    w.expect_works();
}

TEST_CASE("lost: a savepoint that is gone tells it too", "[S50]") {
    for (const bool rolls_back : {false, true}) {
        CAPTURE(rolls_back);
        World w;
        w.db.set_witness(FakeBackend::Witness::at_the_end);
        Atomic tx{w.db};
        w.act("1");
        Atomic inner{w.db};
        w.act("2");
        w.db.execute("COMMIT; BEGIN");
        const auto end_inner = [&] { rolls_back ? inner.rollback() : static_cast<void>(inner.commit()); };
        CHECK(thrown_by<TransactionLost>(end_inner).outcome() == Outcome::committed);
        CHECK_FALSE(tx.active());
        CHECK(thrown_by<TransactionLost>([&] { tx.commit(); }).outcome() == Outcome::committed);
        CHECK(w.ran.text().empty());
        CHECK(w.sink.text().empty());
        w.expect_works();
    }
}

TEST_CASE("lost: an explicit rollback() reports it, a destructor tells the sink", "[S50]") {
    for (const auto witness : {FakeBackend::Witness::client_side, FakeBackend::Witness::at_the_end}) {
        CAPTURE(static_cast<int>(witness));
        World w;
        w.db.set_witness(witness);
        {
            Atomic tx{w.db};
            w.act("1");
            w.db.execute("COMMIT; BEGIN");
            CHECK(thrown_by<TransactionLost>([&] { tx.rollback(); }).outcome() == Outcome::committed);
            CHECK_FALSE(tx.active());
        }
        CHECK(w.sink.text().empty());
        w.expect_works();
        CHECK_THROWS_AS(w.db.atomic([&] {
            w.act("2");
            w.db.execute("ROLLBACK; BEGIN");
            throw Oops{};
        }),
                        Oops);
        CHECK(w.sink.sentences().size() == 1);
        CHECK(w.sink.text() == "TransactionLost rolled_back");
        w.expect_works();
        w.sink.clear();
        CHECK_THROWS_AS(
            [&] {
                const Atomic tx{w.db};
                const Atomic inner{w.db};
                w.db.execute("ROLLBACK");
                throw Oops{};
            }(),
            Oops);
        CHECK(w.sink.text() == "TransactionLost rolled_back");
        w.expect_works();
    }
}

TEST_CASE("lost: a dropped connection in the middle rolls back, breaks and loses no exception", "[S49][S50]") {
    World w;
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("1");
        w.db.lose_connection();
        w.db.put("2");
    }),
                    ConnectionLostError);
    CHECK(w.ran.text().empty());
    CHECK_THROWS_AS(w.db.atomic([] {}), ConnectionBroken);
    w.db.reconnect();
    w.db.reset();
    w.expect_works();
}

TEST_CASE("lost: set_rollback and the function form pass it on", "[S50][S36]") {
    World w;
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.act("1");
        w.db.set_rollback(true);
        w.db.execute("COMMIT");
    }),
                    TransactionLost);
    CHECK(w.ran.text().empty());
    w.expect_works();
}

// ---- State changes after the call that justifies it

namespace {

// Says how many hooks are pending, and whether the block is open, while the engine works.
class Watched {
public:
    Connection* db = nullptr;
    Log log;

    void begin() { note("BEGIN"); }
    CommitResult commit() noexcept {
        note("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { note("ROLLBACK"); }
    void savepoint(unsigned) { note("SAVEPOINT"); }
    void release(unsigned) { note("RELEASE"); }
    void rollback_to(unsigned) { note("ROLLBACK TO"); }

private:
    void note(const std::string& statement) {
        log.push_back(statement + " " + std::to_string(db->pending_hooks()) + (db->in_atomic_block() ? " in" : " out"));
    }
};

}  // namespace

TEST_CASE("atomic: state changes after the call to the engine that justifies it", "[S52]") {
    HookedConnection<Watched> db;
    Watched& watched = db;
    watched.db = &static_cast<Connection&>(db);
    db.atomic([&] {
        db.on_commit([] {});
        db.atomic([&] { db.on_commit([] {}); });
        CHECK_THROWS_AS(db.atomic([&] {
            db.on_commit([] {});
            throw Oops{};
        }),
                        Oops);
    });
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_commit([] {});
        throw Oops{};
    }),
                    Oops);
    CHECK(watched.log == Log{"BEGIN 0 out", "SAVEPOINT 1 in", "RELEASE 2 in", "SAVEPOINT 2 in", "ROLLBACK TO 3 in",
                             "COMMIT 2 in", "BEGIN 0 out", "ROLLBACK 1 in"});
}

// ---- Lifetime

TEST_CASE("Atomic: an outer guard destroyed before an inner one rolls back its level and ends the inner", "[S57]") {
    World w;
    std::optional<Atomic<Db>> outer{std::in_place, w.db};
    w.act("1");
    std::optional<Atomic<Db>> inner{std::in_place, w.db};
    w.act("2");
    outer.reset();
    CHECK_FALSE(inner->active());
    CHECK_THROWS_AS(inner->commit(), UsageError);
    w.db.clear_log();
    inner.reset();
    CHECK(w.db.log().empty());
    CHECK(w.ran.text().empty());
    w.expect_works();
}

TEST_CASE("Atomic: the same for a savepoint with blocks inside", "[S57]") {
    World w;
    Atomic tx{w.db};
    w.act("1");
    std::optional<Atomic<Db>> outer{std::in_place, w.db};
    w.act("2");
    std::optional<Atomic<Db>> middle{std::in_place, w.db};
    std::optional<Atomic<Db>> joined{std::in_place, w.db, BlockOptions<>{.join = true}};
    w.act("3");
    outer.reset();
    CHECK_FALSE(middle->active());
    CHECK_FALSE(joined->active());
    CHECK(w.db.pending_hooks() == 1);
    w.act("4");
    CHECK(tx.commit() == Outcome::committed);
    CHECK(w.ran.text() == "1,4");
    CHECK(w.db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "SAVEPOINT txhooks_2", "INSERT 3",
                            "ROLLBACK TO txhooks_1", "INSERT 4", "COMMIT"});
}

TEST_CASE("hooks: a guard that a hook leaves open is rolled back after the run and reported", "[S58]") {
    World w;
    std::optional<Atomic<Db>> left;
    std::optional<Atomic<Db>> left_inside;
    w.db.atomic([&] {
        w.act("1");
        w.db.on_commit([&] {
            left.emplace(w.db);
            left_inside.emplace(w.db);
            w.act("never");
        });
        w.db.on_commit(w.ran.hook("2"));
    });
    CHECK(w.ran.text() == "1,2");
    CHECK_FALSE(left->active());
    CHECK_FALSE(left_inside->active());
    CHECK(w.sink.sentences().size() == 1);
    CHECK(w.sink.text() == "UsageError");
    CHECK(w.sink.sentences()[0] == "txhooks: a hook returned with an atomic block still open; it is rolled back");
    CHECK_FALSE(w.db.committed("never"));
    w.db.clear_log();
    left.reset();
    left_inside.reset();
    CHECK(w.db.log().empty());
    w.expect_works();
}

TEST_CASE("hooks: a guard left open by a hook that throws is rolled back too", "[S58][S19]") {
    World w;
    std::optional<Atomic<Db>> left;
    const auto error = thrown_by<HookError>([&] {
        w.db.atomic([&] {
            w.db.on_commit([&] {
                left.emplace(w.db);
                throw Oops{};
            });
            w.db.on_commit(w.ran.hook("never"));
        });
    });
    CHECK(name_of(error.cause()) == "oops");
    CHECK(error.not_run() == 1);
    CHECK_FALSE(left->active());
    CHECK(w.sink.sentences().size() == 1);
    w.expect_works();
}

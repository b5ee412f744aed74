// SPDX-License-Identifier: MIT

// Hooks before COMMIT.

#include <txhooks/retry.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

using namespace txhooks;
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

// A result that can mean failure.
template <class T>
class Expected {
public:
    static Expected failure(int error) { return Expected{T{}, error}; }
    static Expected success(T value) { return Expected{std::move(value), 0}; }

    bool has_value() const { return error_ == 0; }
    int error() const { return error_; }
    const T& value() const { return value_; }

private:
    Expected(T value, int error) : value_{std::move(value)}, error_{error} {}

    T value_;
    int error_;
};
using Result = Expected<std::unique_ptr<int>>;
using OtherResult = Expected<int>;

Result failing() {
    return Result::failure(7);
}

}  // namespace

TEST_CASE("before_commit: runs inside the transaction, after the function and before COMMIT", "[S61]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.hook("after"));
        db.before_commit([&] {
            ran.note("before");
            CHECK(db.in_atomic_block());
            db.put("late");
        });
        db.put("early");
        ran.note("function");
    });
    CHECK(ran.text() == "function,before,after");
    CHECK(db.log() == Log{"BEGIN", "INSERT early", "INSERT late", "COMMIT"});
    CHECK(db.committed("late"));
}

TEST_CASE("before_commit: runs in order of registration across all depths, without what was rolled back",
          "[S61][S64]") {
    Db db;
    Trace ran;
    Tx tx{db};
    db.before_commit(ran.hook("1"));
    db.atomic([&] {
        db.before_commit(ran.hook("2"));
        db.atomic({.join = true}, [&] { db.before_commit(ran.hook("3")); });
    });
    {
        Tx inner{db};
        db.before_commit(ran.probe("dropped"));
        inner.rollback();
    }
    static_cast<Connection&>(db).before_commit(ran.hook("4"));
    CHECK(ran.text() == "~dropped");
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "~dropped,1,2,3,4");
}

TEST_CASE("before_commit: takes arguments, move-only ones too, and destroys each hook right after it ran",
          "[S61][S3][S18]") {
    Db db;
    Trace ran;
    const auto note = [&](const std::unique_ptr<std::string>& text, const Trace::Probe&) { ran.note(*text); };
    db.atomic([&] {
        db.before_commit(note, std::make_unique<std::string>("1"), ran.probe("first"));
        db.before_commit(note, std::make_unique<std::string>("2"), ran.probe("second"));
    });
    CHECK(ran.text() == "1,~first,2,~second");
}

TEST_CASE("before_commit: hooks that a hook registers run in the same pass, behind those that wait", "[S61]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.before_commit([&] {
            ran.note("1");
            db.before_commit([&] {
                ran.note("3");
                for (int i = 0; i != 200; ++i) db.before_commit([] {});  // into another chunk of memory
                db.before_commit(ran.hook("4"));
                db.on_commit(ran.hook("committed 2"));
            });
            db.on_commit(ran.hook("committed 1"));
            db.on_rollback(ran.hook("never"));
            db.unless_committed(ran.hook("never"));
        });
        db.before_commit(ran.hook("2"));
    });
    CHECK(ran.text() == "1,2,3,4,committed 1,committed 2");
    CHECK(db.usable());
}

TEST_CASE("before_commit: a hook may open nested blocks, whose hooks follow them", "[S61][S33]") {
    Db db;
    Trace ran;
    db.atomic([&] {
        db.before_commit([&] {
            db.atomic([&] {
                db.put("kept");
                db.before_commit(ran.hook("before"));
                db.on_commit(ran.hook("kept"));
            });
            Tx inner{db};
            db.put("undone");
            db.before_commit(ran.hook("never"));
            db.on_commit(ran.hook("never"));
            db.on_rollback(ran.hook("undone"));
            inner.rollback();
        });
    });
    CHECK(ran.text() == "undone,before,kept");
    CHECK(db.committed("kept"));
    CHECK_FALSE(db.committed("undone"));
}

TEST_CASE("before_commit: its own block cannot end in it", "[S61][S39]") {
    Db db;
    Trace ran;
    Tx tx{db};
    db.before_commit([&] {
        ran.note(ending([&] { return tx.commit(); }));
        ran.note(ending([&] { tx.rollback(); }));
        CHECK(tx.active());
    });
    db.on_commit(ran.hook("committed"));
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "UsageError,UsageError,committed");
}

TEST_CASE("before_commit: what a hook throws rolls the block back and reaches the caller", "[S62]") {
    Db db;
    Trace ran;
    Sink sink{db};
    const auto body = [&] {
        db.put("row");
        db.on_rollback(ran.hook("undone"));
        db.unless_committed(ran.hook("not committed"));
        db.on_commit(ran.probe("commit"));
        db.before_commit(ran.throwing("fails", Oops{}));
        db.before_commit(ran.probe("later"));
    };
    SECTION("in the function form") {
        CHECK_THROWS_AS(db.atomic(body), Oops);
    }
    SECTION("through a Connection") {
        CHECK_THROWS_AS(static_cast<Connection&>(db).atomic(body), Oops);
    }
    SECTION("in a guard") {
        Tx tx{db};
        body();
        CHECK_THROWS_AS(tx.commit(), Oops);
        CHECK_FALSE(tx.active());
        CHECK_THROWS_AS(tx.commit(), UsageError);
    }
    CHECK(ran.text() == "fails,not committed,undone,~commit,~later");
    CHECK(db.log() == Log{"BEGIN", "INSERT row", "ROLLBACK"});
    CHECK(sink.lines() == Log{});
    CHECK(db.usable());
    db.atomic([&] { db.on_commit(ran.hook("again")); });
    CHECK(ran.text() == "fails,not committed,undone,~commit,~later,again");
}

TEST_CASE("before_commit: a ROLLBACK that fails after a hook threw goes to the sink", "[S62][S49]") {
    Db db;
    Sink sink{db};
    Trace ran;
    db.faults.fail(Verb::rollback, When::before_effect, FakeError{"disk full"});
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_rollback(ran.hook("undone"));
        db.unless_committed(ran.hook("not committed"));
        db.before_commit([] { throw Oops{}; });
    }),
                    Oops);
    CHECK(ran.text() == "not committed");
    CHECK(sink.lines() == Log{"txhooks: while rolling back a block: disk full"});
    CHECK(ending([&] { db.before_commit([] {}); }) == "ConnectionBroken");
}

TEST_CASE("before_commit: a result that means failure is returned by a function of the same type", "[S62]") {
    Db db;
    Trace ran;
    const Result result = db.atomic([&]() -> Result {
        db.put("row");
        db.on_rollback(ran.hook("undone"));
        db.before_commit(failing);
        db.before_commit(ran.hook("never"));
        return Result::success(std::make_unique<int>(1));
    });
    CHECK(result.error() == 7);
    CHECK(ran.text() == "undone");
    CHECK_FALSE(db.committed("row"));
    CHECK(db.usable());
}

TEST_CASE("before_commit: a result that means failure is TransactionAborted where it cannot be returned", "[S62]") {
    Db db;
    Trace ran;
    const auto body = [&] {
        db.put("row");
        db.on_rollback(ran.hook("undone"));
        db.before_commit(failing);
    };
    CHECK(ending([&] { db.atomic(body); }) == "TransactionAborted rolled_back");
    CHECK(ending([&] {
              db.atomic([&] {
                  body();
                  return OtherResult::success(1);
              });
          }) == "TransactionAborted rolled_back");
    CHECK(ending([&] {
              db.atomic([&]() -> Db& {
                  body();
                  return db;
              });
          }) == "TransactionAborted rolled_back");
    CHECK(ran.text() == "undone,undone,undone");
    CHECK_FALSE(db.committed("row"));
}

TEST_CASE("before_commit: commit() tells of a result that means failure by its outcome", "[S62]") {
    Db db;
    Trace ran;
    Tx tx{db};
    db.put("row");
    db.on_rollback(ran.hook("undone"));
    db.before_commit(failing);
    db.on_commit(ran.hook("never"));
    CHECK(tx.commit() == Outcome::rolled_back);
    CHECK_FALSE(tx.active());
    CHECK(ran.text() == "undone");
    CHECK_FALSE(db.committed("row"));
}

TEST_CASE("before_commit: a result that means failure does not hide a loss or a ROLLBACK that fails",
          "[S62][S49][S50]") {
    Db db;
    Sink sink{db};
    const bool lost = GENERATE(true, false);
    const std::string told = lost ? "TransactionLost committed" : "disk full";
    if (not lost) db.faults.fail(Verb::rollback, When::before_effect, FakeError{"disk full"});
    const auto hook = [&db, lost] {
        if (lost) db.execute("COMMIT");
        return failing();
    };
    const auto body = [&] {
        db.put("row");
        db.before_commit(hook);
    };
    SECTION("in a guard") {
        Tx tx{db};
        body();
        CHECK(ending([&] { return tx.commit(); }) == told);
    }
    SECTION("in the function form") {
        CHECK(ending([&] { db.atomic(body); }) == told);
    }
    SECTION("by retry") {
        RetryPolicy policy;
        policy.transient = [](const std::exception_ptr&) noexcept { return true; };
        CHECK(ending([&] { txhooks::retry(db, policy, body); }) == told);
    }
    SECTION("where the result is returned the sink is told") {
        const Result result = db.atomic([&] {
            body();
            return Result::success(nullptr);
        });
        CHECK(result.error() == 7);
    }
    CHECK(sink.errors() == Log{told});
}

TEST_CASE("before_commit: a result that means success, or cannot fail, is ignored", "[S62]") {
    Db db;
    int calls = 0;
    db.atomic([&] {
        db.put("row");
        db.before_commit([&] {
            ++calls;
            return Result::success(nullptr);
        });
        db.before_commit([&] {
            ++calls;
            return false;
        });
        db.before_commit([&] { return calls++; });
    });
    CHECK(calls == 3);
    CHECK(db.committed("row"));
}

TEST_CASE("before_commit: none runs in a block that rolls back", "[S64]") {
    Db db;
    Sink sink{db};
    Trace ran;
    const auto registers = [&] { db.before_commit(ran.probe("hook")); };
    SECTION("because its function throws") {
        CHECK_THROWS_AS(db.atomic([&] {
            registers();
            throw Oops{};
        }),
                        Oops);
    }
    SECTION("because it was asked to") {
        db.atomic([&] {
            registers();
            db.set_rollback(true);
        });
    }
    SECTION("because its result means failure") {
        db.atomic([&] {
            registers();
            return failing();
        });
    }
    SECTION("because it is doomed") {
        CHECK_THROWS_AS(db.atomic([&] {
            registers();
            CHECK_THROWS_AS(db.atomic({.join = true}, [] { throw Oops{}; }), Oops);
        }),
                        TransactionAborted);
    }
    SECTION("because the engine has failed the transaction") {
        CHECK_THROWS_AS(db.atomic([&] {
            registers();
            db.fail_transaction();
        }),
                        TransactionAborted);
    }
    SECTION("because it is lost") {
        CHECK_THROWS_AS(db.atomic([&] {
            registers();
            db.execute("ROLLBACK");
        }),
                        TransactionLost);
    }
    SECTION("because its guard dies") {
        Tx tx{db};
        registers();
    }
    CHECK(ran.text() == "~hook");
    CHECK(db.usable());
}

TEST_CASE("before_commit: a hook that makes its block roll back is the last that runs", "[S63]") {
    Db db;
    Trace ran;
    std::function<void()> act;
    std::string told;
    SECTION("by asking for it") {
        act = [&] { db.set_rollback(true); };
        told = "rolled_back";
    }
    SECTION("by dooming it") {
        act = [&] { CHECK_THROWS_AS(db.atomic({.join = true}, [] { throw Oops{}; }), Oops); };
        told = "TransactionAborted rolled_back <- oops";
    }
    SECTION("by a statement after which the engine only rolls back") {
        act = [&] { db.fail_transaction(); };
        told = "TransactionAborted rolled_back";
    }
    SECTION("by raw SQL that rolls back") {
        act = [&] { db.execute("ROLLBACK"); };
        told = "TransactionLost rolled_back";
    }
    Tx tx{db};
    db.put("row");
    db.on_commit(ran.hook("never"));
    db.on_rollback(ran.hook("undone"));
    db.before_commit(act);
    db.before_commit(ran.hook("never"));
    CHECK(ending([&] { return tx.commit(); }) == told);
    CHECK(ran.text() == "undone");
    CHECK_FALSE(db.committed("row"));
    CHECK(db.usable());
}

TEST_CASE("before_commit: a hook that commits by raw SQL loses the transaction, and no commit hook runs",
          "[S63][S50]") {
    Db db;
    Trace ran;
    Tx tx{db};
    db.put("row");
    db.on_commit(ran.hook("never"));
    db.on_rollback(ran.hook("never"));
    db.unless_committed(ran.hook("not by the block"));
    db.before_commit([&] { db.execute("COMMIT; BEGIN"); });
    db.before_commit(ran.hook("never"));
    CHECK(ending([&] { return tx.commit(); }) == "TransactionLost committed");
    CHECK(ran.text() == "not by the block");
    CHECK(db.committed("row"));
    CHECK(db.usable());
}

TEST_CASE("before_commit: a request taken back in the pass lets it go on", "[S63]") {
    Db db;
    Trace ran;
    Tx tx{db};
    db.before_commit([&] {
        db.set_rollback(true);
        db.set_rollback(false);
    });
    db.before_commit(ran.hook("2"));
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "2");
}

TEST_CASE("before_commit: each runs once, also when COMMIT leaves the transaction open", "[S65][S47]") {
    Db db;
    Trace ran;
    Tx tx{db};
    db.before_commit(ran.hook("1"));
    db.on_commit(ran.hook("committed"));
    db.on_rollback(ran.hook("never"));
    for (const char* const next : {"2", "3"}) {
        db.answer_commit({Outcome::still_open, std::make_exception_ptr(FakeError{"busy"})});
        CHECK(ending([&] { return tx.commit(); }) == "busy");
        CHECK(tx.active());
        CHECK(db.pending_hooks() == 1);
        db.before_commit(ran.hook(next));
    }
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "1,2,3,committed");
}

TEST_CASE("before_commit: a hook that leaves a guard open rolls everything back", "[S66][S58]") {
    Db db;
    Sink sink{db};
    Trace ran;
    std::optional<Tx> left;
    const auto leaves = [&] {
        left.emplace(db);
        db.put("inner");
        db.on_rollback(ran.hook("inner undone"));
    };
    constexpr const char* told =
        "txhooks: a hook returned with an atomic block still open; it is rolled back: UsageError";
    SECTION("and returns") {
        CHECK(ending([&] {
                  db.atomic([&] {
                      db.put("row");
                      db.on_rollback(ran.hook("undone"));
                      db.before_commit(leaves);
                      db.before_commit(ran.hook("never"));
                  });
              }) == "UsageError");
    }
    SECTION("and throws") {
        CHECK(ending([&] {
                  db.atomic([&] {
                      db.put("row");
                      db.on_rollback(ran.hook("undone"));
                      db.before_commit([&] {
                          leaves();
                          throw Oops{};
                      });
                  });
              }) == "oops");
    }
    CHECK(sink.lines() == Log{told});
    CHECK(ran.text() == "inner undone,undone");
    CHECK_FALSE(db.committed("row"));
    CHECK_FALSE(left->active());
    CHECK(db.usable());
}

TEST_CASE("before_commit: outside a block it runs at once", "[S67][S1][S8]") {
    Db db;
    Trace ran;
    db.before_commit(ran.hook("1"));
    db.before_commit(ran.probe("2"));
    CHECK(ran.text() == "1,2,~2");
    CHECK_THROWS_AS(db.before_commit(ran.throwing("3", Oops{})), Oops);
    CHECK(ending([&] { db.before_commit(failing); }) == "UsageError");
    db.before_commit([&] { db.before_commit(ran.hook("4")); });
    CHECK(ran.text() == "1,2,~2,3,4");
    db.execute("BEGIN");
    CHECK_THROWS_WITH(db.before_commit([] {}),
                      Catch::StartsWith("txhooks: before_commit() in a transaction that this"));
    CHECK(db.log() == Log{"BEGIN"});
}

TEST_CASE("before_commit: an empty function is refused, and names the verb", "[S4][S77]") {
    Db db;
    Tx tx{db};
    const std::function<void()> empty;
    CHECK_THROWS_WITH(db.before_commit(empty),
                      "txhooks: before_commit() was given an empty function; register only what can be called");
    CHECK_THROWS_WITH(db.on_rollback(empty),
                      "txhooks: on_rollback() was given an empty function; register only what can be called");
    CHECK_THROWS_WITH(db.unless_committed(empty),
                      "txhooks: unless_committed() was given an empty function; register only what can be called");
    CHECK_THROWS_WITH(db.on_commit(empty),
                      "txhooks: on_commit() was given an empty function; register only what can be called");
}

TEST_CASE("before_commit: from inside a verb it is refused: that may be COMMIT", "[S67][S57]") {
    Db db;
    Trace ran;
    db.faults.act(Verb::commit, When::before_effect, [&] {
        CHECK_THROWS_AS(db.before_commit(ran.hook("never")), UsageError);
        db.on_commit(ran.hook("committed"));
        db.on_rollback(ran.hook("never"));
        db.unless_committed(ran.hook("never"));
    });
    db.atomic([&] { db.put("row"); });
    CHECK(ran.text() == "committed");
}

TEST_CASE("before_commit: pending_hooks and HookError count commit hooks", "[S77][S20]") {
    Db db;
    Tx tx{db};
    db.before_commit([] {});
    db.on_rollback([] {});
    db.on_commit([] {});
    db.unless_committed([] {});
    db.on_commit([] { throw Oops{}; });
    db.on_rollback([] {});
    db.on_commit([] {});
    CHECK(db.pending_hooks() == 3);
    try {
        tx.commit();
        FAIL("nothing was thrown");
    } catch (const HookError& error) {
        CHECK(error.position() == 1);
        CHECK(error.not_run() == 1);
        CHECK(error.failed() == 1);
    }
}

TEST_CASE("before_commit: retry does the block again after a transient error of a hook", "[S62][S76][retry]") {
    Db db;
    Trace ran;
    RetryPolicy policy;
    policy.transient = [](const std::exception_ptr&) noexcept { return true; };
    policy.sleep = [&](std::chrono::nanoseconds) { ran.note("pause"); };
    SECTION("that was rolled back") {
        int attempt = 0;
        txhooks::retry(db, policy, [&] {
            ++attempt;
            db.put("row " + std::to_string(attempt));
            db.on_rollback(ran.hook("undone"));
            db.on_commit(ran.hook("committed"));
            db.before_commit([&] {
                if (attempt < 3) throw Oops{};
            });
        });
        CHECK(ran.text() == "undone,pause,undone,pause,committed");
        CHECK(db.committed("row 3"));
        CHECK_FALSE(db.committed("row 2"));
    }
    SECTION("but not if the hook has committed it by raw SQL") {
        int attempts = 0;
        CHECK_THROWS_AS(txhooks::retry(db, policy,
                                       [&] {
                                           ++attempts;
                                           db.put("row");
                                           db.before_commit([&] {
                                               db.execute("COMMIT; BEGIN");
                                               throw Oops{};
                                           });
                                       }),
                        Oops);
        CHECK(attempts == 1);
        CHECK(ran.text().empty());
    }
    SECTION("but not after a result that means failure, which is returned") {
        int attempts = 0;
        const Result result = txhooks::retry(db, policy, [&] {
            ++attempts;
            db.before_commit(failing);
            return Result::success(nullptr);
        });
        CHECK(result.error() == 7);
        CHECK(ending([&] {
                  txhooks::retry(db, policy, [&] {
                      ++attempts;
                      db.before_commit(failing);
                  });
              }) == "TransactionAborted rolled_back");
        CHECK(attempts == 2);
        CHECK(ran.text().empty());
    }
    SECTION("and runs none where the function's own result means failure") {
        const Result result = txhooks::retry(db, policy, [&] {
            db.before_commit(ran.hook("never"));
            return failing();
        });
        CHECK(result.error() == 7);
        CHECK(ran.text().empty());
    }
    CHECK(db.usable());
}

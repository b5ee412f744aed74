// SPDX-License-Identifier: MIT

#include <txhooks/backend_adapter.hpp>
#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/tiny_sql.hpp"
#include "support/trace.hpp"

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

using namespace txhooks;
using support::Log;
using support::name_of;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;

namespace {

// The least that is a backend: no savepoints, no state().
class Least {
public:
    Log log;
    Log refuse;            // verbs that fail, each once
    Log fail_after_doing;  // the same, after they took effect
    CommitResult answer{Outcome::committed};
    bool open = false;

    void begin() { does("BEGIN", true); }
    CommitResult commit() noexcept {
        log.emplace_back("COMMIT");
        open = answer.outcome == Outcome::still_open or answer.outcome == Outcome::unknown;
        return answer;
    }
    void rollback() { does("ROLLBACK", false); }

private:
    static bool take(Log& from, const std::string& verb) {
        if (from.empty() or from.front() != verb) return false;
        from.erase(from.begin());
        return true;
    }
    void does(const std::string& verb, bool opens) {
        log.push_back(verb);
        if (take(refuse, verb)) throw Oops{};
        open = opens;
        if (take(fail_after_doing, verb)) throw Oops{};
    }
};

// The least whose commit() throws.
class Throwing {
public:
    Log log;
    std::exception_ptr commit_fails;
    ConnectionState now = ConnectionState::idle;
    ConnectionState after_commit = ConnectionState::idle;

    void begin() {
        log.emplace_back("BEGIN");
        now = ConnectionState::open;
    }
    void commit() {
        log.emplace_back("COMMIT");
        now = after_commit;
        if (commit_fails) std::rethrow_exception(std::exchange(commit_fails, nullptr));
    }
    void rollback() {
        log.emplace_back("ROLLBACK");
        now = ConnectionState::idle;
    }
    void savepoint(unsigned n) { log.push_back("SAVEPOINT " + std::to_string(n)); }
    void release(unsigned n) { log.push_back("RELEASE " + std::to_string(n)); }
    void rollback_to(unsigned n) { log.push_back("ROLLBACK TO " + std::to_string(n)); }
    ConnectionState state() const noexcept { return now; }
};

// With everything there is.
class Most : public Throwing {
public:
    CommitResult answer{Outcome::committed};
    bool worth_it = false;

    CommitResult commit() noexcept {
        log.emplace_back("COMMIT");
        now = ConnectionState::idle;
        return answer;
    }
    // BEGIN is asked instead, which finds a transaction that is not its own.
    bool asks_begin = false;
    bool not_its_own = false;
    void begin() {
        if (asks_begin and now == ConnectionState::open) {
            not_its_own = true;
            throw UsageError{"open already"};
        }
        Throwing::begin();
    }
    void rollback() {
        if (not std::exchange(not_its_own, false)) Throwing::rollback();
    }
    ConnectionState state_before_begin() const noexcept { return asks_begin ? ConnectionState::idle : now; }
    Outcome fate() const noexcept { return Outcome::committed; }
    CommitResult commit(const char*) noexcept { return commit(); }
    bool was_committed(const char* marker) { return marker == nullptr; }
    bool transient(const std::exception_ptr& error) const noexcept { return worth_it and name_of(error) == "oops"; }
    bool rolled_back_by(const std::exception_ptr& error) const noexcept { return name_of(error) == "oops"; }
    void reset() { log.emplace_back("RESET"); }
};

// A database whose transactions are real, with the verbs as members.
class Members : public support::TinySql {
public:
    void begin() { run("BEGIN"); }
    void commit() { run("COMMIT"); }
    void rollback() { run("ROLLBACK"); }
    void savepoint(unsigned n) { run("SAVEPOINT s" + std::to_string(n)); }
    void release(unsigned n) { run("RELEASE SAVEPOINT s" + std::to_string(n)); }
    void rollback_to(unsigned n) {
        run("ROLLBACK TO SAVEPOINT s" + std::to_string(n));
        release(n);
    }
    ConnectionState state() const noexcept { return in_transaction() ? ConnectionState::open : ConnectionState::idle; }
};

}  // namespace

// ---- Types with the verbs as members

TEST_CASE("backend: begin and rollback, and a commit that says what is proven, are enough", "[S55]") {
    HookedConnection<Least> db;
    Trace ran;
    db.atomic([&] { db.on_commit(ran.hook("1")); });
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_commit(ran.hook("never"));
        throw Oops{};
    }),
                    Oops);
    CHECK(ran.text() == "1");
    CHECK(db.log == Log{"BEGIN", "COMMIT", "BEGIN", "ROLLBACK"});
}

TEST_CASE("backend: without savepoints a nested block must be joined", "[S55]") {
    HookedConnection<Least> db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        CHECK_THROWS_AS(db.atomic([] {}), UsageError);
        db.atomic({.join = true}, [&] { db.on_commit(ran.hook("2")); });
    });
    CHECK(ran.text() == "1,2");
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_commit(ran.hook("never"));
        CHECK_THROWS_AS(db.atomic({.join = true}, [] { throw Oops{}; }), Oops);
    }),
                    TransactionAborted);
    CHECK(db.log == Log{"BEGIN", "COMMIT", "BEGIN", "ROLLBACK"});
    CHECK(ran.text() == "1,2");
}

TEST_CASE("backend: without state() a COMMIT in doubt leaves no transaction open", "[S55][S48]") {
    HookedConnection<Least> db;
    Trace ran;
    db.answer = {Outcome::unknown, std::make_exception_ptr(Oops{})};
    const auto block = [&] { db.atomic([&] { db.on_commit(ran.hook("1")); }); };
    CHECK(name_of(thrown_by<CommitUnknown>(block).cause()) == "oops");
    CHECK_FALSE(db.open);
    CHECK_THROWS_AS(block(), ConnectionBroken);
    db.reset();
    db.answer = {Outcome::committed};
    block();
    CHECK(ran.text() == "1");
    CHECK(db.log == Log{"BEGIN", "COMMIT", "ROLLBACK", "BEGIN", "COMMIT"});
}

TEST_CASE("backend: without state() a BEGIN that failed is rolled back, whether it had taken effect or not",
          "[S55][S40]") {
    for (const bool done : {false, true}) {
        CAPTURE(done);
        HookedConnection<Least> db;
        Sink sink{db};
        Trace ran;
        (done ? db.fail_after_doing : db.refuse) = {"BEGIN"};
        CHECK_THROWS_AS(db.atomic([] {}), Oops);
        CHECK_FALSE(db.open);
        CHECK(db.log == Log{"BEGIN", "ROLLBACK"});
        CHECK(sink.text().empty());
        db.on_commit(ran.hook("at once"));
        db.atomic([&] { db.on_commit(ran.hook("1")); });
        CHECK(ran.text() == "at once,1");
    }
}

TEST_CASE("backend: without state() what could not be rolled back is open until reset() has proven it is not",
          "[S55][S49]") {
    for (const std::string way : {"BEGIN", "COMMIT", "ROLLBACK"}) {
        CAPTURE(way);
        HookedConnection<Least> db;
        Sink sink{db};
        Trace ran;
        if (way == "BEGIN") db.fail_after_doing = {"BEGIN"};
        if (way == "COMMIT") db.answer = {Outcome::unknown};
        db.refuse = {"ROLLBACK", "ROLLBACK"};
        CHECK_THROWS(db.atomic([&] {
            if (way == "ROLLBACK") throw Oops{};
        }));
        CHECK(db.open);
        CHECK_FALSE(db.usable());
        CHECK_THROWS_AS(db.on_commit(ran.hook("never")), ConnectionBroken);
        db.log.clear();
        db.answer = {Outcome::committed};
        db.refuse = {"ROLLBACK", "BEGIN"};
        CHECK_THROWS_AS(db.reset(), Oops);
        CHECK_FALSE(db.usable());
        db.reset();
        CHECK(db.log == Log{"ROLLBACK", "BEGIN", "ROLLBACK", "BEGIN", "ROLLBACK"});
        CHECK_FALSE(db.open);
        db.atomic([&] { db.on_commit(ran.hook("1")); });
        CHECK(ran.text() == "1");
    }
}

TEST_CASE("backend: state() tells a COMMIT that is still open from one in doubt", "[S55][S47][S48]") {
    struct Cell {
        ConnectionState after;
        bool fails;
        std::string ended;
    };
    for (const Cell& cell :
         {Cell{ConnectionState::idle, false, "committed"}, Cell{ConnectionState::idle, true, "unknown"},
          Cell{ConnectionState::open, true, "still open"}, Cell{ConnectionState::failed, true, "still open"},
          Cell{ConnectionState::lost, true, "unknown"}, Cell{ConnectionState::open, false, "unknown"},
          Cell{ConnectionState::failed, false, "unknown"}}) {
        CAPTURE(static_cast<int>(cell.after), cell.fails);
        HookedConnection<Throwing> db;
        Trace ran;
        std::string ended;
        db.after_commit = cell.after;
        if (cell.fails) db.commit_fails = std::make_exception_ptr(Oops{});
        {
            Atomic tx{db};
            db.on_commit(ran.hook("1"));
            try {
                tx.commit();
                ended = "committed";
            } catch (const CommitUnknown&) {
                ended = "unknown";
            } catch (const Oops&) {
                ended = tx.active() ? "still open" : "rolled back";
            }
            tx.rollback();
        }
        CHECK(ended == cell.ended);
        CHECK(ran.text() == (cell.ended == "committed" ? "1" : ""));
    }
}

TEST_CASE("backend: a commit() that says what it can prove is believed", "[S55][S44][S45][S46]") {
    HookedConnection<Most> db;
    Sink sink{db};
    Trace ran;
    const auto block = [&] { db.atomic([&] { db.on_commit(ran.hook("1")); }); };
    db.answer = {Outcome::committed, std::make_exception_ptr(Oops{})};
    block();
    CHECK(ran.text() == "1");
    CHECK(sink.text() == "oops");
    db.answer = {Outcome::rolled_back, nullptr};
    CHECK_THROWS_AS(block(), TransactionAborted);
    db.answer = {Outcome::rolled_back, std::make_exception_ptr(Oops{})};
    CHECK_THROWS_AS(block(), Oops);
    db.answer = {Outcome::committed, nullptr, true};
    CHECK(thrown_by<TransactionLost>(block).outcome() == Outcome::committed);
    CHECK(ran.text() == "1");
}

TEST_CASE("backend: the other members of a class that is one as it stands are used", "[S55][S50]") {
    HookedConnection<Most> db;
    db.atomic([&] {
        db.atomic([] {});
        CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
    });
    CHECK(db.log == Log{"BEGIN", "SAVEPOINT 1", "RELEASE 1", "SAVEPOINT 1", "ROLLBACK TO 1", "COMMIT"});
    const auto lost = thrown_by<TransactionLost>([&] { db.atomic([&] { db.now = ConnectionState::idle; }); });
    CHECK(lost.outcome() == Outcome::committed);

    db.log.clear();
    db.asks_begin = true;
    Connection& connection = db;
    CHECK_NOTHROW(connection.atomic([] {}));
    CHECK(db.log == Log{"BEGIN", "COMMIT"});
    db.now = ConnectionState::open;
    CHECK_THROWS_AS(db.atomic([] {}), UsageError);
    CHECK_THROWS_AS(connection.atomic([] {}), UsageError);
    DetachedHooks after;
    CHECK_THROWS_AS(db.atomic({.detach = &after}, [] {}), UsageError);
    CHECK_THROWS_AS(db.on_commit([] {}), UsageError);
    CHECK(db.log == Log{"BEGIN", "COMMIT"});
    CHECK(db.now == ConnectionState::open);
    CHECK_FALSE(db.usable());
    db.asks_begin = false;
    CHECK_THROWS_AS(db.atomic([] {}), UsageError);
    db.now = ConnectionState::idle;

    db.worth_it = true;
    int attempts = 0;
    retry(db, {.attempts = 2, .first_delay = {}}, [&] {
        if (++attempts == 1) throw Oops{};
    });
    CHECK(attempts == 2);
    CHECK(db.adapter().rolled_back_by(std::make_exception_ptr(Oops{})));
    CHECK_FALSE(db.adapter().rolled_back_by(nullptr));
    Doubt doubt;
    db.answer = {Outcome::unknown};
    CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, [&] { db.on_commit([] {}); }), CommitUnknown);
    db.reset();
    CHECK(doubt.resolve(db) == Outcome::rolled_back);
}

TEST_CASE("backend: a commit() that throws gets a witness, which notices every exchange", "[S55][S43][S50]") {
    for (const char* ended_by : {"", "ROLLBACK", "COMMIT"}) {
        for (const bool begun_again : {false, true}) {
            for (const bool rolls_back : {false, true}) {
                if (*ended_by == 0 and begun_again) continue;
                CAPTURE(ended_by, begun_again, rolls_back);
                HookedConnection<Members> db;
                Trace ran;
                Atomic tx{db};
                db.run("INSERT 1");
                db.on_commit(ran.hook("1"));
                if (*ended_by != 0) db.run(ended_by);
                if (begun_again) {
                    db.run("BEGIN");
                    db.run("INSERT theirs");
                }
                const auto end = [&] { rolls_back ? tx.rollback() : static_cast<void>(tx.commit()); };
                if (*ended_by == 0)
                    end();
                else
                    CHECK(thrown_by<TransactionLost>(end).outcome() == Outcome::unknown);
                CHECK(ran.text() == (*ended_by == 0 and not rolls_back ? "1" : ""));
                CHECK_FALSE(db.committed("theirs"));
                CHECK_FALSE(db.in_transaction());
                db.atomic([&] { db.on_commit(ran.hook("works")); });
                CHECK(db.usable());
            }
        }
    }
    HookedConnection<Members> db;
    db.atomic([&] { db.atomic([] {}); });
    CHECK(db.log ==
          Log{"BEGIN", "SAVEPOINT s0", "SAVEPOINT s1", "RELEASE SAVEPOINT s1", "RELEASE SAVEPOINT s0", "COMMIT"});
}

TEST_CASE("backend: a BEGIN of which the witness is missing is no BEGIN", "[S55][S40]") {
    for (const bool done : {false, true}) {
        for (const char* statement : {"BEGIN", "SAVEPOINT s0"}) {
            CAPTURE(done, statement);
            HookedConnection<Members> db;
            (done ? db.fail_after_doing : db.refuse) = {statement};
            CHECK_THROWS_AS(db.atomic([] {}), std::runtime_error);
            CHECK_FALSE(db.in_transaction());
            CHECK(db.usable());
        }
    }
}

TEST_CASE("backend: a commit() that throws TransactionLost is believed", "[S55][S50]") {
    for (const Outcome outcome : {Outcome::committed, Outcome::rolled_back, Outcome::unknown}) {
        HookedConnection<Throwing> db;
        Trace ran;
        db.commit_fails = std::make_exception_ptr(TransactionLost{outcome});
        CHECK(thrown_by<TransactionLost>([&] { db.atomic([&] { db.on_commit(ran.hook("1")); }); }).outcome() ==
              outcome);
        CHECK(ran.text().empty());
        CHECK(db.usable());
    }
}

TEST_CASE("backend: reset() of the adapter forgets the old session; one of the backend's own is not called",
          "[S55][S49]") {
    struct Remembering : BackendAdapter<Most> {
        using BackendAdapter<Most>::BackendAdapter;
        int forgotten = 0;
        void reset() { ++forgotten; }
    };
    HookedConnection<Most, Remembering> db;
    db.answer = {Outcome::unknown};
    CHECK_THROWS_AS(db.atomic([] {}), CommitUnknown);
    CHECK(db.adapter().forgotten == 0);
    db.reset();
    CHECK(db.adapter().forgotten == 1);
    CHECK(db.usable());
    CHECK(db.log == Log{"BEGIN", "COMMIT"});
}

namespace {

// A backend without state() whose verbs find out by themselves that the transaction is gone.
class Noticing {
public:
    Log log;
    std::string gone_at;

    void begin() { log.emplace_back("BEGIN"); }
    CommitResult commit() noexcept {
        log.emplace_back("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { does("ROLLBACK"); }
    void savepoint(unsigned) { does("SAVEPOINT"); }
    void release(unsigned) { does("RELEASE"); }
    void rollback_to(unsigned) { does("ROLLBACK TO"); }

private:
    void does(const std::string& statement) {
        log.push_back(statement);
        if (statement != gone_at) return;
        gone_at.clear();
        throw TransactionLost{Outcome::committed};
    }
};

}  // namespace

TEST_CASE("backend: a verb that throws TransactionLost is believed, and no hook runs", "[S55][S50]") {
    for (const std::string verb : {"SAVEPOINT", "RELEASE", "ROLLBACK TO", "ROLLBACK"}) {
        CAPTURE(verb);
        HookedConnection<Noticing> db;
        Sink sink{db};
        Trace ran;
        db.gone_at = verb;
        Atomic tx{db};
        db.on_commit(ran.probe("never"));
        if (verb == "ROLLBACK") {
            CHECK(thrown_by<TransactionLost>([&] { tx.rollback(); }).outcome() == Outcome::committed);
        } else {
            const auto nested = [&] {
                Atomic inner{db};
                if (verb == "RELEASE") inner.commit();
                inner.rollback();
            };
            CHECK(thrown_by<TransactionLost>(nested).outcome() == Outcome::committed);
            CHECK_FALSE(tx.active());
            CHECK_THROWS_AS(tx.commit(), TransactionLost);
        }
        CHECK_FALSE(tx.active());
        CHECK(ran.text() == "~never");
        CHECK(sink.text().empty());
        db.atomic([&] { db.on_commit(ran.hook("works")); });
        CHECK(ran.text() == "~never,works");
    }
}

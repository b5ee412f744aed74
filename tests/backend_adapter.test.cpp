// SPDX-License-Identifier: MIT

#include <txhooks/backend_adapter.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
    std::exception_ptr commit_fails;

    void begin() { log.emplace_back("BEGIN"); }
    void commit() {
        log.emplace_back("COMMIT");
        if (commit_fails) std::rethrow_exception(std::exchange(commit_fails, nullptr));
    }
    void rollback() { log.emplace_back("ROLLBACK"); }
};

// With a state to look at.
class Stateful : public Least {
public:
    ConnectionState now = ConnectionState::idle;
    ConnectionState after_commit = ConnectionState::idle;

    void begin() {
        Least::begin();
        now = ConnectionState::open;
    }
    void commit() {
        now = after_commit;
        Least::commit();
    }
    void rollback() {
        Least::rollback();
        now = ConnectionState::idle;
    }
    ConnectionState state() const noexcept { return now; }
};

// With everything there is.
class Most : public Stateful {
public:
    CommitResult answer{Outcome::committed};

    CommitResult commit() noexcept {
        log.emplace_back("COMMIT");
        now = ConnectionState::idle;
        return answer;
    }
    void savepoint(unsigned n) { log.push_back("SAVEPOINT " + std::to_string(n)); }
    void release(unsigned n) { log.push_back("RELEASE " + std::to_string(n)); }
    void rollback_to(unsigned n) { log.push_back("ROLLBACK TO " + std::to_string(n)); }
    Outcome fate() const noexcept { return Outcome::committed; }
    void reset() { log.emplace_back("RESET"); }
};

// A database that speaks SQL: rows are inserted by name, savepoints are named and nest.
class TinySql {
public:
    Log log;
    std::vector<std::string> refuse;            // statements that fail, each once
    std::vector<std::string> fail_after_doing;  // the same, after they took effect

    void run(const std::string& sql) {
        log.push_back(sql);
        if (take(refuse, sql)) throw std::runtime_error{"refused: " + sql};
        execute(sql);
        if (take(fail_after_doing, sql)) throw std::runtime_error{"reply lost: " + sql};
    }

    bool in_transaction() const noexcept { return in_transaction_; }
    bool committed(const std::string& row) const { return committed_.count(row) != 0; }

private:
    using Rows = std::map<std::string, int>;

    static bool take(std::vector<std::string>& from, const std::string& sql) {
        for (auto i = from.begin(); i != from.end(); ++i) {
            if (*i != sql) continue;
            from.erase(i);
            return true;
        }
        return false;
    }

    static bool strip(std::string_view& sql, std::string_view prefix) {
        if (sql.substr(0, prefix.size()) != prefix) return false;
        sql.remove_prefix(prefix.size());
        return true;
    }

    void execute(std::string_view sql) {
        if (sql == "BEGIN") {
            if (in_transaction_) throw std::runtime_error{"already in a transaction"};
            in_transaction_ = true;
        } else if (sql == "COMMIT" or sql == "ROLLBACK") {
            if (not in_transaction_) throw std::runtime_error{"no transaction"};
            (sql == "COMMIT" ? committed_ : rows_) = sql == "COMMIT" ? rows_ : committed_;
            savepoints_.clear();
            in_transaction_ = false;
        } else if (strip(sql, "SAVEPOINT ")) {
            if (not in_transaction_) throw std::runtime_error{"no transaction"};
            savepoints_.emplace_back(sql, rows_);
        } else if (strip(sql, "RELEASE SAVEPOINT ")) {
            savepoints_.resize(find(sql));
        } else if (strip(sql, "ROLLBACK TO SAVEPOINT ")) {
            savepoints_.resize(find(sql) + 1);
            rows_ = savepoints_.back().second;
        } else if (strip(sql, "INSERT ")) {
            rows_[std::string{sql}] = 1;
            if (not in_transaction_) committed_ = rows_;
        }
    }

    std::size_t find(std::string_view name) const {
        for (std::size_t i = savepoints_.size(); i != 0; --i)
            if (savepoints_[i - 1].first == name) return i - 1;
        throw std::runtime_error{"no such savepoint"};
    }

    bool in_transaction_ = false;
    Rows rows_;
    Rows committed_;
    std::vector<std::pair<std::string, Rows>> savepoints_;
};

class PlainSql : public TinySql {};

class OwnVerbs : public TinySql {};

}  // namespace

template <>
struct txhooks::BackendAdapter<TinySql> : txhooks::SqlAdapter<txhooks::BackendAdapter<TinySql>> {
    explicit BackendAdapter(TinySql& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    ConnectionState state() const noexcept {
        return db.in_transaction() ? ConnectionState::open : ConnectionState::idle;
    }
    TinySql& db;
};

template <>
struct txhooks::BackendAdapter<PlainSql>
    : txhooks::SqlAdapter<txhooks::BackendAdapter<PlainSql>, txhooks::SqlWitness::none> {
    explicit BackendAdapter(PlainSql& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    ConnectionState state() const noexcept {
        return db.in_transaction() ? ConnectionState::open : ConnectionState::idle;
    }
    PlainSql& db;
};

template <>
struct txhooks::BackendAdapter<OwnVerbs>
    : txhooks::SqlAdapter<txhooks::BackendAdapter<OwnVerbs>, txhooks::SqlWitness::none> {
    explicit BackendAdapter(OwnVerbs& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    ConnectionState state() const noexcept {
        return db.in_transaction() ? ConnectionState::open : ConnectionState::idle;
    }
    void release(unsigned) {}  // an engine without RELEASE
    void rollback_to(unsigned n) { db.run("ROLLBACK TO SAVEPOINT txhooks_" + std::to_string(n)); }
    OwnVerbs& session() { return db; }
    OwnVerbs& db;
};

// ---- Types with the verbs as members

TEST_CASE("backend: begin, commit and rollback as members are enough", "[S55]") {
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

TEST_CASE("backend: without state() an error from COMMIT is in doubt", "[S55][S48]") {
    HookedConnection<Least> db;
    Trace ran;
    db.commit_fails = std::make_exception_ptr(Oops{});
    const auto error = thrown_by<CommitUnknown>([&] { db.atomic([&] { db.on_commit(ran.hook("never")); }); });
    CHECK(name_of(error.cause()) == "oops");
    CHECK_THROWS_AS(db.atomic([] {}), ConnectionBroken);
    db.reset();
    db.atomic([&] { db.on_commit(ran.hook("1")); });
    CHECK(ran.text() == "1");
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
        HookedConnection<Stateful> db;
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

TEST_CASE("backend: savepoints and fate() as members are used", "[S55][S50]") {
    HookedConnection<Most> db;
    db.atomic([&] {
        db.atomic([] {});
        CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
    });
    CHECK(db.log == Log{"BEGIN", "SAVEPOINT 1", "RELEASE 1", "SAVEPOINT 1", "ROLLBACK TO 1", "COMMIT"});
    const auto lost = thrown_by<TransactionLost>([&] { db.atomic([&] { db.now = ConnectionState::idle; }); });
    CHECK(lost.outcome() == Outcome::committed);
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

TEST_CASE("backend: a derived class uses the adapter of its base where the adapter is named", "[S55]") {
    class Derived : public TinySql {};
    HookedConnection<Derived, BackendAdapter<TinySql>> db;
    Trace ran;
    db.atomic([&] { db.on_commit(ran.hook("1")); });
    CHECK(ran.text() == "1");
    CHECK(db.log.front() == "BEGIN");
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

// ---- SqlAdapter

TEST_CASE("SqlAdapter: gives all verbs from execute() and state()", "[S55][S43]") {
    HookedConnection<TinySql> db;
    Trace ran;
    const auto act = [&](const std::string& row) {
        db.run("INSERT " + row);
        db.on_commit([&db, &ran, row] { ran.note(db.committed(row) ? row : row + " too early"); });
    };
    db.atomic([&] {
        act("1");
        db.atomic([&] { act("2"); });
        CHECK_THROWS_AS(db.atomic([&] {
            act("3");
            throw Oops{};
        }),
                        Oops);
    });
    CHECK(ran.text() == "1,2");
    CHECK_FALSE(db.committed("3"));
    CHECK(db.log == Log{"BEGIN", "SAVEPOINT txhooks_0", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2",
                        "RELEASE SAVEPOINT txhooks_1", "SAVEPOINT txhooks_1", "INSERT 3",
                        "ROLLBACK TO SAVEPOINT txhooks_1", "RELEASE SAVEPOINT txhooks_1", "RELEASE SAVEPOINT txhooks_0",
                        "COMMIT"});
    CHECK_THROWS_AS(db.atomic([&] {
        act("4");
        throw Oops{};
    }),
                    Oops);
    CHECK(ran.text() == "1,2");
    CHECK_FALSE(db.committed("4"));
    CHECK(db.usable());
}

TEST_CASE("SqlAdapter: its witness notices a transaction that was exchanged, whatever ended it", "[S55][S50]") {
    for (const char* ended_by : {"ROLLBACK", "COMMIT"}) {
        for (const bool begun_again : {false, true}) {
            for (const bool rolls_back : {false, true}) {
                CAPTURE(ended_by, begun_again, rolls_back);
                HookedConnection<TinySql> db;
                Sink sink{db};
                Trace ran;
                Atomic tx{db};
                db.run("INSERT 1");
                db.on_commit(ran.probe("1"));
                db.run(ended_by);
                if (begun_again) {
                    db.run("BEGIN");
                    db.run("INSERT theirs");
                }
                const auto lost =
                    thrown_by<TransactionLost>([&] { rolls_back ? tx.rollback() : static_cast<void>(tx.commit()); });
                CHECK(lost.outcome() == Outcome::unknown);
                CHECK(ran.text() == "~1");
                CHECK_FALSE(db.committed("theirs"));
                CHECK(sink.text().empty());
                CHECK(db.usable());
                db.atomic([&] { db.on_commit(ran.hook("works")); });
                CHECK(ran.text() == "~1,works");
            }
        }
    }
}

TEST_CASE("SqlAdapter: a COMMIT that is still open may be tried again", "[S55][S47]") {
    HookedConnection<TinySql> db;
    Trace ran;
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    db.refuse = {"COMMIT", "COMMIT"};
    CHECK_THROWS_AS(tx.commit(), std::runtime_error);
    CHECK(tx.active());
    CHECK_THROWS_AS(tx.commit(), std::runtime_error);
    CHECK(ran.text().empty());
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "1");
}

TEST_CASE("SqlAdapter: a COMMIT whose reply was lost is in doubt", "[S55][S48]") {
    HookedConnection<TinySql> db;
    Trace ran;
    db.fail_after_doing = {"COMMIT"};
    CHECK_THROWS_AS(db.atomic([&] {
        db.run("INSERT 1");
        db.on_commit(ran.hook("1"));
    }),
                    CommitUnknown);
    CHECK(db.committed("1"));
    CHECK(ran.text().empty());
}

TEST_CASE("SqlAdapter: a begin that fails half way leaves no transaction", "[S55][S40]") {
    for (const char* statement : {"BEGIN", "SAVEPOINT txhooks_0"}) {
        for (const bool done : {false, true}) {
            CAPTURE(statement, done);
            HookedConnection<TinySql> db;
            Sink sink{db};
            (done ? db.fail_after_doing : db.refuse) = {statement};
            CHECK_THROWS_AS(db.atomic([] {}), std::runtime_error);
            CHECK_FALSE(db.in_transaction());
            CHECK(sink.text().empty());
            db.atomic([&] { db.run("INSERT 1"); });
            CHECK(db.committed("1"));
        }
    }
}

TEST_CASE("SqlAdapter: without a witness it sends BEGIN and COMMIT only, and state() is all it sees", "[S55]") {
    HookedConnection<PlainSql> db;
    Trace ran;
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        db.atomic([] {});
    });
    CHECK(db.log == Log{"BEGIN", "SAVEPOINT txhooks_1", "RELEASE SAVEPOINT txhooks_1", "COMMIT"});
    CHECK_THROWS_AS(db.atomic([&] {
        db.on_commit(ran.hook("never"));
        db.run("ROLLBACK");
    }),
                    TransactionLost);
    CHECK_THROWS_AS(db.atomic([&] { throw Oops{}; }), Oops);
    CHECK(ran.text() == "1");
}

TEST_CASE("SqlAdapter: single verbs can be written anew, and session() is what fn is given", "[S55]") {
    HookedConnection<OwnVerbs> db;
    db.atomic([&](OwnVerbs& sql) {
        sql.run("INSERT 1");
        db.atomic([](OwnVerbs& nested) { nested.run("INSERT 2"); });
        CHECK_THROWS_AS(db.atomic([&](OwnVerbs& nested) {
            nested.run("INSERT 3");
            throw Oops{};
        }),
                        Oops);
    });
    CHECK(db.log == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "SAVEPOINT txhooks_1", "INSERT 3",
                        "ROLLBACK TO SAVEPOINT txhooks_1", "COMMIT"});
    CHECK(db.committed("2"));
    CHECK_FALSE(db.committed("3"));
}

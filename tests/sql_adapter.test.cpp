// SPDX-License-Identifier: MIT

#include <txhooks/sql_adapter.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/tiny_sql.hpp"
#include "support/trace.hpp"

#include <stdexcept>
#include <string>

using namespace txhooks;
using support::Log;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::TinySql;
using support::Trace;

namespace {

class PlainSql : public TinySql {};

class OwnVerbs : public TinySql {};

class Stateless : public TinySql {};

class Telling : public TinySql {};

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

template <>
struct txhooks::BackendAdapter<Stateless> : txhooks::SqlAdapterWithoutState<txhooks::BackendAdapter<Stateless>> {
    explicit BackendAdapter(Stateless& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    Stateless& db;
};

template <>
struct txhooks::BackendAdapter<Telling> : txhooks::SqlAdapter<txhooks::BackendAdapter<Telling>> {
    explicit BackendAdapter(Telling& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    ConnectionState state() const noexcept {
        return db.in_transaction() ? ConnectionState::open : ConnectionState::idle;
    }
    void rollback_to(unsigned n) {
        try {
            SqlAdapter::rollback_to(n);
        } catch (...) {
            throw TransactionLost{Outcome::rolled_back, std::current_exception()};
        }
    }
    Telling& db;
};

TEST_CASE("SqlAdapter: a derived class uses the adapter of its base where the adapter is named", "[S55]") {
    class Derived : public TinySql {};
    HookedConnection<Derived, BackendAdapter<TinySql>> db;
    Trace ran;
    db.atomic([&] { db.on_commit(ran.hook("1")); });
    CHECK(ran.text() == "1");
    CHECK(db.log.front() == "BEGIN");
}

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

TEST_CASE("SqlAdapter: a rollback_to() that knows what became of the transaction is believed", "[S55][S50]") {
    HookedConnection<Telling> db;
    Atomic tx{db};
    db.run("ROLLBACK");
    db.run("BEGIN");
    const auto lost = thrown_by<TransactionLost>([&] { tx.rollback(); });
    CHECK(lost.outcome() == Outcome::rolled_back);
    CHECK_FALSE(db.in_transaction());
}

// ---- Without state()

TEST_CASE("SqlAdapterWithoutState: a COMMIT that fails leaves no transaction open", "[S55][S48]") {
    for (const bool done : {false, true}) {
        CAPTURE(done);
        HookedConnection<Stateless> db;
        Trace ran;
        (done ? db.fail_after_doing : db.refuse) = {"COMMIT"};
        CHECK_THROWS_AS(db.atomic([&] {
            db.run("INSERT 1");
            db.on_commit(ran.hook("1"));
        }),
                        CommitUnknown);
        CHECK_FALSE(db.in_transaction());
        CHECK(db.committed("1") == done);
        CHECK(ran.text().empty());
        CHECK_FALSE(db.usable());
        db.reset();
        db.atomic([&] { db.on_commit(ran.hook("2")); });
        CHECK(ran.text() == "2");
    }
}

TEST_CASE("SqlAdapterWithoutState: a BEGIN that fails is rolled back, so that no hook runs too early", "[S55][S40]") {
    for (const char* statement : {"BEGIN", "SAVEPOINT txhooks_0"}) {
        for (const bool done : {false, true}) {
            CAPTURE(statement, done);
            HookedConnection<Stateless> db;
            Trace ran;
            (done ? db.fail_after_doing : db.refuse) = {statement};
            CHECK_THROWS_AS(db.atomic([] {}), std::runtime_error);
            CHECK_FALSE(db.in_transaction());
            if (not db.usable()) db.reset();
            db.run("INSERT 1");
            db.on_commit([&] { ran.note(db.committed("1") ? "1" : "1 too early"); });
            CHECK(ran.text() == "1");
        }
    }
}

TEST_CASE("SqlAdapterWithoutState: where ROLLBACK is refused because nothing is open, the connection goes on",
          "[S55][S40][S50]") {
    HookedConnection<Stateless> db;
    db.savepoint_begins = true;
    db.refuse = {"BEGIN"};
    CHECK_THROWS_AS(db.atomic([] {}), std::runtime_error);
    CHECK(db.usable());
    CHECK_THROWS_AS(db.atomic([&] { db.run("ROLLBACK"); }), TransactionLost);
    CHECK(db.usable());
    CHECK_FALSE(db.in_transaction());
    CHECK_NOTHROW(db.atomic([&] { db.run("INSERT 1"); }));
    CHECK(db.committed("1"));

    db.refuse = {"ROLLBACK", "ROLLBACK"};  // for another reason
    CHECK_THROWS_AS(db.atomic([&] { db.set_rollback(true); }), std::runtime_error);
    CHECK(db.in_transaction());
    CHECK_FALSE(db.usable());
}

TEST_CASE("SqlAdapterWithoutState: what ended behind its back is noticed when the block ends", "[S55][S50]") {
    for (const char* ended_by : {"ROLLBACK", "COMMIT"}) {
        for (const bool begun_again : {false, true}) {
            for (const bool rolls_back : {false, true}) {
                CAPTURE(ended_by, begun_again, rolls_back);
                HookedConnection<Stateless> db;
                Trace ran;
                Atomic tx{db};
                db.on_commit(ran.hook("1"));
                db.run(ended_by);
                if (begun_again) db.run("BEGIN");
                CHECK_THROWS([&] { rolls_back ? tx.rollback() : static_cast<void>(tx.commit()); }());
                CHECK(ran.text().empty());
                CHECK_FALSE(db.in_transaction());
                if (not db.usable()) db.reset();
                db.atomic([&] { db.on_commit(ran.hook("works")); });
                CHECK(ran.text() == "works");
            }
        }
    }
}

// SPDX-License-Identifier: MIT

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <exception>
#include <stdexcept>
#include <string>

using namespace txhooks;
using support::Log;
using support::name_of;
using testing::ConnectionLostError;
using testing::FakeBackend;
using testing::FakeError;

TEST_CASE("FakeBackend: rows written in a transaction are visible to others once it is committed") {
    FakeBackend db;
    db.begin();
    db.put("ann", "1");
    CHECK(db.get("ann") == "1");
    CHECK_FALSE(db.committed("ann"));
    CHECK(db.commit().outcome == Outcome::committed);
    CHECK(db.committed("ann") == "1");
    db.begin();
    db.put("ann", "2");
    db.put("ann", "3");
    db.erase("bob");
    CHECK(db.get("ann") == "3");
    CHECK(db.committed("ann") == "1");
    db.erase("ann");
    CHECK_FALSE(db.get("ann"));
    CHECK(db.committed("ann") == "1");
    db.rollback();
    CHECK(db.get("ann") == "1");
    db.erase("ann");
    CHECK_FALSE(db.committed("ann"));
}

TEST_CASE("FakeBackend: outside a transaction a row is written at once") {
    FakeBackend db;
    db.put("ann");
    CHECK(db.committed("ann") == "");
    CHECK(db.log() == Log{"INSERT ann"});
}

TEST_CASE("FakeBackend: savepoints undo what was written since, and take inner ones along") {
    FakeBackend db;
    db.begin();
    db.put("1");
    db.savepoint(1);
    db.put("2");
    db.savepoint(2);
    db.put("3");
    db.rollback_to(2);
    CHECK_FALSE(db.get("3"));
    CHECK_THROWS_AS(db.rollback_to(2), FakeError);
    db.savepoint(2);
    db.put("4");
    db.release(1);
    CHECK_THROWS_AS(db.release(2), FakeError);
    db.commit();
    CHECK((db.committed("1") and db.committed("2") and db.committed("4")));
    CHECK_FALSE(db.committed("3"));
    CHECK(db.log() == Log{"BEGIN", "INSERT 1", "SAVEPOINT txhooks_1", "INSERT 2", "SAVEPOINT txhooks_2", "INSERT 3",
                          "ROLLBACK TO txhooks_2", "ROLLBACK TO txhooks_2", "SAVEPOINT txhooks_2", "INSERT 4",
                          "RELEASE txhooks_1", "RELEASE txhooks_2", "COMMIT"});
}

TEST_CASE("FakeBackend: refuses what an engine refuses") {
    FakeBackend db;
    CHECK_THROWS_AS(db.rollback(), FakeError);
    CHECK_THROWS_AS(db.savepoint(1), FakeError);
    db.begin();
    CHECK_THROWS_AS(db.begin(), FakeError);
    CHECK_THROWS_AS(db.execute("BEGIN"), FakeError);
    CHECK(db.state() == ConnectionState::open);
    db.rollback();
    CHECK_THROWS_AS(db.execute("COMMIT"), FakeError);
    CHECK_THROWS_AS(db.execute("ROLLBACK"), FakeError);
    CHECK(db.state() == ConnectionState::idle);
}

TEST_CASE("FakeBackend: keeps a log, clears it, or keeps none") {
    FakeBackend db;
    db.put("1");
    db.clear_log();
    CHECK(db.log().empty());
    db.keep_log(false);
    db.put("2");
    CHECK(db.log().empty());
    db.keep_log(true);
    db.execute(" SELECT 1 ; SELECT 2;");
    CHECK(db.log() == Log{"SELECT 1", "SELECT 2"});
}

TEST_CASE("FakeBackend: raw SQL ends the transaction, and state() and fate() tell") {
    FakeBackend db;
    db.begin();
    CHECK(db.state() == ConnectionState::open);
    CHECK(db.fate() == Outcome::still_open);
    db.put("1");
    db.execute("ROLLBACK");
    CHECK(db.state() == ConnectionState::idle);
    CHECK(db.fate() == Outcome::rolled_back);
    db.execute("BEGIN");
    CHECK(db.state() == ConnectionState::lost);
    CHECK_THROWS_AS(db.rollback(), TransactionLost);
    CHECK(db.state() == ConnectionState::idle);

    db.begin();
    db.put("2");
    db.execute("COMMIT; BEGIN");
    CHECK(db.state() == ConnectionState::lost);
    CHECK(db.fate() == Outcome::committed);
    db.put("theirs");
    const CommitResult result = db.commit();
    CHECK(result.lost);
    CHECK(result.outcome == Outcome::committed);
    db.rollback();
    CHECK((db.committed("2") and not db.committed("theirs") and not db.committed("1")));
}

TEST_CASE("FakeBackend: a witness at the end shows a loss only there") {
    FakeBackend db;
    db.set_witness(FakeBackend::Witness::at_the_end);
    db.begin();
    db.savepoint(1);
    db.execute("ROLLBACK; BEGIN");
    CHECK(db.state() == ConnectionState::open);
    CHECK_THROWS_AS(db.release(1), TransactionLost);
    CHECK(db.commit().lost);
}

TEST_CASE("FakeBackend: a failed transaction refuses everything but rolling back") {
    FakeBackend db;
    db.begin();
    db.savepoint(1);
    db.fail_transaction();
    CHECK(db.state() == ConnectionState::failed);
    CHECK_THROWS_AS(db.put("1"), FakeError);
    CHECK_THROWS_AS(db.savepoint(2), FakeError);
    CHECK_THROWS_AS(db.release(1), FakeError);
    db.rollback_to(1);
    CHECK(db.state() == ConnectionState::open);
    db.put("2");
    db.fail_transaction();
    const CommitResult result = db.commit();
    CHECK(result.outcome == Outcome::rolled_back);
    CHECK_FALSE(result.error);
    CHECK_FALSE(db.committed("2"));
    db.fail_transaction();
    CHECK(db.state() == ConnectionState::idle);
}

TEST_CASE("FakeBackend: answers COMMIT as it was told, in turn, and does what it says") {
    FakeBackend db;
    const std::exception_ptr busy = std::make_exception_ptr(std::runtime_error{"busy"});
    db.answer_commit({Outcome::still_open, busy});
    db.answer_commit({Outcome::committed, busy});
    db.answer_commit({Outcome::rolled_back});
    db.answer_commit({Outcome::unknown, nullptr, true});
    db.answer_commit({Outcome::unknown, nullptr, false});
    const auto commit = [&](const std::string& row, bool begin) {
        if (begin) db.begin();
        db.put(row);
        const CommitResult result = db.commit();
        CHECK_FALSE(result.lost);
        return std::to_string(static_cast<int>(result.outcome)) + " " + name_of(result.error) +
               (db.state() == ConnectionState::open ? " open" : "") + (db.committed(row) ? " there" : "");
    };
    const auto number = [](Outcome outcome) { return std::to_string(static_cast<int>(outcome)); };
    CHECK(commit("1", true) == number(Outcome::still_open) + " busy open");
    CHECK(commit("1", false) == number(Outcome::committed) + " busy there");
    CHECK(commit("2", true) == number(Outcome::rolled_back) + " none");
    CHECK(commit("3", true) == number(Outcome::unknown) + " none there");
    CHECK(commit("4", true) == number(Outcome::unknown) + " none");
    CHECK(commit("5", true) == number(Outcome::committed) + " none there");
}

TEST_CASE("FakeBackend: a lost connection loses what was not committed, until it is reconnected") {
    FakeBackend db;
    db.put("1");
    db.begin();
    db.put("2");
    db.lose_connection();
    CHECK(db.state() == ConnectionState::lost);
    CHECK_THROWS_AS(db.put("3"), ConnectionLostError);
    CHECK_THROWS_AS(db.begin(), ConnectionLostError);
    CHECK_THROWS_AS(db.rollback(), ConnectionLostError);
    CHECK_THROWS_AS(db.execute("SELECT 1"), ConnectionLostError);
    CHECK(db.commit().outcome == Outcome::unknown);
    db.reconnect();
    CHECK(db.state() == ConnectionState::idle);
    CHECK((db.committed("1") and not db.committed("2")));
    CHECK(db.log() == Log{"INSERT 1", "BEGIN", "INSERT 2"});
}

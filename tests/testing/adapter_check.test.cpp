// SPDX-License-Identifier: MIT
//
// That our own adapters pass is tried in tests/adapters. Here each row of the table meets an adapter that it must fail.

#include "support/sqlite_session.hpp"

#include <sqlite3.h>
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/sql_adapter.hpp>
#include <txhooks/testing/adapter_check.hpp>

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using txhooks::CommitResult;
using txhooks::ConnectionState;
using txhooks::Outcome;
using txhooks::testing::adapter_check;
using txhooks::testing::AdapterFinding;
using txhooks::testing::AdapterReport;
using Verdict = AdapterFinding::Verdict;

namespace {

using Sound = txhooks::BackendAdapter<sqlite3*>;

// ---- Adapters that are broken in one place, or as somebody in a hurry would write them

// Sends what it is told to, and takes every COMMIT for done.
class Naive {
public:
    explicit Naive(sqlite3* db) : db_{db} {}

    void begin() { run("BEGIN"); }
    CommitResult commit() noexcept {
        support::attempt(db_, "COMMIT");
        return {Outcome::committed};
    }
    void rollback() { support::attempt(db_, "ROLLBACK"); }
    void savepoint(unsigned n) { run("SAVEPOINT s" + std::to_string(n)); }
    void release(unsigned n) { run("RELEASE s" + std::to_string(n)); }
    void rollback_to(unsigned n) {
        run("ROLLBACK TO s" + std::to_string(n));
        release(n);
    }

protected:
    void run(const std::string& sql) { support::run(db_, sql); }

    sqlite3* db_;
};

// Sends BEGIN, COMMIT and ROLLBACK at the depth where it believes the outermost block to be.
class Counted : public Naive {
public:
    using Naive::Naive;
    void begin() {
        if (depth_++ == 0) Naive::begin();
    }
    CommitResult commit() noexcept { return --depth_ == 0 ? Naive::commit() : CommitResult{Outcome::committed}; }
    void rollback() {
        if (--depth_ == 0) Naive::rollback();
    }

private:
    int depth_ = 0;
};

// Believes that only its own verbs begin and end transactions.
class Remembers : public Naive {
public:
    using Naive::Naive;
    void begin() {
        Naive::begin();
        open_ = true;
    }
    CommitResult commit() noexcept {
        open_ = false;
        return Naive::commit();
    }
    void rollback() {
        open_ = false;
        Naive::rollback();
    }
    ConnectionState state() const noexcept { return open_ ? ConnectionState::open : ConnectionState::idle; }

private:
    bool open_ = false;
};

// Numbers of savepoints have no gaps, and all are released before COMMIT: so it believes.
class Numbers : public Naive {
public:
    using Naive::Naive;
    CommitResult commit() noexcept {
        if (open_ != 0) return {Outcome::still_open, std::make_exception_ptr(std::logic_error{"a savepoint is open"})};
        return Naive::commit();
    }
    void rollback() {
        open_ = 0;
        Naive::rollback();
    }
    void savepoint(unsigned n) {
        if (n != open_ + 1) throw std::logic_error{"not the next number"};
        Naive::savepoint(n);
        open_ = n;
    }
    void release(unsigned n) {
        Naive::release(n);
        open_ = n - 1;
    }
    void rollback_to(unsigned n) {
        Naive::rollback_to(n);
        open_ = n - 1;
    }

private:
    unsigned open_ = 0;
};

class LosesAll : public Naive {
public:
    using Naive::Naive;
    CommitResult commit() noexcept {
        support::attempt(db_, "ROLLBACK");
        return {Outcome::committed};
    }
};

class RollsNothingBack : public Naive {
public:
    using Naive::Naive;
    void rollback() {}
    ConnectionState state() const noexcept {
        return sqlite3_get_autocommit(db_) != 0 ? ConnectionState::idle : ConnectionState::open;
    }
};

class CommitsInstead : public Naive {
public:
    using Naive::Naive;
    void rollback() { support::attempt(db_, "COMMIT"); }
};

class KeepsSavepoints : public Naive {
public:
    using Naive::Naive;
    void rollback_to(unsigned n) { release(n); }
};

class SwallowsRollbackTo : public Naive {
public:
    using Naive::Naive;
    void rollback_to(unsigned n) { support::attempt(db_, "ROLLBACK TO s" + std::to_string(n)); }
};

// One name for all savepoints, and no RELEASE, as where there is none.
class OneName : public Naive {
public:
    using Naive::Naive;
    void savepoint(unsigned) { run("SAVEPOINT s"); }
    void release(unsigned) {}
    void rollback_to(unsigned) { run("ROLLBACK TO s"); }
};

// The transaction is a savepoint, which stands in another one as well.
class BeginsBySavepoint : public Naive {
public:
    using Naive::Naive;
    void begin() { run("SAVEPOINT begun"); }
    CommitResult commit() noexcept {
        if (support::attempt(db_, "RELEASE begun") == SQLITE_OK) return {Outcome::committed};
        return {Outcome::unknown, std::make_exception_ptr(std::runtime_error{"RELEASE failed"})};
    }
    void rollback() {
        support::attempt(db_, "ROLLBACK TO begun");
        support::attempt(db_, "RELEASE begun");
    }
};

// What has become of a COMMIT that threw it guesses.
template <Outcome guessed>
class Guesses : public txhooks::SqlAdapterWithoutState<Guesses<guessed>> {
public:
    explicit Guesses(sqlite3* db) : db_{db} {}
    void execute(const char* sql) { support::run(db_, sql); }
    CommitResult commit() noexcept {
        CommitResult result = Guesses::SqlAdapterWithoutState::commit();
        if (result.outcome == Outcome::unknown and not result.lost) result.outcome = guessed;
        return result;
    }

private:
    sqlite3* db_;
};

// ---- Sessions

template <class A>
struct With : support::SqliteSession {
    using Adapter = A;
    using SqliteSession::SqliteSession;
};

// A statement that fails takes its transaction along.
struct Rolling : With<Naive> {
    using With::With;
    template <class Db>
    void execute(Db& db, std::string sql) {
        if (sql.starts_with("INSERT")) sql.insert(6, " OR ROLLBACK");
        With::execute(db, sql);
    }
};

// Swallows what fails.
struct Silent : support::SqliteSession {
    using SqliteSession::SqliteSession;
    template <class Db>
    void execute(Db&, const std::string& sql) {
        support::attempt(backend(), sql);
    }
};

struct Failing : support::SqliteSession {
    using SqliteSession::SqliteSession;
    void kill() { throw std::runtime_error{"not allowed to"}; }
    void make_busy(bool) { throw std::runtime_error{"nobody to make it"}; }
};

template <class Session>
AdapterReport check(std::vector<std::string_view> cannot = {}) {
    const support::DatabaseFile file;
    return adapter_check("tried", [&] { return Session{file.path()}; }, std::move(cannot), nullptr);
}

std::string verdict(const AdapterReport& report, std::string_view row) {
    for (const auto& [name, verdict, text] : report.rows()) {
        if (name != row) continue;
        if (verdict == Verdict::kept) return "kept";
        return (verdict == Verdict::cannot ? "cannot: " : "failed: ") + text;
    }
    return "no such row";
}

// The rows that failed though they were not left untried, with what was seen.
std::string red(const AdapterReport& report) {
    std::string red;
    for (const auto& [name, verdict, text] : report.rows())
        if (verdict == Verdict::failed and not text.starts_with("not tried: ")) red += name + ": " + text + '\n';
    return red;
}

const std::vector<std::string_view> untried{"reply to COMMIT lost", "killed before COMMIT", "killed during COMMIT"};
const std::string lost_data_line = ": A HOOK RAN FOR LOST DATA (returned)\n";
const std::string in_silence = ": A ROW IS THERE WHOSE HOOK DID NOT RUN, AND NOBODY WAS TOLD (returned)\n";
// What every adapter fails that takes each COMMIT for done.
const std::string naive_lines = "raw ROLLBACK" + lost_data_line +
                                "raw COMMIT: told not as TransactionLost, but: returned\n"
                                "raw ROLLBACK; BEGIN" +
                                lost_data_line +
                                "raw COMMIT; BEGIN: told not as TransactionLost, but: returned\n"
                                "raw COMMIT, rolled back" +
                                in_silence + "raw COMMIT; BEGIN, rolled back" + in_silence +
                                "raw BEGIN before: a hook ran at once, in the open transaction\n"
                                "deferred constraint" +
                                lost_data_line;

}  // namespace

TEST_CASE("adapter_check: a sound adapter passes, once what cannot be tried is declared", "[adapter_check]") {
    const AdapterReport report = check<With<Sound>>(untried);
    CHECK(red(report).empty());
    CHECK(report.passed());
    CHECK(report.rows().size() == 29);
    CHECK(verdict(report, "killed during COMMIT") == "cannot: not tried: the session has no kill()");
    CHECK_FALSE(check<With<Sound>>().passed());
}

TEST_CASE("adapter_check: an adapter that takes each COMMIT for done fails", "[adapter_check]") {
    const AdapterReport report = check<With<Naive>>();
    const std::string busy = verdict(report, "busy COMMIT");
    CHECK(red(report) ==
          naive_lines + "busy COMMIT: " + busy.substr(busy.find(": ") + 2) + "\nrefused COMMIT" + lost_data_line);
    CHECK(busy.find("failed: A HOOK RAN, BUT WHETHER ITS ROW IS THERE NOBODY CAN SEE: ") == 0);
}

TEST_CASE("adapter_check: for each row there is an adapter that fails it", "[adapter_check]") {
    const auto fails = [](const AdapterReport& report, std::string_view row, const std::string& text) {
        INFO(report.table());
        CHECK(verdict(report, row) == "failed: " + text);
    };
    const std::string for_lost_data = "A HOOK RAN FOR LOST DATA";
    const std::string nobody_told = "A ROW IS THERE WHOSE HOOK DID NOT RUN, AND NOBODY WAS TOLD";
    const std::string not_usable = "the connection is not usable() afterwards";
    const std::string on_purpose = " (failed on purpose)";

    const AdapterReport loses = check<With<LosesAll>>();
    fails(loses, "commit", for_lost_data + " (returned)");

    fails(check<Rolling>(), "failed statement", for_lost_data + " (returned)");
    fails(check<With<CommitsInstead>>(), "rollback", nobody_told + " (rolled back)");

    const AdapterReport keeps = check<With<KeepsSavepoints>>();
    fails(keeps, "nested", nobody_told + " (returned)");
    fails(check<With<OneName>>(), "nested", nobody_told + " (returned)");
    fails(keeps, "release fails before its effect", nobody_told + " (returned)");

    const AdapterReport remembers = check<With<Remembers>>();
    fails(remembers, "raw BEGIN before", "a hook ran at once, in the open transaction");
    fails(
        remembers, "rollback fails before its effect",
        "the connection cannot be recovered: txhooks: reset() while the engine is still in a transaction, or gone; end "
        "that transaction or reconnect first");

    fails(check<With<BeginsBySavepoint>>(), "raw BEGIN before", for_lost_data + " (returned)");

    const AdapterReport naive = check<With<Naive>>();
    fails(naive, "raw COMMIT, rolled back", nobody_told + " (returned)");
    fails(naive, "raw COMMIT; BEGIN, rolled back", nobody_told + " (returned)");
    fails(check<With<Guesses<Outcome::committed>>>(), "refused COMMIT", for_lost_data + " (returned)");

    const AdapterReport counted = check<With<Counted>>();
    fails(counted, "begin fails before its effect", nobody_told + on_purpose);
    fails(counted, "commit fails after its effect", nobody_told + " (CommitUnknown)");
    fails(counted, "rollback fails after its effect", nobody_told + on_purpose);

    const AdapterReport open = check<With<RollsNothingBack>>();
    fails(open, "begin fails after its effect", not_usable);
    fails(open, "commit fails before its effect", not_usable);
    fails(open, "rollback_to fails before its effect", not_usable);
    fails(open, "rollback_to fails after its effect", not_usable);

    const AdapterReport numbers = check<With<Numbers>>();
    fails(numbers, "savepoint fails before its effect", "the next nested block threw: not the next number");
    fails(numbers, "savepoint fails after its effect", "the block around threw: a savepoint is open");

    fails(check<With<SwallowsRollbackTo>>(), "release fails after its effect", nobody_told + " (returned)");
}

TEST_CASE("adapter_check: what cannot be declared away", "[adapter_check]") {
    const AdapterReport sound = check<With<Sound>>();
    std::vector<std::string_view> all;
    for (const AdapterFinding& finding : sound.rows()) all.emplace_back(finding.row);
    const AdapterReport report = check<With<Naive>>(all);
    CHECK(verdict(report, "raw ROLLBACK") == "failed: A HOOK RAN FOR LOST DATA (returned)");
    CHECK(verdict(report, "raw COMMIT") == "cannot: told not as TransactionLost, but: returned");
    const std::string open = verdict(check<With<Guesses<Outcome::rolled_back>>>(all), "deferred constraint");
    CHECK(open.find("failed: A TRANSACTION IS LEFT OPEN: ") == 0);
    CHECK(verdict(report, "commit") == "failed: declared, but kept: take it off the list");
    CHECK(verdict(report, "killed during COMMIT") == "cannot: not tried: the session has no kill()");
}

TEST_CASE("adapter_check: a row that does not exist cannot be declared", "[adapter_check]") {
    const AdapterReport report =
        check<With<Sound>>({"reply to COMMIT lost", "killed before COMMIT", "killed during COMMIT", "busy commit"});
    CHECK(red(report) == "busy commit: declared, but no row is called so\n");
}

TEST_CASE("adapter_check: a hook that ran twice is found", "[adapter_check]") {
    const support::DatabaseFile file;
    auto open = [&] { return support::SqliteSession{file.path()}; };
    txhooks::testing::adapter_stories::Engine engine = txhooks::testing::adapter_stories::engine(open);
    make_tables(engine);
    const auto trial = engine.open();
    trial->db().atomic([&] { trial->hook(trial->row()); });
    CHECK(trial->broken_promise({}) == "A HOOK RAN TWICE");
}

TEST_CASE("adapter_check: a hook that ran before its row was there for others is found", "[adapter_check]") {
    const support::DatabaseFile file;
    auto open = [&] { return support::SqliteSession{file.path()}; };
    txhooks::testing::adapter_stories::Engine engine = txhooks::testing::adapter_stories::engine(open);
    make_tables(engine);
    const auto trial = engine.open();
    const long id = trial->insert();
    trial->execute("DELETE FROM txhooks_check");
    trial->hook(id);
    trial->execute(trial->insertion(id));
    CHECK(trial->broken_promise({}) == "A HOOK RAN BEFORE ITS ROW WAS THERE FOR OTHERS");
}

TEST_CASE("adapter_check: a session that cannot be had is a row that failed", "[adapter_check]") {
    const auto open = []() -> support::SqliteSession { return support::SqliteSession{"/nowhere/at/all.db"}; };
    const AdapterReport report = adapter_check("nowhere", open, {}, nullptr);
    CHECK(report.table() ==
          "nowhere\n"
          "  a session and its tables             FAILED   cannot open /nowhere/at/all.db\n"
          "  0 kept, 0 cannot, 1 failed\n");
    CHECK_FALSE(report.passed());
}

TEST_CASE("adapter_check: a kill() or a make_busy() that throws is no proof of anything", "[adapter_check]") {
    const AdapterReport report = check<Failing>();
    CHECK(verdict(report, "killed before COMMIT") == "failed: kill() threw: not allowed to");
    CHECK(verdict(report, "killed during COMMIT") == "failed: kill() threw: not allowed to");
    CHECK(verdict(report, "busy COMMIT") == "failed: COMMIT could not be made to fail: nobody to make it");
}

TEST_CASE("adapter_check: execute() that does not throw is found", "[adapter_check]") {
    CHECK(verdict(check<Silent>(), "failed statement") == "failed: execute() did not throw for a duplicate key");
}

// SPDX-License-Identifier: MIT

// The store of SQLite: the statements that it keeps, in a connection in which anything else happens meanwhile.

#include <txhooks/outbox/sqlite3.hpp>
#include <txhooks/testing/capture.hpp>

#include "outbox/job_scene.hpp"
#include "support/catch.hpp"
#include "support/exceptions.hpp"

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace txhooks;
using namespace std::chrono_literals;
using support::DatabaseFile;
using support::Event;
using support::Handle;
using support::Invoice;
using support::JobDb;
using support::jobs;
using support::Mail;
using support::Oops;
using support::Program;
using support::Report;
using support::run;
using support::Strings;
using support::values;
using Kept = sqlite::detail::KeptStatements;
using Statement = sqlite::detail::JobStatement<sqlite::detail::CJobDriver>;

namespace {

std::vector<sqlite3_stmt*> statements(sqlite3* db) {
    std::vector<sqlite3_stmt*> all;
    for (sqlite3_stmt* each = nullptr; (each = sqlite3_next_stmt(db, each)) != nullptr;)
        if (std::string{sqlite3_sql(each)}.find("txhooks_job") != std::string::npos) all.push_back(each);
    return all;
}

// Everything that the store has a statement for.
void use_all(Program& program) {
    Outbox<JobDb>& outbox = program.outbox;
    program.act = [](JobRun& current) {
        current.extend(1min);
        if (current.attempt() == 1) throw Oops{};
    };
    outbox.add(Mail{1});
    outbox.add(Report{2});
    outbox.add(Event{3});
    outbox.add(Event{4});
    outbox.add(Invoice{5});
    for (int n = 0; n != 6; ++n) outbox.run_due();
    program.act = nullptr;
    outbox.add(Report{6}, {.key = "k"});
    outbox.list();
    outbox.stats();
    outbox.revive("none");
    outbox.cancel("none");
    CHECK(outbox.cancel<Report>("k"));
    CHECK(outbox.list().empty());
}

// Its first row is `number`.
constexpr const char* select_number = "SELECT ?1 UNION ALL SELECT 0";

}  // namespace

TEST_CASE("SQLite: statements are prepared once, and hold nothing while they wait", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.first_delay = 0us});
    use_all(program);
    const std::vector<sqlite3_stmt*> first = statements(program.handle_);
    CHECK(first.size() > 12);
    use_all(program);
    CHECK(statements(program.handle_) == first);
    for (sqlite3_stmt* const each : first) {
        INFO(sqlite3_sql(each));
        CHECK(sqlite3_stmt_status(each, SQLITE_STMTSTATUS_RUN, 0) > 1);
        CHECK(sqlite3_stmt_status(each, SQLITE_STMTSTATUS_REPREPARE, 0) == 0);
        CHECK_FALSE(sqlite3_stmt_busy(each));
        const std::unique_ptr<char, void (*)(void*)> bound{sqlite3_expanded_sql(each), &sqlite3_free};
        CHECK(std::string{bound.get()}.find("mail") == std::string::npos);
        CHECK(std::string{bound.get()}.find("report") == std::string::npos);
    }
    CHECK(sqlite3_txn_state(program.handle_, nullptr) == SQLITE_TXN_NONE);
}

TEST_CASE("SQLite: nothing is read that is not asked for", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.types.handle<Mail>(program.note<Mail>());
    program.types.handle<Report>(program.note<Report>(), {.in_worker = true});
    program.outbox.add(Mail{1});
    program.outbox.add(Report{2});
    program.outbox.add(Report{3}, {.key = "k"});
    CHECK(program.outbox.cancel<Report>("k"));
    program.outbox.run_due();
    for (sqlite3_stmt* const each : statements(program.handle_)) {
        std::string plan;
        const auto add = [](void* to, int, char** columns, char**) {
            *static_cast<std::string*>(to) += columns[3];
            return 0;
        };
        const std::string sql = std::string{"EXPLAIN QUERY PLAN "} + sqlite3_sql(each);
        REQUIRE(sqlite3_exec(program.handle_, sql.c_str(), add, &plan, nullptr) == SQLITE_OK);
        INFO(sql << ": " << plan);
        CHECK(plan.find("SCAN") == std::string::npos);
        CHECK(plan.find("TEMP B-TREE") == std::string::npos);
    }
}

TEST_CASE("SQLite: a statement that is in use is prepared once more", "[outbox]") {
    const Handle db{":memory:"};
    Kept kept;
    const auto use = [&](std::int64_t number, const std::function<void()>& meanwhile) {
        Statement statement{kept, db, select_number};
        REQUIRE(statement.run(number));
        meanwhile();
        CHECK(statement.number(0) == number);
        CHECK(statement.next());
    };
    const auto count = [&] {
        int all = 0;
        for (sqlite3_stmt* each = nullptr; (each = sqlite3_next_stmt(db, each)) != nullptr;) ++all;
        return all;
    };
    use(1, [&] { use(2, [&] { CHECK(count() == 2); }); });
    CHECK(count() == 1);
    CHECK_THROWS_AS(use(1, [&] { use(2, [] { throw Oops{}; }); }), Oops);
    CHECK(count() == 1);
    SECTION("they are closed while one is in use") {
        use(1, [&] {
            kept.close();
            CHECK(count() == 1);
        });
        CHECK(count() == 0);
    }
    SECTION("they are closed while two are in use") {
        use(1, [&] { use(2, [&] { kept.close(); }); });
        CHECK(count() == 0);
    }
    kept.close();
    use(1, [&] { CHECK(count() == 1); });
    CHECK(count() == 0);
}

TEST_CASE("SQLite: code of the user's that is called by a statement uses the Outbox", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.outbox.add(Report{1});
    program.outbox.add(Report{2});
    program.act = [&](JobRun&) {};
    struct Calls {
        Program& program;
        Strings seen = {};
        bool again = true;
    } calls{program};
    sqlite3_create_function(
        program.handle_, "seen", 1, SQLITE_UTF8, &calls,
        [](sqlite3_context* context, int, sqlite3_value** arguments) {
            Calls& self = *static_cast<Calls*>(sqlite3_user_data(context));
            if (std::exchange(self.again, false))
                for (const JobRow& row : self.program.outbox.list()) self.seen.push_back(row.payload);
            sqlite3_result_value(context, arguments[0]);
        },
        nullptr, nullptr);
    run(program.handle_,
        "CREATE TEMP VIEW txhooks_job AS SELECT id, seen(name) AS name, payload, due, claim, attempts, "
        "holder, job_key, error, created FROM main.txhooks_job");
    CHECK(program.outbox.list().size() == 2);
    CHECK(calls.seen == Strings{"1", "2"});
    CHECK(program.outbox.list().size() == 2);
    CHECK(sqlite3_txn_state(program.handle_, nullptr) == SQLITE_TXN_NONE);
}

TEST_CASE("SQLite: nothing of an Outbox that is gone stays in its connection", "[outbox]") {
    const DatabaseFile file;
    const Handle handle{file.path()};
    JobDb db{handle.get()};
    JobTypes<JobDb> types;
    types.handle<Mail>([](const Mail&) {});
    std::optional<Outbox<JobDb>> outbox;
    outbox.emplace(db, types);
    outbox->create_table();
    testing::CapturedHooks hooks{db};
    outbox->add(Mail{1});
    outbox->run_due();
    CHECK_FALSE(statements(handle).empty());
    outbox.reset();
    CHECK(statements(handle).empty());
    hooks.run();
    CHECK(jobs(file, "holder IS NULL") == "1");
    CHECK(statements(handle).empty());
}

TEST_CASE("SQLite: the schema changes while statements are kept", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    const auto cycle = [&](int n) {
        program.ran.clear();
        program.outbox.add(Mail{n});
        program.outbox.add(Report{n});
        CHECK(program.outbox.run_due() == 1);
        CHECK(program.ran == Strings{"mail " + std::to_string(n), "report " + std::to_string(n)});
    };
    cycle(1);
    SECTION("other things are made") {
        run(program.handle_, "CREATE TABLE other (n); CREATE INDEX others ON other (n)");
        cycle(2);
    }
    SECTION("the table gets one more column") {
        run(program.handle_, "ALTER TABLE txhooks_job ADD COLUMN tenant TEXT DEFAULT 'x'");
        cycle(2);
    }
    SECTION("by another connection") {
        support::change(file, "DROP INDEX txhooks_job_due; ALTER TABLE txhooks_job ADD COLUMN tenant TEXT");
        cycle(2);
    }
    SECTION("the table is dropped, and made again") {
        run(program.handle_, "DROP TABLE txhooks_job");
        using Catch::Matchers::Contains;
        CHECK_THROWS_WITH(program.outbox.add(Mail{2}), Contains("create_table()"));
        CHECK_THROWS_WITH(program.outbox.run_due(), Contains("create_table()"));
        program.outbox.create_table();
        cycle(3);
    }
    SECTION("a temporary table stands before it") {
        std::string sql = Outbox<JobDb>::schema();
        sql.replace(0, sql.find("txhooks_job"), "CREATE TEMP TABLE ");
        run(program.handle_, sql.substr(0, sql.find(';')) +
                                 "; CREATE UNIQUE INDEX temp.k ON txhooks_job (name, job_key) WHERE claim = 0 AND "
                                 "job_key IS NOT NULL");
        program.outbox.add(Report{2});
        CHECK(jobs(file).empty());
        CHECK(values(program.handle_, "SELECT payload FROM temp.txhooks_job") == "2");
        run(program.handle_, "DROP TABLE temp.txhooks_job");
        cycle(3);
    }
    CHECK(jobs(file).empty());
}

TEST_CASE("SQLite: the table was in a database that is detached", "[outbox]") {
    const DatabaseFile file, other;
    { const Program creates{other}; }
    const Handle handle{file.path()};
    run(handle, "ATTACH '" + other.path() + "' AS other");
    JobDb db{handle.get()};
    JobTypes<JobDb> types;
    Outbox<JobDb> outbox{db, types};
    outbox.add(Mail{1});
    CHECK(jobs(other) == "mail 1");
    run(handle, "DETACH other");
    CHECK_THROWS_WITH(outbox.add(Mail{2}), Catch::Matchers::Contains("create_table()"));
    outbox.create_table();
    outbox.add(Mail{3});
    CHECK(jobs(file) == "mail 3");
}

TEST_CASE("SQLite: memory is out", "[D1][outbox]") {
    const DatabaseFile file;
    { const Program creates{file}; }
    int failures = 0;
    bool added = false;
    for (sqlite3_int64 some = 0; not added; some += 128) {
        INFO(some);
        const Handle handle{file.path()};
        JobDb db{handle.get()};
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});  // ROLLBACK may need memory, too
        JobTypes<JobDb> types;
        Outbox<JobDb> outbox{db, types};
        db.atomic([&] { run(handle, "INSERT INTO t VALUES (1)"); });  // has read the schema
        sqlite3_hard_heap_limit64(sqlite3_memory_used() + some);
        try {
            outbox.add(Mail{1});
            added = true;
        } catch (const EngineError& error) {
            CHECK(error.code() == SQLITE_NOMEM);
            ++failures;
        }
        sqlite3_hard_heap_limit64(0);
        REQUIRE(jobs(file, "count(*)") == (added ? "1" : "0"));
        if (not db.usable()) continue;
        outbox.add(Mail{2});
        CHECK(jobs(file, "payload") == (added ? "1,2" : "2"));
        support::change(file, "DELETE FROM txhooks_job");
    }
    CHECK(failures > 10);
}

TEST_CASE("SQLite: a table that an earlier release has made", "[outbox]") {
    const DatabaseFile file;
    support::change(
        file,
        "CREATE TABLE txhooks_job (id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(18)))),"
        " name TEXT NOT NULL, payload BLOB NOT NULL, due INTEGER NOT NULL DEFAULT 0, claim INTEGER NOT NULL DEFAULT 0,"
        " attempts INTEGER NOT NULL DEFAULT 0, holder TEXT, job_key TEXT, error TEXT, created INTEGER NOT NULL DEFAULT "
        "0);"
        "CREATE INDEX txhooks_job_due ON txhooks_job (name, due);"
        "CREATE UNIQUE INDEX txhooks_job_key ON txhooks_job (name, job_key) WHERE claim = 0 AND job_key IS NOT NULL");
    Program program{file};
    program.handle_all({.first_delay = 0us});
    use_all(program);
    CHECK(jobs(file).empty());
}

TEST_CASE("SQLite: a settlement waits for the disk only where it has to", "[outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all();
    Strings set;
    sqlite3_trace_v2(
        program.handle_, SQLITE_TRACE_STMT,
        [](unsigned, void* to, void* statement, void*) {
            const std::string sql = sqlite3_sql(static_cast<sqlite3_stmt*>(statement));
            if (sql.find("synchronous = ") != std::string::npos) static_cast<Strings*>(to)->push_back(sql);
            return 0;
        },
        &set);
    const auto settles = [&](const char* journal, const char* level) {
        run(program.handle_, std::string{"PRAGMA journal_mode = "} + journal);
        run(program.handle_, std::string{"PRAGMA synchronous = "} + level);
        set.clear();
        program.outbox.add(Mail{1});
        Strings said;
        said.swap(set);
        said.push_back(values(program.handle_, "PRAGMA synchronous"));
        return said;
    };
    const std::string to = "PRAGMA main.synchronous = ";
    CHECK(settles("WAL", "FULL") == Strings{to + '1', to + '2', "2"});
    CHECK(settles("WAL", "NORMAL") == Strings{"1"});
    CHECK(settles("WAL", "EXTRA") == Strings{to + '1', to + '3', "3"});
    CHECK(settles("WAL", "OFF") == Strings{"0"});
    CHECK(settles("DELETE", "FULL") == Strings{"2"});
    CHECK(settles("WAL", "FULL") == Strings{to + '1', to + '2', "2"});
    CHECK(jobs(file).empty());
    sqlite3_trace_v2(program.handle_, 0, nullptr, nullptr);
}

TEST_CASE("SQLite: a settlement finds another writer", "[D3][outbox]") {
    const DatabaseFile file;
    Program program{file};
    program.handle_all({.lease = 1s});
    const Handle other{file.path()};
    run(program.handle_, "PRAGMA busy_timeout = 20");
    program.act = [&](JobRun&) { run(other, "BEGIN IMMEDIATE"); };
    program.outbox.add(Mail{1});
    CHECK(program.told.size() == 1);
    CHECK(jobs(file, "claim || (holder IS NULL)") == "10");
    run(other, "COMMIT");
    program.act = nullptr;
    program.outbox.add(Mail{2});
    CHECK(jobs(file) == "mail 1");
    support::pass_time(file);
    CHECK(program.outbox.run_due() == 1);
    CHECK(jobs(file).empty());
}

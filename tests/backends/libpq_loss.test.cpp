// SPDX-License-Identifier: MIT
//
// Transactions that end behind the block's back, by each way PostgreSQL has for that. A lost transaction runs no hook;
// the caller is told, and the connection goes on.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

using namespace support;
using txhooks::Outcome;
using Lines = std::vector<std::string>;

namespace {

// One way to end a transaction that has row 1, with the rows that stay.
struct Ender {
    std::string name;
    std::function<void(PGconn*)> end;
    Outcome outcome;  // what became of the transaction
    std::string truth;
};

// By these strings of statements, one after the other; some of them fail.
Ender by(std::vector<std::string> strings, Outcome outcome, std::string truth) {
    std::string name;
    for (const std::string& sql : strings) name += '[' + sql + ']';
    return {name,
            [strings](PGconn* conn) {
                for (const std::string& sql : strings) attempt(conn, sql);
            },
            outcome, std::move(truth)};
}

void read_all(PGconn* conn) {
    while (PGresult* const result = PQgetResult(conn)) PQclear(result);
}

void asynchronously(PGconn* conn) {
    PQsendQuery(conn, "ROLLBACK; BEGIN");
    read_all(conn);
}
void row_by_row(PGconn* conn) {
    PQsendQuery(conn, "SELECT generate_series(1, 3); COMMIT; BEGIN; SELECT generate_series(1, 3)");
    PQsetSingleRowMode(conn);
    read_all(conn);
}
void prepared(PGconn* conn) {
    PQclear(PQprepare(conn, "over", "COMMIT", 0, nullptr));
    PQclear(PQexecPrepared(conn, "over", 0, nullptr, nullptr, nullptr, 0));
}
void send_in_pipeline(PGconn* conn, std::initializer_list<const char*> statements) {
    PQenterPipelineMode(conn);
    for (const char* sql : statements) PQsendQueryParams(conn, sql, 0, nullptr, nullptr, nullptr, nullptr, 0);
}
void leave_pipeline(PGconn* conn) {
    PQpipelineSync(conn);
    while (PQexitPipelineMode(conn) == 0) PQclear(PQgetResult(conn));
}
void in_a_pipeline(PGconn* conn) {
    send_in_pipeline(conn, {"ROLLBACK", "BEGIN", "INSERT INTO t VALUES (2)"});
    leave_pipeline(conn);
}
void reset(PGconn* conn) {
    PQreset(conn);
}
void reset_and_begin(PGconn* conn) {
    PQreset(conn);
    run(conn, "BEGIN; INSERT INTO t VALUES (2)");
}
void reset_by_polling(PGconn* conn) {
    PQresetStart(conn);
    for (PostgresPollingStatusType status = PGRES_POLLING_WRITING;
         status != PGRES_POLLING_OK and status != PGRES_POLLING_FAILED;)
        status = PQresetPoll(conn);
    run(conn, "BEGIN");
}

const std::vector<Ender>& enders() {
    using enum Outcome;
    static const std::vector<Ender> all{
        by({"COMMIT"}, committed, "1"),
        by({"END"}, committed, "1"),
        by({"ROLLBACK"}, rolled_back, ""),
        by({"ABORT"}, rolled_back, ""),
        by({"COMMIT AND CHAIN"}, committed, "1"),
        by({"ROLLBACK AND CHAIN"}, rolled_back, ""),
        by({"COMMIT; BEGIN"}, committed, "1"),
        by({"COMMIT", "START TRANSACTION"}, committed, "1"),
        by({"ROLLBACK; BEGIN"}, rolled_back, ""),
        by({"ROLLBACK", "BEGIN"}, rolled_back, ""),
        by({"ROLLBACK; BEGIN; INSERT INTO t VALUES (2)"}, rolled_back, ""),
        by({"INSERT INTO t VALUES (2); COMMIT AND CHAIN; INSERT INTO t VALUES (3)"}, committed, "1,2"),
        by({"INSERT INTO t VALUES (2); ROLLBACK AND CHAIN; INSERT INTO t VALUES (3)"}, rolled_back, ""),
        by({"INSERT INTO t VALUES (2); COMMIT; SELECT 1 / 0"}, committed, "1,2"),
        by({"ROLLBACK; BEGIN; SELECT 1 / 0"}, rolled_back, ""),
        by({"COMMIT; BEGIN; SELECT 1 / 0"}, committed, "1"),
        by({"ROLLBACK", "INSERT INTO t VALUES (2)"}, rolled_back, "2"),
        by({"COMMIT; BEGIN; ROLLBACK; BEGIN"}, committed, "1"),
        by({"SELECT 1 / 0", "COMMIT"}, rolled_back, ""),
        by({"SELECT 1 / 0", "ROLLBACK; BEGIN"}, rolled_back, ""),
        by({"SELECT 1 / 0", "ROLLBACK AND CHAIN"}, rolled_back, ""),
        by({"INSERT INTO later VALUES (13)", "COMMIT"}, rolled_back, ""),
        by({"INSERT INTO later VALUES (13)", "COMMIT", "BEGIN"}, rolled_back, ""),
        by({"INSERT INTO later VALUES (13); COMMIT", "INSERT INTO t VALUES (2)", "BEGIN"}, rolled_back, "2"),
        by({"SAVEPOINT s", "COMMIT AND CHAIN"}, committed, "1"),
        by({"SAVEPOINT s", "ROLLBACK"}, rolled_back, ""),
        by({"SAVEPOINT s; ROLLBACK; BEGIN"}, unknown, ""),
        by({"SAVEPOINT s", "ROLLBACK", "START TRANSACTION"}, unknown, ""),
        by({"SAVEPOINT s; ROLLBACK TO s; COMMIT; BEGIN"}, unknown, "1"),
        by({"SAVEPOINT s; ROLLBACK TO s; RELEASE s; COMMIT; BEGIN"}, committed, "1"),
        by({"SAVEPOINT s; RELEASE s", "ROLLBACK AND CHAIN"}, rolled_back, ""),
        by({"SAVEPOINT s; ROLLBACK TO s; RELEASE s", "ROLLBACK AND CHAIN"}, rolled_back, ""),
        by({"PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"}, unknown, "1"),
        by({"PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'", "BEGIN"}, unknown, ""),
        by({"SELECT 1 / 0", "PREPARE TRANSACTION 'p'"}, rolled_back, ""),
        by({"COMMIT", "CALL piecewise(10)"}, committed, "1,10,11"),
        {"asynchronously", asynchronously, rolled_back, ""},
        {"row by row", row_by_row, committed, "1"},
        {"by a prepared statement", prepared, committed, "1"},
        {"in a pipeline", in_a_pipeline, rolled_back, ""},
        {"PQreset", reset, unknown, ""},
        {"PQreset and BEGIN", reset_and_begin, unknown, ""},
        {"PQresetPoll and BEGIN", reset_by_polling, unknown, ""},
    };
    return all;
}

constexpr const char* later =
    "CREATE TABLE later (n int PRIMARY KEY, m int REFERENCES later DEFERRABLE INITIALLY DEFERRED DEFAULT 99);"
    "CREATE PROCEDURE piecewise(n int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (n); COMMIT; "
    "INSERT INTO t VALUES (n + 1); COMMIT; PERFORM 1 / 0; END $$";

std::string loss(const Ender& ender) {
    return "TransactionLost " + name(ender.outcome);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq loss: commit, rollback and the destructor end a lost block, and no hook runs",
                        "[S50][P08][P13][P20]", EveryWitness) {
    enum class Way { commit, rollback, destructor, function };
    const Ender ender = GENERATE(from_range(enders()));
    const Way way = GENERATE(Way::commit, Way::rollback, Way::destructor, Way::function);
    CAPTURE(ender.name, static_cast<int>(way));
    PostgresScene<TestType> scene;
    scene.run(later);
    if (way == Way::function) {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      ender.end(scene.handle);
                  });
              }) == loss(ender));
        CHECK(scene.told.empty());
    } else {
        {
            typename PostgresScene<TestType>::Tx tx{scene.db};
            scene.row(1);
            ender.end(scene.handle);
            if (way == Way::commit) CHECK(ending([&] { tx.commit(); }) == loss(ender));
            if (way == Way::rollback) CHECK(ending([&] { tx.rollback(); }) == loss(ender));
            CHECK(tx.active() == (way == Way::destructor));
        }
        const Lines destroyed{"txhooks: while rolling back a block: " + loss(ender),
                              "txhooks: an Atomic was destroyed without commit() or rollback(); it was rolled back"};
        CHECK(scene.told == (way == Way::destructor ? destroyed : Lines{}));
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: on_commit and nested blocks notice it at once", "[S9][S50]", EveryWitness) {
    const Ender ender = GENERATE(from_range(enders()));
    CAPTURE(ender.name);
    PostgresScene<TestType> scene;
    scene.run(later);
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    ender.end(scene.handle);
    CHECK(ending([&] { scene.hook(2); }) == loss(ender));
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { typename PostgresScene<TestType>::Tx inner{scene.db}; }) == loss(ender));
    CHECK(ending([&] { typename PostgresScene<TestType>::Tx inner{scene.db, {.join = true}}; }) == loss(ender));
    CHECK(ending([&] { tx.commit(); }) == loss(ender));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
    CHECK(scene.told.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: a transaction lost in a nested block is lost for all of them", "[S50]",
                        EveryWitness) {
    const auto [sql, outcome, truth] = GENERATE(table<std::string, std::string, std::string>({
        {"COMMIT; BEGIN", "committed", "1"},
        {"COMMIT AND CHAIN", "committed", "1"},
        {"ROLLBACK", "rolled_back", ""},
        {"ROLLBACK; BEGIN", "unknown", ""},     // ROLLBACK TO our savepoint has the same tag,
        {"ROLLBACK AND CHAIN", "unknown", ""},  // and here it shows when it is released
    }));
    const bool commits = GENERATE(true, false);
    CAPTURE(sql, commits);
    PostgresScene<TestType> scene;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    {
        typename PostgresScene<TestType>::Tx inner{scene.db};
        scene.hook(2);
        scene.run(sql);
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) ==
              "TransactionLost " + outcome);
        CHECK_FALSE(inner.active());
        CHECK_FALSE(tx.active());
    }
    CHECK(ending([&] { scene.hook(3); }) == "TransactionLost " + outcome);
    CHECK(ending([&] { tx.commit(); }) == "TransactionLost " + outcome);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == truth);
    CHECK(scene.goes_on());
    CHECK(scene.told.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: what ends no transaction is no loss", "[S50][P12]", EveryWitness) {
    const auto strings = GENERATE(values<std::vector<std::string>>({
        {"SAVEPOINT s; ROLLBACK TO s; RELEASE s"},
        {"SAVEPOINT s", "INSERT INTO t VALUES (5)", "ROLLBACK TO s"},
        {"SAVEPOINT s; SAVEPOINT r", "SELECT 1 / 0", "ROLLBACK TO r", "ROLLBACK TO s", "RELEASE s"},
        {"SAVEPOINT s", "SELECT no_such_function()", "ROLLBACK TO s"},
        {"SAVEPOINT s; SAVEPOINT s; ROLLBACK TO s; RELEASE s; ROLLBACK TO s"},
        {"BEGIN"},
        {"START TRANSACTION"},
        {"SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = 0"},
        {"CREATE TABLE u (n int); TRUNCATE u; DROP TABLE u"},
        {"DO $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN END $$"},
        {"DECLARE c CURSOR FOR SELECT 1; FETCH c; CLOSE c"},
        {"LISTEN a; NOTIFY a; UNLISTEN a; DISCARD PLANS"},
        {"PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p"},
        {""},
    }));
    CAPTURE(strings.front());
    PostgresScene<TestType> scene;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    for (const std::string& sql : strings) attempt(scene.handle, sql);
    scene.row(2);
    {
        typename PostgresScene<TestType>::Tx inner{scene.db};
        scene.row(3);
        for (const std::string& sql : strings) attempt(scene.handle, sql);
        inner.commit();
    }
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1,2,3");
    CHECK(scene.truth() == "1,2,3");
    CHECK(scene.goes_on());
    CHECK(scene.told.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: a nested block whose savepoint the user ended is not trusted any more", "[S50]",
                        EveryWitness) {
    const char* const end = GENERATE("RELEASE mine", "ROLLBACK TO mine");
    const bool commits = GENERATE(true, false);
    PostgresScene<TestType> scene;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    scene.run("SAVEPOINT mine");
    {
        typename PostgresScene<TestType>::Tx inner{scene.db};
        scene.row(2);
        scene.run(end);
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) ==
              "TransactionLost unknown");
    }
    CHECK(ending([&] { tx.commit(); }) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: a prepared transaction is in doubt until somebody else ends it", "[S50][P08e]",
                        EveryWitness) {
    enum class Way { commit, rollback, nested, destructor };
    const Way way = GENERATE(Way::commit, Way::rollback, Way::nested, Way::destructor);
    const bool commits = GENERATE(true, false);
    const bool begins_another = GENERATE(true, false);
    CAPTURE(static_cast<int>(way), commits, begins_another);
    PostgresScene<TestType> scene;
    const auto prepare = [&] {
        scene.run("PREPARE TRANSACTION 'doubt'");
        if (begins_another) scene.run("BEGIN; INSERT INTO t VALUES (2)");
    };
    {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(1);
        if (way == Way::nested) {
            typename PostgresScene<TestType>::Tx inner{scene.db};
            prepare();
            CHECK(without_cause(ending([&] { inner.commit(); })) == "TransactionLost unknown");
        } else {
            prepare();
        }
        if (way == Way::rollback) CHECK(ending([&] { tx.rollback(); }) == "TransactionLost unknown");
        if (way == Way::commit or way == Way::nested) CHECK(ending([&] { tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(scene.told.size() == (way == Way::destructor ? 2 : 0));
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(run(scene.others, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'doubt'") == "1");
    run(scene.others, commits ? "COMMIT PREPARED 'doubt'" : "ROLLBACK PREPARED 'doubt'");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (commits ? "1" : ""));
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: one whose answer is unread is noticed when that is read", "[S50][P08][P19]",
                        EveryWitness) {
    const bool pipeline = GENERATE(false, true);
    const bool reads = GENERATE(true, false);
    CAPTURE(pipeline, reads);
    PostgresScene<TestType> scene;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    if (pipeline)
        send_in_pipeline(scene.handle, {"COMMIT", "BEGIN", "INSERT INTO t VALUES (2)"});
    else
        PQsendQuery(scene.handle, "COMMIT; BEGIN; INSERT INTO t VALUES (2)");
    CHECK(ending([&] { tx.commit(); }) == "UsageError");
    if (reads) pipeline ? leave_pipeline(scene.handle) : read_all(scene.handle);
    CHECK(ending([&] { reads ? static_cast<void>(tx.commit()) : tx.rollback(); }) == "TransactionLost committed");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
    CHECK(scene.told.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: one whose answer is unread is noticed when a nested block rolls back",
                        "[S50][P08]", EveryWitness) {
    PostgresScene<TestType> scene;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    typename PostgresScene<TestType>::Tx inner{scene.db};
    PQsendQuery(scene.handle, "COMMIT");
    CHECK(ending([&] { inner.rollback(); }) == "TransactionLost committed");
    CHECK(ending([&] { tx.commit(); }) == "TransactionLost committed");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

// ---- Where the witnesses differ

namespace {

struct Difference {
    const char* sql;
    const char* event_witness;
    const char* set_local;
    const char* sentinel;
    bool lost;  // the row is gone before we commit
};

template <class Adapter>
const char* expected(const Difference& row) {
    if (std::is_same_v<Adapter, EventWitness>) return row.event_witness;
    return std::is_same_v<Adapter, SetLocal> ? row.set_local : row.sentinel;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq loss: what each witness sees that another does not", "[S50][P08]", EveryWitness) {
    constexpr const char* no_setting = "TransactionLost unknown <- EngineError 22012 unknown";
    constexpr const char* no_savepoint = "TransactionLost unknown <- EngineError 3B001 unknown";
    const auto row = GENERATE_REF(values<Difference>({
        {"SAVEPOINT s; ROLLBACK AND CHAIN", "committed", no_setting, no_savepoint, true},
        {"SAVEPOINT s; RELEASE s; SAVEPOINT s; ROLLBACK AND CHAIN; INSERT INTO t VALUES (2)", "committed", no_setting,
         no_savepoint, true},
        {"SAVEPOINT s; ROLLBACK AND CHAIN; SAVEPOINT s; RELEASE s", "committed", no_setting, no_savepoint, true},
        {"ROLLBACK AND CHAIN", "TransactionLost rolled_back", "TransactionLost rolled_back",
         "TransactionLost rolled_back", true},
        {"COMMIT AND CHAIN", "TransactionLost committed", "TransactionLost committed", "TransactionLost committed",
         false},
        {"SAVEPOINT s; ROLLBACK TO s", "committed", "committed", "committed", false},
        {"RESET ALL; SET search_path TO DEFAULT", "committed", no_setting, "committed", false},
        {"RELEASE txhooks_0", "TransactionAborted rolled_back", "TransactionAborted rolled_back", no_savepoint, false},
        {"SELECT pg_export_snapshot()", "committed", "committed", "TransactionAborted rolled_back", false},
    }));
    CAPTURE(row.sql);
    PostgresScene<TestType> scene;
    scene.db.atomic([] {});  // leaves nothing behind that could be taken for the next one's
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    attempt(scene.handle, row.sql);
    const std::string told = ending([&] { return tx.commit(); });
    CHECK(told == expected<TestType>(row));
    CHECK(scene.hooks == (told == "committed" ? "1" : ""));
    const bool there = not row.lost and (told == "committed" or told == "TransactionLost committed");
    CHECK((scene.truth().find('1') != std::string::npos) == there);
    CHECK(scene.goes_on());
}

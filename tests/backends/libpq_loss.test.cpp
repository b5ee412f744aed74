// SPDX-License-Identifier: MIT
//
// Transactions that end behind the block's back, by each way PostgreSQL has for that. A lost transaction runs no hook;
// the caller is told, and the connection goes on.

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

using namespace support;
using txhooks::Outcome;

namespace {

// One way to end a transaction that has row 1, with the rows that stay.
struct Ender {
    std::string name;
    std::function<void(PGconn*)> end;
    Outcome outcome;  // what became of the transaction
    std::string truth;
};

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

std::vector<Ender> all_enders() {
    using enum Outcome;
    std::vector<Ender> all{
        {"asynchronously", asynchronously, rolled_back, ""},
        {"row by row", row_by_row, committed, "1"},
        {"by a prepared statement", prepared, committed, "1"},
        {"in a pipeline", in_a_pipeline, rolled_back, ""},
        {"PQreset", reset, unknown, ""},
        {"PQreset and BEGIN", reset_and_begin, unknown, ""},
        {"PQresetPoll and BEGIN", reset_by_polling, unknown, ""},
    };
    for (const SqlEnder& ender : sql_enders())
        all.push_back({ender.name(),
                       [&ender](PGconn* conn) {
                           for (const std::string& sql : ender.strings) attempt(conn, sql);
                       },
                       ender.fate, ender.truth});
    return all;
}

std::string loss(const Ender& ender) {
    return "TransactionLost " + name(ender.outcome);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq loss: commit, rollback and the destructor end a lost block, and no hook runs",
                        "[S50][P08][P13][P20]", EveryWitness) {
    enum class Way { commit, rollback, destructor, function };
    const Ender ender = GENERATE(from_range(all_enders()));
    const Way way = GENERATE(Way::commit, Way::rollback, Way::destructor, Way::function);
    CAPTURE(ender.name, static_cast<int>(way));
    PostgresScene<TestType> scene;
    scene.run(enders_tables);
    if (way == Way::function) {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      ender.end(scene.handle);
                  });
              }) == loss(ender));
        CHECK(scene.sink.empty());
    } else {
        {
            typename PostgresScene<TestType>::Tx tx{scene.db};
            scene.row(1);
            ender.end(scene.handle);
            if (way == Way::commit) CHECK(ending([&] { tx.commit(); }) == loss(ender));
            if (way == Way::rollback) CHECK(ending([&] { tx.rollback(); }) == loss(ender));
            CHECK(tx.active() == (way == Way::destructor));
        }
        const Log destroyed{"txhooks: while rolling back a block: " + loss(ender),
                            "txhooks: an Atomic was destroyed without commit() or rollback(), so it was rolled back; "
                            "call commit() at the end of its block"};
        CHECK(scene.sink.lines() == (way == Way::destructor ? destroyed : Log{}));
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: on_commit and nested blocks notice it at once", "[S9][S50]", EveryWitness) {
    const Ender ender = GENERATE(from_range(all_enders()));
    CAPTURE(ender.name);
    PostgresScene<TestType> scene;
    scene.run(enders_tables);
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
    CHECK(scene.sink.empty());
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
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq loss: what ends no transaction is no loss", "[S50][P12]", EveryWitness) {
    check_harmless_sql<PostgresScene<TestType>>();
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
    check_prepared_transaction<PostgresScene<TestType>>();
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
    CHECK(scene.sink.empty());
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

TEMPLATE_LIST_TEST_CASE("libpq loss: COMMIT AND CHAIN of a failed transaction, with a savepoint of the user's set",
                        "[S50][P08]", EveryWitness) {
    PostgresScene<TestType> scene;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    for (const char* sql : {"SAVEPOINT s", "SELECT 1 / 0", "COMMIT AND CHAIN"}) attempt(scene.handle, sql);
    const bool sees_it = not std::is_same_v<TestType, EventWitness>;
    CHECK(without_cause(ending([&] { return tx.commit(); })) == (sees_it ? "TransactionLost unknown" : "committed"));
    CHECK(scene.hooks == (sees_it ? "" : "1"));  // as its header says
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq: a savepoint of the user's that is rolled back with a hook in it is told to the sink",
                        "[S26]", EveryWitness) {
    struct Case {
        std::vector<std::string> before;  // the hook
        std::vector<std::string> after;
        bool told;
    };
    const Case c = GENERATE(
        Case{{"SAVEPOINT a"}, {"ROLLBACK TO a"}, true}, Case{{"SAVEPOINT a; SAVEPOINT b"}, {"ROLLBACK TO a"}, true},
        Case{{"SAVEPOINT a"}, {"SAVEPOINT b", "ROLLBACK TO a"}, true},
        Case{{"SAVEPOINT a"}, {"ROLLBACK TO a", "RELEASE a", "SELECT 1"}, true},
        Case{{"SAVEPOINT a"}, {"RELEASE a"}, false}, Case{{}, {"SAVEPOINT a", "SELECT 1", "ROLLBACK TO a"}, false},
        Case{{"SAVEPOINT a", "ROLLBACK TO a", "RELEASE a"}, {"SAVEPOINT a; ROLLBACK TO a"}, false},
        Case{{"SAVEPOINT a", "RELEASE a"}, {}, false}, Case{{}, {}, false});
    const bool nested = GENERATE(false, true);
    CAPTURE(c.before, c.after, nested);
    PostgresScene<TestType> scene;
    const auto run_all = [&](const std::vector<std::string>& statements) {
        for (const std::string& sql : statements) scene.run(sql);
    };
    scene.db.atomic([&] {
        scene.insert(1);
        run_all(c.before);
        nested ? scene.db.atomic([&] { scene.hook(1); }) : scene.hook(1);
        run_all(c.after);
        CHECK_THROWS(scene.db.atomic([&] {
            scene.row(2);
            throw Oops{};
        }));
    });
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.sink.lines() == (c.told ? Log{"txhooks: the transaction is committed, but: UsageError"} : Log{}));
    scene.sink.clear();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());

    scene.db.atomic([&] {  // nobody is told of hooks that do not run
        run_all(c.before);
        scene.hook(3);
        run_all(c.after);
        scene.db.set_rollback(true);
    });
    CHECK(scene.sink.empty());
}

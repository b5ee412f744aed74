// SPDX-License-Identifier: MIT

// The INSERT of a block's jobs, which libpq sends in the round trip of COMMIT.

#include <txhooks/doubt.hpp>
#include <txhooks/outbox/libpq.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include "outbox/postgres_commit_scene.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using namespace support;
using namespace txhooks;

namespace {

// On every INSERT of a job: `body`, of PL/pgSQL. It may count calls that are rolled back by nextval('calls').
template <class Scene>
void on_insert(Scene& scene, const std::string& body, const std::string& when = "TRIGGER on_insert BEFORE INSERT",
               const std::string& deferred = "") {
    change(
        scene,
        "CREATE SEQUENCE IF NOT EXISTS calls; CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN " +
            body + " RETURN NEW; END'; CREATE " + when + " ON txhooks_job " + deferred +
            " FOR EACH ROW EXECUTE FUNCTION on_insert()");
}
template <class Scene>
void on_insert_nothing(Scene& scene) {
    change(scene, "DROP FUNCTION IF EXISTS on_insert CASCADE");
}

// While it lives, COMMIT is refused.
class Pipeline {
public:
    explicit Pipeline(PGconn* conn) : conn_{conn} { PQenterPipelineMode(conn); }
    ~Pipeline() { PQexitPipelineMode(conn_); }

private:
    PGconn* conn_;
};

// A COMMIT that is refused, with what is to go ahead of it written already.
template <class Sending>
void commit_refused(Sending& s, typename Sending::Tx& tx) {
    const Pipeline on{s.scene.handle};
    CHECK(ending([&] { tx.commit(); }) == "UsageError");
    CHECK(tx.active());
}

template <class Scene>
void wait_for_end_of(Scene& scene, int pid) {
    while (run(scene.others, "SELECT count(*) FROM pg_stat_activity WHERE pid = " + std::to_string(pid)) != "0")
        std::this_thread::yield();
}

std::string every_byte() {
    std::string all;
    for (int byte = 0; byte != 256; ++byte) all += static_cast<char>(byte);
    return all;
}

}  // namespace

#define COMMIT_TEST(name, tags) TEMPLATE_LIST_TEST_CASE("PostgreSQL, jobs with COMMIT: " name, tags, EveryWitness)

// ---- What is sent

COMMIT_TEST("no round trip more, but for the first of an Outbox and what is too much for one statement",
            "[D6][outbox]") {
    TcpProxy proxy{postgres_port()};
    Sending<PostgresScene<TestType>> s{through(proxy)};
    const auto trips = [&](const std::function<void()>& work) {
        proxy.round_trips();
        s.db.atomic(work);
        return proxy.round_trips();
    };
    const auto letters = [&](int count, std::size_t size = 1) {
        return [&s, count, size] {
            for (int n = 0; n != count; ++n) s.letter(std::string(size, 'x'));
        };
    };
    CHECK(trips([] {}) == 2);
    for (const int count : {1, 10, 500}) CHECK(trips(letters(count)) == 2);
    CHECK(trips(letters(1, 1024 * 1024)) == 2);
    CHECK(trips(letters(2, 1024 * 512)) == 2);
    CHECK(trips(letters(501)) == 4);
    CHECK(trips(letters(2, 1024 * 512 + 1)) == 4);
    CHECK(run(s.scene.others, "SELECT count(*) FROM txhooks_job") == "1017");
    CHECK(trips([&] { s.note("1"); }) == 3);
    CHECK(trips([&] {
              for (int n = 0; n != 20; ++n) s.note("1");
          }) == 3);
    s.outbox.reset();
    s.outbox.emplace(s.db, s.types);
    CHECK(trips(letters(1)) == 3);
    CHECK(trips(letters(1)) == 2);
}

COMMIT_TEST("a job, its row and its marker are one round trip", "[D6][D17][doubt][outbox]") {
    TcpProxy proxy{postgres_port()};
    Sending<PostgresScene<TestType>> s{through(proxy)};
    change(s.scene, marker_table);
    const std::string before = GENERATE("", "DEALLOCATE ALL");
    Doubt doubt;
    const auto trips = [&](int n) {
        proxy.round_trips();
        s.db.atomic({.resolve = &doubt}, [&] { s.row(n); });
        return proxy.round_trips();
    };
    CHECK(trips(1) == 4);  // one for the row, and one that prepares the marker
    CHECK(trips(2) == 3);
    if (not before.empty()) {
        s.scene.run(before);
        CHECK(trips(3) == 4);
    }
    const std::string all = before.empty() ? "1,2" : "1,2,3";
    CHECK(s.scene.truth() == all);
    CHECK(s.letters() == all);
    CHECK(s.notes() == all);  // born due
    CHECK(s.scene.hooks == all);
    CHECK(run(s.scene.others, "SELECT count(*) FROM txhooks_commit WHERE committed") == (before.empty() ? "2" : "3"));
    CHECK(s.outbox->run_due() == (before.empty() ? 2 : 3));
    CHECK(s.fate() == all);
    CHECK(s.goes_on());
}

COMMIT_TEST("every byte, every key and every session: what was added is what is there", "[D8][D13][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const std::string setting =
        GENERATE("SELECT 1",
                 "SET standard_conforming_strings = off; SET backslash_quote = off; SET escape_string_warning = off; "
                 "SET bytea_output = escape",
                 "SET client_encoding = LATIN1", "SET client_encoding = SJIS", "SET TimeZone = 'Asia/Kolkata'",
                 "SET default_transaction_isolation = serializable; SET default_transaction_deferrable = on",
                 "SET default_transaction_isolation = 'repeatable read'", "SET synchronous_commit = off",
                 "SET client_min_messages = error", "SET plan_cache_mode = force_generic_plan");
    CAPTURE(setting);
    s.scene.run(setting);
    std::string large;
    while (large.size() < 1024 * 1024) large += every_byte();
    const std::string odd = "it's a \\'key\\\\', ; -- $$ \xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98\n?";
    s.db.atomic([&] {
        s.letter(large);
        s.letter("");
    });
    s.db.atomic([&] {
        s.letter(every_byte(), {.key = odd, .delay = 1h});
        s.letter("; COMMIT; --", {.key = "\\"});
        s.letter("plain");
    });
    s.db.atomic([&] { s.letter("'", {.key = odd}); });
    s.db.atomic([&] { s.row(1); });
    const std::vector<JobRow> rows = s.outbox->list({.name = "letter"});
    REQUIRE(rows.size() == 6);
    CHECK(rows[0].payload == large);
    CHECK(rows[1].payload.empty());
    CHECK(rows[2].payload == "'");
    CHECK(rows[2].key == odd);
    CHECK(rows[2].due < rows[2].created + 60'000'000);
    CHECK(rows[3].payload == "; COMMIT; --");
    CHECK(rows[3].key == "\\");
    CHECK(rows[4].payload == "plain");
    CHECK(rows[4].key.empty());
    CHECK((rows[4].claim == 0 and rows[4].attempts == 0 and rows[4].holder.empty()));
    CHECK(rows[5].payload == "1");
    CHECK(s.ran == Log{"1"});
    CHECK(s.scene.sink.empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("a job that is run here is born leased", "[D5][outbox]") {
    Sending<PostgresScene<TestType>> s;
    std::string seen;
    s.act = [&](JobRun&) {
        seen = run(s.scene.others,
                   "SELECT concat_ws(' ', claim, attempts, holder IS NOT NULL, (due - created) / 1000000) FROM "
                   "txhooks_job WHERE name = 'note'");
    };
    s.db.atomic([&] { s.row(1); });
    CHECK((seen == "1 1 t 60" or seen == "1 1 t 59"));
    CHECK(s.fate() == "1");
}

COMMIT_TEST("a savepoint of the user's that is open at COMMIT is not taken for one that was rolled back",
            "[S26][doubt][outbox]") {
    Sending<PostgresScene<TestType>> s;
    change(s.scene, marker_table);
    Doubt doubt;
    for (int n = 1; n != 3; ++n)  // the first marker of the session is tried twice
        s.db.atomic({.resolve = &doubt}, [&] {
            s.scene.run("SAVEPOINT theirs");
            s.row(n);
        });
    CHECK(s.outbox->run_due() == 2);
    CHECK(s.fate() == "1,2");
    CHECK(s.scene.sink.empty());
    CHECK(s.goes_on());
}

// ---- What fails there

COMMIT_TEST("an INSERT that fails at COMMIT undoes all, and is told as it was", "[D1][D6][S46][outbox]") {
    struct Way {
        const char* error;
        std::function<void(Sending<PostgresScene<TestType>>&)> fail;
        const char* repair;
    };
    const auto raise = [](const char* state) {
        return [state](auto& s) { on_insert(s.scene, std::string{"RAISE USING ERRCODE = ''"} + state + "'';"); };
    };
    const auto sql = [](const char* text) { return [text](auto& s) { change(s.scene, text); }; };
    const char* const no_trigger = "DROP FUNCTION on_insert CASCADE";
    const Way ways[] = {
        {"XX123", raise("XX123"), no_trigger},
        // What means something to the adapter, if it is about COMMIT or a savepoint of its own.
        {"26000", raise("26000"), no_trigger},
        {"25006", raise("25006"), no_trigger},
        {"25P01", raise("25P01"), no_trigger},
        {"3B001", raise("3B001"), no_trigger},
        {"22012", raise("22012"), no_trigger},
        {"42704", raise("42704"), no_trigger},
        {"57P01", raise("57P01"), no_trigger},
        {"40001", raise("40001"), no_trigger},
        {"XX124",
         [](auto& s) {
             on_insert(s.scene, "RAISE USING ERRCODE = ''XX124'';", "CONSTRAINT TRIGGER on_insert AFTER INSERT",
                       "DEFERRABLE INITIALLY DEFERRED");
         },
         no_trigger},
        {"23505", sql("CREATE UNIQUE INDEX one ON txhooks_job (length(id::text))"), "DROP INDEX one"},
        {"42P01", sql("ALTER TABLE txhooks_job RENAME TO gone"), "ALTER TABLE gone RENAME TO txhooks_job"},
        {"42703", sql("ALTER TABLE txhooks_job RENAME due TO was"), "ALTER TABLE txhooks_job RENAME was TO due"},
        {"55P03",
         [](auto& s) {
             s.scene.run("SET lock_timeout = '20ms'");
             change(s.scene, "BEGIN; LOCK TABLE txhooks_job");
         },
         "ROLLBACK"},
        {"57014",
         [](auto& s) {
             s.scene.run("SET statement_timeout = '50ms'");
             change(s.scene, "BEGIN; LOCK TABLE txhooks_job");
         },
         "ROLLBACK"},
        {"25006", [](auto& s) { s.scene.run("SET default_transaction_read_only = on"); }, "SELECT 1"},
    };
    const std::size_t number = GENERATE(range(std::size_t{0}, std::size_t{16}));
    const bool marked = GENERATE(false, true);
    const bool function = GENERATE(false, true);
    const Way& way = ways[number];
    const bool read_only = number == 15;
    CAPTURE(way.error, number, marked, function);
    Sending<PostgresScene<TestType>> s;
    change(s.scene, marker_table);
    Doubt doubt;
    std::string ends;
    const auto work = [&] {
        s.db.on_rollback([&] { ends += 'r'; });
        s.db.unless_committed([&] { ends += 'u'; });
        if (read_only)
            s.letter("1");
        else
            s.row(1);
    };
    way.fail(s);
    const std::string told = ending([&] {
        typename Sending<PostgresScene<TestType>>::Db::Options options;
        if (marked) options.resolve = &doubt;
        if (function) return s.db.atomic(options, work);
        typename PostgresScene<TestType>::Tx tx{s.db, options};
        work();
        s.db.atomic([] {});
        try {
            tx.commit();
        } catch (...) {
            CHECK_FALSE(tx.active());
            CHECK(ending([&] { tx.commit(); }) == "UsageError");
            throw;
        }
    });
    change(s.scene, way.repair);
    CHECK(told == s.scene.error(way.error));
    CHECK(ends == "ur");
    CHECK_FALSE(doubt.in_doubt());
    CHECK(s.fate() == "");
    CHECK(s.scene.sink.empty());
    s.scene.run("RESET lock_timeout; RESET statement_timeout; RESET default_transaction_read_only");
    CHECK(s.goes_on());
    CHECK(run(s.scene.others, "SELECT count(*) FROM txhooks_commit") == "0");
}

COMMIT_TEST("an INSERT at COMMIT that is a serialization failure, or the victim of a deadlock, is healed by retry",
            "[D13][retry][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const std::string state = GENERATE("40001", "40P01");
    on_insert(s.scene, "IF nextval(''calls'') < 3 THEN RAISE USING ERRCODE = ''" + state + "''; END IF;");
    int attempts = 0;
    retry(s.db, {.first_delay = 1ns}, [&] {
        ++attempts;
        s.row(1);
    });
    CHECK(attempts == 3);
    CHECK(s.fate() == "1");
    on_insert_nothing(s.scene);
    CHECK(s.goes_on());
}

COMMIT_TEST("a deadlock at COMMIT over a key is healed by retry", "[D13][retry][outbox]") {
    Sending<PostgresScene<TestType>> s;
    typename PostgresScene<TestType>::Session other{s.scene};
    s.scene.run("SET deadlock_timeout = '50ms'");
    other.run("SET deadlock_timeout = '20s'");
    change(s.scene, "INSERT INTO t VALUES (7)");
    std::thread thread;
    int attempts = 0;
    retry(s.db, {.first_delay = 1ns}, [&] {
        s.scene.run("UPDATE t SET n = 7 WHERE n = 7");
        s.letter("mine", {.key = "k"});
        if (++attempts != 1) return;
        other.run("BEGIN; INSERT INTO txhooks_job (name, payload, job_key) VALUES ('letter', 'theirs', 'k')");
        thread = std::thread{[&] { other.run("UPDATE t SET n = 7 WHERE n = 7; COMMIT"); }};
        while (run(s.scene.others, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = " +
                                       std::to_string(PQbackendPID(other.handle))) != "1")
            std::this_thread::sleep_for(1ms);
    });
    thread.join();
    CHECK(attempts >= 2);
    CHECK(s.letters() == "mine");
    CHECK(s.goes_on());
}

COMMIT_TEST("serializable blocks that exclude each other: one is committed with its job, the other has none",
            "[D1][S46][outbox]") {
    Sending<PostgresScene<TestType>> s;
    Sending<PostgresScene<TestType>> unused;  // jobs of another schema are nobody's business
    typename PostgresScene<TestType>::Session other{s.scene};
    const auto work = [](auto& session, const char* n) {
        session.run("SELECT count(*) FROM t");
        session.run(std::string{"INSERT INTO t VALUES ("} + n + ")");
    };
    int attempts = 0;
    const auto block = [&] {
        ++attempts;
        work(s.scene, "1");
        s.letter("1");
        if (attempts != 1) return;
        other.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
        work(other, "2");
        other.run("COMMIT");
    };
    const bool again = GENERATE(false, true);
    s.scene.run("SET default_transaction_isolation = serializable");
    if (again) {
        retry(s.db, {.first_delay = 1ns}, block);
        CHECK(attempts == 2);
    } else {
        CHECK(ending([&] { s.db.atomic(block); }) == s.scene.error("40001"));
    }
    CHECK(s.scene.truth() == (again ? "1,2" : "2"));
    CHECK(s.letters() == (again ? "1" : ""));
    CHECK(unused.fate() == "");
    CHECK(s.goes_on());
}

// ---- COMMIT is refused, and tried again

COMMIT_TEST("a COMMIT that is refused and tried again inserts each job once", "[D1][S47][outbox]") {
    Sending<PostgresScene<TestType>> s;
    typename PostgresScene<TestType>::Tx tx{s.db};
    s.row(1);
    SECTION("a pipeline") {
        commit_refused(s, tx);
    }
    SECTION("a pipeline, twice") {
        commit_refused(s, tx);
        commit_refused(s, tx);
    }
    SECTION("results that are unread") {
        PQsendQuery(s.scene.handle, "SELECT 1");
        CHECK(ending([&] { tx.commit(); }) == "UsageError");
        while (PGresult* const result = PQgetResult(s.scene.handle)) PQclear(result);
    }
    SECTION("a COPY") {
        PQclear(PQexec(s.scene.handle, "COPY t FROM STDIN"));
        CHECK(ending([&] { tx.commit(); }) == "UsageError");
        PQputCopyEnd(s.scene.handle, nullptr);
        while (PGresult* const result = PQgetResult(s.scene.handle)) PQclear(result);
    }
    CHECK(s.fate() == "");
    CHECK(tx.commit() == Outcome::committed);
    CHECK(s.fate() == "1");
    CHECK(s.goes_on());
}

COMMIT_TEST("jobs that are added between two tries to COMMIT share the fate of those of before",
            "[D1][D6][S26][S47][outbox]") {
    TcpProxy proxy{postgres_port()};
    Sending<PostgresScene<TestType>> s{through(proxy)};
    {
        typename PostgresScene<TestType>::Tx tx{s.db};
        s.row(1);
        commit_refused(s, tx);
        commit_refused(s, tx);
        s.row(2);
        s.db.atomic([&] {
            s.row(3);
            s.db.set_rollback(true);
        });
        s.db.before_commit([&] { s.row(4); });
        s.db.atomic([&] { s.row(5); });
        proxy.round_trips();
        tx.commit();
        CHECK(proxy.round_trips() == 5);  // the row of the hook, the jobs of before, COMMIT, and a settlement for each
    }
    CHECK(s.scene.truth() == "1,2,4,5");
    CHECK(s.letters() == "1,2,5,4");
    CHECK(s.notes().empty());
    CHECK(s.ran == Log{"1", "2", "5", "4"});
    CHECK(s.goes_on());
}

COMMIT_TEST("of a key the job that was added last counts, also between two tries to COMMIT", "[D13][S47][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const int others = GENERATE(0, 500);  // with these it is more than one statement
    {
        typename PostgresScene<TestType>::Tx tx{s.db};
        s.letter("old", {.key = "k"});
        commit_refused(s, tx);
        s.letter("new", {.key = "k"});
        for (int n = 0; n != others; ++n) s.letter("other");
        tx.commit();
    }
    CHECK(run(s.scene.others,
              "SELECT string_agg(convert_from(payload, 'UTF8'), ',') FROM txhooks_job WHERE job_key = "
              "'k'") == "new");
}

COMMIT_TEST("a lease that was to begin with a refused COMMIT begins with the next", "[D5][S47][outbox]") {
    Sending<PostgresScene<TestType>> s;
    s.outbox.reset();
    JobTypes<typename decltype(s)::Db> types;
    Log ran;
    types.template handle<Note>([&](const Note& note) { ran.push_back(note.text); }, {.lease = 50ms});
    Outbox<typename decltype(s)::Db> outbox{s.db, types};
    outbox.add(Note{{"first"}});
    {
        typename PostgresScene<TestType>::Tx tx{s.db};
        outbox.add(Note{{"1"}});
        commit_refused(s, tx);
        std::this_thread::sleep_for(80ms);
        tx.commit();
    }
    CHECK(ran == Log{"first", "1"});
    CHECK(s.notes().empty());
    CHECK(s.scene.sink.empty());
}

COMMIT_TEST("what a block was refused to commit is nothing to the blocks that follow", "[D1][S28][S47][outbox]") {
    Sending<PostgresScene<TestType>> s;
    using Tx = typename PostgresScene<TestType>::Tx;
    enum class End { rollback, destroyed, set_rollback, raw_rollback, raw_commit, failed };
    const End end =
        GENERATE(End::rollback, End::destroyed, End::set_rollback, End::raw_rollback, End::raw_commit, End::failed);
    const bool in_hook = GENERATE(false, true);
    CAPTURE(static_cast<int>(end), in_hook);
    // Blocks at the same place in memory.
    const auto block = [&](const std::function<void(Tx&)>& work) {
        Tx tx{s.db};
        work(tx);
        if (tx.active()) tx.commit();
    };
    const auto later = [&] {
        bool asked = false;
        block([&](Tx&) { s.db.before_commit([&] { asked = true; }); });
        block([&](Tx&) {
            s.db.before_commit([] {});
            s.db.atomic([&] { s.row(2); });
        });
        CHECK(asked);
    };
    const std::string told = ending([&] {
        block([&](Tx& tx) {
            if (in_hook) s.db.unless_committed(later);
            s.row(1);
            commit_refused(s, tx);
            if (end == End::rollback) tx.rollback();
            if (end == End::destroyed) throw Oops{};
            if (end == End::set_rollback) s.db.set_rollback(true);
            if (end == End::raw_rollback) s.scene.run("ROLLBACK");
            if (end == End::raw_commit) s.scene.run("COMMIT");
            if (end == End::failed) s.scene.attempt("none");
        });
    });
    CHECK(told == (end == End::rollback or end == End::set_rollback ? "returned"
                   : end == End::destroyed                          ? "oops"
                   : end == End::raw_rollback                       ? s.scene.loss(Outcome::rolled_back)
                   : end == End::raw_commit                         ? s.scene.loss(Outcome::committed)
                                                                    : "TransactionAborted rolled_back"));
    if (not in_hook) later();
    CHECK(s.letters() == "2");
    CHECK(s.notes().empty());
    CHECK(s.ran == Log{"2"});
    CHECK(s.scene.hooks == "2");
    CHECK(s.scene.truth() == (end == End::raw_commit ? "1,2" : "2"));
    CHECK(s.scene.sink.empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("blocks that hooks and notes open send nothing of the block that they belong to",
            "[D1][S13][S16][outbox]") {
    Sending<PostgresScene<TestType>> s;
    int asked = 0;
    const auto block = [&](const char* letter) {
        s.db.atomic([&] {
            s.db.before_commit([&] { ++asked; });
            if (letter != nullptr) s.letter(letter);
        });
    };
    s.act = [&](JobRun&) {
        block(nullptr);
        block("of the note");
    };
    s.db.atomic([&] {
        s.db.on_commit([&] { block(nullptr); });
        s.row(1);
        s.db.on_commit([&] { block("of the hook"); });
    });
    CHECK(asked == 4);
    CHECK(s.letters() == "1,of the note,of the hook");
    CHECK(s.notes().empty());
    CHECK(s.ran == Log{"1"});
    CHECK(s.scene.sink.empty());
    s.act = nullptr;
    CHECK(s.goes_on());
}

COMMIT_TEST("an Outbox that dies between two tries to COMMIT takes the block with it", "[D1][S47][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const bool replaced = GENERATE(false, true);
    const bool notes = GENERATE(false, true);
    {
        typename PostgresScene<TestType>::Tx tx{s.db};
        s.scene.row(1);
        notes ? s.note("1") : s.letter("1");
        commit_refused(s, tx);
        s.outbox.reset();
        if (replaced) CHECK(ending([&] { s.outbox.emplace(s.db, s.types); }) == "UsageError");
        CHECK(ending([&] { tx.commit(); }) == "UsageError");
    }
    CHECK(s.fate() == "");
    s.begin_again();
    CHECK(s.goes_on());
}

// ---- The transaction is lost, or COMMIT is in doubt

COMMIT_TEST("a transaction that is lost inserts no job by itself", "[D1][D14][S50][outbox]") {
    struct Way {
        const char* sql;
        const char* rows;
        bool seen_by_all;
    };
    const Way way = GENERATE(Way{"COMMIT", "1", true}, Way{"ROLLBACK", "", true}, Way{"COMMIT; BEGIN", "1", true},
                             Way{"ROLLBACK; BEGIN", "", true}, Way{"COMMIT AND CHAIN", "1", true},
                             Way{"SAVEPOINT a; SAVEPOINT b; RELEASE a; ROLLBACK AND CHAIN", "", false});
    if (not way.seen_by_all and std::is_same_v<TestType, EventWitness>) return;
    const bool marked = GENERATE(false, true);
    CAPTURE(way.sql, marked);
    Sending<PostgresScene<TestType>> s;
    change(s.scene, marker_table);
    Doubt doubt;
    typename decltype(s)::Db::Options options;
    if (marked) options.resolve = &doubt;
    const std::string told = ending([&] {
        s.db.atomic(options, [&] {
            s.row(1);
            s.scene.run(way.sql);
        });
    });
    CHECK(told.starts_with("TransactionLost"));
    CHECK(s.scene.truth() == way.rows);
    CHECK(s.letters().empty());
    CHECK(s.notes().empty());
    CHECK(s.ran.empty());
    CHECK(s.scene.hooks.empty());
    CHECK(run(s.scene.others, "SELECT count(*) FROM txhooks_commit") == "0");
    CHECK(s.goes_on());
}

COMMIT_TEST("a session that was ended before COMMIT inserts no job", "[D1][D14][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const std::string told = ending([&] {
        s.db.atomic([&] {
            s.row(1);
            run(s.scene.others, "SELECT pg_terminate_backend(" + std::to_string(s.scene.pid()) + ", 5000)");
        });
    });
    CHECK(without_cause(told) == "CommitUnknown unknown");
    CHECK(s.fate() == "");
    s.scene.reconnect();
    CHECK(s.goes_on());
}

COMMIT_TEST("a session that is ended while its INSERT waits at COMMIT leaves neither row nor job",
            "[D1][D14][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const int pid = s.scene.pid();
    change(s.scene, "BEGIN; LOCK TABLE txhooks_job");
    PostgresHandle third;
    std::thread thread{[&] {
        const std::string session =
            " FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = " + std::to_string(pid);
        while (run(third, "SELECT pg_terminate_backend(pid, 5000)" + session) != "t") std::this_thread::sleep_for(1ms);
    }};
    CHECK(without_cause(ending([&] { s.db.atomic([&] { s.row(1); }); })) == "CommitUnknown unknown");
    thread.join();
    change(s.scene, "ROLLBACK");
    CHECK(s.fate() == "");
    s.scene.reconnect();
    CHECK(s.goes_on());
}

COMMIT_TEST("a connection that is cut in COMMIT: a job is there if and only if its row is", "[D1][D14][S48][outbox]") {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after);
    const bool arrives = how != Cut::request;
    const bool marked = GENERATE(false, true);
    CAPTURE(static_cast<int>(how), marked);
    TcpProxy proxy{postgres_port()};
    Sending<PostgresScene<TestType>> s{through(proxy)};
    change(s.scene, marker_table);
    Doubt doubt;
    typename decltype(s)::Db::Options options;
    if (marked) options.resolve = &doubt;
    if (marked) s.db.atomic(options, [&] { s.db.on_commit([] {}); });
    const int pid = s.scene.pid();
    const std::string told = ending([&] {
        s.db.atomic(options, [&] {
            s.row(1);
            proxy.arm("INSERT INTO txhooks_job", how);
        });
    });
    CHECK(without_cause(told) == "CommitUnknown unknown");
    wait_for_end_of(s.scene, pid);
    const std::string all = arrives ? "1" : "";
    CHECK(s.scene.truth() == all);
    CHECK(s.letters() == all);
    CHECK(s.notes() == all);
    CHECK(s.ran.empty());
    CHECK(s.scene.hooks.empty());
    CHECK(doubt.in_doubt() == marked);
    s.scene.reconnect();
    if (marked) CHECK(name(doubt.resolve(s.db)) == (arrives ? "committed" : "rolled_back"));
    change(s.scene, "UPDATE txhooks_job SET due = 1 WHERE name = 'note'");
    CHECK(s.outbox->run_due() == (arrives ? 1 : 0));
    CHECK(join(s.ran) == all);
    CHECK(s.goes_on());
}

// ---- Blocks of other kinds

COMMIT_TEST("jobs of a block with detach go with COMMIT, and are due", "[D6][D17][S60][outbox]") {
    Sending<PostgresScene<TestType>> s;
    DetachedHooks after;
    s.db.atomic({.detach = &after}, [&] { s.row(1); });
    CHECK(s.scene.truth() == "1");
    CHECK(s.letters() == "1");
    CHECK(s.notes() == "1");
    CHECK((s.ran.empty() and s.scene.hooks.empty()));
    after.run(s.db);
    CHECK(s.ran.empty());
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.fate() == "1");
    CHECK(s.goes_on());
}

COMMIT_TEST("a block that is read-only cannot add a job", "[D1][doubt][outbox]") {
    Sending<PostgresScene<TestType>> s;
    change(s.scene, marker_table);
    enum class By { begin, itself, after_a_row };
    const By by = GENERATE(By::begin, By::itself, By::after_a_row);
    if (by != By::begin and std::is_same_v<TestType, Sentinel>) return;  // SET TRANSACTION fails there
    const bool marked = GENERATE(false, true);
    CAPTURE(static_cast<int>(by), marked);
    Doubt doubt;
    typename decltype(s)::Db::Options options;
    options.begin.read_only = by == By::begin;
    if (marked) options.resolve = &doubt;
    CHECK(ending([&] {
              s.db.atomic(options, [&] {
                  if (by == By::after_a_row) s.scene.row(1);
                  if (by != By::begin) s.scene.run("SET TRANSACTION READ ONLY");
                  s.note("1");
                  s.letter("1");
              });
          }) == s.scene.error("25006"));
    CHECK_FALSE(doubt.in_doubt());
    CHECK(s.fate() == "");
    CHECK(s.goes_on());
}

COMMIT_TEST("in a RolledBack jobs run, are settled, and leave nothing", "[D20][rolled_back][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const bool first = GENERATE(false, true);  // the first INSERT of the Outbox is in there
    if (first) {
        s.outbox.reset();
        s.outbox.emplace(s.db, s.types);
    }
    {
        testing::RolledBack test{s.db};
        for (int n = 1; n != 3; ++n) {
            s.db.atomic([&] { s.row(n); });
            CHECK(s.ran.size() == static_cast<std::size_t>(n));
            CHECK(s.outbox->list({.name = "note"}).empty());
            CHECK(s.outbox->template queued<Letter>().size() == static_cast<std::size_t>(n));
        }
        CHECK(ending([&] {
                  s.db.atomic([&] {
                      s.row(3);
                      throw Oops{};
                  });
              }) == "oops");
        CHECK(s.outbox->list().size() == 2);
    }
    CHECK(s.scene.truth() == "");
    CHECK((s.letters() + s.notes()).empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("jobs of blocks whose hooks are captured", "[D20][capture][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const bool run_them = GENERATE(false, true);
    {
        testing::CapturedHooks captured{s.db};
        s.db.atomic([&] { s.row(1); });
        CHECK(s.scene.truth() == "1");
        CHECK(s.letters() == "1");
        CHECK(s.notes() == "1");
        CHECK(s.ran.empty());
        if (run_them)
            captured.run();
        else
            captured.discard();
    }
    if (not run_them) {
        CHECK(s.outbox->run_due() == 1);
        s.scene.hooks = "1";  // discarded with the rest
    }
    CHECK(s.fate() == "1");
    CHECK(s.goes_on());
}

// ---- Other adapters

namespace {

/// A user's adapter, which counts.
template <class Adapter>
class Counted : public Adapter {
public:
    using Adapter::Adapter;
    using conditional_members = void;

    CommitResult commit() noexcept {
        ++commits;
        return Adapter::commit();
    }
    CommitResult commit(const char* marker) noexcept {
        ++commits;
        return Adapter::commit(marker);
    }

    int commits = 0;
};

}  // namespace

COMMIT_TEST("an adapter that has a commit() of its own loses no job, and is asked", "[D1][D6][outbox]") {
    Sending<PostgresScene<Counted<TestType>>> s;
    change(s.scene, marker_table);
    Doubt doubt;
    const int before = s.db.adapter().commits;
    s.db.atomic([&] { s.letter("1"); });
    CHECK(s.db.adapter().commits == before + 1);
    s.db.atomic({.resolve = &doubt}, [&] { s.letter("2"); });
    CHECK(s.db.adapter().commits == before + 2);
    CHECK(s.letters() == "1,2");
    CHECK(s.goes_on());
}

COMMIT_TEST("a COMMIT that is made to fail loses no job, and inserts none twice", "[D1][S47][S48][outbox]") {
    Sending<PostgresScene<testing::FaultyAdapter<TestType>>> s;
    testing::Faults& faults = s.db.adapter().faults;
    {
        faults.fail(testing::Verb::commit, testing::When::before_effect, Oops{});
        typename decltype(s)::Tx tx{s.db};
        s.row(1);
        CHECK(ending([&] { tx.commit(); }) == "oops");
        tx.commit();
    }
    CHECK(s.fate() == "1");
    faults.fail(testing::Verb::commit, testing::When::before_effect, Oops{});
    CHECK(ending([&] { s.db.atomic([&] { s.row(2); }); }) == "oops");
    CHECK(s.fate() == "1");
    faults.fail(testing::Verb::commit, testing::When::after_effect, Oops{});
    CHECK(ending([&] { s.db.atomic([&] { s.row(3); }); }).starts_with("CommitUnknown"));
    CHECK(s.scene.truth() == "1,3");
    CHECK(s.letters() == "1,3");
    CHECK(s.notes() == "3");
}

// ---- Code of the user's in COMMIT

COMMIT_TEST("what a notice processor does to the Outbox in COMMIT", "[D1][S57][outbox]") {
    Sending<PostgresScene<TestType>> s;
    on_insert(s.scene, "RAISE NOTICE ''a job'';");
    std::function<void()> heard;
    PQsetNoticeProcessor(
        s.scene.handle,
        [](void* act, const char*) {
            const auto once = std::exchange(*static_cast<std::function<void()>*>(act), nullptr);
            if (once) once();
        },
        &heard);
    const bool notes = GENERATE(false, true);
    const auto block = [&] {
        s.db.atomic([&] {
            s.scene.insert(1);
            if (notes) s.note("1");
            s.letter("1");
        });
    };
    SECTION("destroys it") {
        heard = [&] { s.outbox.reset(); };
        block();
        CHECK(s.letters() == "1");
        CHECK(s.notes() == (notes ? "1" : ""));
        CHECK(run(s.scene.others, "SELECT count(*) FROM txhooks_job WHERE holder IS NOT NULL") == "0");
        CHECK(s.ran.empty());
        s.outbox.emplace(s.db, s.types);
        CHECK(s.outbox->run_due() == (notes ? 1 : 0));
    }
    SECTION("exchanges it") {
        std::string told;
        heard = [&] {
            s.outbox.reset();
            told = ending([&] { s.outbox.emplace(s.db, s.types); });
        };
        block();
        CHECK(told == "UsageError");  // the other one is not gone before COMMIT has ended
        CHECK(s.letters() == "1");
        s.outbox.emplace(s.db, s.types);
        CHECK(s.outbox->run_due() == (notes ? 1 : 0));
        CHECK(join(s.ran) == (notes ? "1" : ""));
    }
    SECTION("adds to it") {
        std::string told;
        heard = [&] { told = ending([&] { s.letter("2"); }); };
        block();
        CHECK(told == "UsageError");
        CHECK(s.letters() == "1");
        CHECK(join(s.ran) == (notes ? "1" : ""));
    }
    SECTION("asks it") {
        std::string told;
        heard = [&] { told = ending([&] { s.outbox->run_due(); }); };
        block();
        CHECK(told == "UsageError");
        CHECK(s.letters() == "1");
    }
    CHECK(s.scene.truth() == "1");
    CHECK(s.notes() == "");
    on_insert_nothing(s.scene);
    heard = nullptr;
    s.begin_again();
    CHECK(s.goes_on());
}

COMMIT_TEST("an Outbox that dies in the block takes the block with it", "[D1][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const bool in_hook = GENERATE(false, true);
    CHECK(ending([&] {
              s.db.atomic([&] {
                  s.row(1);
                  if (in_hook)
                      s.db.before_commit([&] { s.outbox.reset(); });
                  else
                      s.outbox.reset();
              });
          }) == "UsageError");
    CHECK(s.fate() == "");
    s.begin_again();
    CHECK(s.goes_on());
}

COMMIT_TEST("when memory is out, no row is committed without its job, and no job without its row",
            "[D1][D14][S7][S52][outbox]") {
    Sending<PostgresScene<TestType>> s;
    const bool refused = GENERATE(false, true);  // COMMIT, once, before
    int failures = 0;
    bool failed = true;
    for (std::size_t nth = 0; failed; ++nth) {
        INFO("allocation " << nth);
        const auto block = [&] {
            typename PostgresScene<TestType>::Tx tx{s.db};
            s.db.on_rollback([] {});
            s.row(1);
            if (refused) {
                const Pipeline on{s.scene.handle};
                try {
                    tx.commit();
                } catch (const UsageError&) {}
                PQexitPipelineMode(s.scene.handle);
                s.row(2);
            }
            try {
                tx.commit();
            } catch (const std::bad_alloc&) {
                if (tx.active()) tx.commit();
            }
        };
        s.scene.sink.clear();
        {
            const FailAllocation fail{nth};
            try {
                block();
            } catch (...) {}
            failed = fail.happened();
        }
        failures += failed;
        REQUIRE(s.db.usable());
        REQUIRE(s.scene.idle());
        // Letters are there if and only if their rows are. Of a row that is there a note has run, or is there.
        const std::string rows = s.scene.truth();
        REQUIRE(s.letters() == rows);
        change(s.scene, "UPDATE txhooks_job SET due = 1 WHERE name = 'note'");
        s.outbox->run_due();
        if (rows.empty()) REQUIRE(s.ran.empty());
        for (const char* const n : {"1", "2"})
            if (rows.find(n) != std::string::npos) REQUIRE(join(s.ran).find(n) != std::string::npos);
        REQUIRE(s.notes().empty());
        s.forget();
        s.db.atomic([&] { s.db.before_commit([] {}); });
        REQUIRE(s.fate() == "");
    }
    CHECK(failures > 40);
    CHECK(s.goes_on());
}

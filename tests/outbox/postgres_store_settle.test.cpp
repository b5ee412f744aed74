// SPDX-License-Identifier: MIT

// What has run on the committing thread is settled in one round trip, without a block: with both drivers of PostgreSQL.

#include <txhooks/outbox/libpq.hpp>
#include <txhooks/outbox/libpqxx.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include "outbox/postgres_commit_scene.hpp"
#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/pqxx_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

using namespace std::chrono_literals;
using namespace support;
using namespace txhooks;

namespace {

using EveryDriver = std::tuple<PostgresScene<>, PqxxScene>;

// Notes in the table `settlement` how each job was deleted.
template <class Scene>
void watch_settlements(Scene& scene) {
    change(scene,
           "CREATE TABLE settlement (how text); CREATE FUNCTION settled() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
           "INSERT INTO settlement VALUES (current_setting(''transaction_isolation'') || '' '' || "
           "current_setting(''synchronous_commit'')); RETURN OLD; END'; CREATE TRIGGER settled BEFORE DELETE ON "
           "txhooks_job FOR EACH ROW EXECUTE FUNCTION settled()");
}

}  // namespace

#define SETTLE_TEST(name, tags) TEMPLATE_LIST_TEST_CASE("PostgreSQL, settled: " name, tags, EveryDriver)

SETTLE_TEST("in one round trip, whether one job has run or many, and whatever became of them", "[D6][outbox]") {
    TcpProxy proxy{postgres_port()};
    Sending<TestType> s{through(proxy)};
    const int count = GENERATE(1, 2, 30);
    const bool fails = GENERATE(false, true);
    s.act = [&](JobRun&) {
        proxy.round_trips();
        if (fails) throw Oops{};
    };
    s.db.atomic([&] {
        for (int n = 0; n != count; ++n) s.note("n");
    });
    CHECK(proxy.round_trips() == 1);
    CHECK(s.ran.size() == static_cast<std::size_t>(count));
    const std::string left = run(s.scene.others, "SELECT count(*) FROM txhooks_job WHERE error = 'oops'");
    CHECK(left == (fails ? std::to_string(count) : "0"));
    CHECK(s.notes().empty() == not fails);
}

SETTLE_TEST("READ COMMITTED and without waiting for the disk, whatever the session does, and nothing of that stays",
            "[D3][outbox]") {
    Sending<TestType> s;
    watch_settlements(s.scene);
    s.scene.run("SET default_transaction_isolation = serializable");
    s.db.atomic([&] { s.row(1); });
    CHECK(run(s.scene.others, "SELECT string_agg(how, ',') FROM settlement") == "read committed off");
    CHECK(s.scene.run("SHOW transaction_isolation") == "serializable");
    CHECK(s.scene.run("SHOW default_transaction_isolation") == "serializable");
    CHECK(s.scene.run("SHOW synchronous_commit") == "on");
    s.db.atomic([&] {
        CHECK(s.scene.run("SHOW transaction_isolation") == "serializable");
        CHECK(s.scene.run("SHOW synchronous_commit") == "on");
    });
    CHECK(s.fate() == "1");
    CHECK(s.goes_on());
}

TEST_CASE("PostgreSQL, settled: the server warns of nothing", "[outbox]") {
    Sending<PostgresScene<>> s;
    std::string notices;
    PQsetNoticeProcessor(
        s.scene.handle, [](void* all, const char* text) { *static_cast<std::string*>(all) += text; }, &notices);
    s.db.atomic([&] { s.row(1); });
    CHECK(s.fate() == "1");
    CHECK(notices.empty());
}

SETTLE_TEST("a job that somebody holds waits for that, and goes", "[D3][D5][outbox]") {
    Sending<TestType> s;
    s.scene.run("SET default_transaction_isolation = serializable");
    std::thread thread;
    s.act = [&](JobRun&) {
        change(s.scene, "BEGIN; UPDATE txhooks_job SET error = 'x' WHERE name = 'note'");
        thread = std::thread{[&] {
            std::this_thread::sleep_for(100ms);
            change(s.scene, "COMMIT");
        }};
    };
    s.db.atomic([&] { s.row(1); });
    thread.join();
    CHECK(s.fate() == "1");
    CHECK(s.scene.sink.empty());
}

SETTLE_TEST("a run that outlived its lease is superseded", "[D5][outbox]") {
    Sending<TestType> s;
    const int notes = GENERATE(1, 2);
    const std::string change_it = GENERATE("UPDATE txhooks_job SET claim = 2", "DELETE FROM txhooks_job");
    s.act = [&](JobRun& run) {
        if (s.ran.size() == 1) change(s.scene, change_it + " WHERE id = '" + std::string{run.id()} + "'");
    };
    s.db.atomic([&] {
        for (int n = 1; n <= notes; ++n) s.note(std::to_string(n));
    });
    CHECK(s.notes() == (change_it[0] == 'D' ? "" : "1"));
    CHECK(s.scene.sink.sentences().size() == 1);
    REQUIRE(s.steps.size() == static_cast<std::size_t>(notes));
    CHECK(s.steps[0] == JobEvent::Step::superseded);
    if (notes == 2) CHECK(s.steps[1] == JobEvent::Step::succeeded);
    s.act = nullptr;
    CHECK(s.goes_on());
}

SETTLE_TEST("in a RolledBack it is a savepoint, and is undone with the rest", "[D20][rolled_back][outbox]") {
    Sending<TestType> s;
    s.letter("before");
    {
        testing::RolledBack test{s.db};
        s.db.atomic([&] { s.note("1"); });
        CHECK(s.ran == Log{"1"});
        CHECK(s.outbox->list({.name = "note"}).empty());
        CHECK(s.scene.sink.empty());
    }
    CHECK(s.letters() == "before");
    CHECK(s.notes().empty());
    CHECK(s.goes_on());
}

TEST_CASE("PostgreSQL, settled: a transaction that a handler leaves open stays the user's", "[D16][outbox]") {
    Sending<PostgresScene<>> s;
    const bool claimed = GENERATE(false, true);
    const std::string begin = GENERATE("BEGIN", "BEGIN; SELECT 1", "BEGIN; INSERT INTO t VALUES (2)");
    s.act = [&](JobRun&) { s.scene.run(begin); };
    const std::string told = ending([&] {
        if (not claimed) return s.note("1");
        s.db.atomic([&] { s.letter("here"); });
        change(s.scene, "UPDATE txhooks_job SET name = 'note', payload = '1'");
        s.outbox->run_due();
    });
    CHECK(told == (claimed ? "UsageError" : "returned"));
    CHECK(s.scene.sink.text() == (claimed ? "" : "UsageError"));
    CHECK(PQtransactionStatus(s.scene.handle) == PQTRANS_INTRANS);
    CHECK(s.scene.truth().empty());
    s.scene.run("ROLLBACK");
    CHECK(s.scene.truth().empty());
    CHECK(s.notes() == "1");
    s.act = nullptr;
    change(s.scene, "UPDATE txhooks_job SET due = 1");
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.notes().empty());
    CHECK(s.goes_on());
}

TEST_CASE("PostgreSQL, settled: a pqxx::work that a handler leaves open stays the user's", "[D16][outbox]") {
    Sending<PqxxScene> s;
    std::optional<pqxx::work> work;
    s.act = [&](JobRun&) {
        work.emplace(s.db);
        work->exec("INSERT INTO t VALUES (2)");
    };
    s.note("1");
    CHECK(s.scene.sink.text() == "UsageError");
    CHECK(s.scene.truth().empty());
    work.reset();
    CHECK(s.scene.truth().empty());
    CHECK(s.notes() == "1");
    s.act = nullptr;
    change(s.scene, "UPDATE txhooks_job SET due = 1");
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.notes().empty());
    CHECK(s.goes_on());
}

TEST_CASE("PostgreSQL, settled: what a handler leaves unread, or in a pipeline, is not thrown away", "[D16][outbox]") {
    Sending<PostgresScene<>> s;
    const bool pipeline = GENERATE(false, true);
    s.act = [&](JobRun&) {
        if (pipeline)
            PQenterPipelineMode(s.scene.handle);
        else
            PQsendQuery(s.scene.handle, "SELECT 41 + 1");
    };
    s.note("1");
    CHECK(s.scene.sink.text() == "UsageError");
    CHECK(s.notes() == "1");
    if (pipeline) {
        CHECK(PQexitPipelineMode(s.scene.handle) == 1);
    } else {
        const Result result{PQgetResult(s.scene.handle)};
        CHECK(std::string{PQgetvalue(result.get(), 0, 0)} == "42");
        PQclear(PQgetResult(s.scene.handle));
    }
    s.act = nullptr;
    s.scene.sink.clear();
    CHECK(s.goes_on());
}

SETTLE_TEST("a connection that a handler breaks settles nothing, and the job runs again", "[D3][D14][outbox]") {
    Sending<TestType> s;
    const bool known = GENERATE(false, true);  // to the client
    s.act = [&](JobRun&) {
        change(s.scene, "SELECT pg_terminate_backend(" + std::to_string(s.scene.pid()) + ", 5000)");
        if (known) s.scene.attempt("SELECT 1");
    };
    s.note("1");
    CHECK(s.ran == Log{"1"});
    CHECK(s.scene.sink.sentences().size() == 1);
    CHECK(s.notes() == "1");
    typename TestType::Session session{s.scene};
    JobTypes<typename TestType::Db> types;
    Log ran;
    types.template handle<Note>([&](const Note& note) { ran.push_back(note.text); });
    Outbox<typename TestType::Db> other{session.db, types};
    change(s.scene, "UPDATE txhooks_job SET due = 1");
    CHECK(other.run_due() == 1);
    CHECK(ran == Log{"1"});
    CHECK(s.notes().empty());
}

SETTLE_TEST("a serialization failure or a deadlock there is tried again", "[D3][retry][outbox]") {
    Sending<TestType> s;
    const std::string state = GENERATE("40001", "40P01");
    change(s.scene,
           "CREATE SEQUENCE calls; CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF "
           "nextval(''calls'') < 3 THEN RAISE USING ERRCODE = ''" +
               state +
               "''; END IF; RETURN OLD; END'; CREATE TRIGGER fails BEFORE DELETE ON txhooks_job FOR EACH ROW EXECUTE "
               "FUNCTION fails()");
    s.db.atomic([&] { s.row(1); });
    CHECK(run(s.scene.others, "SELECT last_value FROM calls") == "3");
    CHECK(s.fate() == "1");
    CHECK(s.scene.sink.empty());
}

SETTLE_TEST("what fails otherwise is told, leaves the connection as it was, and the job runs again",
            "[D3][D16][outbox]") {
    Sending<TestType> s;
    change(s.scene,
           "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE USING ERRCODE = ''XX123''; END'; "
           "CREATE TRIGGER fails BEFORE DELETE ON txhooks_job FOR EACH ROW EXECUTE FUNCTION fails()");
    s.db.atomic([&] { s.row(1); });
    CHECK(s.scene.sink.sentences().size() == 1);
    CHECK(s.scene.truth() == "1");
    CHECK(s.notes() == "1");
    CHECK((s.scene.idle() and s.db.usable()));
    change(s.scene, "DROP FUNCTION fails CASCADE; UPDATE txhooks_job SET due = 1 WHERE name = 'note'");
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.ran == Log{"1", "1"});
    CHECK(s.notes().empty());
    CHECK(s.goes_on());
}

// SPDX-License-Identifier: MIT

// The INSERT of a block's jobs, which goes to MariaDB in the round trip of COMMIT; and the DELETE of one that is done.

#include <txhooks/doubt.hpp>
#include <txhooks/outbox/mariadb.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include "outbox/commit_scene.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/mariadb_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace std::chrono_literals;
using namespace support;
using txhooks::DetachedHooks;
using txhooks::Doubt;
using txhooks::JobRow;
using txhooks::JobRun;
using txhooks::Outcome;
namespace testing = txhooks::testing;

namespace {

template <class Adapter>
constexpr bool one_by_one = std::is_base_of_v<Plain, Adapter>;

// With no jobs in it, nor a table for them.
template <class Adapter>
struct JobScene : Scene<Adapter> {
    explicit JobScene(const Login& login = {}) : Scene<Adapter>{login} {
        run(this->other, "DROP TABLE IF EXISTS txhooks_job");
        make_marker_table(this->other);
        run(this->handle, "SET innodb_lock_wait_timeout = 1");
    }
};

template <class Adapter>
std::string stored(JobScene<Adapter>& scene, const std::string& name) {
    return values(scene.other, "SELECT payload FROM txhooks_job WHERE name = '" + name + "' ORDER BY id");
}
template <class Adapter>
void change(JobScene<Adapter>& scene, const std::string& sql) {
    run(scene.other, sql);
}

template <class Adapter>
using Sender = Sending<JobScene<Adapter>>;

// On every INSERT of a job.
template <class Scene>
void on_insert(Scene& scene, const std::string& what) {
    change(scene, "CREATE OR REPLACE TRIGGER on_insert BEFORE INSERT ON txhooks_job FOR EACH ROW " + what);
}

// While it lives, COMMIT is refused: a result of the user's is unread.
class Unread {
public:
    explicit Unread(MYSQL* db) : db_{db} { mysql_query(db, "SELECT 1"); }
    ~Unread() { mysql_free_result(mysql_store_result(db_)); }

private:
    MYSQL* db_;
};

template <class Sending>
void commit_refused(Sending& s, typename Sending::Tx& tx) {
    const Unread on{s.scene.handle};
    CHECK(ending([&] { tx.commit(); }) == "UsageError");
    CHECK(tx.active());
}

std::string every_byte() {
    std::string all;
    for (int byte = 0; byte != 256; ++byte) all += static_cast<char>(byte);
    return all;
}

std::string id_of(MYSQL* db) {
    return std::to_string(mysql_thread_id(db));
}

void reconnect(MYSQL* db) {
    const my_bool yes = 1;
    mysql_options(db, MYSQL_OPT_RECONNECT, &yes);
    // Refused once while the client still thinks that it is in a transaction.
    REQUIRE((mariadb_reconnect(db) == 0 or mariadb_reconnect(db) == 0));
}

}  // namespace

#define COMMIT_TEST(name, tags) TEMPLATE_LIST_TEST_CASE("mariadb jobs with COMMIT: " name, tags, EveryWay)

// ---- What is sent

COMMIT_TEST("no round trip more, but for the first of an Outbox and what is too much for one statement",
            "[D6][outbox]") {
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    Sender<TestType> s{Login{.port = proxy.port()}};
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
    const std::size_t none = one_by_one<TestType> ? 4 : 2, one = one_by_one<TestType> ? 5 : 2;
    CHECK(trips([] {}) == none);
    for (const int count : {1, 10, 500}) CHECK(trips(letters(count)) == one);
    CHECK(trips(letters(1, 1024 * 1024)) == one);
    CHECK(trips(letters(501)) == none + 2);
    CHECK(trips(letters(2, 1024 * 512 + 1)) == none + 2);
    CHECK(values(s.scene.other, "SELECT COUNT(*) FROM txhooks_job") == "1015");
    CHECK(trips([&] { s.note("1"); }) == one + 1);  // and the DELETE
    s.outbox.reset();
    s.outbox.emplace(s.db, s.types);
    CHECK(trips(letters(1)) == none + 1);
    CHECK(trips(letters(1)) == one);
    Doubt doubt;
    proxy.round_trips();
    s.db.atomic({.resolve = &doubt}, [&] { s.letter("1"); });
    CHECK(proxy.round_trips() == one + (one_by_one<TestType> ? 1 : 0));
    CHECK(values(s.scene.other, "SELECT committed FROM txhooks_commit") == "1");
}

COMMIT_TEST("every byte, every key and every session: what was added is what is there", "[D8][D13][outbox]") {
    Sender<TestType> s;
    const std::string setting = GENERATE(
        "DO 0", "SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,STRICT_ALL_TABLES'", "SET sql_mode = ''",
        "SET sql_mode = 'ORACLE'", "SET NAMES sjis", "SET NAMES gbk", "SET NAMES latin1",
        "SET collation_connection = ucs2_general_ci", "SET time_zone = '-11:00'", "SET tx_isolation = 'SERIALIZABLE'",
        "SET tx_isolation = 'READ-UNCOMMITTED'", "SET completion_type = 1", "SET completion_type = 2");
    CAPTURE(setting);
    run(s.scene.handle, setting);
    std::string large;
    while (large.size() < 1024 * 1024) large += every_byte();
    const std::string odd = "it's a \\'key\\\\', ; -- $$ \xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98\n?";
    s.db.atomic([&] {
        s.letter(large);
        s.letter("");
    });
    s.db.atomic([&] {
        s.letter(every_byte(), {.key = odd, .delay = 1h});
        s.letter("';COMMIT;--", {.key = "\\"});
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
    CHECK(rows[3].payload == "';COMMIT;--");
    CHECK(rows[3].key == "\\");
    CHECK(rows[4].payload == "plain");
    CHECK(rows[4].key.empty());
    CHECK((rows[4].claim == 0 and rows[4].attempts == 0 and rows[4].holder.empty()));
    CHECK(rows[5].payload == "1");
    CHECK(s.ran == Log{"1"});
    CHECK(s.scene.sink.empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("whatever was called last before COMMIT", "[D1][M24][outbox]") {
    struct Call {
        const char* name;
        void (*make)(MYSQL*);
    };
    const Call call = GENERATE(Call{"mysql_ping", [](MYSQL* db) { mysql_ping(db); }},
                               Call{"mysql_select_db", [](MYSQL* db) { mysql_select_db(db, "txhooks"); }},
                               Call{"the usual loop",
                                    [](MYSQL* db) {
                                        mysql_query(db, "SELECT 1");
                                        do mysql_free_result(mysql_store_result(db));
                                        while (mysql_next_result(db) == 0);
                                    }},
                               Call{"a prepared statement closed",
                                    [](MYSQL* db) {
                                        MYSQL_STMT* const statement = mysql_stmt_init(db);
                                        mysql_stmt_prepare(statement, "SELECT 1", 8);
                                        mysql_stmt_close(statement);
                                    }},
                               Call{"rows fetched one by one",
                                    [](MYSQL* db) {
                                        mysql_query(db, "SELECT 1");
                                        MYSQL_RES* const rows = mysql_use_result(db);
                                        while (mysql_fetch_row(rows) != nullptr) {}
                                        mysql_free_result(rows);
                                    }},
                               Call{"a statement that fails", [](MYSQL* db) { mysql_query(db, "SELECT none"); }},
                               Call{"one that fails, and mysql_ping", [](MYSQL* db) {
                                        mysql_query(db, "SELECT none");
                                        mysql_ping(db);
                                    }});
    CAPTURE(call.name);
    Sender<TestType> s;
    std::string all;
    for (int n = 1; n != 4; ++n) {
        s.db.atomic([&] {
            s.row(n);
            if (n == 2) s.letter(std::string(3000, 'x'), {.delay = 1h});
            call.make(s.scene.handle);
        });
        change(s.scene, "DELETE FROM txhooks_job WHERE LENGTH(payload) = 3000");
        all += (n == 1 ? "" : ",") + std::to_string(n);
        CHECK(s.fate() == all);
    }
    CHECK(s.scene.sink.empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("with autocommit off nothing is begun; turned off in a block, its jobs are committed all the same",
            "[D1][S8][outbox]") {
    Sender<TestType> s;
    run(s.scene.handle, "SET autocommit = 0");
    CHECK(ending([&] { s.letter("1"); }) == "UsageError");
    run(s.scene.handle, "SET autocommit = 1");
    s.db.atomic([&] {
        s.row(1);
        run(s.scene.handle, "SET autocommit = 0");
    });
    CHECK(s.scene.truth() == "1");
    CHECK(s.letters() == "1");
    CHECK(s.notes() == "1");  // not begun: everything would be in a transaction of the user's
    CHECK(s.ran.empty());
    CHECK(s.scene.sink.text() == "UsageError");
    run(s.scene.handle, "SET autocommit = 1");
    s.scene.sink.clear();
    CHECK(s.goes_on());
}

// ---- What fails there

COMMIT_TEST("an INSERT that fails at COMMIT undoes all, and is told as it was", "[D1][D6][S46][outbox]") {
    struct Way {
        const char* error;
        std::function<void(Sender<TestType>&)> fail;
        const char* repair;
    };
    const auto trigger = [](const char* what) { return [what](auto& s) { on_insert(s.scene, what); }; };
    const auto sql = [](const char* text) { return [text](auto& s) { change(s.scene, text); }; };
    const char* const no_trigger = "DROP TRIGGER on_insert";
    const Way ways[] = {
        {"1644", trigger("SIGNAL SQLSTATE '45000'"), no_trigger},
        {"1213", trigger("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213"), no_trigger},
        {"1364", trigger("INSERT INTO txhooks_commit (id) VALUES ('x')"), no_trigger},
        {"1146", sql("RENAME TABLE txhooks_job TO gone"), "RENAME TABLE gone TO txhooks_job"},
        {"1054", sql("ALTER TABLE txhooks_job RENAME COLUMN holder TO had"),
         "ALTER TABLE txhooks_job RENAME COLUMN had TO holder"},
        {"4025", sql("ALTER TABLE txhooks_job ADD CONSTRAINT no CHECK (attempts > 9)"),
         "ALTER TABLE txhooks_job DROP CONSTRAINT no"},
        {"1062", sql("ALTER TABLE txhooks_job ADD UNIQUE INDEX one (created), MODIFY created BIGINT DEFAULT 1"),
         "ALTER TABLE txhooks_job DROP INDEX one"},
        {"1205",
         [](auto& s) {
             run(s.scene.handle, "SET lock_wait_timeout = 0");
             change(s.scene, "LOCK TABLES txhooks_job WRITE");
         },
         "UNLOCK TABLES"},
        {"1969",
         [](auto& s) {
             run(s.scene.handle, "SET max_statement_time = 0.1");
             change(s.scene, "LOCK TABLES txhooks_job WRITE");
         },
         "UNLOCK TABLES"},
    };
    const std::size_t number = GENERATE(range(std::size_t{0}, std::size_t{9}));
    const bool marked = GENERATE(false, true);
    const bool function = GENERATE(false, true);
    const Way& way = ways[number];
    CAPTURE(way.error, marked, function);
    Sender<TestType> s;
    Doubt doubt;
    std::string ends;
    const auto work = [&] {
        s.db.on_rollback([&] { ends += 'r'; });
        s.db.unless_committed([&] { ends += 'u'; });
        s.row(1);
    };
    {
        const Handle third;
        way.fail(s);
    }
    const std::string told = ending([&] {
        typename Sender<TestType>::Db::Options options;
        if (marked) options.resolve = &doubt;
        if (function) return s.db.atomic(options, work);
        typename Sender<TestType>::Tx tx{s.db, options};
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
    CHECK(told == std::string{"EngineError "} + way.error + " rolled_back");
    CHECK(ends == "ur");
    CHECK_FALSE(doubt.in_doubt());
    CHECK(s.fate() == "");
    CHECK(s.scene.sink.empty());
    run(s.scene.handle, "SET lock_wait_timeout = 100, max_statement_time = 0");
    CHECK(s.goes_on());
    CHECK(values(s.scene.other, "SELECT COUNT(*) FROM txhooks_commit") == "0");
}

COMMIT_TEST("a function that is missing in a trigger of the jobs is no loss", "[D1][S46][outbox]") {
    Sender<TestType> s;
    on_insert(s.scene, "CALL none()");
    CHECK(ending([&] { s.db.atomic([&] { s.row(1); }); }) == "EngineError 1305 rolled_back");
    change(s.scene, "DROP TRIGGER on_insert");
    CHECK(s.fate() == "");
    CHECK(s.goes_on());
}

COMMIT_TEST("a server that lets nobody write at COMMIT", "[D1][S46][doubt][outbox]") {
    run(Handle{}, "CREATE OR REPLACE USER ordinary@localhost IDENTIFIED BY '" + mariadb().password() + "'");
    run(Handle{}, "GRANT ALL ON txhooks.* TO ordinary@localhost");
    Sender<TestType> s{Login{.user = "ordinary"}};
    const bool marked = GENERATE(false, true);
    Doubt doubt;
    typename Sender<TestType>::Db::Options options;
    if (marked) options.resolve = &doubt;
    const std::string told = ending([&] {
        s.db.atomic(options, [&] {
            s.row(1);
            change(s.scene, "SET GLOBAL read_only = 1");
        });
    });
    change(s.scene, "SET GLOBAL read_only = 0");
    CHECK(told == "EngineError 1290 rolled_back");
    CHECK_FALSE(doubt.in_doubt());
    CHECK(s.fate() == "");
    CHECK(s.goes_on());
}

COMMIT_TEST("a block that is read-only cannot add a job", "[D1][doubt][outbox]") {
    Sender<TestType> s;
    const bool marked = GENERATE(false, true);
    Doubt doubt;
    typename Sender<TestType>::Db::Options options;
    options.begin.read_only = true;
    if (marked) options.resolve = &doubt;
    CHECK(ending([&] {
              s.db.atomic(options, [&] {
                  s.note("1");
                  s.letter("1");
              });
          }) == "EngineError 1792 rolled_back");
    CHECK_FALSE(doubt.in_doubt());
    CHECK(s.fate() == "");
    CHECK(s.goes_on());
}

COMMIT_TEST("an INSERT at COMMIT that is the victim of a deadlock, or waits too long, is healed by retry",
            "[D13][retry][outbox]") {
    Sender<TestType> s;
    Handle theirs;
    const bool deadlock = GENERATE(true, false);
    change(s.scene, "INSERT INTO t VALUES (7), (8), (9)");
    std::thread thread;
    int attempts = 0;
    txhooks::retry(s.db, {.first_delay = 1ns}, [&] {
        run(s.scene.handle, "DELETE FROM t WHERE n = 7");
        s.scene.insert(1);
        s.letter("mine", {.key = "k"});
        if (++attempts != 1) return;
        // Who has changed less is the victim.
        run(theirs, "BEGIN");
        run(theirs, "UPDATE t SET n = n + 100 WHERE n > 7");
        run(theirs,
            "INSERT INTO txhooks_job (name, payload, job_key) VALUES ('letter', 'theirs', 'k'), ('a', '', 'a')");
        thread = std::thread{[&] {
            if (deadlock)
                run(theirs, "DELETE FROM t WHERE n = 7");
            else
                std::this_thread::sleep_for(1500ms);
            run(theirs, "COMMIT");
        }};
        // The server looks no more often.
        while (deadlock and values(s.scene.other,
                                   "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = "
                                   "'LOCK WAIT'") == "0")
            std::this_thread::sleep_for(150ms);
    });
    thread.join();
    CHECK(attempts >= 2);
    CHECK(s.letters() == "mine");
    CHECK(s.scene.truth().starts_with("1,"));
    CHECK(s.goes_on());
}

COMMIT_TEST("a key that somebody else has committed since the snapshot", "[D1][D13][outbox]") {
    Sender<TestType> s;
    run(s.scene.handle, "SET innodb_snapshot_isolation = ON");
    const std::string told = ending([&] {
        s.db.atomic([&] {
            run(s.scene.handle, "SELECT COUNT(*) FROM txhooks_job");
            change(s.scene, "INSERT INTO txhooks_job (name, payload, job_key) VALUES ('letter', 'theirs', 'k')");
            s.scene.row(1);
            s.letter("mine", {.key = "k"});
        });
    });
    CAPTURE(told);
    CHECK(told != "returned");
    CHECK(s.scene.truth() == "");
    CHECK(s.letters() == "theirs");
    CHECK(s.scene.hooks.empty());
    if (not s.db.usable()) s.db.reset();
    CHECK(s.goes_on());
}

COMMIT_TEST("an INSERT at COMMIT that is interrupted while it waits is a rollback", "[D1][S46][outbox]") {
    Sender<TestType> s;
    run(s.scene.handle, "SET lock_wait_timeout = 60");
    change(s.scene, "LOCK TABLES txhooks_job WRITE");
    std::thread thread{[id = id_of(s.scene.handle)] {
        Handle third;
        while (values(third,
                      "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%metadata lock%' AND "
                      "id = " +
                          id) != "1")
            std::this_thread::sleep_for(1ms);
        run(third, "KILL QUERY " + id);
    }};
    CHECK(ending([&] { s.db.atomic([&] { s.row(1); }); }) == "EngineError 1317 rolled_back");
    thread.join();
    change(s.scene, "UNLOCK TABLES");
    CHECK(s.fate() == "");
    CHECK(s.goes_on());
}

// ---- COMMIT is refused, and tried again

COMMIT_TEST("a COMMIT that is refused and tried again inserts each job once", "[D1][D13][S47][outbox]") {
    Sender<TestType> s;
    {
        typename Sender<TestType>::Tx tx{s.db};
        s.row(1);
        s.letter("old", {.key = "k"});
        commit_refused(s, tx);
        commit_refused(s, tx);
        s.row(2);
        s.db.atomic([&] {
            s.row(3);
            s.db.set_rollback(true);
        });
        s.letter("new", {.key = "k"});
        s.db.before_commit([&] { s.row(4); });
        CHECK(tx.commit() == Outcome::committed);
    }
    CHECK(s.scene.truth() == "1,2,4");
    CHECK(s.letters() == "1,new,2,4");
    CHECK(s.notes().empty());
    CHECK(s.ran == Log{"1", "2", "4"});
    CHECK(s.goes_on());
}

COMMIT_TEST("of a key the job that was added last counts, also between two tries to COMMIT", "[D13][S47][outbox]") {
    Sender<TestType> s;
    const int others = GENERATE(0, 500);  // with these it is more than one statement
    {
        typename Sender<TestType>::Tx tx{s.db};
        s.letter("old", {.key = "k"});
        commit_refused(s, tx);
        s.letter("new", {.key = "k"});
        for (int n = 0; n != others; ++n) s.letter("other");
        tx.commit();
    }
    CHECK(values(s.scene.other, "SELECT payload FROM txhooks_job WHERE job_key = 'k'") == "new");
}

COMMIT_TEST("what a block was refused to commit is nothing to the blocks that follow", "[D1][S28][S47][outbox]") {
    Sender<TestType> s;
    using Tx = typename Sender<TestType>::Tx;
    enum class End { rollback, destroyed, set_rollback, raw_rollback, raw_commit, exchanged };
    const End end =
        GENERATE(End::rollback, End::destroyed, End::set_rollback, End::raw_rollback, End::raw_commit, End::exchanged);
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
            if (end == End::raw_rollback or end == End::exchanged) run(s.scene.handle, "ROLLBACK");
            if (end == End::exchanged) run(s.scene.handle, "BEGIN");
            if (end == End::raw_commit) run(s.scene.handle, "COMMIT");
        });
    });
    CHECK(without_cause(told) == (end == End::rollback or end == End::set_rollback ? "returned"
                                  : end == End::destroyed                          ? "oops"
                                                                                   : "TransactionLost unknown"));
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
    Sender<TestType> s;
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
    Sender<TestType> s;
    const bool notes = GENERATE(false, true);
    {
        typename Sender<TestType>::Tx tx{s.db};
        s.scene.row(1);
        notes ? s.note("1") : s.letter("1");
        commit_refused(s, tx);
        s.outbox.reset();
        CHECK(ending([&] { tx.commit(); }) == "UsageError");
    }
    CHECK(s.fate() == "");
    s.begin_again();
    CHECK(s.goes_on());
}

// ---- The transaction is lost, or COMMIT is in doubt

COMMIT_TEST("a transaction that is lost inserts no job by itself", "[D1][D14][S50][outbox]") {
    struct Way {
        std::vector<std::string> sql;
        const char* rows;
    };
    const Way way = GENERATE(Way{{"COMMIT"}, "1"}, Way{{"ROLLBACK"}, ""}, Way{{"COMMIT", "BEGIN"}, "1"},
                             Way{{"ROLLBACK", "BEGIN"}, ""}, Way{{"COMMIT AND CHAIN"}, "1"},
                             Way{{"ROLLBACK AND CHAIN"}, ""}, Way{{"CREATE OR REPLACE TABLE ddl (n INT)"}, "1"},
                             Way{{"SET autocommit = 0", "SET autocommit = 1"}, "1"}, Way{{}, ""});
    const bool marked = GENERATE(false, true);
    CAPTURE(support::join(way.sql), marked);
    Sender<TestType> s;
    Doubt doubt;
    typename Sender<TestType>::Db::Options options;
    if (marked) options.resolve = &doubt;
    const std::string told = ending([&] {
        s.db.atomic(options, [&] {
            s.row(1);
            for (const std::string& sql : way.sql) run(s.scene.handle, sql);
            if (way.sql.empty()) mysql_reset_connection(s.scene.handle);
        });
    });
    CHECK(without_cause(told) == "TransactionLost unknown");
    CHECK(s.scene.truth() == way.rows);
    CHECK(s.letters().empty());
    CHECK(s.notes().empty());
    CHECK(s.ran.empty());
    CHECK(s.scene.hooks.empty());
    CHECK(values(s.scene.other, "SELECT COUNT(*) FROM txhooks_commit") == "0");
    CHECK(s.goes_on());
}

COMMIT_TEST("a session that was killed before COMMIT inserts no job", "[D1][D14][outbox]") {
    Sender<TestType> s;
    const std::string told = ending([&] {
        s.db.atomic([&] {
            s.row(1);
            const std::string id = id_of(s.scene.handle);
            change(s.scene, "KILL " + id);
            while (values(s.scene.other, "SELECT COUNT(*) FROM information_schema.processlist WHERE id = " + id) != "0")
                std::this_thread::yield();
        });
    });
    CHECK(without_cause(told) == "CommitUnknown unknown");
    CHECK(s.fate() == "");
    reconnect(s.scene.handle);
    s.db.reset();
    CHECK(s.goes_on());
}

COMMIT_TEST("a connection that is cut in COMMIT: a job is there if and only if its row is", "[D1][D14][S48][outbox]") {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after);
    const bool arrives = how != Cut::request;
    const std::string at = GENERATE("INSERT INTO txhooks_job", "COMMIT");
    if (at != "COMMIT" and not one_by_one<TestType>) return;  // it is the same
    const bool marked = GENERATE(false, true);
    CAPTURE(static_cast<int>(how), at, marked);
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    Sender<TestType> s{Login{.port = proxy.port()}};
    Doubt doubt;
    typename Sender<TestType>::Db::Options options;
    if (marked) options.resolve = &doubt;
    const std::string id = id_of(s.scene.handle);
    const std::string told = ending([&] {
        s.db.atomic(options, [&] {
            s.row(1);
            proxy.arm(at, how);
        });
    });
    CHECK(without_cause(told) == "CommitUnknown unknown");
    while (values(s.scene.other, "SELECT COUNT(*) FROM information_schema.processlist WHERE id = " + id) != "0")
        std::this_thread::yield();
    const std::string all = arrives and at == "COMMIT" ? "1" : "";
    CHECK(s.scene.truth() == all);
    CHECK(s.letters() == all);
    CHECK(s.notes() == all);
    CHECK(s.ran.empty());
    CHECK(s.scene.hooks.empty());
    CHECK(doubt.in_doubt() == marked);
    proxy.close_all();
    reconnect(s.scene.handle);
    s.db.reset();
    if (marked) CHECK(name(doubt.resolve(s.db)) == (all.empty() ? "rolled_back" : "committed"));
    change(s.scene, "UPDATE txhooks_job SET due = 1 WHERE name = 'note'");
    CHECK(s.outbox->run_due() == all.size());
    CHECK(join(s.ran) == all);
    CHECK(s.goes_on());
}

COMMIT_TEST("what is more than the server takes at once is not committed", "[D1][D14][outbox]") {
    run(Handle{}, "SET GLOBAL max_allowed_packet = 1048576");
    Sender<TestType> s;
    run(Handle{}, "SET GLOBAL max_allowed_packet = 16777216");
    const std::string told = ending([&] {
        s.db.atomic([&] {
            s.scene.row(1);
            s.letter(std::string(1000000, 'x'));
        });
    });
    CAPTURE(told);
    CHECK(told != "returned");
    CHECK(s.fate() == "");
    if (s.db.usable()) return;
    reconnect(s.scene.handle);
    s.db.reset();
    CHECK(s.goes_on());
}

// ---- Blocks of other kinds

COMMIT_TEST("jobs of a block with detach go with COMMIT, and are due", "[D6][D17][S60][outbox]") {
    Sender<TestType> s;
    DetachedHooks after;
    s.db.atomic({.detach = &after}, [&] { s.row(1); });
    CHECK(s.scene.truth() == "1");
    CHECK(s.letters() == "1");
    CHECK(s.notes() == "1");
    after.run(s.db);
    CHECK(s.ran.empty());
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.fate() == "1");
    CHECK(s.goes_on());
}

COMMIT_TEST("in a RolledBack jobs run, are settled, and leave nothing", "[D20][rolled_back][outbox]") {
    Sender<TestType> s;
    {
        testing::RolledBack test{s.db};
        for (int n = 1; n != 3; ++n) {
            s.db.atomic([&] { s.row(n); });
            CHECK(s.ran.size() == static_cast<std::size_t>(n));
            CHECK(s.outbox->list({.name = "note"}).empty());
            CHECK(s.outbox->template queued<Letter>().size() == static_cast<std::size_t>(n));
        }
    }
    CHECK(s.scene.truth() == "");
    CHECK((s.letters() + s.notes()).empty());
    CHECK(s.scene.sink.empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("jobs of blocks whose hooks are captured", "[D20][capture][outbox]") {
    Sender<TestType> s;
    {
        testing::CapturedHooks captured{s.db};
        s.db.atomic([&] { s.row(1); });
        CHECK(s.letters() == "1");
        CHECK(s.notes() == "1");
        CHECK(s.ran.empty());
        captured.run();
    }
    CHECK(s.fate() == "1");
    CHECK(s.goes_on());
}

// ---- Other adapters

COMMIT_TEST("a COMMIT that is made to fail loses no job, and inserts none twice", "[D1][S47][S48][outbox]") {
    Sender<testing::FaultyAdapter<TestType>> s;
    testing::Faults& faults = s.db.adapter().faults;
    {
        faults.fail(testing::Verb::commit, testing::When::before_effect, Oops{});
        typename decltype(s)::Tx tx{s.db};
        s.row(1);
        CHECK(ending([&] { tx.commit(); }) == "oops");
        tx.commit();
    }
    CHECK(s.fate() == "1");
    faults.fail(testing::Verb::commit, testing::When::after_effect, Oops{});
    CHECK(ending([&] { s.db.atomic([&] { s.row(3); }); }).starts_with("CommitUnknown"));
    CHECK(s.scene.truth() == "1,3");
    CHECK(s.letters() == "1,3");
    CHECK(s.notes() == "3");
}

COMMIT_TEST("when memory is out, no row is committed without its job, and no job without its row",
            "[D1][D14][S7][S52][outbox]") {
    Sender<TestType> s;
    const bool refused = GENERATE(false, true);  // COMMIT, once, before
    int failures = 0;
    bool failed = true;
    for (std::size_t nth = 0; failed; ++nth) {
        INFO("allocation " << nth);
        const auto block = [&] {
            typename Sender<TestType>::Tx tx{s.db};
            s.db.on_rollback([] {});
            s.row(1);
            if (refused) {
                {
                    const Unread on{s.scene.handle};
                    try {
                        tx.commit();
                    } catch (const txhooks::UsageError&) {}
                }
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
    CHECK(failures > 30);
    CHECK(s.goes_on());
}

// ---- One job that is done is deleted without a block

COMMIT_TEST("what is done is settled in one round trip, and nothing of the session changes", "[D6][outbox]") {
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    Sender<TestType> s{Login{.port = proxy.port()}};
    run(s.scene.handle, "SET tx_isolation = 'SERIALIZABLE'");
    s.act = [&](JobRun&) { proxy.round_trips(); };
    s.db.atomic([&] { s.row(1); });
    CHECK(proxy.round_trips() == 1);
    CHECK(s.fate() == "1");
    CHECK(values(s.scene.handle, "SELECT CONCAT_WS(' ', @@tx_isolation, @@autocommit, @@in_transaction)") ==
          "SERIALIZABLE ON 0");
    CHECK(s.goes_on());
}

COMMIT_TEST("a run that outlived its lease is superseded", "[D5][outbox]") {
    Sender<TestType> s;
    s.act = [&](JobRun&) { change(s.scene, "UPDATE txhooks_job SET claim = 2 WHERE name = 'note'"); };
    s.db.atomic([&] { s.row(1); });
    CHECK(s.notes() == "1");
    CHECK(s.scene.sink.sentences().size() == 1);
    s.act = [&](JobRun&) { change(s.scene, "DELETE FROM txhooks_job WHERE name = 'note'"); };
    s.db.atomic([&] { s.note("2"); });
    CHECK(s.scene.sink.sentences().size() == 2);
    s.act = nullptr;
    CHECK(s.goes_on());
}

COMMIT_TEST("a transaction that a handler leaves open is not committed by the settlement", "[D16][outbox]") {
    Sender<TestType> s;
    s.act = [&](JobRun&) { run(s.scene.handle, "BEGIN"); };
    s.db.atomic([&] { s.row(1); });
    CHECK(s.scene.sink.text() == "UsageError");
    run(s.scene.handle, "INSERT INTO t VALUES (2)");
    CHECK(s.notes() == "1");
    run(s.scene.handle, "ROLLBACK");
    CHECK(s.scene.truth() == "1");
    CHECK(s.notes() == "1");
    s.act = nullptr;
    change(s.scene, "UPDATE txhooks_job SET due = 1 WHERE name = 'note'");
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.notes().empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("a connection that a handler breaks settles nothing, and the job runs again", "[D3][D14][outbox]") {
    Sender<TestType> s;
    s.act = [&](JobRun&) {
        change(s.scene, "KILL " + id_of(s.scene.handle));
        while (attempt(s.scene.handle, "DO 0") == 0) {}
    };
    s.db.atomic([&] { s.row(1); });
    CHECK(s.scene.sink.sentences().size() == 1);
    CHECK(s.notes() == "1");
    CHECK(s.ran == Log{"1"});
    s.act = nullptr;
    reconnect(s.scene.handle);
    s.db.reset();
    change(s.scene, "UPDATE txhooks_job SET due = 1 WHERE name = 'note'");
    CHECK(s.outbox->run_due() == 1);
    CHECK(s.notes().empty());
    CHECK(s.goes_on());
}

COMMIT_TEST("results that a handler leaves unread are not thrown away by the settlement", "[D16][outbox]") {
    Sender<TestType> s;
    s.act = [&](JobRun&) { mysql_query(s.scene.handle, "SELECT 41 + 1"); };
    s.db.atomic([&] { s.row(1); });
    CHECK(s.scene.sink.text() == "UsageError");
    MYSQL_RES* const rows = mysql_store_result(s.scene.handle);
    REQUIRE(rows != nullptr);
    CHECK(std::string{mysql_fetch_row(rows)[0]} == "42");
    mysql_free_result(rows);
    CHECK(s.notes() == "1");
    s.act = nullptr;
    s.scene.sink.clear();
    CHECK(s.goes_on());
}

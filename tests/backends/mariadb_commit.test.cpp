// SPDX-License-Identifier: MIT
//
// What COMMIT answers, and what is true. Truth is what a second connection reads.

#include "support/catch.hpp"
#include "support/mariadb_interrupter.hpp"
#include "support/mariadb_scene.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>

using namespace support;

namespace {

template <class Adapter>
constexpr bool one_by_one = std::is_same_v<Adapter, Plain>;

// While it lives every COMMIT of others waits.
class NobodyCommits {
public:
    NobodyCommits() { run(lock_, "FLUSH TABLES WITH READ LOCK"); }

private:
    Handle lock_;
};

// While it lives the server is read-only for ordinary users.
class ReadOnlyServer {
public:
    ReadOnlyServer() { run(other_, "SET GLOBAL read_only = 1"); }
    ReadOnlyServer(const ReadOnlyServer&) = delete;
    ReadOnlyServer& operator=(const ReadOnlyServer&) = delete;
    ~ReadOnlyServer() { attempt(other_, "SET GLOBAL read_only = 0"); }

private:
    Handle other_;
};

Login ordinary_user() {
    Handle root;
    run(root, "CREATE OR REPLACE USER ordinary@localhost IDENTIFIED BY '" + mariadb().password() + "'");
    run(root, "GRANT ALL ON txhooks.* TO ordinary@localhost");
    return {.user = "ordinary"};
}

std::string id_of(MYSQL* db) {
    return std::to_string(mysql_thread_id(db));
}

void await(MYSQL* other, const std::string& id, const std::string& sessions) {
    while (values(other, "SELECT count(*) FROM information_schema.processlist WHERE id = " + id) != sessions)
        std::this_thread::yield();
}

// KILL says nothing of when it takes effect.
void kill_session(MYSQL* other, const std::string& id) {
    run(other, "KILL " + id);
    await(other, id, "0");
}

// Kills when the connection waits in its COMMIT.
std::thread kill_in_commit(const std::string& what, const std::string& id) {
    return std::thread{[what, id] {
        Handle killer;
        await(killer, id + " AND state = 'Waiting for backup lock'", "1");
        run(killer, "KILL " + what + id);
    }};
}

}  // namespace

// ---- The server says no

TEMPLATE_LIST_TEST_CASE("mariadb commit: a lock timeout or a read-only server at COMMIT is a rollback", "[S46][M09]",
                        EveryWay) {
    Scene<TestType> scene{ordinary_user()};
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    run(scene.handle, "SET lock_wait_timeout = 0");
    SECTION("FLUSH TABLES WITH READ LOCK") {
        const NobodyCommits lock;
        CHECK(ending([&] { return tx.commit(); }) == "EngineError 1205 rolled_back");
    }
    SECTION("read_only") {
        const ReadOnlyServer server;
        CHECK(ending([&] { return tx.commit(); }) == "EngineError 1290 rolled_back");
    }
    CHECK_FALSE(tx.active());
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("mariadb commit: an EngineError has the server's number, SQLSTATE and words", "[S46]") {
    Scene<Compounds> scene{ordinary_user()};
    std::unique_ptr<ReadOnlyServer> server;
    try {
        scene.db.atomic([&] {
            scene.row(1);
            server = std::make_unique<ReadOnlyServer>();
        });
        FAIL("committed");
    } catch (const txhooks::EngineError& error) {
        CHECK(error.code() == 1290);
        CHECK(std::string{error.sqlstate()} == "HY000");
        CHECK(std::string{error.what()} ==
              "The MariaDB server is running with the --read-only option so it cannot execute this statement");
        CHECK(error.outcome() == txhooks::Outcome::rolled_back);
    }
    CHECK(scene.hooks.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: one that is interrupted is in doubt in a compound, else a rollback",
                        "[S46][S48][M09]", EveryWay) {
    Scene<TestType> scene;
    std::unique_ptr<NobodyCommits> lock;
    std::string code;
    std::string ended;
    {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        lock = std::make_unique<NobodyCommits>();
        SECTION("KILL QUERY") {
            code = "1317";
            std::thread killer = kill_in_commit("QUERY ", id_of(scene.handle));
            ended = ending([&] { return tx.commit(); });
            killer.join();
        }
        SECTION("max_statement_time") {
            code = "1969";
            run(scene.handle, "SET max_statement_time = 0.2");
            ended = ending([&] { return tx.commit(); });
            run(scene.handle, "SET max_statement_time = 0");
        }
        CHECK_FALSE(tx.active());
    }
    lock.reset();
    if (one_by_one<TestType>) {
        CHECK(ended == "EngineError " + code + " rolled_back");
    } else {
        CHECK(ended == "CommitUnknown unknown <- EngineError " + code + " unknown");
        CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
        scene.db.reset();
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

namespace {

// A server whose files end at 110 MB.
class ServerWithoutSpace {
    struct Limit {
        rlimit before{};

        Limit() {
            getrlimit(RLIMIT_FSIZE, &before);
            rlimit limit = before;
            limit.rlim_cur = 110 << 20;
            setrlimit(RLIMIT_FSIZE, &limit);
            std::signal(SIGXFSZ, SIG_IGN);
        }
        Limit(const Limit&) = delete;
        Limit& operator=(const Limit&) = delete;
        ~Limit() {
            setrlimit(RLIMIT_FSIZE, &before);
            std::signal(SIGXFSZ, SIG_DFL);
        }
    };

public:
    const std::unique_ptr<MariadbServer> server = [] {
        const Limit limit;  // the server inherits it
        return std::make_unique<MariadbServer>("log-bin=log binlog-format=STATEMENT max-allowed-packet=64M");
    }();
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb commit: a binary log that cannot be written leaves it in doubt", "[S48]", EveryWay) {
    const ServerWithoutSpace disk;
    Scene<TestType> scene{Login{.server = *disk.server}};
    scene.db.atomic([&] { scene.row(1); });
    const std::string large = "UPDATE t SET n = n /*" + std::string(10'000'000, ' ') + "*/";
    while (attempt(scene.other, large) == 0) {}
    CHECK(without_cause(ending([&] {
              scene.db.atomic([&] {
                  scene.row(2);
                  run(scene.handle, large);
              });
          })) == "CommitUnknown unknown");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    scene.db.reset();
    for (MYSQL* const db : {scene.other.get(), scene.handle.get()}) run(db, "SET sql_log_bin = 0");
    CHECK(scene.goes_on());
}

TEST_CASE("mariadb commit: what is committed without a flush may be gone after a crash", "[S44][M22]") {
    const MariadbServer server{"innodb-flush-log-at-timeout=2700"};
    std::string hooks;
    {
        Scene<Compounds> scene{Login{.server = server}};
        scene.db.atomic([&] { scene.row(1); });
        run(scene.other, "SET GLOBAL innodb_flush_log_at_trx_commit = 0");
        scene.db.atomic([&] { scene.row(2); });
        CHECK(scene.truth() == "1,2");
        hooks = scene.hooks;
        server.crash();
    }
    Handle after{Login{.server = server}};
    CHECK(hooks == "1,2");
    CHECK(values(after, "SELECT n FROM t") == "1");
}

// ---- What user code left behind

TEMPLATE_LIST_TEST_CASE("mariadb commit: completion_type of the session is not the block's", "[S44][M07]", EveryWay) {
    Scene<TestType> scene;
    const std::string type = GENERATE("CHAIN", "RELEASE");
    run(scene.handle, "SET completion_type = '" + type + "'");
    scene.db.atomic([&] { scene.row(1); });
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: autocommit that was switched off in the block stays the user's", "[S44][M05]",
                        EveryWay) {
    Scene<TestType> scene;
    scene.db.atomic([&] {
        scene.row(1);
        run(scene.handle, "SET autocommit = 0");
        scene.row(2);
    });
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK_FALSE(scene.db.usable());
    run(scene.handle, "SET autocommit = 1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: a session in sql_mode ORACLE has blocks too", "[S44]", EveryWay) {
    Scene<TestType> scene;
    run(scene.handle, "SET sql_mode = ORACLE");
    scene.db.atomic({.begin = {.isolation = txhooks::mariadb::Isolation::serializable}}, [&] { scene.row(1); });
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: an error that user code swallowed does not matter", "[S44][M10]", EveryWay) {
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == 1062);
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    CHECK(scene.goes_on());
}

// ---- The connection goes

TEMPLATE_LIST_TEST_CASE("mariadb commit: a session killed before or in its COMMIT is in doubt", "[S48][M04]",
                        EveryWay) {
    Scene<TestType> scene{Login{.reconnect = true}};
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    SECTION("before") {
        kill_session(scene.other, id_of(scene.handle));
        CHECK(without_cause(ending([&] { return tx.commit(); })) == "CommitUnknown unknown");
    }
    SECTION("before, by a timeout") {
        run(scene.handle, "SET idle_transaction_timeout = 1");
        await(scene.other, id_of(scene.handle), "0");
        CHECK(without_cause(ending([&] { return tx.commit(); })) == "CommitUnknown unknown");
    }
    SECTION("in it") {
        const NobodyCommits lock;
        const std::string id = id_of(scene.handle);
        std::thread killer = kill_in_commit("", id);
        CHECK(without_cause(ending([&] { return tx.commit(); })) == "CommitUnknown unknown");
        killer.join();
        await(scene.other, id, "0");  // or it might still commit
    }
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    while (mariadb_reconnect(scene.handle) != 0) {}
    scene.db.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: a session killed and noticed by user code is lost", "[S50][M04]", EveryWay) {
    const bool by_function = GENERATE(true, false);
    Scene<TestType> scene;
    if (by_function) {
        CHECK(ending([&] {
                  scene.db.atomic([&] {
                      scene.row(1);
                      kill_session(scene.other, id_of(scene.handle));
                      throw std::runtime_error{attempt(scene.handle, "DO 0") != 0 ? "fn's own" : "not killed"};
                  });
              }) == "fn's own");
        CHECK_FALSE(scene.sink.empty());
    } else {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        kill_session(scene.other, id_of(scene.handle));
        CHECK(attempt(scene.handle, "INSERT INTO t VALUES (2)") != 0);
        CHECK(ending([&] { scene.hook(2); }) == "TransactionLost unknown");
        CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: a driver that reconnects by itself is a loss, and the connection goes on",
                        "[S50][M04]", EveryWay) {
    Scene<TestType> scene{Login{.reconnect = true}};
    const bool in_transaction = GENERATE(true, false);
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    const unsigned long before = mysql_thread_id(scene.handle);
    kill_session(scene.other, id_of(scene.handle));
    while (attempt(scene.handle, "DO 0") != 0) {}
    CHECK(mysql_thread_id(scene.handle) != before);
    if (in_transaction) run(scene.handle, "BEGIN");
    scene.insert(2);
    CHECK(without_cause(ending([&] { return tx.commit(); })) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (in_transaction ? "" : "2"));
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

// ---- Races. Whatever happens: a hook ran if and only if its row is there, unless the caller was told of a doubt, and
// then none ran.

namespace {

// Counts how blocks ended, and checks the promise.
class Tally {
public:
    explicit Tally(MYSQL* other) : other_{other} {}

    template <class Db, class BeforeCommit>
    void block(Db& db, MYSQL* handle, int n, BeforeCommit before_commit) {
        bool ran = false;
        const std::string ended = without_cause(ending([&] {
            db.atomic([&] {
                run(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")");
                db.on_commit([&] { ran = true; });
                before_commit();
            });
        }));
        const bool there = values(other_, "SELECT n FROM t WHERE n = " + std::to_string(n)) != "";
        const bool doubt = ended == "CommitUnknown unknown";
        CAPTURE(ended, ran, there);
        CHECK(ran == (ended == "returned"));
        if (not doubt) CHECK(ran == there);
        const bool before = ended.rfind("INSERT", 0) == 0;
        ++endings_[before ? "before COMMIT" : not doubt ? ended : ended + (there ? ", committed" : ", rolled back")];
    }

    int operator[](const std::string& ended) const {
        const auto found = endings_.find(ended);
        return found == endings_.end() ? 0 : found->second;
    }
    std::string text() const {
        std::string all;
        for (const auto& [ended, times] : endings_) all += ended + ": " + std::to_string(times) + "\n";
        return all;
    }

private:
    MYSQL* other_;
    std::map<std::string, int> endings_;
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb commit: KILL CONNECTION against COMMIT", "[S44][S48][M23]", EveryWay) {
    const bool reconnect = GENERATE(false, true);
    Handle other;
    Handle killer;
    run(other, "CREATE OR REPLACE TABLE t (n INT PRIMARY KEY)");
    Tally tally{other};
    std::mt19937 dice{1};
    // 300, and on a busy machine as many more as it takes until both have come first.
    const auto each_came_first = [&] {
        return tally["returned"] > 0 and tally["CommitUnknown unknown, committed"] > 0;
    };
    for (int n = 0; n < 300 or (n < 6000 and not each_came_first()); ++n) {
        Handle handle{Login{.reconnect = reconnect}};
        txhooks::HookedConnection<MYSQL*, TestType> db{handle.get()};
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        std::atomic<bool> committing = false;
        std::thread race{
            [&, kill = "KILL " + id_of(handle), delay = std::chrono::microseconds{dice() % (n < 300 ? 300 : 3000)}] {
                while (not committing) std::this_thread::yield();
                const auto until = std::chrono::steady_clock::now() + delay;
                while (std::chrono::steady_clock::now() < until) {}
                attempt(killer, kill);
            }};
        tally.block(db, handle, n, [&] { committing = true; });
        committing = true;
        race.join();
    }
    INFO(tally.text());
    CHECK(tally["returned"] > 0);
    CHECK(tally["CommitUnknown unknown, committed"] > 0);
}

TEMPLATE_LIST_TEST_CASE("mariadb commit: KILL QUERY and max_statement_time against COMMIT", "[S44][S46][S47][S48][M09]",
                        EveryWay) {
    Scene<TestType> scene;
    Tally tally{scene.other};
    const bool killed = GENERATE(true, false);
    std::unique_ptr<Interrupter> interrupter;
    if (killed) interrupter = std::make_unique<Interrupter>(scene.handle);
    for (int n = 0; n < 1500; ++n) {
        if (killed)
            interrupter->start();
        else
            run(scene.handle, "SET max_statement_time = 0.0000" + std::to_string(10 + n % 90));
        tally.block(scene.db, scene.handle, n, [] {});
        if (killed) interrupter->stop();
        while (attempt(scene.handle, "SET max_statement_time = 0") != 0) {}
        while (attempt(scene.handle, "ROLLBACK") != 0) {}
        if (not scene.db.usable()) scene.db.reset();
    }
    INFO(tally.text());
    CHECK(tally["returned"] > 0);
    CHECK(tally["CommitUnknown unknown, rolled back"] == 0);
    if (one_by_one<TestType>) CHECK(tally["CommitUnknown unknown, committed"] == 0);
    CHECK(scene.goes_on());
}

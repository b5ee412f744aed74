// SPDX-License-Identifier: MIT

#include <txhooks/backends/libpqxx.hpp>

#include "support/catch.hpp"
#include "support/postgres_cases.hpp"
#include "support/postgres_scene.hpp"
#include "support/pqxx_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <pqxx/pqxx>

#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace support;
using txhooks::Atomic;
using txhooks::postgres::Isolation;

// libpqxx 6.4 loses the result that told it of a dead connection.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
    return "leak:libpqxx";
}

TEST_CASE("libpqxx: a hook runs if and only if its row is there", "[S11][S12][S25][S26][S33]") {
    PqxxScene scene;
    scene.db.atomic([&](pqxx::transaction_base& tx) {
        tx.exec("INSERT INTO t VALUES (1)");
        scene.hook(1);
        scene.db.atomic([&](pqxx::transaction_base& same) {
            CHECK(&same == &tx);
            scene.row(2);
        });
        CHECK(ending([&] { scene.db.atomic([&] { scene.row(1); }); }) == "23505");
        CHECK(scene.hooks.empty());
        CHECK(scene.truth().empty());
    });
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("libpqxx: a borrowed connection begins its blocks as it is asked to", "[S38][S53]") {
    const PostgresScene<> scene;
    pqxx::connection connection{scene.server()};
    {
        txhooks::HookedConnection db{connection};
        db.atomic({.begin = {.isolation = Isolation::serializable, .read_only = true, .deferrable = true}},
                  [](pqxx::transaction_base& tx) {
                      CHECK(tx.exec("SHOW transaction_isolation")[0][0].as<std::string>() == "serializable");
                      CHECK(tx.exec("SHOW transaction_read_only")[0][0].as<std::string>() == "on");
                      CHECK(tx.exec("SHOW transaction_deferrable")[0][0].as<std::string>() == "on");
                  });
    }
    pqxx::work tx{connection};
    CHECK(tx.exec("SHOW transaction_isolation")[0][0].as<std::string>() == "read committed");
}

TEST_CASE("libpqxx: a block in which an error was swallowed is rolled back", "[S45][P01][P18]") {
    check_swallowed_error<PqxxScene>();
}

TEST_CASE("libpqxx: a COMMIT that fails has rolled back", "[S46][P02][P18]") {
    check_commit_that_fails<PqxxScene>();
}

TEST_CASE("libpqxx: a lost transaction runs no hook", "[S50][P08][P13][P18]") {
    std::vector<SqlEnder> enders = sql_enders();
    enders.push_back({{"SAVEPOINT s; ROLLBACK AND CHAIN"}, txhooks::Outcome::rolled_back, ""});
    const SqlEnder ender = GENERATE_COPY(from_range(enders));
    const bool commits = GENERATE(true, false);
    CAPTURE(ender.name(), commits);
    PqxxScene scene;
    scene.run(enders_tables);
    const auto end = [&] {
        for (const std::string& sql : ender.strings) scene.attempt(sql);
    };
    SECTION("of one block") {
        Atomic tx{scene.db};
        scene.row(1);
        end();
        CHECK(without_cause(ending([&] { commits ? static_cast<void>(tx.commit()) : tx.rollback(); })) ==
              "TransactionLost unknown");
    }
    SECTION("of a nested one") {
        Atomic tx{scene.db};
        scene.row(1);
        {
            Atomic inner{scene.db};
            end();
            // RELEASE in a transaction that has failed says no more than that. The outermost block finds out.
            const bool failed = commits and ender.strings.back().ends_with("BEGIN; SELECT 1 / 0");
            CHECK(without_cause(ending([&] { commits ? static_cast<void>(inner.commit()) : inner.rollback(); })) ==
                  (failed ? "TransactionAborted rolled_back" : "TransactionLost unknown"));
        }
        CHECK(ending([&] { tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == ender.truth);
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: another transaction object on the connection is refused, before and in a block", "[S8][S41]") {
    PqxxScene scene;
    {
        pqxx::work theirs{scene.db};
        CHECK(ending([&] { Atomic tx{scene.db}; }) == "UsageError");
        theirs.exec("INSERT INTO t VALUES (1)");
        CHECK(ending([&] { scene.hook(1); }) == "UsageError");
        theirs.commit();
    }
    scene.db.atomic([&] {
        scene.row(2);
        CHECK(ending([&] { pqxx::work theirs{scene.db}; }) == "usage_error");
    });
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: a block is not committed while something is unfinished", "[S47][P11]") {
    PqxxScene scene;
    {
        Atomic tx{scene.db};
        scene.row(1);
        {
            pqxx::stream_to rows{scene.db.adapter().session(), "t"};
            rows << std::make_tuple(2);
            CHECK(ending([&] { tx.commit(); }) == "usage_error");
            rows.complete();
        }
        scene.hook(2);
        tx.commit();
    }
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: a raw BEGIN outside of blocks is not noticed, and ended with the block", "[S41]") {
    PqxxScene scene;
    {
        pqxx::nontransaction raw{scene.db};
        raw.exec("BEGIN; INSERT INTO t VALUES (1)");
    }
    scene.db.atomic([&] { scene.row(2); });
    CHECK(scene.hooks == "2");
    CHECK(scene.truth() == "1,2");
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: what ends no transaction is no loss", "[S50][P12]") {
    check_harmless_sql<PqxxScene>();
}

TEST_CASE("libpqxx: a prepared transaction is in doubt until somebody else ends it", "[S50][P08e]") {
    check_prepared_transaction<PqxxScene>();
}

TEST_CASE("libpqxx: outside a block a procedure commits piece by piece, and hooks run at once", "[S1][P10]") {
    check_procedure_outside_a_block<PqxxScene>();
}

// ---- Connections that die

TEST_CASE("libpqxx: a connection that is closed in a block takes it along, and does not come back by itself",
          "[S49][S50][P20]") {
    const bool commits = GENERATE(true, false);
    const bool goes_on_writing = GENERATE(true, false);
    CAPTURE(commits, goes_on_writing);
    PqxxScene scene;
    {
        Atomic tx{scene.db};
        scene.row(1);
        scene.db.disconnect();
        if (goes_on_writing) CHECK(scene.attempt("INSERT INTO t VALUES (2)") != "");
        CHECK(ending([&] { scene.hook(2); }) == "TransactionLost unknown");
        CHECK(ending([&] { commits ? static_cast<void>(tx.commit()) : tx.rollback(); }) == "TransactionLost unknown");
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    scene.reconnect();
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: a COMMIT that is not answered is in doubt", "[S48][P05][P18]") {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after);
    TcpProxy proxy{postgres_port()};
    PqxxScene scene{"host=127.0.0.1 port=" + std::to_string(proxy.port())};
    const int pid = scene.db.backendpid();
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  proxy.arm("COMMIT", how);
              });
          }) == "CommitUnknown unknown <- broken_connection");
    CHECK(scene.hooks.empty());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    while (run(scene.others, "SELECT count(*) FROM pg_stat_activity WHERE pid = " + std::to_string(pid)) != "0")
        std::this_thread::yield();
    CHECK(scene.truth() == (how == Cut::request ? "" : "1"));
    scene.reconnect();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("libpqxx: a session that is ended in a block takes it along, and nothing runs in the next one",
          "[S48][S50][P04]") {
    const bool meets_it = GENERATE(true, false);
    PqxxScene scene;
    std::optional<Atomic<PqxxScene::Db>> tx{std::in_place, scene.db};
    scene.row(1);
    run(scene.others, "SELECT pg_terminate_backend(" + std::to_string(scene.db.backendpid()) + ", 5000)");
    if (meets_it) {
        CHECK(ending([&] { scene.row(2); }) == "broken_connection");
        CHECK(ending([&] { scene.row(3); }) == "broken_connection");
        CHECK(ending([&] { scene.hook(3); }) == "TransactionLost unknown");
        CHECK(ending([&] { tx->commit(); }) == "TransactionLost unknown");
    } else {
        CHECK(ending([&] { tx->commit(); }) == "CommitUnknown unknown <- broken_connection");
    }
    tx.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    scene.reconnect();
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: a connection that cannot begin is left as it was", "[S40]") {
    PqxxScene scene;
    run(scene.others, "SELECT pg_terminate_backend(" + std::to_string(scene.db.backendpid()) + ", 5000)");
    CHECK(ending([&] { Atomic tx{scene.db}; }) == "broken_connection");
    CHECK_FALSE(scene.db.in_atomic_block());
    CHECK(scene.sink.empty());
    scene.reconnect();
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: begin, commit, rollback and both ends of a nested block are a round trip each", "[S13]") {
    check_round_trips<PqxxScene>();
}

TEST_CASE("libpqxx: a notice of COMMIT may register a hook, and opening or ending a block is refused", "[S28][S39]") {
    class AtNotice final : public pqxx::errorhandler {
    public:
        AtNotice(pqxx::connection_base& db, std::function<void()> act) : errorhandler{db}, act_{std::move(act)} {}
        bool operator()(const char*) noexcept override {
            if (not std::exchange(called, true)) act_();
            return true;
        }
        bool called = false;

    private:
        std::function<void()> act_;
    };
    PqxxScene scene;
    scene.run(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''at COMMIT''; RETURN NULL; "
        "END'");
    scene.run(
        "CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION tell()");
    std::string told;
    Atomic tx{scene.db};
    scene.row(1);
    {
        const AtNotice notice{scene.db, [&] {
                                  scene.hook(2);
                                  told += ending([&] { scene.db.atomic([](pqxx::transaction_base&) {}); }) + ',';
                                  told += ending([&] { tx.commit(); }) + ',';
                                  told += ending([&] { tx.rollback(); });
                              }};
        CHECK(tx.commit() == txhooks::Outcome::committed);
        CHECK(notice.called);
    }
    CHECK(told == "UsageError,UsageError,UsageError");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1");
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEST_CASE("libpqxx: a function given to atomic may take the block's transaction", "[S11]") {
    const PostgresScene<> scene;
    std::string told;
    txhooks::HookedConnection<pqxx::connection> db{scene.server()};
    db.atomic([&](pqxx::transaction_base& tx) {
        tx.exec("INSERT INTO t VALUES (1)");
        db.on_commit([&] { told = "committed"; });
    });
    CHECK(told == "committed");
    CHECK(scene.truth() == "1");
}

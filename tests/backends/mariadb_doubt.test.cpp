// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/ends_in_doubt.hpp"
#include "support/mariadb_scene.hpp"
#include "support/resolved.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/mariadb.hpp>
#include <txhooks/doubt.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>

using namespace support;
using txhooks::Doubt;

namespace {

template <class Adapter>
struct DoubtScene {
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    Scene<Adapter> scene{Login{.port = proxy.port(), .read_timeout = 1}};
    Doubt doubt;

    DoubtScene() { make_marker_table(scene.other); }

    std::string markers() { return values(scene.other, "SELECT committed FROM txhooks_commit"); }

    // A block whose COMMIT meets `how`.
    void lose(Cut how) {
        const std::string told = ending([&] {
            scene.db.atomic({.resolve = &doubt}, [&] {
                scene.row(1);
                scene.db.atomic([&] { scene.row(2); });
                proxy.arm("COMMIT", how);
            });
        });
        CHECK(told.rfind("CommitUnknown", 0) == 0);
        CHECK(scene.hooks == "");
        CHECK(doubt.in_doubt());
        CHECK(doubt.size() == 2);
        proxy.close_all();
    }
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb doubt: a COMMIT that is not answered is resolved on a fresh connection",
                        "[doubt][S48][M20]", EveryWay) {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after, Cut::no_answer);
    CAPTURE(static_cast<int>(how));
    DoubtScene<TestType> s;
    s.lose(how);

    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    check_resolved(s, how, s.doubt.resolve(fresh), "1", "0");
}

TEMPLATE_LIST_TEST_CASE("mariadb doubt: what was resolved to rolled back stays so when the COMMIT comes late",
                        "[doubt][M20]", EveryWay) {
    DoubtScene<TestType> s;
    s.lose(Cut::request);
    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    REQUIRE(name(s.doubt.resolve(fresh)) == "rolled_back");
    TestType late{handle.get()};
    late.begin({});
    run(handle, "INSERT INTO t VALUES (3)");
    const txhooks::CommitResult result = late.commit(s.doubt.marker());
    REQUIRE(name(result.outcome) == "rolled_back");
    CHECK(name_of(result.error) == "EngineError 1062 rolled_back");
    CHECK(s.scene.truth() == "");
    CHECK(s.markers() == "0");
}

TEST_CASE("mariadb doubt: asking twice gives one answer, also when the first one was lost", "[doubt]") {
    DoubtScene<Compounds> s;
    s.lose(Cut::request);
    {
        TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
        Handle handle{Login{.port = proxy.port(), .read_timeout = 1}};
        txhooks::HookedConnection fresh{handle.get()};
        proxy.arm("INSERT", Cut::reply);
        CHECK_THROWS_AS(s.doubt.resolve(fresh), txhooks::EngineError);
        CHECK(s.doubt.in_doubt());
    }
    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    CHECK(name(s.doubt.resolve(fresh)) == "rolled_back");
    CHECK(s.scene.hooks == "");
    CHECK(s.markers() == "0");
}

TEST_CASE("mariadb doubt: while the COMMIT may still come, resolve() waits for it, or throws", "[doubt]") {
    DoubtScene<Compounds> s;
    s.lose(Cut::request);
    Handle still_at_work;
    run(still_at_work, "BEGIN");
    run(still_at_work,
        std::string{"INSERT INTO txhooks_commit (id, committed) VALUES ('"} + s.doubt.marker() + "', TRUE)");
    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    run(handle, "SET innodb_lock_wait_timeout = 1");
    CHECK(ending([&] { s.doubt.resolve(fresh); }) == "EngineError 1205 unknown");
    CHECK(s.doubt.in_doubt());
    run(still_at_work, "COMMIT");
    CHECK(name(s.doubt.resolve(fresh)) == "committed");
    CHECK(s.scene.hooks == "1,2");
}

TEMPLATE_LIST_TEST_CASE(
    "mariadb doubt: costs no round trip of its own in a compound, and writes nothing where no hook waits", "[doubt]",
    EveryWay) {
    constexpr std::size_t more = std::is_same_v<TestType, Plain> ? 1 : 0;
    DoubtScene<TestType> s;
    s.proxy.round_trips();
    s.scene.db.atomic([&] { s.scene.hook(1); });
    const std::size_t plain = s.proxy.round_trips();
    s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.hook(2); });
    CHECK(s.proxy.round_trips() == plain + more);
    CHECK(s.scene.hooks == "1,2");
    CHECK(s.markers() == "1");
    s.scene.db.atomic({.resolve = &s.doubt}, [] {});
    CHECK(s.proxy.round_trips() == plain);
    s.scene.db.atomic({.resolve = &s.doubt, .begin = {.read_only = true}}, [&] { s.scene.hook(3); });
    CHECK(s.scene.hooks == "1,2,3");
    CHECK(s.markers() == "1");
}

namespace {

// A compound stays at its end after COMMIT, as one does that is interrupted just there.
struct Lingering : txhooks::mariadb::detail::Compounds {
    static unsigned run(MYSQL* db, std::string_view compound) noexcept {
        if (compound.find("COMMIT") == std::string_view::npos) return Compounds::run(db, compound);
        compound.remove_suffix(std::string_view{"END"}.size());
        return Compounds::run(db, std::string{compound} + "SET @slept = SLEEP(30);END");
    }
};

}  // namespace

TEST_CASE("mariadb doubt: a compound that is interrupted after its COMMIT is in doubt, and was committed",
          "[doubt][S48][M09]") {
    const bool resolves = GENERATE(true, false);
    const bool killed = GENERATE(true, false);
    CAPTURE(resolves, killed);
    DoubtScene<txhooks::mariadb::SavepointWitness<Lingering>> s;
    run(s.scene.handle, killed ? "DO 0" : "SET max_statement_time = 0.3");
    std::thread killer;
    if (killed)
        killer = std::thread{[id = std::to_string(mysql_thread_id(s.scene.handle))] {
            Handle other;
            const std::string asleep =
                "SELECT id FROM information_schema.processlist WHERE state = 'User sleep' AND id = " + id;
            while (values(other, asleep).empty()) std::this_thread::yield();
            run(other, "KILL QUERY " + id);
        }};
    const std::string told =
        ending([&] { s.scene.db.atomic({.resolve = resolves ? &s.doubt : nullptr}, [&] { s.scene.row(1); }); });
    if (killed) killer.join();
    CHECK(told == std::string{"CommitUnknown unknown <- EngineError "} + (killed ? "1317" : "1969") + " unknown");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.truth() == "1");
    CHECK(s.markers() == (resolves ? "1" : ""));

    run(s.scene.handle, "SET max_statement_time = 0");
    s.scene.db.reset();
    CHECK(s.doubt.in_doubt() == resolves);
    if (resolves) CHECK(name(s.doubt.resolve(s.scene.db)) == "committed");
    CHECK(s.scene.hooks == (resolves ? "1" : ""));
    CHECK(s.scene.truth() == "1");
}

TEMPLATE_LIST_TEST_CASE("mariadb doubt: a session that ends itself before its COMMIT is in doubt, and was rolled back",
                        "[doubt][S48][M23]", EveryWay) {
    DoubtScene<TestType> s;
    run(s.scene.other,
        "CREATE TRIGGER ends BEFORE INSERT ON txhooks_commit FOR EACH ROW "
        "BEGIN IF NEW.committed THEN KILL CONNECTION_ID(); END IF; END");
    CHECK(ending([&] { s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); }); }) ==
          "CommitUnknown unknown <- EngineError 1927 unknown");
    CHECK(ending([&] { s.scene.hook(2); }) == "ConnectionBroken");
    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    CHECK(name(s.doubt.resolve(fresh)) == "rolled_back");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.truth() == "");
    CHECK(s.markers() == "0");
}

TEMPLATE_LIST_TEST_CASE("mariadb doubt: a marker in a table without transactions proves nothing", "[doubt][M08]",
                        EveryWay) {
    DoubtScene<TestType> s;
    run(s.scene.other, "ALTER TABLE txhooks_commit ENGINE = MyISAM");
    run(s.scene.other,
        "CREATE TRIGGER ends AFTER INSERT ON txhooks_commit FOR EACH ROW "
        "BEGIN IF NEW.committed THEN KILL CONNECTION_ID(); END IF; END");
    CHECK(ending([&] { s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); }); }) ==
          "CommitUnknown unknown <- EngineError 1927 unknown");
    CHECK(s.markers() == "1");
    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    CHECK(ending([&] { s.doubt.resolve(fresh); }) == "UsageError");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.truth() == "");
}

TEST_CASE("mariadb doubt: without the marker's table nothing is committed, and the error names it", "[doubt]") {
    DoubtScene<Compounds> s;
    run(s.scene.other, "DROP TABLE txhooks_commit");
    std::string said;
    try {
        s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); });
    } catch (const txhooks::EngineError& error) {
        said = error.what();
    }
    CHECK(said.find("txhooks_commit") != std::string::npos);
    CHECK(s.scene.truth() == "");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.goes_on());
}

// ---- Where no marker can be written

namespace {

// One who may not write while the server is read-only.
Login ordinary_user() {
    Handle root;
    run(root, "CREATE OR REPLACE USER ordinary@localhost IDENTIFIED BY '" + mariadb().password() + "'");
    run(root, "GRANT ALL ON txhooks.* TO ordinary@localhost");
    return {.user = "ordinary"};
}

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

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb doubt: a block in a read-only session commits without a marker", "[doubt][M28]",
                        EveryWay) {
    const std::string setting =
        GENERATE("SET SESSION TRANSACTION READ ONLY", "SET TRANSACTION READ ONLY", "SET tx_read_only = 1");
    const bool fails = GENERATE(false, true);  // and what the client knows of it is stale
    CAPTURE(setting, fails);
    Scene<TestType> scene;
    make_marker_table(scene.other);
    run(scene.handle, setting);
    Doubt doubt;
    CHECK(ending([&] {
              scene.db.atomic({.resolve = &doubt}, [&] {
                  scene.hook(1);
                  if (fails) CHECK(attempt(scene.handle, "INSERT INTO t VALUES (1)") == 1792);
              });
          }) == "returned");
    CHECK(scene.hooks == "1");
    CHECK_FALSE(doubt.in_doubt());
    CHECK(values(scene.other, "SELECT committed FROM txhooks_commit").empty());
    CHECK(scene.truth().empty());
    run(scene.handle, "SET SESSION TRANSACTION READ WRITE");
    CHECK(ending([&] { scene.db.atomic({.resolve = &doubt}, [&] { scene.row(2); }); }) == "returned");
    CHECK(values(scene.other, "SELECT committed FROM txhooks_commit") == "1");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "2");
}

TEMPLATE_LIST_TEST_CASE("mariadb doubt: a read-only block whose COMMIT is not answered is not in doubt",
                        "[doubt][S48][M28]", EveryWay) {
    DoubtScene<TestType> s;
    run(s.scene.handle, "SET SESSION TRANSACTION READ ONLY");
    const std::string told = ending([&] {
        s.scene.db.atomic({.resolve = &s.doubt}, [&] {
            s.scene.hook(1);
            s.proxy.arm("COMMIT", Cut::reply);
        });
    });
    CHECK(told == "TransactionLost unknown <- EngineError 2013 unknown");
    CHECK(s.scene.hooks == "");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 0);
}

TEMPLATE_LIST_TEST_CASE("mariadb doubt: on a read-only server a block that wrote nothing commits, another does not",
                        "[doubt][M28]", EveryWay) {
    const bool writes = GENERATE(false, true);
    CAPTURE(writes);
    Scene<TestType> scene{ordinary_user()};
    make_marker_table(scene.other);
    Doubt doubt;
    std::optional<ReadOnlyServer> server;
    CHECK(ending([&] {
              scene.db.atomic({.resolve = &doubt}, [&] {
                  writes ? scene.row(1) : scene.hook(1);
                  server.emplace();
              });
          }) == (writes ? "EngineError 1290 rolled_back" : "returned"));
    server.reset();
    CHECK(scene.hooks == (writes ? "" : "1"));
    CHECK_FALSE(doubt.in_doubt());
    CHECK(scene.truth().empty());
    CHECK(values(scene.other, "SELECT committed FROM txhooks_commit").empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

// ---- Hooks of every kind

namespace {

constexpr auto resolve_on_another = [](auto& s) {
    Handle handle;
    txhooks::HookedConnection fresh{handle.get()};
    return name(s.doubt.resolve(fresh));
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb doubt: those unless committed run at once, those of the outcome when it is known",
                        "[doubt][S48][S69][S70][S71][S75][M20]", EveryWay) {
    check_kinds_resolved<DoubtScene<TestType>>(resolve_on_another);
}

TEMPLATE_LIST_TEST_CASE("mariadb doubt: a marker is written for a rollback hook alone, not for what does not wait",
                        "[doubt][S75][S77]", EveryWay) {
    check_kinds_marked<DoubtScene<TestType>>(resolve_on_another);
}

TEST_CASE("mariadb doubt: who gives up runs neither commit hooks nor rollback hooks", "[doubt][S75]") {
    check_kinds_given_up<DoubtScene<Compounds>>();
}

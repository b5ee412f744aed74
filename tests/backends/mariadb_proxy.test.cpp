// SPDX-License-Identifier: MIT
//
// Connections cut at the worst moment, by a proxy between client and server. No hook runs in doubt, nothing is sent
// again, and after a reconnect the connection can be used.

#include "support/catch.hpp"
#include "support/mariadb_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <type_traits>

using namespace support;

namespace {

template <class Adapter>
constexpr bool one_by_one = std::is_same_v<Adapter, Plain>;

// A cut, whether what was sent takes effect all the same, and whether the driver may reconnect by itself.
struct Fault {
    const char* name;
    Cut cut;
    bool arrives;
    bool reconnect;
};

Fault faults() {
    return GENERATE(values<Fault>({
        {"request dropped", Cut::request, false, false},
        {"reply dropped", Cut::reply, true, false},
        {"cut after the request", Cut::after, true, false},
        {"silence", Cut::no_answer, false, false},
        {"request dropped, reconnects", Cut::request, false, true},
        {"reply dropped, reconnects", Cut::reply, true, true},
        {"cut after the request, reconnects", Cut::after, true, true},
    }));
}

template <class Adapter>
struct CutScene {
    TcpProxy proxy{static_cast<unsigned short>(mariadb().port())};
    Scene<Adapter> scene;

    explicit CutScene(const Fault& fault)
        : scene{Login{.port = proxy.port(), .read_timeout = 1, .reconnect = fault.reconnect}} {}

    // What others see once the server has noticed what happened.
    std::string truth_in_the_end(const Fault& fault, const std::string& arrived) {
        const std::string expected = fault.arrives ? arrived : "";
        for (int i = 0; i < 100 and scene.truth() != expected; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds{10});
        return scene.truth();
    }

    void reconnect() {
        proxy.close_all();
        const my_bool yes = 1;
        mysql_options(scene.handle, MYSQL_OPT_RECONNECT, &yes);
        // Refused once while the client still thinks that it is in a transaction.
        REQUIRE((mariadb_reconnect(scene.handle) == 0 or mariadb_reconnect(scene.handle) == 0));
        scene.db.reset();
    }
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb proxy: a connection cut at COMMIT is in doubt", "[S48][M20]", EveryWay) {
    const Fault fault = faults();
    CAPTURE(fault.name);
    CutScene<TestType> cut{fault};
    auto& scene = cut.scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    cut.proxy.round_trips();
    cut.proxy.arm("COMMIT", fault.cut);

    CHECK(ending([&] { return tx.commit(); }) == "CommitUnknown unknown <- EngineError 2013 unknown");
    CHECK(cut.proxy.has_cut());
    CHECK(cut.proxy.round_trips() == (one_by_one<TestType> ? 2 : 1));
    CHECK_FALSE(tx.active());
    CHECK(ending([&] { return tx.commit(); }) == "UsageError");
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    CHECK(ending([&] { typename Scene<TestType>::Tx next{scene.db}; }) == "ConnectionBroken");
    CHECK(scene.hooks.empty());
    CHECK(cut.truth_in_the_end(fault, "1") == (fault.arrives ? "1" : ""));
    cut.reconnect();
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb proxy: a connection cut before COMMIT was sent leaves nothing", "[S48][S50][M20]",
                        EveryWay) {
    const Fault fault = faults();
    CAPTURE(fault.name);
    CutScene<TestType> cut{fault};
    auto& scene = cut.scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    cut.proxy.arm("INSERT", fault.cut);
    CHECK(attempt(scene.handle, "INSERT INTO t VALUES (2)") == 2013);
    CHECK(ending([&] { scene.hook(2); }) == "TransactionLost unknown");
    CHECK(without_cause(ending([&] { return tx.commit(); })) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.db.usable() == fault.reconnect);
    cut.reconnect();
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("mariadb proxy: a connection cut at ROLLBACK is broken, and what throws first is told",
                        "[S49][M20]", EveryWay) {
    const Fault fault = faults();
    CAPTURE(fault.name);
    CutScene<TestType> cut{fault};
    auto& scene = cut.scene;
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  scene.row(1);
                  cut.proxy.arm("ROLLBACK", fault.cut);
                  throw std::runtime_error{"fn's own"};
              });
          }) == "fn's own");
    REQUIRE(scene.sink.lines().size() == 1);
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    CHECK(scene.sink.lines().front() == std::string{"txhooks: while rolling back a block: "} +
                                            (fault.reconnect ? "TransactionLost unknown" : "EngineError 2013 unknown"));
    CHECK(scene.db.usable() == fault.reconnect);
    cut.reconnect();
    scene.sink.clear();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb proxy: a connection cut at BEGIN opens no block", "[S40][M20]", EveryWay) {
    const Fault fault = faults();
    CAPTURE(fault.name);
    CutScene<TestType> cut{fault};
    auto& scene = cut.scene;
    cut.proxy.arm("START TRANSACTION", fault.cut);
    CHECK(ending([&] { typename Scene<TestType>::Tx tx{scene.db}; }) == "EngineError 2013 rolled_back");
    CHECK_FALSE(scene.db.in_atomic_block());
    cut.reconnect();
    scene.sink.clear();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("mariadb proxy: a connection cut at SAVEPOINT or RELEASE loses the transaction", "[S50][M20]",
                        EveryWay) {
    const Fault fault = faults();
    const std::string verb = GENERATE("SAVEPOINT txhooks_1", "RELEASE SAVEPOINT txhooks_1");
    CAPTURE(fault.name, verb);
    CutScene<TestType> cut{fault};
    auto& scene = cut.scene;
    {
        typename Scene<TestType>::Tx tx{scene.db};
        scene.row(1);
        CHECK(ending([&] {
                  if (verb[0] == 'S') cut.proxy.arm(verb, fault.cut);
                  typename Scene<TestType>::Tx inner{scene.db};
                  scene.row(2);
                  cut.proxy.arm(verb, fault.cut);
                  inner.commit();
              }).substr(0, 16) == "EngineError 2013");
        CHECK(ending([&] { return tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(scene.hooks.empty());
    CHECK(scene.truth().empty());
    cut.reconnect();
    scene.sink.clear();
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

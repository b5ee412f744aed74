// SPDX-License-Identifier: MIT
//
// Connections that are cut at the worst moment. A COMMIT without an answer is in doubt: no hook runs, nothing is tried
// again, and the connection is broken until it is made anew.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/testing/faults.hpp>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

using namespace support;

namespace {

// Closes the connections of a proxy that has gone silent: nobody waits for an answer forever.
class EndOfPatience {
public:
    EndOfPatience(TcpProxy& proxy, Cut how)
        : thread_{[&proxy, how] {
              if (how != Cut::no_answer) return;
              while (not proxy.has_cut()) std::this_thread::yield();
              std::this_thread::sleep_for(std::chrono::milliseconds{50});
              proxy.close_all();
          }} {}
    ~EndOfPatience() { thread_.join(); }

private:
    std::thread thread_;
};

std::string through(TcpProxy& proxy) {
    return "host=127.0.0.1 port=" + std::to_string(proxy.port());
}

// What others see in the end: the session may still be at work after its client has gone.
template <class Scene>
std::string truth_in_the_end(Scene& scene, int pid) {
    while (run(scene.others, "SELECT count(*) FROM pg_stat_activity WHERE pid = " + std::to_string(pid)) != "0")
        std::this_thread::yield();
    return scene.truth();
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq cut: a COMMIT that is not answered is in doubt", "[S48][P05]", EveryWitness) {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after, Cut::no_answer);
    const std::string truth = how == Cut::reply or how == Cut::after ? "1,2" : "";
    const bool function = GENERATE(true, false);
    CAPTURE(static_cast<int>(how), function);
    TcpProxy proxy{postgres_port()};
    PostgresScene<TestType> scene{through(proxy)};
    const int pid = PQbackendPID(scene.handle);
    proxy.round_trips();
    {
        const EndOfPatience patience{proxy, how};
        const auto work = [&] {
            scene.row(1);
            scene.db.atomic([&] { scene.row(2); });
            proxy.round_trips();
            proxy.arm("COMMIT", how);
        };
        const std::string told = ending([&] {
            if (function) return scene.db.atomic(work);
            typename PostgresScene<TestType>::Tx tx{scene.db};
            work();
            tx.commit();
        });
        CHECK(told == "CommitUnknown unknown <- EngineError without SQLSTATE unknown");
    }
    CHECK(proxy.round_trips() == 1);
    CHECK(scene.hooks.empty());
    CHECK_FALSE(scene.db.in_atomic_block());
    CHECK_FALSE(scene.db.usable());
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    CHECK(ending([&] { typename PostgresScene<TestType>::Tx tx{scene.db}; }) == "ConnectionBroken");
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    CHECK(truth_in_the_end(scene, pid) == truth);

    PQreset(scene.handle);
    CHECK(ending([&] { scene.hook(3); }) == "ConnectionBroken");
    scene.db.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEMPLATE_LIST_TEST_CASE("libpq cut: a BEGIN that is not answered opens no block", "[S40][S49]", EveryWitness) {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after, Cut::no_answer);
    TcpProxy proxy{postgres_port()};
    PostgresScene<TestType> scene{through(proxy)};
    {
        const EndOfPatience patience{proxy, how};
        proxy.arm("BEGIN", how);
        CHECK(ending([&] { scene.db.atomic([&] { scene.row(1); }); }).starts_with("EngineError without SQLSTATE"));
    }
    CHECK_FALSE(scene.db.in_atomic_block());
    CHECK(ending([&] { scene.hook(1); }) == "ConnectionBroken");
    PQreset(scene.handle);
    scene.db.reset();
    CHECK(scene.truth().empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq cut: a connection that dies in a block takes the block with it", "[S49][S50]",
                        EveryWitness) {
    const std::string at = GENERATE("SAVEPOINT txhooks_1", "RELEASE txhooks_1", "ROLLBACK TO txhooks_1", "INSERT");
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after);
    CAPTURE(at, static_cast<int>(how));
    TcpProxy proxy{postgres_port()};
    PostgresScene<TestType> scene{through(proxy)};
    const int pid = PQbackendPID(scene.handle);
    {
        typename PostgresScene<TestType>::Tx tx{scene.db};
        scene.row(1);
        proxy.arm(at, how);
        const std::string told = ending([&] {
            typename PostgresScene<TestType>::Tx inner{scene.db};
            scene.hook(2);
            if (at == "INSERT") scene.attempt("INSERT INTO t VALUES (2)");
            at == "ROLLBACK TO txhooks_1" ? inner.rollback() : static_cast<void>(inner.commit());
        });
        CHECK(told != "returned");
        CHECK(ending([&] { scene.hook(3); }) == "TransactionLost unknown");
        CHECK(ending([&] { tx.commit(); }) == "TransactionLost unknown");
    }
    CHECK(scene.hooks.empty());
    CHECK(truth_in_the_end(scene, pid).empty());
    CHECK(ending([&] { scene.hook(4); }) == "ConnectionBroken");
    PQreset(scene.handle);
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq cut: a ROLLBACK that is not answered breaks the connection", "[S49]", EveryWitness) {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after);
    const bool throws = GENERATE(true, false);
    TcpProxy proxy{postgres_port()};
    PostgresScene<TestType> scene{through(proxy)};
    const int pid = PQbackendPID(scene.handle);
    const std::string told = ending([&] {
        scene.db.atomic([&] {
            scene.row(1);
            proxy.arm("ROLLBACK", how);
            if (throws) throw std::runtime_error{"its own"};
            scene.db.set_rollback(true);
        });
    });
    const std::string rollback = "EngineError without SQLSTATE rolled_back";
    CHECK(told == (throws ? "its own" : rollback));
    CHECK(scene.sink.lines().size() == (throws ? 1 : 0));
    CHECK(scene.hooks.empty());
    CHECK(ending([&] { scene.hook(2); }) == "ConnectionBroken");
    CHECK(truth_in_the_end(scene, pid).empty());
    PQreset(scene.handle);
    scene.db.reset();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq: reset() forgets a transaction that was ended by hand after a ROLLBACK had failed",
                        "[S49]", EveryWitness) {
    using Adapter = txhooks::testing::FaultyAdapter<TestType>;
    PostgresScene<Adapter> scene;
    scene.db.adapter().faults.fail(txhooks::testing::Verb::rollback, txhooks::testing::When::before_effect,
                                   std::runtime_error{"not sent"});
    {
        typename PostgresScene<Adapter>::Tx tx{scene.db};
        scene.row(1);
        CHECK(ending([&] { tx.rollback(); }) == "not sent");
    }
    CHECK(ending([&] { scene.db.reset(); }) == "UsageError");
    scene.run("ROLLBACK");
    scene.db.reset();
    CHECK(scene.hooks.empty());
    CHECK(scene.goes_on());
}

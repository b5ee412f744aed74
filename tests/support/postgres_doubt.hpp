// SPDX-License-Identifier: MIT
#pragma once

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/postgres_scene.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/doubt.hpp>

#include <chrono>
#include <string>
#include <thread>

namespace support {

/// `Scene`, behind a proxy that can lose the answer to COMMIT, and what finds out.
template <class Scene>
struct DoubtScene {
    TcpProxy proxy{postgres_port()};
    Scene scene{"host=127.0.0.1 port=" + std::to_string(proxy.port())};
    PostgresHandle others{scene.server()};
    txhooks::Doubt doubt;

    DoubtScene() { run(others, marker_table); }

    std::string markers() { return run(others, "SELECT string_agg(committed::text, ',') FROM txhooks_commit"); }

    /// The first marker of a session may take a round trip more.
    void write_first_marker() {
        scene.db.atomic({.resolve = &doubt}, [&] { scene.db.on_commit([] {}); });
        run(others, "DELETE FROM txhooks_commit");
    }

    /// A block whose COMMIT meets `how`.
    void lose(Cut how) {
        write_first_marker();
        std::thread end_of_patience{[this, how] {
            if (how != Cut::no_answer) return;
            while (not proxy.has_cut()) std::this_thread::yield();
            std::this_thread::sleep_for(std::chrono::milliseconds{50});
            proxy.close_all();
        }};
        const std::string told = ending([&] {
            scene.db.atomic({.resolve = &doubt}, [&] {
                scene.row(1);
                scene.db.atomic([&] { scene.row(2); });
                proxy.arm("COMMIT", how);
            });
        });
        end_of_patience.join();
        CHECK(told.rfind("CommitUnknown", 0) == 0);
        CHECK(scene.hooks == "");
        CHECK(doubt.in_doubt());
        CHECK(doubt.size() == 2);
    }

    void check_price() {
        write_first_marker();
        proxy.round_trips();
        scene.db.atomic({.resolve = &doubt}, [&] { scene.hook(1); });
        CHECK(proxy.round_trips() == 2);
        CHECK(scene.hooks == "1");
        CHECK(markers() == "true");
        scene.db.atomic({.resolve = &doubt}, [] {});
        scene.db.atomic({.resolve = &doubt, .begin = {.read_only = true}}, [&] { scene.hook(2); });
        CHECK(proxy.round_trips() == 4);
        CHECK(scene.hooks == "1,2");
        CHECK(markers() == "true");
    }
};

// ---- What both drivers do alike

template <class Scene>
void check_read_only_doubt() {
    enum class By { session, role, itself };
    const By by = GENERATE(By::session, By::role, By::itself);
    const bool first_marker = GENERATE(true, false);
    CAPTURE(static_cast<int>(by), first_marker);
    DoubtScene<Scene> s;
    if (not first_marker) s.write_first_marker();
    if (by == By::session) s.scene.run("SET default_transaction_read_only = on");
    if (by == By::role)
        s.scene.run("CREATE ROLE reader_" + std::to_string(s.scene.pid()) + " SUPERUSER; SET ROLE reader_" +
                    std::to_string(s.scene.pid()) + "; SET default_transaction_read_only = on");
    for (int n = 1; n != 3; ++n) {
        CHECK(ending([&] {
                  s.scene.db.atomic({.resolve = &s.doubt}, [&] {
                      if (by == By::itself) s.scene.run("SET TRANSACTION READ ONLY");
                      s.scene.run("SELECT count(*) FROM t");
                      s.scene.hook(n);
                  });
              }) == "returned");
    }
    CHECK(s.scene.hooks == "1,2");
    if (by != By::itself) CHECK(s.markers() == "");  // else it ends with the witness, where that is a savepoint
    CHECK_FALSE(s.doubt.in_doubt());
    if (by == By::role) s.scene.run("RESET ROLE");
    s.scene.run("SET default_transaction_read_only = off");
    if (by == By::role) s.scene.run("DROP ROLE reader_" + std::to_string(s.scene.pid()));
    CHECK(s.scene.goes_on());
}

template <class Scene>
void check_written_before_read_only() {
    DoubtScene<Scene> s;
    CHECK(ending([&] {
              s.scene.db.atomic({.resolve = &s.doubt}, [&] {
                  s.scene.row(1);
                  s.scene.run("SET TRANSACTION READ ONLY");
              });
          }) == Scene::error("25006"));
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.truth() == "");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.scene.goes_on());
}

template <class Scene>
void check_read_only_without_an_answer() {
    DoubtScene<Scene> s;
    s.scene.run("SET default_transaction_read_only = on");
    CHECK(without_cause(ending([&] {
              s.scene.db.atomic({.resolve = &s.doubt}, [&] {
                  s.scene.hook(1);
                  s.proxy.arm("if_assigned", Cut::reply);
              });
          })) == "TransactionLost unknown");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.scene.hooks == "");
}

template <class Scene, class Resolve>
void check_table_that_is_not_kept(Resolve resolve) {
    DoubtScene<Scene> s;
    s.lose(Cut::reply);
    run(s.others, "ALTER TABLE txhooks_commit SET UNLOGGED");
    CHECK(ending([&] { resolve(s.scene, s.doubt); }) == "UsageError");
    CHECK(s.doubt.in_doubt());
    CHECK(s.scene.hooks == "");
    run(s.others, "ALTER TABLE txhooks_commit SET LOGGED");
    CHECK(resolve(s.scene, s.doubt) == "committed");
    CHECK(s.scene.hooks == "1,2");
}

}  // namespace support

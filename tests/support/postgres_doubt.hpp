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

    /// A block whose COMMIT meets `how`.
    void lose(Cut how) {
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
        scene.db.atomic([] {});
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

}  // namespace support

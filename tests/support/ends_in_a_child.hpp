// SPDX-License-Identifier: MIT
#pragma once

// fork() in a block with hooks of every kind: none of them runs in the other process, whatever is done there.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/exceptions.hpp"
#include "support/fork.hpp"

#include <optional>
#include <string>
#include <utility>

namespace support {

/// `execute(scene, sql)` sends a statement.
template <class Scene, class Execute>
void check_kinds_in_a_child(Execute execute) {
    using Tx = typename Scene::Tx;
    enum class Way { commit, asked, rollback, destructor, nested_commit, nested_rollback };
    const Way way =
        GENERATE(Way::commit, Way::asked, Way::rollback, Way::destructor, Way::nested_commit, Way::nested_rollback);
    CAPTURE(static_cast<int>(way));
    Scene scene;
    Kinds<Scene> kinds{scene};
    std::optional<Tx> tx{std::in_place, scene.db, scene.options};
    kinds.row(1);
    scene.db.before_commit([&] { execute(scene, "INSERT INTO t VALUES (7)"); });
    std::optional<Tx> inner;
    if (way == Way::nested_commit or way == Way::nested_rollback) {
        inner.emplace(scene.db);
        kinds.row(2);
    }
    const std::string said = in_a_child([&] {
        std::string told;
        if (way == Way::commit) told = ending([&] { tx->commit(); });
        if (way == Way::asked) {
            scene.db.set_rollback(true);
            told = ending([&] { tx->commit(); });
        }
        if (way == Way::rollback) told = ending([&] { tx->rollback(); });
        if (way == Way::nested_commit) told = ending([&] { inner->commit(); });
        if (way == Way::nested_rollback) told = ending([&] { inner->rollback(); });
        inner.reset();
        tx.reset();
        return told + '|' + kinds.ran();
    });
    CHECK(said == (way == Way::destructor ? "|" : "UsageError|"));
    if (inner) inner->rollback();
    CHECK(kinds.ran() == (inner ? "u2 r2" : ""));
    const std::string before = inner ? "u2 r2 " : "";
    CHECK(ending([&] { return tx->commit(); }) == "committed");
    CHECK(kinds.ran() == before + "b1 c1");
    CHECK(scene.truth() == "1,7");
    kinds.check_promise();
    inner.reset();
    tx.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

/// A transaction that was ended by hand, in either process. `ran`: what runs in the one that has begun it.
template <class Scene, class Execute>
void check_kinds_lost_in_a_child(Execute execute, bool in_the_child, const std::string& told, const std::string& ran) {
    Scene scene;
    Kinds<Scene> kinds{scene};
    std::optional<typename Scene::Tx> tx{std::in_place, scene.db, scene.options};
    kinds.row(1);
    if (not in_the_child) execute(scene, "ROLLBACK");
    const std::string said = in_a_child([&] {
        if (in_the_child) execute(scene, "ROLLBACK");
        tx.reset();
        return kinds.ran();
    });
    CHECK(said.empty());
    CHECK(without_cause(ending([&] { return tx->commit(); })) == told);
    CHECK(kinds.ran() == ran);
    CHECK(scene.truth().empty());
    kinds.check_promise();
    tx.reset();
    CHECK(scene.goes_on());
}

}  // namespace support

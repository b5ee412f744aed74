// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/ends_in_a_child.hpp"
#include "support/fork.hpp"
#include "support/pqxx_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include <optional>
#include <string>
#include <utility>

using namespace support;

TEST_CASE("libpqxx fork: the guard of another process sends nothing, says so, and runs no hook", "[S50][S56][P21]") {
    enum class Way { commit, rollback, destructor, nested, opens };
    const Way way = GENERATE(Way::commit, Way::rollback, Way::destructor, Way::nested, Way::opens);
    CAPTURE(static_cast<int>(way));
    PqxxScene scene;
    std::optional<PqxxScene::Tx> tx{std::in_place, scene.db};
    scene.row(1);
    std::optional<PqxxScene::Tx> inner;
    if (way == Way::nested) inner.emplace(scene.db);
    const std::string said = in_a_child([&] {
        std::string told;
        if (way == Way::commit) told = ending([&] { tx->commit(); });
        if (way == Way::rollback) told = ending([&] { tx->rollback(); });
        if (way == Way::nested) told = ending([&] { inner->commit(); });
        if (way == Way::opens) told = ending([&] { const PqxxScene::Tx more{scene.db}; });
        inner.reset();
        tx.reset();
        told += '|' + ending([&] { scene.hook(3); });
        told += '|' + ending([&] { scene.db.reset(); });
        return told + '|' + scene.hooks;
    });
    CHECK(said == (way == Way::destructor ? "" : std::string{"UsageError"}) + "|ConnectionBroken|UsageError|");
    if (inner) inner->commit();
    inner.reset();
    CHECK(ending([&] { return tx->commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    tx.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("libpqxx fork: a transaction that another process has ended by hand is lost", "[S50][S56][P21]") {
    const std::string how = GENERATE("ROLLBACK", "COMMIT");
    PqxxScene scene;
    PqxxScene::Tx tx{scene.db};
    scene.row(1);
    in_a_child([&] { return ending([&] { scene.run(how); }); });
    CHECK(without_cause(ending([&] { tx.commit(); })) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (how == "COMMIT" ? "1" : ""));
    CHECK(scene.goes_on());
}

// ---- Hooks of every kind

namespace {

constexpr auto send = [](PqxxScene& scene, const std::string& sql) { scene.execute(sql); };

}  // namespace

TEST_CASE("libpqxx fork: hooks of every kind are those of the process that registered them",
          "[S56][S61][S68][S69][P21]") {
    check_kinds_in_a_child<PqxxScene>(send);
}

TEST_CASE("libpqxx fork: a block that is lost runs its hooks in the process that began it, and once",
          "[S50][S56][S68][S69][P21]") {
    check_kinds_lost_in_a_child<PqxxScene>(send, GENERATE(false, true), "TransactionLost unknown", "b1 u1");
}

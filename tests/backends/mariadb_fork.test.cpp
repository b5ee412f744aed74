// SPDX-License-Identifier: MIT
//
// fork() in a block: both processes have the guard and the connection, but the transaction is that of one.

#include "support/catch.hpp"
#include "support/ends_in_a_child.hpp"
#include "support/fork.hpp"
#include "support/mariadb_scene.hpp"

#include <txhooks/backends/mariadb.hpp>
#include <txhooks/doubt.hpp>

#include <optional>
#include <string>
#include <utility>

using namespace support;

TEMPLATE_LIST_TEST_CASE("mariadb fork: the guard of another process sends nothing, says so, and runs no hook",
                        "[S50][S56][M27]", EveryWay) {
    enum class Way { commit, marked, rollback, destructor, nested, nested_rollback, opens, after_error, unread };
    const Way way = GENERATE(Way::commit, Way::marked, Way::rollback, Way::destructor, Way::nested,
                             Way::nested_rollback, Way::opens, Way::after_error, Way::unread);
    CAPTURE(static_cast<int>(way));
    using Tx = typename Scene<TestType>::Tx;
    Scene<TestType> scene;
    make_marker_table(scene.other);
    txhooks::Doubt doubt;
    std::optional<Tx> tx;
    tx.emplace(scene.db, typename Scene<TestType>::Db::Options{.resolve = way == Way::marked ? &doubt : nullptr});
    scene.row(1);
    std::optional<Tx> inner;
    if (way == Way::nested or way == Way::nested_rollback) inner.emplace(scene.db);
    if (way == Way::after_error) attempt(scene.handle, "nonsense");
    if (way == Way::unread) mysql_real_query(scene.handle, "SELECT 7", 8);
    const std::string said = in_a_child([&] {
        std::string told;
        if (way == Way::commit or way == Way::marked or way == Way::after_error)
            told = ending([&] { return tx->commit(); });
        if (way == Way::rollback) told = ending([&] { tx->rollback(); });
        if (way == Way::nested) told = ending([&] { inner->commit(); });
        if (way == Way::nested_rollback) told = ending([&] { inner->rollback(); });
        if (way == Way::opens) told = ending([&] { const Tx more{scene.db}; });
        inner.reset();
        tx.reset();
        told += '|' + ending([&] { scene.hook(3); });
        told += '|' + ending([&] { const Tx more{scene.db}; });
        return told + '|' + scene.hooks;
    });
    const bool silent = way == Way::destructor or way == Way::unread;
    CHECK(said == (silent ? "" : std::string{"UsageError"}) + "|ConnectionBroken|ConnectionBroken|");
    if (way == Way::unread) mysql_free_result(mysql_store_result(scene.handle));
    if (inner) inner->commit();
    inner.reset();
    CHECK(ending([&] { return tx->commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == "1");
    tx.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("mariadb fork: the destructor in another process tells the sink what to do", "[S31][S56][M27]") {
    Scene<Compounds> scene;
    std::optional<Scene<Compounds>::Tx> tx{std::in_place, scene.db};
    const std::string said = in_a_child([&] {
        tx.reset();
        return scene.sink.lines().at(0);
    });
    CHECK(said == "txhooks: while rolling back a block: UsageError");
    CHECK(ending([&] { tx->commit(); }) == "returned");
}

TEMPLATE_LIST_TEST_CASE("mariadb fork: the child may use the connection that it inherits outside of blocks",
                        "[S1][S56][M27]", EveryWay) {
    Scene<TestType> scene;
    const std::string said = in_a_child([&] {
        scene.db.atomic([&] { scene.row(1); });
        return scene.hooks;
    });
    CHECK(said == "1");
    CHECK(scene.truth() == "1");
}

TEMPLATE_LIST_TEST_CASE("mariadb fork: a transaction that another process has ended by hand is lost", "[S50][S56][M27]",
                        EveryWay) {
    const std::string how = GENERATE("ROLLBACK", "COMMIT");
    CAPTURE(how);
    Scene<TestType> scene;
    typename Scene<TestType>::Tx tx{scene.db};
    scene.row(1);
    in_a_child([&] { return std::to_string(attempt(scene.handle, how)); });
    CHECK(without_cause(ending([&] { return tx.commit(); })) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK(scene.truth() == (how == "COMMIT" ? "1" : ""));
    CHECK(scene.goes_on());
}

// ---- Hooks of every kind

namespace {

constexpr auto send = [](auto& scene, const std::string& sql) { run(scene.handle, sql); };

}  // namespace

TEMPLATE_LIST_TEST_CASE("mariadb fork: hooks of every kind are those of the process that registered them",
                        "[S56][S61][S68][S69][M27]", EveryWay) {
    check_kinds_in_a_child<Scene<TestType>>(send);
}

TEMPLATE_LIST_TEST_CASE("mariadb fork: a block that is lost runs its hooks in the process that began it, and once",
                        "[S50][S56][S68][S69][M27]", EveryWay) {
    const bool in_the_child = GENERATE(false, true);  // which the other does not see before COMMIT
    CAPTURE(in_the_child);
    check_kinds_lost_in_a_child<Scene<TestType>>(send, in_the_child, "TransactionLost unknown",
                                                 in_the_child ? "b1 u1" : "u1");
}

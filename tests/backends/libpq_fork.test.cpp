// SPDX-License-Identifier: MIT
//
// fork() in a block: both processes have the guard and the connection, but the transaction is that of one.

#include "support/catch.hpp"
#include "support/ends_in_a_child.hpp"
#include "support/fork.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/doubt.hpp>

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

using namespace support;
using txhooks::Outcome;

namespace {

// What the user's receiver and processor of notices have heard.
int heard = 0;

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq fork: the guard of another process sends nothing, says so, and runs no hook",
                        "[S50][S56][P21]", EveryWitness) {
    enum class Way { commit, rollback, destructor, nested, opens, unread };
    const Way way = GENERATE(Way::commit, Way::rollback, Way::destructor, Way::nested, Way::opens, Way::unread);
    CAPTURE(static_cast<int>(way));
    using Tx = typename PostgresScene<TestType>::Tx;
    PostgresScene<TestType> scene;
    std::optional<Tx> tx{std::in_place, scene.db};
    scene.row(1);
    std::optional<Tx> inner;
    if (way == Way::nested) inner.emplace(scene.db);
    if (way == Way::unread) PQsendQuery(scene.handle, "INSERT INTO t VALUES (2)");
    const std::string said = in_a_child([&] {
        std::string told;
        if (way == Way::commit) told = ending([&] { tx->commit(); });
        if (way == Way::rollback) told = ending([&] { tx->rollback(); });
        if (way == Way::nested) told = ending([&] { inner->commit(); });
        if (way == Way::opens) told = ending([&] { const Tx more{scene.db}; });
        inner.reset();
        tx.reset();
        told += '|' + ending([&] { scene.hook(3); });
        told += '|' + ending([&] { scene.db.reset(); });
        return told + '|' + scene.hooks;
    });
    const bool silent = way == Way::destructor or way == Way::unread;
    CHECK(said == (silent ? "" : std::string{"UsageError"}) + "|ConnectionBroken|UsageError|");
    if (inner) inner->commit();
    inner.reset();
    if (way == Way::unread)
        while (PGresult* const result = PQgetResult(scene.handle)) PQclear(result);
    CHECK(ending([&] { return tx->commit(); }) == "committed");
    CHECK(scene.hooks == "1");
    CHECK(scene.truth() == (way == Way::unread ? "1,2" : "1"));
    tx.reset();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("libpq fork: the destructor in another process tells the sink what to do", "[S31][S56][P21]") {
    PostgresScene<> scene;
    std::optional<PostgresScene<>::Tx> tx{std::in_place, scene.db};
    const std::string said = in_a_child([&] {
        tx.reset();
        return scene.sink.lines().at(0);
    });
    CHECK(said == "txhooks: while rolling back a block: UsageError");
    CHECK(ending([&] { tx->commit(); }) == "returned");
}

TEMPLATE_LIST_TEST_CASE("libpq fork: a transaction that another process has ended by hand is lost", "[S50][S56][P21]",
                        EveryWitness) {
    enum class Notices { by_default, to_a_processor, to_a_receiver };
    const Notices notices = GENERATE(Notices::by_default, Notices::to_a_processor, Notices::to_a_receiver);
    const std::string how = GENERATE("ROLLBACK", "COMMIT");
    const bool resolves = GENERATE(false, true);
    CAPTURE(static_cast<int>(notices), how, resolves);
    heard = 0;
    int argument = 0;
    PostgresScene<TestType> scene;
    scene.run(marker_table);
    if (notices == Notices::to_a_processor)
        PQsetNoticeProcessor(scene.handle, [](void* to, const char*) { ++heard, ++*static_cast<int*>(to); }, &argument);
    if (notices == Notices::to_a_receiver)
        PQsetNoticeReceiver(
            scene.handle, [](void* to, const PGresult*) { ++heard, ++*static_cast<int*>(to); }, &argument);
    txhooks::Doubt doubt;
    typename PostgresScene<TestType>::Tx tx{scene.db, {.resolve = resolves ? &doubt : nullptr}};
    scene.row(1);
    in_a_child([&] { return std::to_string(PQresultStatus(PQexec(scene.handle, how.c_str()))); });
    CHECK(without_cause(ending([&] { tx.commit(); })) == "TransactionLost unknown");
    CHECK(scene.hooks.empty());
    CHECK_FALSE(doubt.in_doubt());
    CHECK(scene.truth() == (how == "COMMIT" ? "1" : ""));
    // They hear what they would have heard, and later notices too.
    const bool warned = std::is_same_v<TestType, EventWitness> and not resolves;
    CHECK(heard == (notices == Notices::to_a_processor and warned ? 1 : 0));
    const int before = heard;
    scene.run("DO $$ BEGIN RAISE WARNING 'later'; END $$");
    CHECK(heard == before + (notices == Notices::by_default ? 0 : 1));
    CHECK(argument == heard);
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

TEST_CASE("libpq: the notices of COMMIT reach the user's processor or receiver", "[S44]") {
    const bool receiver = GENERATE(false, true);
    CAPTURE(receiver);
    heard = 0;
    PostgresScene<> scene;
    scene.run(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''at COMMIT''; RETURN NULL; "
        "END'; CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION tell()");
    if (receiver)
        PQsetNoticeReceiver(scene.handle, [](void*, const PGresult*) { ++heard; }, nullptr);
    else
        PQsetNoticeProcessor(scene.handle, [](void*, const char*) { ++heard; }, nullptr);
    for (int n = 1; n != 4; ++n) {
        scene.db.atomic([&] { scene.row(n); });
        CHECK(heard == n);
    }
    CHECK(scene.hooks == "1,2,3");
}

// ---- Hooks of every kind

namespace {

constexpr auto send = [](auto& scene, const std::string& sql) { scene.execute(sql); };

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq fork: hooks of every kind are those of the process that registered them",
                        "[S56][S61][S68][S69][P21]", EveryWitness) {
    check_kinds_in_a_child<PostgresScene<TestType>>(send);
}

TEMPLATE_LIST_TEST_CASE("libpq fork: a block that is lost runs its hooks in the process that began it, and once",
                        "[S50][S56][S68][S69][P21]", EveryWitness) {
    using S = PostgresScene<TestType>;
    const bool in_the_child = GENERATE(false, true);  // which the other does not see before COMMIT
    CAPTURE(in_the_child);
    check_kinds_lost_in_a_child<S>(send, in_the_child, S::loss(in_the_child ? Outcome::unknown : Outcome::rolled_back),
                                   in_the_child ? "b1 u1" : "u1 r1");
}

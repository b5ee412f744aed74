// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/ends_in_doubt.hpp"
#include "support/postgres_doubt.hpp"
#include "support/postgres_scene.hpp"
#include "support/resolved.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/backends/libpq.hpp>

#include <string>
#include <string_view>

using namespace support;
using txhooks::Outcome;

TEMPLATE_LIST_TEST_CASE("libpq doubt: a COMMIT that is not answered is resolved on a fresh connection",
                        "[doubt][S48][P05]", EveryWitness) {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after, Cut::no_answer);
    CAPTURE(static_cast<int>(how));
    DoubtScene<PostgresScene<TestType>> s;
    s.lose(how);

    PostgresHandle handle{s.scene.server()};
    txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
    check_resolved(s, how, s.doubt.resolve(fresh), "true", "false");
}

TEST_CASE("libpq doubt: what was resolved to rolled back stays so when the COMMIT arrives late", "[doubt][P05]") {
    DoubtScene<PostgresScene<>> s;
    s.lose(Cut::no_answer);
    PostgresHandle handle{s.scene.server()};
    txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
    REQUIRE(name(s.doubt.resolve(fresh)) == "rolled_back");
    // What would arrive now.
    const std::string late =
        std::string{"BEGIN; INSERT INTO t VALUES (1); INSERT INTO txhooks_commit (id, committed) VALUES ('"} +
        s.doubt.marker() + "', true); COMMIT";
    CHECK(attempt(handle, late) == "23505");
    CHECK(attempt(handle, "ROLLBACK") == "");
    CHECK(s.scene.truth() == "");
    CHECK(s.scene.hooks == "");
}

TEST_CASE("libpq doubt: asking twice gives one answer, also when the first one was lost", "[doubt]") {
    DoubtScene<PostgresScene<>> s;
    s.lose(Cut::request);
    {
        TcpProxy proxy{postgres_port()};
        PostgresHandle handle{s.scene.server("host=127.0.0.1 port=" + std::to_string(proxy.port()))};
        txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
        proxy.arm("INSERT", Cut::reply);
        CHECK_THROWS_AS(s.doubt.resolve(fresh), txhooks::EngineError);
        CHECK(s.doubt.in_doubt());
    }
    PostgresHandle handle{s.scene.server()};
    txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
    CHECK(name(s.doubt.resolve(fresh)) == "rolled_back");
    CHECK(s.scene.hooks == "");
    CHECK(s.markers() == "false");
}

TEST_CASE("libpq doubt: while the COMMIT may still come, resolve() waits for it, or throws", "[doubt]") {
    DoubtScene<PostgresScene<>> s;
    s.lose(Cut::request);
    PostgresHandle still_at_work{s.scene.server()};
    run(still_at_work,
        std::string{"BEGIN; INSERT INTO txhooks_commit (id, committed) VALUES ('"} + s.doubt.marker() + "', true)");
    PostgresHandle handle{s.scene.server()};
    txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
    run(handle, "SET lock_timeout = '50ms'");
    const auto error = ending([&] { s.doubt.resolve(fresh); });
    CHECK(error == "EngineError 55P03 unknown");
    CHECK(s.doubt.in_doubt());
    run(still_at_work, "COMMIT");
    CHECK(name(s.doubt.resolve(fresh)) == "committed");
    CHECK(s.scene.hooks == "1,2");
}

TEMPLATE_LIST_TEST_CASE("libpq doubt: costs no round trip, and writes nothing where no hook waits", "[doubt]",
                        EveryWitness) {
    DoubtScene<PostgresScene<TestType>> s;
    s.check_price();
}

TEST_CASE("libpq doubt: without the marker's table nothing is committed, and the error names it", "[doubt]") {
    DoubtScene<PostgresScene<>> s;
    s.scene.run("DROP TABLE txhooks_commit");
    std::string said;
    try {
        s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); });
    } catch (const txhooks::EngineError& error) {
        said = error.what();
        CHECK(error.outcome() == Outcome::rolled_back);
    }
    CHECK(said.find("txhooks_commit") != std::string::npos);
    CHECK(s.scene.truth() == "");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.goes_on());
}

TEST_CASE("libpq doubt: a block that was begun read-only is not resolved: it wrote no marker", "[doubt][S48]") {
    DoubtScene<PostgresScene<>> s;
    CHECK(without_cause(ending([&] {
              s.scene.db.atomic({.resolve = &s.doubt, .begin = {.read_only = true}}, [&] {
                  s.scene.hook(1);
                  s.proxy.arm("COMMIT", Cut::reply);
              });
          })) == "CommitUnknown unknown");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.scene.hooks == "");
}

TEST_CASE("libpq doubt: a marker's table that keeps nothing proves nothing", "[doubt]") {
    DoubtScene<PostgresScene<>> s;
    s.lose(Cut::request);
    run(s.others,
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER swallow BEFORE INSERT ON txhooks_commit FOR EACH ROW EXECUTE FUNCTION swallow()");
    PostgresHandle handle{s.scene.server()};
    txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
    CHECK(ending([&] { s.doubt.resolve(fresh); }) == "UsageError");
    CHECK(s.doubt.in_doubt());
    run(s.others, "DROP TRIGGER swallow ON txhooks_commit");
    CHECK(name(s.doubt.resolve(fresh)) == "rolled_back");
}

// ---- What is sent to write the marker

TEMPLATE_LIST_TEST_CASE("libpq doubt: the first marker of a session takes one more round trip, and is lost as well",
                        "[doubt][S48][P05]", EveryWitness) {
    DoubtScene<PostgresScene<TestType>> s;
    SECTION("answered") {
        s.scene.db.atomic([] {});
        s.proxy.round_trips();
        for (int n = 1; n != 4; ++n) s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.hook(n); });
        CHECK(s.proxy.round_trips() == 7);
        run(s.scene.handle, "DISCARD ALL");
        run(s.scene.handle, "SET search_path = " + run(s.others, "SHOW search_path"));
        s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(4); });
        CHECK(s.scene.hooks == "1,2,3,4");
        CHECK(s.markers() == "true,true,true,true");
    }
    SECTION("not answered: the second is never sent") {
        CHECK(without_cause(ending([&] {
                  s.scene.db.atomic({.resolve = &s.doubt}, [&] {
                      s.scene.row(1);
                      s.proxy.arm("COMMIT", Cut::reply);
                  });
              })) == "CommitUnknown unknown");
        CHECK(s.doubt.in_doubt());
        PostgresHandle handle{s.scene.server()};
        txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
        CHECK(name(s.doubt.resolve(fresh)) == "rolled_back");
        CHECK(s.scene.hooks == "");
        CHECK(s.scene.truth() == "");
    }
    SECTION("the second is not answered") {
        CHECK(without_cause(ending([&] {
                  s.scene.db.atomic({.resolve = &s.doubt}, [&] {
                      s.scene.row(1);
                      s.proxy.arm("PREPARE", Cut::reply);
                  });
              })) == "CommitUnknown unknown");
        CHECK(s.doubt.in_doubt());
        PostgresHandle handle{s.scene.server()};
        txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
        CHECK(name(s.doubt.resolve(fresh)) == "committed");
        CHECK(s.scene.hooks == "1");
        CHECK(s.scene.truth() == "1");
    }
}

TEMPLATE_LIST_TEST_CASE("libpq doubt: a block that is read-only by its session, role or itself needs no marker",
                        "[doubt][S44]", EveryWitness) {
    check_read_only_doubt<PostgresScene<TestType>>();
}

TEST_CASE("libpq doubt: what was written before the block became read-only is not committed without a marker",
          "[doubt][S46]") {
    check_written_before_read_only<PostgresScene<>>();
}

TEST_CASE("libpq doubt: the COMMIT of a read-only block without an answer is not in doubt: no marker was sent",
          "[doubt][S48]") {
    check_read_only_without_an_answer<PostgresScene<>>();
}

TEST_CASE("libpq doubt: a table that is UNLOGGED or temporary is no proof", "[doubt]") {
    check_table_that_is_not_kept<PostgresScene<>>([](auto& scene, auto& doubt) {
        PostgresHandle handle{scene.server()};
        txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
        return name(doubt.resolve(fresh));
    });
}

TEST_CASE("libpq doubt: a hook that is registered while COMMIT is on its way is not in doubt without a marker",
          "[doubt][S48]") {
    DoubtScene<PostgresScene<>> s;
    s.scene.run(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', repeat(''x'', 20000); "
        "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'; "
        "CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION tell()");
    PQsetNoticeProcessor(
        s.scene.handle,
        [](void* scene, const char* text) {
            if (std::string_view{text}.find("xxx") != std::string_view::npos)
                static_cast<PostgresScene<>*>(scene)->hook(1);
        },
        &s.scene);
    CHECK(without_cause(ending([&] { s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.insert(1); }); })) ==
          "CommitUnknown unknown");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 0);
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.truth() == "");
}

// ---- Hooks of every kind

namespace {

constexpr auto resolve_on_another = [](auto& s) {
    PostgresHandle handle{s.scene.server()};
    txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
    return name(s.doubt.resolve(fresh));
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq doubt: those unless committed run at once, those of the outcome when it is known",
                        "[doubt][S48][S69][S70][S71][S75][P05]", EveryWitness) {
    check_kinds_resolved<DoubtScene<PostgresScene<TestType>>>(resolve_on_another);
}

TEMPLATE_LIST_TEST_CASE("libpq doubt: a marker is written for a rollback hook alone, not for what does not wait",
                        "[doubt][S75][S77]", EveryWitness) {
    check_kinds_marked<DoubtScene<PostgresScene<TestType>>>(resolve_on_another);
}

TEST_CASE("libpq doubt: who gives up runs neither commit hooks nor rollback hooks", "[doubt][S75]") {
    check_kinds_given_up<DoubtScene<PostgresScene<>>>();
}

// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/ends_in_doubt.hpp"
#include "support/postgres_doubt.hpp"
#include "support/pqxx_scene.hpp"
#include "support/resolved.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include <pqxx/pqxx>

#include <string>

using namespace support;

TEST_CASE("libpqxx doubt: a COMMIT that is not answered is resolved on a fresh connection", "[doubt][S48][P05]") {
    const Cut how = GENERATE(Cut::request, Cut::reply, Cut::after, Cut::no_answer);
    CAPTURE(static_cast<int>(how));
    DoubtScene<PqxxScene> s;
    s.lose(how);

    PqxxScene::Db fresh{s.scene.server()};
    check_resolved(s, how, s.doubt.resolve(fresh), "true", "false");
}

TEST_CASE("libpqxx doubt: a connection that can be used again resolves its own", "[doubt]") {
    DoubtScene<PqxxScene> s;
    s.lose(Cut::reply);
    s.scene.reconnect();
    CHECK(name(s.doubt.resolve(s.scene.db)) == "committed");
    CHECK(s.scene.hooks == "1,2");
    CHECK(s.scene.goes_on());
}

TEST_CASE("libpqxx doubt: while the COMMIT may still come, resolve() waits for it, or throws", "[doubt]") {
    DoubtScene<PqxxScene> s;
    s.lose(Cut::request);
    run(s.others,
        std::string{"BEGIN; INSERT INTO txhooks_commit (id, committed) VALUES ('"} + s.doubt.marker() + "', true)");
    PqxxScene::Db fresh{s.scene.server()};
    pqxx::nontransaction{fresh}.exec("SET lock_timeout = '50ms'");
    CHECK(ending([&] { s.doubt.resolve(fresh); }) == "55P03");
    CHECK(s.doubt.in_doubt());
    run(s.others, "COMMIT");
    CHECK(name(s.doubt.resolve(fresh)) == "committed");
    CHECK(s.scene.hooks == "1,2");
}

TEST_CASE("libpqxx doubt: costs no round trip, and writes nothing where no hook waits", "[doubt]") {
    DoubtScene<PqxxScene> s;
    s.check_price();
}

TEST_CASE("libpqxx doubt: a block that was ended behind our back leaves no marker", "[doubt][S50]") {
    const std::string behind = GENERATE("ROLLBACK", "COMMIT", "ROLLBACK; BEGIN", "COMMIT AND CHAIN");
    const bool can_be_written = GENERATE(true, false);
    CAPTURE(behind, can_be_written);
    DoubtScene<PqxxScene> s;
    if (not can_be_written) run(s.others, "ALTER TABLE txhooks_commit ADD CHECK (not committed)");
    CHECK(ending([&] {
              s.scene.db.atomic({.resolve = &s.doubt}, [&] {
                  s.scene.row(1);
                  s.scene.run(behind);
              });
          }).rfind("TransactionLost", 0) == 0);
    CHECK(s.scene.hooks == "");
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.markers() == "");
    CHECK(s.scene.goes_on());
}

TEST_CASE("libpqxx doubt: without the marker's table nothing is committed, and the error names it", "[doubt]") {
    DoubtScene<PqxxScene> s;
    run(s.others, "DROP TABLE txhooks_commit");
    std::string said;
    try {
        s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); });
    } catch (const pqxx::sql_error& error) {
        said = error.what();
    }
    CHECK(said.find("txhooks_commit") != std::string::npos);
    CHECK(s.scene.truth() == "");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.goes_on());
}

TEST_CASE("libpqxx doubt: without a privilege on the marker's table nothing is committed", "[doubt][S46]") {
    DoubtScene<PqxxScene> s;
    run(s.others,
        "CREATE OR REPLACE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE insufficient_privilege; END $$; "
        "CREATE TRIGGER forbid BEFORE INSERT ON txhooks_commit FOR EACH ROW EXECUTE FUNCTION forbid()");
    CHECK_THROWS_AS(s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); }), pqxx::insufficient_privilege);
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.scene.truth() == "");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.goes_on());
}

TEST_CASE("libpqxx doubt: a block that is read-only by its session, role or itself needs no marker", "[doubt][S44]") {
    check_read_only_doubt<PqxxScene>();
}

TEST_CASE("libpqxx doubt: a COMMIT that fails as if it were read-only has rolled back", "[doubt][S46]") {
    DoubtScene<PqxxScene> s;
    run(s.others,
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE read_only_sql_transaction; END $$; CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON t "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fails()");
    CHECK(ending([&] { s.scene.db.atomic({.resolve = &s.doubt}, [&] { s.scene.row(1); }); }) == "25006");
    CHECK(s.scene.hooks == "");
    CHECK(s.scene.truth() == "");
    CHECK_FALSE(s.doubt.in_doubt());
    run(s.others, "DROP TRIGGER fails ON t");
    CHECK(s.scene.goes_on());
}

TEST_CASE("libpqxx doubt: the COMMIT of a read-only block without an answer is not in doubt: no marker was sent",
          "[doubt][S48]") {
    check_read_only_without_an_answer<PqxxScene>();
}

TEST_CASE("libpqxx doubt: a table that is UNLOGGED or temporary is no proof", "[doubt]") {
    check_table_that_is_not_kept<PqxxScene>([](auto& scene, auto& doubt) {
        PqxxScene::Db fresh{scene.server()};
        return name(doubt.resolve(fresh));
    });
}

// ---- Hooks of every kind

namespace {

constexpr auto resolve_on_another = [](auto& s) {
    PqxxScene::Db fresh{s.scene.server()};
    return name(s.doubt.resolve(fresh));
};

}  // namespace

TEST_CASE("libpqxx doubt: those unless committed run at once, those of the outcome when it is known",
          "[doubt][S48][S69][S70][S71][S75][P05]") {
    check_kinds_resolved<DoubtScene<PqxxScene>>(resolve_on_another);
}

TEST_CASE("libpqxx doubt: a marker is written for a rollback hook alone, not for what does not wait",
          "[doubt][S75][S77]") {
    check_kinds_marked<DoubtScene<PqxxScene>>(resolve_on_another);
}

TEST_CASE("libpqxx doubt: who gives up runs neither commit hooks nor rollback hooks", "[doubt][S75]") {
    check_kinds_given_up<DoubtScene<PqxxScene>>();
}

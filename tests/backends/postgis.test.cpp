// SPDX-License-Identifier: MIT

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>

#include <string>
#include <vector>

using namespace support;
using txhooks::Atomic;
using Lines = std::vector<std::string>;

TEMPLATE_LIST_TEST_CASE("postgis: the map is told of the point that was committed, not of the one rolled back",
                        "[S11][S26][postgis]", EveryWitness) {
    PostgresScene<TestType> scene;
    run(scene.others, "CREATE EXTENSION IF NOT EXISTS postgis SCHEMA public");
    scene.run(
        "CREATE TABLE place (name text PRIMARY KEY, at geometry(Point, 4326) NOT NULL);"
        "CREATE INDEX ON place USING gist (at)");

    Lines map;  // what the hooks have read, on a connection of their own
    const auto publish = [&](const std::string& name) {
        map.push_back(name + ' ' + run(scene.others, "SELECT ST_AsText(at) FROM place WHERE name = '" + name + "'"));
    };
    const auto put = [&](const std::string& name, const std::string& x, const std::string& y) {
        scene.run("INSERT INTO place VALUES ('" + name + "', ST_SetSRID(ST_MakePoint(" + x + ", " + y +
                  "), 4326)) ON CONFLICT (name) DO UPDATE SET at = excluded.at");
        scene.db.on_commit(publish, name);
    };
    const auto everything = [&] {
        return run(scene.others, "SELECT string_agg(name || ' ' || ST_AsText(at), ', ' ORDER BY name) FROM place");
    };

    scene.db.atomic([&] {
        put("Berlin", "13.4", "52.5");
        Atomic moved{scene.db};
        put("Berlin", "0", "0");
        put("Atlantis", "0", "0");
        moved.rollback();
        put("Bonn", "7.1", "50.7");
    });
    CHECK(map == Lines{"Berlin POINT(13.4 52.5)", "Bonn POINT(7.1 50.7)"});
    CHECK(everything() == "Berlin POINT(13.4 52.5), Bonn POINT(7.1 50.7)");

    map.clear();
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  put("Berlin", "1", "1");
                  put("Nowhere", "200", "'north'");
              });
          }).find("invalid input syntax") != std::string::npos);
    CHECK(scene.attempt("INSERT INTO place VALUES ('Line', ST_GeomFromText('LINESTRING(0 0, 1 1)', 4326))") == "22023");
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  put("Berlin", "2", "2");
                  scene.attempt("INSERT INTO place VALUES ('Line', ST_GeomFromText('LINESTRING(0 0, 1 1)', 4326))");
              });
          }) == "TransactionAborted rolled_back");
    CHECK(map.empty());
    CHECK(everything() == "Berlin POINT(13.4 52.5), Bonn POINT(7.1 50.7)");
    CHECK(run(scene.others, "SELECT name FROM place WHERE ST_DWithin(at, ST_SetSRID(ST_MakePoint(13, 52), 4326), 1)") ==
          "Berlin");
    CHECK(scene.goes_on());
}

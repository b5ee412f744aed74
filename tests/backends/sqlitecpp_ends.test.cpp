// SPDX-License-Identifier: MIT
//
// Hooks of every kind with SQLiteCpp: what differs from the C handle, which is its exceptions. The rest stands in
// sqlite3_ends.test.cpp.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/exceptions.hpp"
#include "support/scene.hpp"
#include "support/sqlite_database.hpp"

#include <txhooks/backends/sqlitecpp.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <string>
#include <tuple>

using namespace support;

namespace {

// A database of SQLiteCpp's that the hooked connection owns, with an empty table `t`.
template <class Adapter>
class CppScene : public RowsAndHooks<CppScene<Adapter>, txhooks::HookedConnection<SQLite::Database, Adapter>> {
public:
    using typename CppScene::RowsAndHooks::Db;
    using typename CppScene::RowsAndHooks::Tx;

    CppScene() {
        db.exec("CREATE TABLE t (n INTEGER PRIMARY KEY)");
        this->sink.listen_to(db);
    }

    DatabaseFile file;
    Db db{file.path(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};

    void insert(int n) { db.exec("INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() const { return support::truth(file); }
    bool idle() const { return sqlite3_get_autocommit(db.getHandle()) != 0; }
};

using Counting = txhooks::sqlite::Counting<SQLite::Database>;
using EveryAdapter = std::tuple<txhooks::BackendAdapter<SQLite::Database>, Counting>;

template <class Adapter>
constexpr bool counts = std::is_same_v<Adapter, Counting>;

}  // namespace

TEMPLATE_LIST_TEST_CASE("sqlitecpp ends: a conflict clause throws, and what the caller gets is that", "[S50][S68][S69]",
                        EveryAdapter) {
    CppScene<TestType> scene;
    Kinds<CppScene<TestType>> kinds{scene};
    CHECK(ending([&] {
              scene.db.atomic([&] {
                  kinds.row(1);
                  scene.db.exec("INSERT OR ROLLBACK INTO t VALUES (1)");
              });
          }) == "UNIQUE constraint failed: t.n");
    CHECK(kinds.ran() == (counts<TestType> ? "u1 r1" : "u1"));
    CHECK(scene.sink.lines() == Log{std::string{"txhooks: while rolling back a block: TransactionLost "} +
                                    (counts<TestType> ? "rolled_back" : "unknown")});
    CHECK(scene.truth().empty());
    kinds.check_promise();
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("sqlitecpp ends: what is written before COMMIT is committed with the rest", "[S61][S64]",
                        EveryAdapter) {
    check_rows_before_commit<CppScene<TestType>>();
}

TEMPLATE_LIST_TEST_CASE("sqlitecpp ends: a hook before COMMIT that throws rolls the block back", "[S62][S68][S69]",
                        EveryAdapter) {
    check_throw_before_commit<CppScene<TestType>>([](auto& scene, const std::string& sql) { scene.db.exec(sql); },
                                                  "UNIQUE constraint failed: t.n");
}

TEMPLATE_LIST_TEST_CASE("sqlitecpp ends: retry does a block again whose hook before COMMIT finds a file locked",
                        "[S62][S76][retry]", EveryAdapter) {
    CppScene<TestType> scene;
    const Handle other{scene.file.path("other.db")};
    run(other, "CREATE TABLE t (n); BEGIN IMMEDIATE");
    scene.db.exec("ATTACH '" + scene.file.path("other.db") + "' AS other");
    Kinds<CppScene<TestType>> kinds{scene};
    txhooks::RetryPolicy policy = noting(kinds);
    policy.before_retry = [&](unsigned, const std::exception_ptr& error) {
        kinds.note(name_of(error));
        run(other, "COMMIT");
    };
    int calls = 0;
    txhooks::retry(scene.db, policy, [&] {
        kinds.row(++calls);
        scene.db.before_commit([&] { scene.db.exec("INSERT INTO other.t VALUES (1)"); });
    });
    CHECK(kinds.ran() == "b1 u1 r1 database is locked b2 c2");
    CHECK(scene.truth() == "2");
    CHECK(values(other, "SELECT n FROM t") == "1");
    kinds.check_promise();
}

TEMPLATE_LIST_TEST_CASE("sqlitecpp ends: a busy COMMIT can be tried again, and only new hooks run before it",
                        "[S47][S65]", EveryAdapter) {
    CppScene<TestType> scene;
    const Handle other{scene.file.path()};
    Unfinished reader{other, "SELECT 1 UNION ALL SELECT count(*) FROM t"};
    Kinds<CppScene<TestType>> kinds{scene};
    typename CppScene<TestType>::Tx tx{scene.db};
    kinds.row(1);
    CHECK(ending([&] { return tx.commit(); }) == "database is locked");
    kinds.row(2);
    reader.finish();
    CHECK(ending([&] { return tx.commit(); }) == "committed");
    CHECK(kinds.ran() == "b1 b2 c1 c2");
    CHECK(scene.truth() == "1,2");
    kinds.check_promise();
    CHECK(scene.goes_on());
}

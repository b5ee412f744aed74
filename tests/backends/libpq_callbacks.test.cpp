// SPDX-License-Identifier: MIT

// libpq calls the notice processor from inside COMMIT. What that asks of the connection is done, refused in a sentence,
// or ends the program with one.

#include "support/catch.hpp"
#include "support/postgres_scene.hpp"
#include "support/trace.hpp"

#include <txhooks/backends/libpq.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

using namespace support;
using txhooks::HookedConnection;

namespace {

// A table whose rows send a notice when they are committed.
template <class Scene>
void notice_at_commit(Scene& scene) {
    scene.run(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''at COMMIT''; RETURN NULL; "
        "END'");
    scene.run(
        "CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION tell()");
}

// Calls `act` at the next notice.
class AtNotice {
public:
    AtNotice(PGconn* conn, std::function<void()> act) : conn_{conn}, act_{std::move(act)} {
        PQsetNoticeProcessor(
            conn,
            [](void* self, const char*) {
                AtNotice& at = *static_cast<AtNotice*>(self);
                if (not std::exchange(at.called, true)) at.act_();
            },
            this);
    }
    AtNotice(const AtNotice&) = delete;
    AtNotice& operator=(const AtNotice&) = delete;
    ~AtNotice() {
        PQsetNoticeProcessor(conn_, [](void*, const char*) {}, nullptr);
    }

    bool called = false;

private:
    PGconn* conn_;
    std::function<void()> act_;
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("libpq: a notice of COMMIT may register a hook, and everything else is refused", "[S28][S39]",
                        EveryWitness) {
    PostgresScene<TestType> scene;
    notice_at_commit(scene);
    Trace told;
    typename PostgresScene<TestType>::Tx tx{scene.db};
    scene.row(1);
    {
        const AtNotice notice{scene.handle, [&] {
                                  scene.hook(2);
                                  told.note(ending([&] { scene.db.atomic([](PGconn*) {}); }));
                                  told.note(ending([&] { tx.commit(); }));
                                  told.note(ending([&] { tx.rollback(); }));
                                  told.note(ending([&] { scene.db.set_rollback(true); }));
                                  told.note(ending([&] { scene.db.reset(); }));
                              }};
        CHECK(tx.commit() == txhooks::Outcome::committed);
        CHECK(notice.called);
    }
    CHECK(told.text() == "UsageError,UsageError,UsageError,UsageError,UsageError");
    CHECK(scene.hooks == "1,2");
    CHECK(scene.truth() == "1");
    CHECK(scene.sink.empty());
    CHECK(scene.goes_on());
}

TEMPLATE_LIST_TEST_CASE("libpq: a notice of COMMIT that destroys the guard or the connection ends the program", "[S57]",
                        EveryWitness) {
    using Db = HookedConnection<PGconn*, TestType>;
    for (const bool connection : {false, true}) {
        INFO((connection ? "the connection" : "the guard"));
        PostgresScene<TestType> scene;
        notice_at_commit(scene);
        const auto end = end_of_process([&] {
            const PostgresHandle handle{scene.server()};
            auto db = std::make_unique<Db>(static_cast<PGconn*>(handle));
            std::optional<txhooks::Atomic<Db>> tx;
            tx.emplace(*db);
            run(handle, "INSERT INTO t VALUES (1)");
            const AtNotice notice{handle, [&] {
                                      if (connection)
                                          db.reset();
                                      else
                                          tx.reset();
                                  }};
            tx->commit();
        });
        CHECK(end.terminated);
        CHECK(end.said ==
              "txhooks: a block, or its connection, was destroyed by code that the connection's own BEGIN, SAVEPOINT, "
              "COMMIT or ROLLBACK has called (a notice or trace callback?)\n");
    }
}

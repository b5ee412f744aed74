// SPDX-License-Identifier: MIT

// A store is found for every connection to its backend: owned, borrowed, derived from, with another adapter.

#include <txhooks/outbox/fake.hpp>
#include <txhooks/outbox/sqlite3.hpp>

#include "outbox/job_scene.hpp"
#include "support/catch.hpp"

#include <string>

using namespace txhooks;
using support::DatabaseFile;
using support::jobs;
using support::Mail;
using support::Report;
using testing::FakeBackend;

namespace {

template <class Db>
int adds_and_runs(Db& db) {
    JobTypes<Db> types;
    int ran = 0;
    types.template handle<Mail>([&](const Mail&) { ++ran; });
    types.template handle<Report>(in_transaction, [&](Db& same, const Report&) { ran += &same == &db ? 10 : 0; },
                                  {.in_worker = true});
    Outbox<Db> outbox{db, types};
    outbox.create_table();
    db.atomic([&] {
        outbox.add(Mail{1});
        outbox.add(Report{2});
    });
    CHECK(outbox.run_due() == 1);
    CHECK(outbox.list().empty());
    return ran;
}

// A class of the user's.
struct Derived : HookedConnection<FakeBackend> {
    using HookedConnection::HookedConnection;
};
struct Engine : FakeBackend {};

// An adapter of the user's.
struct Strict : BackendAdapter<FakeBackend> {
    using BackendAdapter::BackendAdapter;
};

}  // namespace

TEST_CASE("jobs: a store is found for every connection to its backend", "[outbox]") {
    SECTION("a handle") {
        const DatabaseFile file;
        const support::Handle handle{file.path()};
        HookedConnection<sqlite3*> db{handle.get()};
        CHECK(adds_and_runs(db) == 11);
    }
    SECTION("a handle, with another adapter") {
        const DatabaseFile file;
        const support::Handle handle{file.path()};
        HookedConnection<sqlite3*, sqlite::Counting<sqlite3*>> db{handle.get()};
        CHECK(adds_and_runs(db) == 11);
    }
    SECTION("owned") {
        HookedConnection<FakeBackend> db;
        CHECK(adds_and_runs(db) == 11);
    }
    SECTION("borrowed") {
        FakeBackend engine;
        HookedConnection<FakeBackend&> db{engine};
        CHECK(adds_and_runs(db) == 11);
    }
    SECTION("derived from the connection") {
        Derived db;
        CHECK(adds_and_runs(db) == 11);
    }
    SECTION("derived from the backend") {
        HookedConnection<Engine> db;
        CHECK(adds_and_runs(db) == 11);
    }
    SECTION("another adapter") {
        HookedConnection<FakeBackend, Strict> db;
        CHECK(adds_and_runs(db) == 11);
    }
}

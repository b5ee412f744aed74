// SPDX-License-Identifier: MIT

#include <txhooks/hooked_connection.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

using namespace txhooks;
using support::AtDestruction;
using support::end_of_process;
using support::Log;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

// A C interface.
struct Engine {
    Log log;
};
using Handle = Engine*;

// A connection class that says what was done and when it died.
class Movable {
public:
    explicit Movable(Trace& trace, std::string name = "movable") : trace_{&trace}, name_{std::move(name)} {}
    Movable(Movable&& other) noexcept : trace_{std::exchange(other.trace_, nullptr)}, name_{std::move(other.name_)} {}
    ~Movable() {
        if (trace_ != nullptr) trace_->note(name_ + " closed");
    }

    void begin() { trace_->note("BEGIN"); }
    CommitResult commit() noexcept {
        trace_->note("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { trace_->note("ROLLBACK"); }
    void sql(const std::string& text) { trace_->note(text); }

private:
    Trace* trace_;
    std::string name_;
};

class Final final {
public:
    explicit Final(Trace& trace) : trace_{trace} {}
    Final(const Final&) = delete;
    void begin() { trace_.note("BEGIN"); }
    CommitResult commit() noexcept {
        trace_.note("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { trace_.note("ROLLBACK"); }

private:
    Trace& trace_;
};

// A connection whose own members have the names that txhooks might want for its own.
class Clashing {
public:
    Log log;

    void begin() { log.emplace_back("BEGIN"); }
    CommitResult commit() noexcept {
        log.emplace_back("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { log.emplace_back("ROLLBACK"); }

    void run(int) { log.emplace_back("run"); }
    void open(const char*) { log.emplace_back("open"); }
    void reset(int) { log.emplace_back("reset"); }
    void hooks() { log.emplace_back("hooks"); }
    void close() { log.emplace_back("close"); }
    int core = 1;
    int adapter_ = 2;
    int current_ = 3;
    int phase_ = 4;
    int backend_ = 5;
    struct Core {};
    struct Holder {};
    struct Blocks {};
};

}  // namespace

template <>
class txhooks::BackendAdapter<Handle> {
public:
    explicit BackendAdapter(Handle handle) : engine_{handle} {}
    void begin() { engine_->log.emplace_back("BEGIN"); }
    CommitResult commit() noexcept {
        engine_->log.emplace_back("COMMIT");
        return {Outcome::committed};
    }
    void rollback() { engine_->log.emplace_back("ROLLBACK"); }

private:
    Handle engine_;
};

TEST_CASE("HookedConnection<Backend>: is a backend, constructed as one", "[S53]") {
    static_assert(std::is_base_of_v<FakeBackend, HookedConnection<FakeBackend>>);
    Trace trace;
    {
        HookedConnection<Movable> db{trace, "own"};
        const auto takes_a_backend = [](Movable& backend) { backend.sql("SELECT 1"); };
        takes_a_backend(db);
        db.sql("SELECT 2");
        db.backend().sql("SELECT 3");
        db.atomic([&] { db.on_commit(trace.hook("hook")); });
        CHECK(&db.backend() == &static_cast<Movable&>(db));
    }
    CHECK(trace.text() == "SELECT 1,SELECT 2,SELECT 3,BEGIN,COMMIT,hook,own closed");
}

TEST_CASE("HookedConnection<Backend>: takes an open connection over", "[S53]") {
    Trace trace;
    {
        Movable open{trace, "taken"};
        HookedConnection<Movable> db{std::move(open)};
        db.atomic([&] { db.on_commit(trace.hook("hook")); });
    }
    CHECK(trace.text() == "BEGIN,COMMIT,hook,taken closed");
}

TEST_CASE("HookedConnection<Backend&>: borrows, and so does HookedConnection db{existing}", "[S53]") {
    Trace trace;
    Final existing{trace};
    {
        HookedConnection<Final&> db{existing};
        CHECK(&db.backend() == &existing);
        db.atomic([&] { db.on_commit(trace.hook("1")); });
    }
    {
        HookedConnection db{existing};
        static_assert(std::is_same_v<decltype(db), HookedConnection<Final&>>);
        static_assert(std::is_same_v<decltype(db.backend()), Final&>);
        db.atomic([&] { db.on_commit(trace.hook("2")); });
    }
    CHECK(trace.text() == "BEGIN,COMMIT,1,BEGIN,COMMIT,2");
}

TEST_CASE("HookedConnection<Backend&>: takes what cannot be copied nor moved", "[S53]") {
    static_assert(not std::is_move_constructible_v<FakeBackend>);
    FakeBackend existing;
    HookedConnection db{existing};
    Trace ran;
    db.atomic([&](FakeBackend& sql) {
        sql.put("row");
        db.on_commit(ran.hook("1"));
    });
    CHECK(ran.text() == "1");
    CHECK(existing.log() == Log{"BEGIN", "INSERT row", "COMMIT"});
}

TEST_CASE("HookedConnection<Handle*>: wraps a C handle, and so does HookedConnection db{handle}", "[S53]") {
    Engine engine;
    Trace ran;
    {
        HookedConnection<Engine*> db{&engine};
        CHECK(db.backend() == &engine);
        db.atomic([&](Engine* handle) {
            handle->log.emplace_back("INSERT");
            db.on_commit(ran.hook("1"));
        });
    }
    {
        Engine* handle = &engine;
        HookedConnection db{handle};
        static_assert(std::is_same_v<decltype(db), HookedConnection<Engine*>>);
        CHECK_THROWS_AS(db.atomic([] { throw Oops{}; }), Oops);
    }
    CHECK(ran.text() == "1");
    CHECK(engine.log == Log{"BEGIN", "INSERT", "COMMIT", "BEGIN", "ROLLBACK"});
}

TEST_CASE("HookedConnection<Handle*>: refuses a null handle", "[S53]") {
    CHECK_THROWS_AS(HookedConnection<Engine*>{nullptr}, UsageError);
}

TEST_CASE("HookedConnection: can be neither copied nor moved", "[S53]") {
    const auto check = []<class Db>(std::type_identity<Db>) {
        static_assert(not std::is_copy_constructible_v<Db>);
        static_assert(not std::is_move_constructible_v<Db>);
        static_assert(not std::is_copy_assignable_v<Db>);
        static_assert(not std::is_move_assignable_v<Db>);
    };
    check(std::type_identity<HookedConnection<Movable>>{});
    check(std::type_identity<HookedConnection<Movable&>>{});
    check(std::type_identity<HookedConnection<Engine*>>{});
    static_assert(std::is_default_constructible_v<HookedConnection<FakeBackend>>);
    static_assert(not std::is_default_constructible_v<HookedConnection<Movable>>);
}

TEST_CASE("HookedConnection: names of its inside do not clash with those of the backend", "[S53]") {
    HookedConnection<Clashing> db;
    Trace ran;
    db.run(1);
    db.open("file");
    db.hooks();
    db.close();
    db.backend().reset(1);
    Atomic tx{db};
    db.on_commit(ran.hook("1"));
    tx.commit();
    db.reset();
    CHECK(db.core + db.adapter_ + db.current_ + db.phase_ + db.backend_ == 15);
    CHECK(ran.text() == "1");
    CHECK(db.log == Log{"run", "open", "hooks", "close", "reset", "BEGIN", "COMMIT"});
}

TEST_CASE("HookedConnection: a class derived from a hooked one works like it", "[S53][S54]") {
    struct Database : HookedConnection<FakeBackend> {
        void add(const std::string& key) { put(key); }
    };
    Database db;
    Trace ran;
    {
        Atomic tx{db};
        db.add("1");
        db.on_commit(ran.hook("1"));
        tx.commit();
    }
    db.atomic([&] { db.on_commit(ran.hook("2")); });
    Connection& any = db;
    any.on_commit(ran.hook("3"));
    CHECK(ran.text() == "1,2,3");
}

// ---- Lifetime

TEST_CASE("HookedConnection: destroyed with open blocks rolls back, discards, ends the guards and reports", "[S57]") {
    FakeBackend backend;
    using Db = HookedConnection<FakeBackend&>;
    std::optional<Db> db{std::in_place, backend};
    Sink sink{*db};
    Trace ran;
    Atomic tx{*db};
    backend.put("row");
    db->on_commit(ran.probe("1"));
    Atomic inner{*db};
    db->on_commit(ran.probe("2"));
    Atomic joined{*db, {.join = true}};
    db.reset();
    CHECK(ran.text() == "~1,~2");
    CHECK(backend.log() == Log{"BEGIN", "INSERT row", "SAVEPOINT txhooks_1", "ROLLBACK"});
    CHECK(sink.text() == "none");
    CHECK(sink.sentences().at(0).find("destroyed with an atomic block open") != std::string::npos);
    CHECK_FALSE((tx.active() or inner.active() or joined.active()));
    CHECK_THROWS_AS(tx.commit(), UsageError);
    joined.rollback();
    CHECK(backend.log().size() == 4);
}

TEST_CASE("HookedConnection: owning its backend, rolls back before the backend dies", "[S57][S59]") {
    Trace trace;
    std::optional<HookedConnection<Movable>> db{std::in_place, trace};
    Sink sink{*db};
    Atomic tx{*db};
    db->on_commit(trace.probe("1"));
    db.reset();
    CHECK(trace.text() == "BEGIN,ROLLBACK,~1,movable closed");
    CHECK_FALSE(tx.active());
}

TEST_CASE("HookedConnection: destroyed with a block open, a rollback that fails goes to the sink", "[S57]") {
    FakeBackend backend;
    std::optional<HookedConnection<FakeBackend&>> db{std::in_place, backend};
    Sink sink{*db};
    Trace ran;
    Atomic tx{*db};
    db->on_commit(ran.probe("1"));
    backend.faults.fail(Verb::rollback, When::before_effect, Oops{});
    db.reset();
    CHECK(sink.text() == "none,oops");
    CHECK(ran.text() == "~1");
    CHECK_FALSE(tx.active());
}

TEST_CASE("HookedConnection: destructors of captures may still use a connection that is being destroyed",
          "[S57][S27]") {
    FakeBackend backend;
    std::optional<HookedConnection<FakeBackend&>> db{std::in_place, backend};
    auto& connection = *db;
    Sink sink{connection};
    Trace ran;
    Atomic tx{connection};
    connection.on_commit(AtDestruction{[&] {
        connection.atomic([&] {
            backend.put("row");
            connection.on_commit(ran.hook("1"));
        });
    }});
    db.reset();
    CHECK(ran.text() == "1");
    CHECK(backend.log() == Log{"BEGIN", "ROLLBACK", "BEGIN", "INSERT row", "COMMIT"});
}

TEST_CASE("HookedConnection: destroyed by one of its hooks, terminates with a message", "[S57][posix]") {
    const auto end = end_of_process([] {
        std::optional<HookedConnection<FakeBackend>> db{std::in_place};
        db->atomic([&] { db->on_commit([&] { db.reset(); }); });
    });
    CHECK(end.terminated);
    CHECK(end.said == "txhooks: a connection was destroyed while its hooks are being called\n");
}

TEST_CASE("HookedConnection: destroyed while it discards hooks, terminates with a message", "[S57][posix]") {
    const auto rolled_back = end_of_process([] {
        std::optional<HookedConnection<FakeBackend>> db{std::in_place};
        Atomic tx{*db};
        db->on_commit(AtDestruction{[&] { db.reset(); }});
        tx.rollback();
    });
    CHECK(rolled_back.terminated);
    CHECK(rolled_back.said == "txhooks: a connection was destroyed while its hooks are being called\n");
    const auto nested = end_of_process([] {
        std::optional<HookedConnection<FakeBackend>> db{std::in_place};
        Atomic tx{*db};
        Atomic inner{*db};
        db->on_commit(AtDestruction{[&] { db.reset(); }});
        inner.rollback();
    });
    CHECK(nested.terminated);
    CHECK(nested.said == "txhooks: a connection was destroyed while its hooks are being called\n");
}

TEST_CASE("HookedConnection: destroyed while it discards the hooks of a detached block, terminates too",
          "[S57][S60][posix]") {
    const auto rolled_back = end_of_process([] {
        DetachedHooks after;
        std::optional<HookedConnection<FakeBackend>> db{std::in_place};
        Atomic tx{*db, {.detach = &after}};
        db->on_commit(AtDestruction{[&] { db.reset(); }});
        tx.rollback();
    });
    CHECK(rolled_back.terminated);
    const auto nested = end_of_process([] {
        DetachedHooks after;
        std::optional<HookedConnection<FakeBackend>> db{std::in_place};
        Atomic tx{*db, {.detach = &after}};
        Atomic inner{*db};
        db->on_commit(AtDestruction{[&] { db.reset(); }});
        inner.rollback();
    });
    CHECK(nested.terminated);
}

namespace {

// Remembers something, and says when it is gone.
struct Remembering : BackendAdapter<Movable> {
    Movable* backend;
    explicit Remembering(Movable& movable) : BackendAdapter<Movable>{movable}, backend{&movable} {}
    Remembering(const Remembering&) = delete;
    ~Remembering() { backend->sql("forgotten"); }
};

}  // namespace

TEST_CASE("HookedConnection: what the adapter remembers dies before the backend it owns", "[S59]") {
    Trace trace;
    { HookedConnection<Movable, Remembering> db{trace}; }
    CHECK(trace.text() == "forgotten,movable closed");
    trace.clear();
    {
        Movable existing{trace, "existing"};
        { HookedConnection<Movable&, Remembering> db{existing}; }
        CHECK(trace.text() == "forgotten");
    }
    CHECK(trace.text() == "forgotten,existing closed");
}

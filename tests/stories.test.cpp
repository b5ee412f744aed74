// SPDX-License-Identifier: MIT

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/story.hpp"
#include "support/trace.hpp"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

// The behaviours that Django's own test suite asks of on_commit, under its names, and the traces of RULES.md.

using namespace txhooks;
using support::Log;
using support::Oops;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;

namespace {

using Db = HookedConnection<FakeBackend>;

// Each thing that is done is a row, and a hook that notes its number.
struct Scene {
    Db db;
    Sink sink{db};
    Trace notified;

    void act(int n) {
        db.put(std::to_string(n));
        db.on_commit(notified.hook(std::to_string(n)));
    }

    // The rows that a second connection sees.
    std::string rows() const {
        Log rows;
        for (int n = 0; n != 20; ++n)
            if (db.committed(std::to_string(n))) rows.push_back(std::to_string(n));
        return support::join(rows);
    }

    // What was done is visible, nothing else was notified, and the connection is idle.
    void expect_done(const std::string& numbers) const {
        CHECK(notified.text() == numbers);
        CHECK(rows() == numbers);
        CHECK(db.usable());
    }
};

// Sees to it that no hook runs in a block.
struct Player : support::Player<Db> {
    template <class Hook>
    void on_commit(Hook hook) {
        db.on_commit([this, hook] {
            CHECK_FALSE(db.in_atomic_block());
            hook();
        });
    }
};

// A trace, and the rows and hooks of it that are there in the end: "B{+1 try[S{+2 !}]} => 1". `told` is what each try[...]
// swallowed, and last what left the whole.
void tell(std::string_view trace, const Log& told = {"returned"}) {
    const std::size_t arrow = trace.find(" => ");
    const support::Story story{std::string{trace.substr(0, arrow)}.c_str()};
    std::string done;
    for (const char sign : trace.substr(arrow + 4))
        if (sign != ',') done += sign;
    for (const bool functions : {false, true}) {
        CAPTURE(trace, functions);
        Scene scene;
        Player player{{scene.db, functions, [&](char key) { scene.db.put({key}); }}};
        const support::History history = support::play(player, story);
        std::string rows;
        for (const char key : story.keys())
            if (scene.db.committed({key})) rows += key;
        CHECK(history.told == told);
        CHECK(history.ran == done);
        CHECK(rows == done);
        CHECK(scene.db.usable());
        CHECK(scene.sink.empty());
    }
}

}  // namespace

TEST_CASE("story: executes immediately when there is no transaction", "[S1]") {
    Scene s;
    s.act(1);
    CHECK(s.notified.text() == "1");
    s.expect_done("1");
    CHECK(s.db.log() == Log{"INSERT 1"});
}

TEST_CASE("story: delays execution until after the commit", "[S2][S11]") {
    tell("B{+1} => 1");
}

TEST_CASE("story: does not execute when the transaction is rolled back", "[S25]") {
    tell("B{+1 !} => ", {"oops"});
}

TEST_CASE("story: executes only after the final commit", "[S11]") {
    tell("B{S{+1}} => 1");
}

TEST_CASE("story: discards the hooks of a rolled back savepoint", "[S26]") {
    tell("B{S{+1} try[S{+2 !}] S{+3}} => 1,3", {"oops", "returned"});
}

TEST_CASE("story: no hooks run from a failed transaction", "[S25][S28]") {
    tell("try[B{S{+1} !}] => ", {"oops", "returned"});
    tell("try[B{S{+1} !}] B{+2} => 2", {"oops", "returned"});
}

TEST_CASE("story: an inner savepoint is rolled back with the outer", "[S26]") {
    tell("B{try[S{S{+1} !}] +2} => 2", {"oops", "returned"});
}

TEST_CASE("story: a joined block is merged with the outer", "[S34]") {
    tell("B{try[S{+1 try[J{+2 !}] +3 !}] +4} => 4", {"oops", "oops", "returned"});
}

TEST_CASE("story: an inner savepoint does not affect the outer", "[S26]") {
    tell("B{S{+1 try[S{!}]}} => 1", {"oops", "returned"});
}

TEST_CASE("story: runs hooks in the order registered", "[S12]") {
    tell("B{+1 S{+2} +3} => 1,2,3");
}

TEST_CASE("story: hooks are cleared after a successful commit", "[S14][S28]") {
    tell("B{+1} B{+2} => 1,2");
}

TEST_CASE("story: hooks are cleared after a rollback", "[S28]") {
    tell("try[B{+1 !}] B{+2} => 2", {"oops", "returned"});
}

TEST_CASE("story: hooks are cleared on reconnect", "[S28][S50]") {
    Scene s;
    const auto lost = thrown_by<TransactionLost>([&] {
        s.db.atomic([&] {
            s.act(1);
            s.db.reconnect();
        });
    });
    CHECK(lost.outcome() == Outcome::rolled_back);
    s.db.atomic([&] { s.act(2); });
    s.expect_done("2");
}

TEST_CASE("story: an error in a hook does not prevent clearing", "[S19][S23]") {
    Scene s;
    CHECK_THROWS_AS(s.db.atomic([&] {
        s.db.on_commit([] { throw Oops{}; });
        s.db.on_commit(s.notified.hook("never"));
    }),
                    HookError);
    s.db.atomic([&] { s.act(1); });
    s.expect_done("1");
}

TEST_CASE("story: a hook may query", "[S13]") {
    Scene s;
    s.db.atomic([&] {
        s.act(1);
        s.db.on_commit([&] { s.notified.note(s.db.get("1") ? "found" : "missing"); });
    });
    CHECK(s.notified.text() == "1,found");
}

TEST_CASE("story: a transaction in a hook", "[S13]") {
    Scene s;
    s.db.on_commit([&] { s.db.atomic([&] { s.act(1); }); });
    s.db.atomic([&] { s.db.on_commit([&] { s.db.atomic({.durable = true}, [&] { s.act(2); }); }); });
    s.expect_done("1,2");
    CHECK(s.db.log() == Log{"BEGIN", "INSERT 1", "COMMIT", "BEGIN", "COMMIT", "BEGIN", "INSERT 2", "COMMIT"});
}

TEST_CASE("story: a hook in a hook", "[S15]") {
    Scene s;
    s.db.atomic([&] {
        s.db.on_commit([&] {
            s.act(1);
            s.notified.note("parent");
        });
        s.db.on_commit(s.notified.hook("sibling"));
    });
    CHECK(s.notified.text() == "1,parent,sibling");
    CHECK(s.rows() == "1");
}

TEST_CASE("story: a robust hook outside a transaction", "[S21][S22]") {
    Scene s;
    s.db.on_commit(robust, [] { throw Oops{}; });
    CHECK(s.sink.text() == "oops");
    s.act(1);
    s.expect_done("1");
}

TEST_CASE("story: a robust hook in a transaction", "[S21][S22]") {
    Scene s;
    s.db.atomic([&] {
        s.db.on_commit(robust, [] { throw Oops{}; });
        s.act(1);
    });
    CHECK(s.sink.text() == "oops");
    s.expect_done("1");
}

TEST_CASE("story: refuses to register in a transaction that was not begun here", "[S8]") {
    Scene s;
    s.db.execute("BEGIN");
    CHECK_THROWS_AS(s.db.on_commit(s.notified.hook("1")), UsageError);
    s.db.execute("COMMIT");
    s.expect_done("");
}

TEST_CASE("story: refuses what cannot be called", "[S4]") {
    Scene s;
    const std::function<void()> empty;
    void (*const null)() = nullptr;
    CHECK_THROWS_AS(s.db.on_commit(empty), UsageError);
    CHECK_THROWS_AS(s.db.on_commit(null), UsageError);
    s.db.atomic([&] {
        s.act(1);
        CHECK_THROWS_AS(s.db.on_commit(empty), UsageError);
        CHECK_THROWS_AS(s.db.on_commit(null), UsageError);
        CHECK(s.db.pending_hooks() == 1);
    });
    s.expect_done("1");
}

TEST_CASE("trace: B{+1} => 1", "[S2]") {
    tell("B{+1} => 1");
}

TEST_CASE("trace: B{S{+1} (nothing ran yet)} => 1", "[S11]") {
    tell("B{S{+1}} => 1");
}

TEST_CASE("trace: B{+1 S{+2} +3} => 1,2,3", "[S12]") {
    tell("B{+1 S{+2} +3} => 1,2,3");
}

TEST_CASE("trace: B{+h1 +h2}, each B{+(i+10)} => 1,11,2,12", "[S16]") {
    Scene s;
    const auto hook = [&s](int i) {
        s.db.put(std::to_string(i));
        s.notified.note(std::to_string(i));
        s.db.atomic([&] { s.act(i + 10); });
    };
    s.db.atomic([&] {
        s.db.on_commit(hook, 1);
        s.db.on_commit(hook, 2);
    });
    CHECK(s.notified.text() == "1,11,2,12");
    CHECK(s.rows() == "1,2,11,12");
}

TEST_CASE("trace: B{S{+1} try[S{+2 !}] S{+3}} => 1,3", "[S26]") {
    tell("B{S{+1} try[S{+2 !}] S{+3}} => 1,3", {"oops", "returned"});
}

TEST_CASE("trace: B{try[S{S{+1} !}] +2} => 2", "[S26]") {
    tell("B{try[S{S{+1} !}] +2} => 2", {"oops", "returned"});
}

TEST_CASE("trace: B{S{+1 try[S{!}]}} => 1", "[S26]") {
    tell("B{S{+1 try[S{!}]}} => 1", {"oops", "returned"});
}

TEST_CASE("trace: B{+1 try[S{+2 try[J{+3 !}] +4}] +5} => 1,5", "[S34]") {
    tell("B{+1 try[S{+2 try[J{+3 !}] +4}] +5} => 1,5", {"oops", "TransactionAborted rolled_back", "returned"});
    Scene s;
    s.db.atomic([&] {
        const auto aborted = thrown_by<TransactionAborted>(
            [&] { s.db.atomic([&] { CHECK_THROWS_AS(s.db.atomic({.join = true}, [] { throw Oops{}; }), Oops); }); });
        CHECK(support::name_of(aborted.cause()) == "oops");
    });
}

TEST_CASE("trace: B{S{+1 try[J{!}]}} => none of S's", "[S34]") {
    tell("B{S{+1 try[J{!}]}} => ", {"oops", "TransactionAborted rolled_back"});
}

// SPDX-License-Identifier: MIT
#pragma once

// A COMMIT that nobody answers, of a block with hooks of every kind, resolved later: for any DoubtScene.

#include "support/catch.hpp"
#include "support/ends.hpp"
#include "support/exceptions.hpp"
#include "support/tcp_proxy.hpp"
#include "support/trace.hpp"

#include <txhooks/doubt.hpp>

#include <optional>
#include <string>

namespace support {

/// A block with `.resolve` that does `work`, and whose COMMIT meets `how`. Returns what the caller is told.
template <class DoubtScene, class Work>
std::string commit_unanswered(DoubtScene& s, txhooks::Doubt& doubt, Cut how, Work work) {
    if constexpr (requires { s.write_first_marker(); }) s.write_first_marker();
    const std::string told = ending([&] {
        s.scene.db.atomic({.resolve = &doubt}, [&] {
            work();
            s.proxy.arm("COMMIT", how);
        });
    });
    s.proxy.close_all();
    return without_cause(told);
}

/// `resolve(s)` asks on a fresh connection, and returns the name of the outcome.
template <class DoubtScene, class Resolve>
void check_kinds_resolved(Resolve resolve) {
    const Cut how = GENERATE(Cut::request, Cut::reply);
    const bool arrived = how == Cut::reply;
    CAPTURE(arrived);
    DoubtScene s;
    Kinds kinds{s.scene};
    CHECK(commit_unanswered(s, s.doubt, how, [&] {
              kinds.row(1);
              s.scene.db.on_rollback([] { throw Oops{}; });
              s.scene.db.atomic([&] { kinds.row(2); });
          }) == "CommitUnknown unknown");
    CHECK(kinds.ran() == "b1 b2 u2 u1");
    CHECK(s.doubt.in_doubt());
    CHECK(s.doubt.size() == 2);
    CHECK(s.scene.sink.empty());

    CHECK(resolve(s) == (arrived ? "committed" : "rolled_back"));
    CHECK(s.scene.truth() == (arrived ? "1,2" : ""));
    CHECK(kinds.ran() == (arrived ? "b1 b2 u2 u1 c1 c2" : "b1 b2 u2 u1 r2 r1"));
    CHECK(s.scene.sink.text() == (arrived ? "" : "oops"));
    CHECK_FALSE(s.doubt.in_doubt());
}

/// A marker is written if something waits for the outcome.
template <class DoubtScene, class Resolve>
void check_kinds_marked(Resolve resolve) {
    const bool rollback_hook = GENERATE(true, false);
    CAPTURE(rollback_hook);
    DoubtScene s;
    Kinds kinds{s.scene};
    const auto work = [&] {
        s.scene.db.before_commit(kinds.hook("b"));
        s.scene.db.unless_committed(kinds.hook("u"));
        if (rollback_hook) s.scene.db.on_rollback(kinds.hook("r"));
    };
    s.scene.db.atomic({.resolve = &s.doubt}, work);
    CHECK(kinds.ran() == "b");
    CHECK((s.markers() != "") == rollback_hook);

    const Cut how = GENERATE(Cut::request, Cut::reply);
    CHECK(commit_unanswered(s, s.doubt, how, work) == "CommitUnknown unknown");
    CHECK(kinds.ran() == "b b u");
    CHECK(s.doubt.in_doubt() == rollback_hook);
    CHECK(s.doubt.size() == 0);
    if (not rollback_hook) return;
    CHECK(resolve(s) == (how == Cut::reply ? "committed" : "rolled_back"));
    CHECK(kinds.ran() == (how == Cut::reply ? "b b u" : "b b u r"));
}

/// Who gives up runs none of those that wait.
template <class DoubtScene>
void check_kinds_given_up() {
    const bool discards = GENERATE(true, false);
    CAPTURE(discards);
    DoubtScene s;
    Kinds kinds{s.scene};
    {
        std::optional<txhooks::Doubt> doubt{std::in_place};
        CHECK(commit_unanswered(s, *doubt, Cut::reply, [&] { kinds.row(1); }) == "CommitUnknown unknown");
        CHECK(doubt->in_doubt());
        if (discards) doubt->discard();
    }
    CHECK(kinds.ran() == "b1 u1");
    CHECK(s.scene.sink.lines().size() == (discards ? 0 : 1));
}

}  // namespace support

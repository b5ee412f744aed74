// SPDX-License-Identifier: MIT
#pragma once

// How blocks with hooks of every kind end on a real engine: which hooks ran, what the caller was told, what is true.

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/trace.hpp"

#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace support {

/// Hooks of every kind for the rows of a scene, and those that ran: of row 1 "b1" before the commit, "c1" after it, "r1"
/// after a rollback, "u1" unless committed.
template <class Scene>
class Kinds {
public:
    explicit Kinds(Scene& scene) : scene_{scene} {}

    void hooks(int n) {
        const std::string id = std::to_string(n);
        scene_.db.before_commit(trace_.hook("b" + id));
        scene_.db.on_commit(trace_.hook("c" + id));
        scene_.db.on_rollback(trace_.hook("r" + id));
        scene_.db.unless_committed(trace_.hook("u" + id));
        registered_.push_back(id);
    }
    void row(int n) {
        hooks(n);
        scene_.insert(n);
    }
    void note(const std::string& what) { trace_.note(what); }
    auto hook(const std::string& what) { return trace_.hook(what); }

    /// All of them, in order: "b1 c1".
    std::string ran() const { return words(trace_.text()); }

    /// What is true of every row whose block has ended, however it has: either its commit hook ran, and it is there, or
    /// that of `unless_committed`; its rollback hook at most with the latter, and then it is not there; each once.
    void check_promise() {
        const Log there = split(scene_.truth());
        const Log ran = split(trace_.text());
        const auto times = [&](const std::string& one) { return std::count(ran.begin(), ran.end(), one); };
        for (const std::string& id : registered_) {
            CAPTURE(id, trace_.text(), scene_.truth());
            const bool visible = std::count(there.begin(), there.end(), id) != 0;
            const bool committed = times("c" + id) == 1;
            const bool undone = times("r" + id) == 1;
            CHECK(times("c" + id) + times("u" + id) == 1);
            CHECK(times("r" + id) <= times("u" + id));
            CHECK(times("b" + id) <= 1);
            if (committed) CHECK(times("b" + id) == 1);
            if (committed) CHECK(visible);
            if (undone) CHECK_FALSE(visible);
        }
    }

private:
    static Log split(const std::string& list) {
        Log parts;
        std::istringstream in{list};
        for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
        return parts;
    }
    static std::string words(std::string list) {
        std::replace(list.begin(), list.end(), ',', ' ');
        return list;
    }

    Scene& scene_;
    Trace trace_;
    Log registered_;
};

/// One way for a block with row 1 to end.
template <class Scene>
struct End {
    std::string name;
    std::function<void(Scene&)> act;  // in the block
    std::string told;                 // what its end says, without the cause
    std::string ran;
    std::string truth;
};

/// Plays `end` in a block of the function form.
template <class Scene>
void check_end(Scene& scene, const End<Scene>& end) {
    CAPTURE(end.name);
    Kinds<Scene> kinds{scene};
    CHECK(without_cause(ending([&] {
              scene.db.atomic(scene.options, [&] {
                  kinds.row(1);
                  end.act(scene);
              });
          })) == end.told);
    CHECK(kinds.ran() == end.ran);
    CHECK(scene.truth() == end.truth);
    kinds.check_promise();
    if (scene.db.usable()) CHECK(scene.sink.empty());
    scene.sink.clear();
}

/// Plays `loss` and destroys the guard: as nobody commits, no hook runs before that.
template <class Scene>
void check_destroyed(Scene& scene, const End<Scene>& loss) {
    CAPTURE(loss.name);
    Kinds<Scene> kinds{scene};
    {
        typename Scene::Tx tx{scene.db, scene.options};
        kinds.row(1);
        loss.act(scene);
    }
    const std::string before = "b1 ";
    CHECK(kinds.ran() == (loss.ran.rfind(before, 0) == 0 ? loss.ran.substr(before.size()) : loss.ran));
    CHECK(scene.truth() == loss.truth);
    kinds.check_promise();
    Log told;
    for (const std::string& line : scene.sink.lines()) told.push_back(without_cause(line));
    CHECK(std::count(told.begin(), told.end(), "txhooks: while rolling back a block: " + loss.told) == 1);
    scene.sink.clear();
}

// ---- What every engine does alike. `execute(scene, sql)` throws the error of a statement

/// Tries again at once, and notes when.
template <class Scene>
txhooks::RetryPolicy noting(Kinds<Scene>& kinds) {
    return {
        .before_retry = [&kinds](unsigned, const std::exception_ptr&) { kinds.note("again"); },
        .sleep = [](std::chrono::nanoseconds) {},
    };
}

template <class Scene>
void check_savepoint_rolled_back() {
    Scene scene;
    Kinds<Scene> kinds{scene};
    {
        typename Scene::Tx tx{scene.db, scene.options};
        kinds.row(1);
        {
            typename Scene::Tx inner{scene.db};
            scene.db.on_rollback([&] { kinds.row(4); });
            kinds.row(2);
            scene.db.atomic([&] { kinds.row(3); });
            CHECK(kinds.ran().empty());
            inner.rollback();
        }
        CHECK(kinds.ran() == "u3 r3 u2 r2");
        CHECK(ending([&] { return tx.commit(); }) == "committed");
    }
    CHECK(kinds.ran() == "u3 r3 u2 r2 b1 b4 c1 c4");
    CHECK(scene.truth() == "1,4");
    kinds.check_promise();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

template <class Scene>
void check_rows_before_commit() {
    Scene scene;
    Kinds<Scene> kinds{scene};
    scene.db.atomic(scene.options, [&] {
        kinds.row(1);
        scene.db.before_commit([&] {
            kinds.row(2);
            scene.db.atomic([&] { kinds.row(3); });
            {
                typename Scene::Tx inner{scene.db};
                kinds.row(4);
                inner.rollback();
            }
            scene.db.before_commit([&] { kinds.row(5); });
        });
        scene.db.atomic([&] { kinds.row(6); });
        CHECK(kinds.ran().empty());
    });
    CHECK(kinds.ran() == "b1 u4 r4 b6 b2 b3 b5 c1 c6 c2 c3 c5");
    CHECK(scene.truth() == "1,2,3,5,6");
    kinds.check_promise();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

/// The statement puts row 1 in a second time.
template <class Scene, class Execute>
void check_throw_before_commit(Execute execute, const std::string& told) {
    const bool by_function = GENERATE(true, false);
    CAPTURE(by_function);
    Scene scene;
    Kinds<Scene> kinds{scene};
    const auto work = [&] {
        kinds.row(1);
        scene.db.before_commit([&] { execute(scene, "INSERT INTO t VALUES (1)"); });
        kinds.hooks(2);
    };
    if (by_function) {
        CHECK(ending([&] { scene.db.atomic(scene.options, work); }) == told);
    } else {
        typename Scene::Tx tx{scene.db, scene.options};
        work();
        CHECK(ending([&] { return tx.commit(); }) == told);
        CHECK_FALSE(tx.active());
    }
    CHECK(kinds.ran() == "b1 u2 r2 u1 r1");
    CHECK(scene.truth().empty());
    kinds.check_promise();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

/// A hook ends the transaction before COMMIT, by what `end.act` does, and goes on as if nothing had happened.
template <class Scene>
void check_end_before_commit(const End<Scene>& end) {
    const bool retries = GENERATE(false, true);
    CAPTURE(end.name, retries);
    Scene scene;
    Kinds<Scene> kinds{scene};
    int calls = 0;
    const auto work = [&] {
        ++calls;
        kinds.row(1);
        scene.db.before_commit([&] { end.act(scene); });
        kinds.hooks(2);
    };
    CHECK(without_cause(ending([&] {
              retries ? txhooks::retry(scene.db, noting(kinds), scene.options, work)
                      : scene.db.atomic(scene.options, work);
          })) == end.told);
    CHECK(calls == 1);
    CHECK(kinds.ran() == end.ran);
    CHECK(scene.truth() == end.truth);
    kinds.check_promise();
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

/// `fail(scene)` throws what is transient.
template <class Scene, class Fail>
void check_retry_before_commit(Fail fail) {
    Scene scene;
    Kinds<Scene> kinds{scene};
    int calls = 0;
    txhooks::retry(scene.db, noting(kinds), scene.options, [&] {
        kinds.row(++calls);
        scene.db.before_commit([&] {
            if (calls < 3) fail(scene);
        });
        kinds.hooks(calls + 10);
    });
    CHECK(kinds.ran() == "b1 u11 r11 u1 r1 again b2 u12 r12 u2 r2 again b3 b13 c3 c13");
    CHECK(scene.truth() == "3");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

template <class Scene>
void check_scopes() {
    Scene scene;
    Kinds<Scene> kinds{scene};
    const auto commit = [&](int n) { scene.db.atomic(scene.options, [&] { kinds.row(n); }); };
    const auto fail = [&](int n) {
        CHECK(ending([&] {
                  scene.db.atomic(scene.options, [&] {
                      kinds.row(n);
                      throw Oops{};
                  });
              }) == "oops");
    };
    {
        txhooks::testing::RolledBack test{scene.db};
        commit(1);
        fail(2);
        test.end();
    }
    CHECK(kinds.ran() == "b1 c1 u2 r2");
    CHECK(scene.truth().empty());
    {
        txhooks::testing::CapturedHooks captured{scene.db};
        commit(3);
        fail(4);
        CHECK(captured.size() == 1);
        CHECK(kinds.ran() == "b1 c1 u2 r2 b3 u4 r4");
        captured.run();
        commit(5);
        captured.discard();
        commit(6);
    }
    CHECK(kinds.ran() == "b1 c1 u2 r2 b3 u4 r4 c3 b5 b6");
    CHECK(scene.truth() == "3,5,6");
    {
        txhooks::testing::CapturedHooks captured{scene.db};
        txhooks::testing::RolledBack test{scene.db};
        commit(7);
        fail(8);
        test.end();
        CHECK(captured.size() == 1);
        captured.run();
    }
    CHECK(kinds.ran() == "b1 c1 u2 r2 b3 u4 r4 c3 b5 b6 b7 u8 r8 c7");
    CHECK(scene.truth() == "3,5,6");
    CHECK(scene.goes_on());
    CHECK(scene.sink.empty());
}

}  // namespace support

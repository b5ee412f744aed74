// SPDX-License-Identifier: MIT
#include <txhooks/detail/hook_arena.hpp>

#include "support/catch.hpp"
#include "support/on_copy.hpp"
#include "support/trace.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <pthread.h>
#include <unwind.h>

using support::AtDestruction;
using support::OnCopy;
using support::Trace;
using txhooks::detail::HookArena;

namespace {

template <class Hook>
void push(HookArena& hooks, Hook hook) {
    hooks.emplace<true>([&]() -> Hook { return std::move(hook); });
}

void run(HookArena& hooks, HookArena::Mark from) {
    HookArena::Run{hooks, from}();
}

// As code in another language does that has exceptions too. Only `catch (...)` catches it.
void throw_foreign_exception() {
    auto* const exception = new _Unwind_Exception{};
    exception->exception_class = 0x54584b535f544553;
    exception->exception_cleanup = [](_Unwind_Reason_Code, _Unwind_Exception* gone) { delete gone; };
    _Unwind_RaiseException(exception);
    delete exception;
    FAIL("nobody catches the exception of another language");
}

template <class Act>
bool throws(Act act) {
    try {
        act();
    } catch (...) {
        return true;
    }
    return false;
}

}  // namespace

// ---- Building in place

TEST_CASE("HookArena: a hook is built in place, neither copied nor moved", "[S3]") {
    struct Pinned {
        explicit Pinned(int& count) : ran{count} {}
        Pinned(const Pinned&) = delete;
        Pinned& operator=(const Pinned&) = delete;
        ~Pinned() = default;
        void operator()() { self == this ? ++ran : ran = -100; }
        int& ran;
        const Pinned* self = this;
    };
    int ran = 0;
    HookArena hooks;
    hooks.emplace<true>([&] { return Pinned{ran}; });
    hooks.emplace<false>([&] { return Pinned{ran}; });
    for (int i = 0; i < 1000; ++i) hooks.emplace<false>([] { return [] {}; });
    run(hooks, hooks.start());
    HookArena::run_at_once([&] { return Pinned{ran}; });
    CHECK(ran == 3);
}

TEST_CASE("HookArena: a copy constructor that throws leaves nothing", "[S7]") {
    Trace history;
    HookArena hooks;
    push(hooks, history.probe("a"));
    const auto refuse = [] { throw std::runtime_error{"no copy"}; };
    const OnCopy throwing{refuse};
    const auto hook = [&throwing] { return [copy = throwing] { static_cast<void>(copy); }; };
    CHECK_THROWS_WITH((hooks.emplace<true>(hook)), "no copy");
    CHECK(hooks.size(hooks.start()) == 1);
    push(hooks, history.probe("b"));
    CHECK(hooks.size(hooks.start()) == 2);
    run(hooks, hooks.start());
    CHECK(history.text() == "a,~a,b,~b");
}

TEST_CASE("HookArena: a copy constructor that throws at the end of a chunk leaves nothing", "[S7]") {
    HookArena hooks;
    const auto refuse = [] { throw 1; };
    const OnCopy throwing{refuse};
    const auto hook = [&throwing] {
        return [copy = throwing, big = std::array<char, 3000>{}] { static_cast<void>(big[0]); };
    };
    std::size_t ran = 0;
    push(hooks, [&ran] { ++ran; });
    const HookArena::Mark mark = hooks.mark();
    for (int attempt = 0; attempt < 3; ++attempt) CHECK_THROWS_AS((hooks.emplace<true>(hook)), int);
    CHECK(hooks.size(mark) == 0);
    CHECK(hooks.size(hooks.start()) == 1);
    push(hooks, [&ran] { ran += 10; });
    CHECK(hooks.size(mark) == 1);
    hooks.discard(mark);
    CHECK(hooks.empty(mark));
    run(hooks, hooks.start());
    CHECK(ran == 1);
}

TEST_CASE("HookArena: what a copy constructor pushed before it threw stays", "[S7]") {
    Trace history;
    HookArena hooks;
    const auto push_and_refuse = [&] {
        push(hooks, history.probe("pushed"));
        throw 1;
    };
    const OnCopy throwing{push_and_refuse};
    push(hooks, history.probe("a"));
    CHECK_THROWS_AS((hooks.emplace<true>([&] { return [copy = throwing] { static_cast<void>(copy); }; })), int);
    CHECK(hooks.size(hooks.start()) == 2);
    push(hooks, history.probe("b"));
    CHECK(hooks.size(hooks.start()) == 3);
    run(hooks, hooks.start());
    CHECK(history.text() == "a,~a,pushed,~pushed,b,~b");
}

TEST_CASE("HookArena: a hook comes before those that its copy constructor pushed", "[S12]") {
    Trace history;
    HookArena hooks;
    const auto push_one = [&] { push(hooks, history.probe("pushed")); };
    const OnCopy pushing{push_one};
    hooks.emplace<true>([&] { return [copy = pushing, hook = history.probe("a")]() mutable { std::move(hook)(); }; });
    CHECK(hooks.size(hooks.start()) == 2);
    run(hooks, hooks.start());
    CHECK(history.text() == "a,~a,pushed,~pushed");
}

TEST_CASE("HookArena: a copy constructor may open and end a block", "[S7]") {
    Trace history;
    HookArena hooks;
    const auto block = [&] {
        const HookArena::Mark mark = hooks.mark();
        push(hooks, [hook = history.probe("inner"), big = std::array<char, 2000>{}]() mutable {
            static_cast<void>(big[0]);
            hook();
        });
        run(hooks, mark);
    };
    const OnCopy copied{block};
    hooks.emplace<true>([&] { return [copy = copied, hook = history.probe("a")]() mutable { hook(); }; });
    CHECK(hooks.size(hooks.start()) == 1);
    run(hooks, hooks.start());
    CHECK(history.text() == "inner,~inner,a,~a");
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookArena: run_at_once runs the hook and destroys it, also when it throws", "[S1]") {
    Trace history;
    HookArena::run_at_once([&] { return history.probe("a"); });
    CHECK(history.text() == "a,~a");
    history.clear();
    const auto failing = [&] {
        return [hook = history.probe("b")] {
            hook();
            throw 1;
        };
    };
    CHECK_THROWS_AS(HookArena::run_at_once(failing), int);
    CHECK(history.text() == "b,~b");
    const auto not_made = []() -> Trace::Probe { throw std::runtime_error{"no copy"}; };
    CHECK_THROWS_WITH(HookArena::run_at_once(not_made), "no copy");
}

TEST_CASE("HookArena: run_at_once aligns the capture", "[S3]") {
    struct alignas(256) Aligned {
        void operator()() const { fits = reinterpret_cast<std::uintptr_t>(this) % 256 == 0; }
        bool& fits;
    };
    bool fits = false;
    HookArena::run_at_once([&] { return Aligned{fits}; });
    CHECK(fits);
}

// ---- Busy

TEST_CASE("HookArena: busy tells that hooks or destructors of hooks are being called", "[S57]") {
    std::vector<bool> seen;
    HookArena hooks;
    CHECK_FALSE(hooks.busy());
    push(hooks, [&] { seen.push_back(hooks.busy()); });
    push(hooks, [&, end = AtDestruction{[&] { seen.push_back(hooks.busy()); }}] { throw 1; });
    CHECK_THROWS_AS(run(hooks, hooks.start()), int);
    push(hooks, [end = AtDestruction{[&] { seen.push_back(hooks.busy()); }}] {});
    CHECK_FALSE(hooks.busy());
    hooks.discard(hooks.start());
    CHECK_FALSE(hooks.busy());
    CHECK(seen == std::vector<bool>{true, true, true});
}

TEST_CASE("HookArena: it is busy while a Run lives, called or not", "[S57]") {
    HookArena hooks;
    {
        const HookArena::Run nothing{hooks, hooks.start()};
        CHECK(hooks.busy());
    }
    CHECK_FALSE(hooks.busy());
    push(hooks, [] { throw 1; });
    push(hooks, [] {});
    {
        HookArena::Run walk{hooks, hooks.start()};
        CHECK(hooks.busy());
        CHECK_THROWS_AS(walk(), int);
        CHECK(hooks.busy());
    }
    CHECK_FALSE(hooks.busy());
}

TEST_CASE("HookArena: it is busy while a Busy lives, and works as ever", "[S57]") {
    Trace history;
    HookArena hooks;
    {
        const HookArena::Busy busy{hooks};
        const HookArena::Busy twice{hooks};
        CHECK(hooks.busy());
        push(hooks, history.probe("a"));
        const HookArena::Mark savepoint = hooks.mark();
        push(hooks, history.probe("b"));
        hooks.discard(savepoint);
        run(hooks, hooks.start());
        CHECK(hooks.busy());
    }
    CHECK_FALSE(hooks.busy());
    CHECK(history.text() == "~b,a,~a");
}

TEST_CASE("HookArena: destroyed while it is busy it ends the program", "[S57][posix]") {
    const auto end = support::end_of_process([] {
        const auto hooks = std::make_unique<std::optional<HookArena>>(std::in_place);
        const HookArena::Busy busy{**hooks};
        hooks->reset();
    });
    CHECK(end.terminated);
    CHECK(end.said.find("txhooks: a list of hooks was destroyed while") == 0);
}

// ---- Walks

TEST_CASE("HookArena: the hooks that a Run gave up can be run or discarded while it lives", "[S24]") {
    Trace history;
    HookArena hooks;
    push(hooks, [] { throw 1; });
    for (const char* name : {"b", "c", "d"}) push(hooks, history.probe(name));
    {
        HookArena::Run walk{hooks, hooks.start()};
        CHECK_THROWS_AS(walk(), int);
        HookArena::Walk rest = walk.release();
        CHECK(walk.left() == 0);
        CHECK(rest.done() == 1);
        CHECK(rest.left() == 3);
        walk();
        CHECK(rest.next());
        CHECK(history.text() == "b,~b");
        SECTION("run") {
            rest();
        }
        SECTION("discarded") {
            rest.discard();
        }
        CHECK(rest.done() == 4);
    }
    CHECK(hooks.empty(hooks.start()));
    CHECK((history.text() == "b,~b,c,~c,d,~d" or history.text() == "b,~b,~c,~d"));
}

TEST_CASE("HookArena: which of two places comes first, over the ends of chunks", "[S26]") {
    HookArena hooks;
    std::vector<HookArena::Mark> marks;
    for (int i = 0; i < 1000; ++i) {
        marks.push_back(hooks.mark());
        hooks.emplace<false>([] { return [] {}; });
    }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < marks.size(); i += 7)
        for (std::size_t j = 0; j < marks.size(); j += 11) wrong += hooks.before(marks[i], marks[j]) != (i < j);
    CHECK(wrong == 0);
    CHECK(hooks.before(hooks.start(), hooks.mark()));
    CHECK_FALSE(hooks.before(hooks.mark(), hooks.mark()));
    CHECK(marks[3] == marks[3]);
    CHECK_FALSE(marks[3] == marks[4]);
    hooks.discard(hooks.start());
}

// ---- Exceptions that are none of C++: there is no catch in the arena, only destructors

TEST_CASE("HookArena: an exception of another language leaves the walk past its hook", "[S14][S19]") {
    Trace history;
    HookArena hooks;
    push(hooks, history.probe("a"));
    push(hooks, [hook = history.probe("b")] {
        hook();
        throw_foreign_exception();
    });
    push(hooks, history.probe("c"));
    push(hooks, [] { throw_foreign_exception(); });
    push(hooks, history.probe("d"));
    {
        HookArena::Run walk{hooks, hooks.start()};
        CHECK(throws([&] { walk(); }));
        CHECK(history.text() == "a,~a,b,~b");
        CHECK(walk.done() == 2);
        CHECK(walk.left() == 3);
        CHECK(walk.next());
        CHECK(history.text() == "a,~a,b,~b,c,~c");
        CHECK(throws([&] { walk.next(); }));
        CHECK(walk.done() == 4);
        SECTION("calling it again runs the rest") {
            walk();
            CHECK(history.text() == "a,~a,b,~b,c,~c,d,~d");
        }
        SECTION("its end discards the rest") {}
    }
    CHECK((history.text() == "a,~a,b,~b,c,~c,d,~d" or history.text() == "a,~a,b,~b,c,~c,~d"));
    CHECK(hooks.empty(hooks.start()));
    CHECK_FALSE(hooks.busy());
}

TEST_CASE("HookArena: an exception of another language from a copy constructor leaves nothing", "[S7]") {
    Trace history;
    HookArena hooks;
    push(hooks, history.probe("a"));
    const OnCopy throwing{throw_foreign_exception};
    CHECK(throws([&] { hooks.emplace<true>([&] { return throwing; }); }));
    CHECK(hooks.size(hooks.start()) == 1);
    CHECK(throws([&] { HookArena::run_at_once([&] { return throwing; }); }));
    CHECK(throws([&] { HookArena::run_at_once([] { return &throw_foreign_exception; }); }));
    push(hooks, history.probe("b"));
    run(hooks, hooks.start());
    CHECK(history.text() == "a,~a,b,~b");
}

// ---- Hooks of other kinds

namespace {

using txhooks::detail::HookKind;

template <HookKind kind, class Hook>
void push_as(HookArena& hooks, Hook hook) {
    hooks.emplace<true, kind>([&]() -> Hook { return std::move(hook); });
}

}  // namespace

TEST_CASE("HookArena: a hook of any kind is built in place, neither copied nor moved", "[S3][S79]") {
    struct alignas(128) Pinned {
        explicit Pinned(int& count) : ran{count} {}
        Pinned(const Pinned&) = delete;
        Pinned& operator=(const Pinned&) = delete;
        ~Pinned() = default;
        void operator()() { self == this ? ++ran : ran = -100; }
        int& ran;
        const Pinned* self = this;
    };
    int ran = 0;
    HookArena hooks;
    for (int i = 0; i != 100; ++i) {
        hooks.emplace<true, HookKind::before_commit>([&] { return Pinned{ran}; });
        hooks.emplace<false, HookKind::rollback>([&] { return Pinned{ran}; });
        hooks.emplace<true, HookKind::unless_committed>([&] { return Pinned{ran}; });
        hooks.emplace<false>([] { return [] {}; });
    }
    {
        HookArena::Before before{hooks, hooks.start()};
        while (before.next()) continue;
    }
    CHECK(ran == 100);
    HookArena::Undo undone{hooks, hooks.start(), true};
    while (not undone.empty()) undone.call_next();
    CHECK(ran == 300);
    hooks.discard(hooks.start());
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookArena: whether something waits for the outcome", "[S75]") {
    HookArena hooks;
    CHECK_FALSE(hooks.has_others());
    CHECK_FALSE(hooks.waits_for_outcome(hooks.start()));
    push_as<HookKind::unless_committed>(hooks, [] {});
    push_as<HookKind::before_commit>(hooks, [] {});
    CHECK(hooks.has_others());
    CHECK_FALSE(hooks.waits_for_outcome(hooks.start()));
    const HookArena::Mark mark = hooks.mark();
    push_as<HookKind::rollback>(hooks, [] {});
    CHECK(hooks.waits_for_outcome(hooks.start()));
    CHECK(hooks.waits_for_outcome(mark));
    hooks.discard(mark);
    CHECK_FALSE(hooks.waits_for_outcome(hooks.start()));
    push(hooks, [] {});
    CHECK(hooks.waits_for_outcome(mark));
    CHECK(hooks.size(hooks.start()) == 1);
    hooks.discard(hooks.start());
}

TEST_CASE("HookArena: those that end with their block go, and the others stay with their marks", "[S75]") {
    const bool keep_rollback = GENERATE(false, true);
    Trace history;
    HookArena hooks;
    for (const char* name : {"1", "2"}) {
        push(hooks, history.probe(std::string{"commit "} + name));
        push_as<HookKind::before_commit>(hooks, history.probe(std::string{"before "} + name));
        push_as<HookKind::rollback>(hooks, history.probe(std::string{"rollback "} + name));
        push_as<HookKind::unless_committed>(hooks, history.probe(std::string{"unless "} + name));
    }
    hooks.discard_others(hooks.start(), keep_rollback);
    CHECK(history.text() == (keep_rollback ? "~before 1,~unless 1,~before 2,~unless 2"
                                           : "~before 1,~rollback 1,~unless 1,~before 2,~rollback 2,~unless 2"));
    CHECK_FALSE(hooks.busy());
    CHECK(hooks.size(hooks.start()) == 2);
    history.clear();
    HookArena::Undo undone{hooks, hooks.start(), true};
    while (not undone.empty()) {
        undone.call_next();
        history.note(undone.kind() == HookKind::rollback ? "called" : "another");
    }
    CHECK(history.text() == (keep_rollback ? "rollback 2,called,rollback 1,called" : ""));
    history.clear();
    run(hooks, hooks.start());
    CHECK(history.text() == (keep_rollback ? "commit 1,~commit 1,~rollback 1,commit 2,~commit 2,~rollback 2"
                                           : "commit 1,~commit 1,commit 2,~commit 2"));
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookArena: where none stays, discarding the others gives their room back", "[S75]") {
    HookArena hooks;
    for (int i = 0; i != 100; ++i) {
        push_as<HookKind::rollback>(hooks, [] {});
        push_as<HookKind::unless_committed>(hooks, [] {});
    }
    hooks.discard_others(hooks.start(), true);
    CHECK_FALSE(hooks.empty(hooks.start()));
    hooks.discard_others(hooks.start(), false);
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookArena: an exception of another language from a hook of another kind counts as called", "[S62][S71]") {
    Trace history;
    HookArena hooks;
    push_as<HookKind::rollback>(hooks, history.probe("a"));
    push_as<HookKind::rollback>(hooks, [] { throw_foreign_exception(); });
    push_as<HookKind::before_commit>(hooks, [] { throw_foreign_exception(); });
    push_as<HookKind::before_commit>(hooks, history.probe("b"));
    HookArena::Before before{hooks, hooks.start()};
    CHECK(throws([&] { before.next(); }));
    CHECK(before.next());
    CHECK_FALSE(before.next());
    HookArena::Undo undone{hooks, hooks.start(), true};
    CHECK(throws([&] { undone.call_next(); }));
    CHECK_FALSE(undone.empty());
    undone.call_next();
    CHECK(undone.empty());
    hooks.discard(hooks.start());
    CHECK(history.text() == "b,~b,a,~a");
}

#ifndef _LIBCPP_VERSION  // the libc++ of Debian cannot unwind a thread that ends: no program with destructors can

namespace {

struct Scene {
    Trace history;
    HookArena hooks;
    bool one_by_one = false;
};

extern "C" void* run_in_a_thread(void* scene) {
    auto& the = *static_cast<Scene*>(scene);
    HookArena::Run walk{the.hooks, the.hooks.start()};
    if (the.one_by_one)
        while (walk.next()) the.history.note("next");
    else
        walk();
    the.history.note("went on");
    return nullptr;
}

}  // namespace

TEST_CASE("HookArena: a thread that a hook ends discards the later hooks and leaves all sound", "[S14][S19][posix]") {
    Scene scene;
    scene.one_by_one = GENERATE(false, true);
    push(scene.hooks, [&, hook = scene.history.probe("a")] {
        hook();
        push(scene.hooks, scene.history.probe("pushed"));
        pthread_exit(nullptr);
    });
    push(scene.hooks, scene.history.probe("b"));
    pthread_t thread{};
    REQUIRE(pthread_create(&thread, nullptr, &run_in_a_thread, &scene) == 0);
    pthread_join(thread, nullptr);
    CHECK(scene.history.text() == "a,~a,~b");
    CHECK_FALSE(scene.hooks.busy());
    CHECK(scene.hooks.size(scene.hooks.start()) == 1);
    run(scene.hooks, scene.hooks.start());
    CHECK(scene.history.text() == "a,~a,~b,pushed,~pushed");
}

#endif

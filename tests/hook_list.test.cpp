// SPDX-License-Identifier: MIT
#include <txhooks/hook_list.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/on_copy.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using txhooks::HookList;

namespace {

using Words = std::vector<std::string>;

// A hook that tells what happens to it: "run a", "destroy a".
class Telling {
public:
    Telling(Words& history, std::string name) : history_{&history}, name_{std::move(name)} {}
    Telling(Telling&& other) noexcept
        : history_{std::exchange(other.history_, nullptr)}, name_{std::move(other.name_)} {}
    Telling& operator=(Telling&&) = delete;
    ~Telling() {
        if (history_ != nullptr) history_->push_back("destroy " + name_);
    }

    void operator()() { history_->push_back("run " + name_); }

private:
    Words* history_;
    std::string name_;
};

// Calls `Do` when destroyed, unless moved from.
template <class Do>
class AtEnd {
public:
    explicit AtEnd(Do do_it) : do_{std::move(do_it)} {}
    AtEnd(AtEnd&& other) noexcept : do_{std::move(other.do_)} { other.do_.reset(); }
    AtEnd& operator=(AtEnd&&) = delete;
    ~AtEnd() {
        if (do_) (*do_)();
    }

private:
    std::optional<Do> do_;
};

void run(HookList& hooks, HookList::Mark from) {
    HookList::Run{hooks, from}();
}

template <std::size_t Alignment>
struct alignas(Alignment) Aligned {
    bool fits() const { return reinterpret_cast<std::uintptr_t>(this) % Alignment == 0; }
    unsigned char byte;
};

int called_functions = 0;
void plain_function() {
    ++called_functions;
}

// Pushes `hooks` captures of 24 bytes each, 32 with the entry's header, and counts those that ran.
void transaction(HookList& list, std::size_t hooks, std::size_t& ran) {
    const HookList::Mark from = list.mark();
    for (std::size_t i = 0; i < hooks; ++i) list.push([&ran, i, hooks] { ran += i < hooks; });
    run(list, from);
    list.trim();
}

}  // namespace

TEST_CASE("HookList: a new list is empty and costs no memory", "[S52]") {
    const support::CountAllocations allocations;
    HookList hooks;
    run(hooks, hooks.start());
    hooks.discard(hooks.start());
    hooks.trim();
    const std::size_t made = allocations.made();
    CHECK(made == 0);
    CHECK(hooks.empty(hooks.start()));
    CHECK(hooks.empty(hooks.mark()));
    CHECK(hooks.size(hooks.start()) == 0);
}

TEST_CASE("HookList: runs in order of registration, each hook destroyed before the next runs", "[S12][S18]") {
    Words history;
    HookList hooks;
    for (const char* name : {"a", "b", "c"}) hooks.push(Telling{history, name});
    CHECK(hooks.size(hooks.start()) == 3);
    CHECK(history.empty());
    run(hooks, hooks.start());
    CHECK(history == Words{"run a", "destroy a", "run b", "destroy b", "run c", "destroy c"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: discards from a mark, in order of registration, and keeps what lies before", "[S26][S27]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "a"});
    const HookList::Mark savepoint = hooks.mark();
    hooks.push(Telling{history, "b"});
    hooks.push(Telling{history, "c"});
    CHECK(hooks.size(savepoint) == 2);
    hooks.discard(savepoint);
    CHECK(history == Words{"destroy b", "destroy c"});
    CHECK(hooks.empty(savepoint));
    hooks.push(Telling{history, "d"});
    run(hooks, hooks.start());
    CHECK(history == Words{"destroy b", "destroy c", "run a", "destroy a", "run d", "destroy d"});
}

TEST_CASE("HookList: runs from a mark and keeps what lies before", "[S16]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "a"});
    const HookList::Mark inner = hooks.mark();
    hooks.push(Telling{history, "b"});
    run(hooks, inner);
    CHECK(history == Words{"run b", "destroy b"});
    CHECK(hooks.size(hooks.start()) == 1);
    run(hooks, hooks.start());
    CHECK(history == Words{"run b", "destroy b", "run a", "destroy a"});
}

TEST_CASE("HookList: its destructor discards the hooks left in it", "[S28]") {
    Words history;
    {
        HookList hooks;
        for (const char* name : {"a", "b"}) hooks.push(Telling{history, name});
        hooks.push([big = std::array<char, 5000>{}, hook = Telling{history, "c"}] { static_cast<void>(big[0]); });
    }
    CHECK(history == Words{"destroy a", "destroy b", "destroy c"});
}

TEST_CASE("HookList: its destructor also discards what destructors push meanwhile", "[S27][S28]") {
    Words history;
    {
        HookList hooks;
        hooks.push([end = AtEnd{[&] {
                        history.push_back("destroy a");
                        hooks.push([end = AtEnd{[&] {
                                        history.push_back("destroy b");
                                        hooks.push(Telling{history, "c"});
                                    }}] {});
                    }}] {});
    }
    CHECK(history == Words{"destroy a", "destroy b", "destroy c"});
}

TEST_CASE("HookList: an exception from a hook leaves the walk past that hook", "[S14][S18][S19]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "a"});
    hooks.push([hook = Telling{history, "b"}]() mutable {
        hook();
        throw std::runtime_error{"b"};
    });
    hooks.push(Telling{history, "c"});
    {
        HookList::Run walk{hooks, hooks.start()};
        CHECK(walk.done() == 0);
        CHECK(walk.left() == 3);
        CHECK_THROWS_WITH(walk(), "b");
        CHECK(history == Words{"run a", "destroy a", "run b", "destroy b"});
        CHECK(walk.done() == 2);
        CHECK(walk.left() == 1);
        SECTION("and calling it again runs the rest") {
            walk();
            CHECK(history == Words{"run a", "destroy a", "run b", "destroy b", "run c", "destroy c"});
            CHECK(walk.done() == 3);
            CHECK(walk.left() == 0);
        }
        SECTION("and discard() destroys the rest") {
            walk.discard();
            CHECK(history == Words{"run a", "destroy a", "run b", "destroy b", "destroy c"});
            walk();
        }
    }
    CHECK(history.size() >= 5);
    CHECK(history.back() == "destroy c");
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: the hooks after one that threw are discarded when the walk ends", "[S19]") {
    Words history;
    HookList hooks;
    hooks.push([] { throw 1; });
    for (const char* name : {"b", "c"}) hooks.push(Telling{history, name});
    CHECK_THROWS_AS(run(hooks, hooks.start()), int);
    CHECK(history == Words{"destroy b", "destroy c"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a hook that calls or discards the Run it is part of changes nothing", "[S14][S18]") {
    Words history;
    HookList hooks;
    HookList::Run* own = nullptr;
    hooks.push(Telling{history, "a"});
    hooks.push([&own] { (*own)(); });
    hooks.push(Telling{history, "b"});
    hooks.push([&own] {
        own->discard();
        throw 1;
    });
    hooks.push(Telling{history, "c"});
    {
        HookList::Run walk{hooks, hooks.start()};
        own = &walk;
        CHECK_THROWS_AS(walk(), int);
        CHECK(history == Words{"run a", "destroy a", "run b", "destroy b"});
        CHECK(walk.done() == 4);
        CHECK(walk.left() == 1);
    }
    CHECK(history == Words{"run a", "destroy a", "run b", "destroy b", "destroy c"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a Run that was never called discards", "[S25]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "a"});
    { const HookList::Run walk{hooks, hooks.start()}; }
    CHECK(history == Words{"destroy a"});
}

TEST_CASE("HookList: what hooks push while they run stays behind for later", "[S14][S15]") {
    Words history;
    HookList hooks;
    hooks.push([&] { hooks.push(Telling{history, "a1"}); });
    hooks.push(Telling{history, "b"});
    hooks.push([&] { hooks.push(Telling{history, "c1"}); });
    run(hooks, hooks.start());
    CHECK(history == Words{"run b", "destroy b"});
    CHECK(hooks.size(hooks.start()) == 2);
    hooks.push(Telling{history, "d"});
    CHECK(hooks.size(hooks.start()) == 3);
    run(hooks, hooks.start());
    CHECK(history == Words{"run b", "destroy b", "run a1", "destroy a1", "run c1", "destroy c1", "run d", "destroy d"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a hook's own block runs its hooks before the next outer hook", "[S16]") {
    Words history;
    HookList hooks;
    for (const char* name : {"1", "2"}) {
        hooks.push([&hooks, &history, name, hook = Telling{history, name}]() mutable {
            hook();
            const HookList::Mark inner = hooks.mark();
            hooks.push(Telling{history, name + std::string{"1"}});
            run(hooks, inner);
        });
    }
    run(hooks, hooks.start());
    CHECK(history == Words{"run 1", "run 11", "destroy 11", "destroy 1",  //
                           "run 2", "run 21", "destroy 21", "destroy 2"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a block rolled back inside a hook does not disturb the outer hooks", "[S17]") {
    Words history;
    HookList hooks;
    hooks.push([&] {
        const HookList::Mark inner = hooks.mark();
        for (const char* name : {"x", "y"}) hooks.push(Telling{history, name});
        hooks.discard(inner);
    });
    hooks.push(Telling{history, "b"});
    run(hooks, hooks.start());
    CHECK(history == Words{"destroy x", "destroy y", "run b", "destroy b"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a block that a hook leaves open can be ended after the walk", "[S58]") {
    Words history;
    HookList hooks;
    std::optional<HookList::Mark> left_open;
    hooks.push([&] {
        hooks.push(Telling{history, "a"});
        left_open = hooks.mark();
        hooks.push(Telling{history, "b"});
    });
    run(hooks, hooks.start());
    CHECK(history.empty());
    CHECK(hooks.size(hooks.start()) == 2);
    CHECK(hooks.size(*left_open) == 1);
    hooks.push(Telling{history, "c"});
    hooks.discard(*left_open);
    CHECK(history == Words{"destroy b", "destroy c"});
    run(hooks, hooks.start());
    CHECK(history == Words{"destroy b", "destroy c", "run a", "destroy a"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: what destructors push during discard stays, in order, and runs once", "[S14][S27]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "before"});
    const HookList::Mark savepoint = hooks.mark();
    for (const char* name : {"a", "b"})
        hooks.push([end = AtEnd{[&hooks, &history, name] { hooks.push(Telling{history, name}); }}] {});
    hooks.discard(savepoint);
    CHECK(history.empty());
    CHECK(hooks.size(savepoint) == 2);
    CHECK(hooks.size(hooks.start()) == 3);
    CHECK_FALSE(hooks.empty(savepoint));
    run(hooks, hooks.start());
    CHECK(history == Words{"run before", "destroy before", "run a", "destroy a", "run b", "destroy b"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: hooks over a hole can be discarded again", "[S27]") {
    Words history;
    HookList hooks;
    const HookList::Mark savepoint = hooks.mark();
    hooks.push([end = AtEnd{[&] { hooks.push(Telling{history, "a"}); }}] {});
    hooks.discard(savepoint);
    CHECK(hooks.size(savepoint) == 1);
    hooks.discard(savepoint);
    CHECK(history == Words{"destroy a"});
    CHECK(hooks.empty(savepoint));
}

TEST_CASE("HookList: discards within a run within a discard", "[S17][S27]") {
    Words history;
    HookList hooks;
    const auto innermost = [&] {
        const HookList::Mark block = hooks.mark();
        hooks.push(Telling{history, "innermost"});
        hooks.discard(block);
        hooks.push(Telling{history, "stays"});
    };
    const auto middle = [&] {
        const HookList::Mark block = hooks.mark();
        hooks.push(innermost);
        hooks.push(Telling{history, "middle"});
        run(hooks, block);
    };
    hooks.push([end = AtEnd{middle}] {});
    hooks.push(Telling{history, "outer"});
    hooks.discard(hooks.start());
    CHECK(history == Words{"destroy innermost", "run middle", "destroy middle", "destroy outer"});
    CHECK(hooks.size(hooks.start()) == 1);
    run(hooks, hooks.start());
    CHECK(history == Words{"destroy innermost", "run middle", "destroy middle", "destroy outer",  //
                           "run stays", "destroy stays"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: failing to get memory registers nothing", "[S7]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "a"});
    const std::array<char, 4000> big{};
    bool refused = false;
    {
        const support::FailAllocation fail{0};
        try {
            hooks.push([&history, big] { history.push_back(std::to_string(big[0])); });
        } catch (const std::bad_alloc&) {
            refused = true;
        }
    }
    CHECK(refused);
    CHECK(hooks.size(hooks.start()) == 1);
    hooks.push(Telling{history, "b"});
    run(hooks, hooks.start());
    CHECK(history == Words{"run a", "destroy a", "run b", "destroy b"});
}

TEST_CASE("HookList: an lvalue is copied, an rvalue moved, once each", "[S3]") {
    struct Counting {
        int* copies;
        int* moves;
        Counting(int& copied, int& moved) : copies{&copied}, moves{&moved} {}
        Counting(const Counting& other) : copies{other.copies}, moves{other.moves} { ++*copies; }
        Counting(Counting&& other) noexcept : copies{other.copies}, moves{other.moves} { ++*moves; }
        Counting& operator=(const Counting&) = delete;
        ~Counting() = default;
        void operator()() const {}
    };
    int copies = 0;
    int moves = 0;
    Counting hook{copies, moves};
    HookList hooks;
    hooks.push(hook);
    CHECK(std::pair{copies, moves} == std::pair{1, 0});
    hooks.push(std::move(hook));
    CHECK(std::pair{copies, moves} == std::pair{1, 1});
    hooks.push(std::as_const(hook));
    CHECK(std::pair{copies, moves} == std::pair{2, 1});
    for (int i = 0; i < 1000; ++i) hooks.push([] {});
    run(hooks, hooks.start());
    CHECK(std::pair{copies, moves} == std::pair{2, 1});
}

TEST_CASE("HookList: takes functions, std::function, move-only and rvalue-only callables", "[S3]") {
    called_functions = 0;
    std::vector<int> ran;
    const std::function<void()> stored = [&ran] { ran.push_back(1); };
    struct OnlyOnce {
        std::vector<int>* ran;
        int operator()() && {
            ran->push_back(3);
            return 3;
        }
    };
    HookList hooks;
    hooks.push(plain_function);
    hooks.push(&plain_function);
    hooks.push(stored);
    hooks.push([&ran, number = std::make_unique<int>(2)] { ran.push_back(*number); });
    hooks.push(OnlyOnce{&ran});
    hooks.push([&ran, n = 3]() mutable { ran.push_back(++n); });
    CHECK(hooks.size(hooks.start()) == 6);
    run(hooks, hooks.start());
    CHECK(called_functions == 2);
    CHECK(ran == std::vector{1, 2, 3, 4});
    stored();
    CHECK(ran.back() == 1);
}

TEMPLATE_TEST_CASE_SIG("HookList: captures lie as aligned as they ask for", "[S3]",
                       ((std::size_t Alignment), Alignment), 1, 8, 16, 32, 64, 4096) {
    HookList hooks;
    std::vector<unsigned> ran;
    std::vector<unsigned> expected;
    for (unsigned char i = 0; i < 40; ++i) {
        hooks.push([&ran, capture = Aligned<Alignment>{i}] { ran.push_back(capture.fits() ? capture.byte : 1000); });
        hooks.push([&ran, i] { ran.push_back(100u + i); });
        expected.push_back(i);
        expected.push_back(100u + i);
    }
    CHECK(hooks.size(hooks.start()) == 80);
    run(hooks, hooks.start());
    CHECK(ran == expected);
}

TEST_CASE("HookList: a long double in a capture is aligned", "[S3]") {
    HookList hooks;
    std::vector<long double> ran;
    for (int i = 0; i < 100; ++i) {
        hooks.push([&ran, number = 0.5L + i] {
            if (reinterpret_cast<std::uintptr_t>(&number) % alignof(long double) == 0) ran.push_back(number);
        });
        hooks.push([] {});
    }
    run(hooks, hooks.start());
    CHECK(ran.size() == 100);
    CHECK(ran.back() == 99.5L);
}

TEST_CASE("HookList: entries bigger than the largest chunk get one of their own", "[S3]") {
    using Huge = std::array<unsigned char, 700 * 1024>;
    const auto huge = std::make_unique<Huge>();
    huge->fill(7);
    std::vector<unsigned> ran;
    HookList hooks;
    for (unsigned i = 0; i < 3; ++i) {
        hooks.push([&ran, i] { ran.push_back(i); });
        hooks.push([&ran, copy = *huge] { ran.push_back(copy.front() + 100u * copy.back()); });
    }
    CHECK(hooks.size(hooks.start()) == 6);
    run(hooks, hooks.start());
    CHECK(ran == std::vector<unsigned>{0, 707, 1, 707, 2, 707});
    CHECK(hooks.empty(hooks.start()));
}

namespace {

// One hook of each size, in a list of its own, with another behind it in the next chunk.
template <std::size_t Smallest, std::size_t... Steps>
std::vector<std::size_t> run_each_size(std::index_sequence<Steps...>) {
    std::vector<std::size_t> ran;
    const auto one = [&ran]<std::size_t Size>(std::integral_constant<std::size_t, Size>) {
        HookList hooks;
        struct Sized {
            std::vector<std::size_t>* ran;
            unsigned char bytes[Size];
            void operator()() const { ran->push_back(Size + bytes[0] + bytes[Size - 1]); }
        };
        hooks.push(Sized{&ran, {}});
        hooks.push([&ran] { ran.push_back(1); });
        run(hooks, hooks.start());
    };
    (one(std::integral_constant<std::size_t, Smallest + 8 * Steps>{}), ...);
    return ran;
}

template <std::size_t Smallest, std::size_t Count>
std::vector<std::size_t> each_size() {
    std::vector<std::size_t> sizes;
    for (std::size_t i = 0; i < Count; ++i) {
        sizes.push_back(Smallest + 8 * i);
        sizes.push_back(1);
    }
    return sizes;
}

}  // namespace

TEST_CASE("HookList: entries that just fit a chunk, or just do not, leave room for what comes behind", "[S3]") {
    CHECK(run_each_size<400>(std::make_index_sequence<16>{}) == each_size<400, 16>());
    CHECK(run_each_size<4000>(std::make_index_sequence<20>{}) == each_size<4000, 20>());
}

TEST_CASE("HookList: sizes and marks are right over the ends of chunks", "[S26]") {
    Words history;
    HookList hooks;
    std::vector<HookList::Mark> marks;
    const std::size_t count = 2000;
    std::vector<std::size_t> ran;
    for (std::size_t i = 0; i < count; ++i) {
        marks.push_back(hooks.mark());
        hooks.push([&ran, i] { ran.push_back(i); });
    }
    std::vector<std::size_t> sizes;
    std::vector<std::size_t> expected_sizes;
    for (std::size_t i = 0; i < count; ++i) {
        sizes.push_back(hooks.size(marks[i]));
        expected_sizes.push_back(count - i);
    }
    CHECK(sizes == expected_sizes);

    // Roll back to each mark in turn from behind, register one more, and roll that back too.
    std::size_t wrong = 0;
    for (std::size_t i = count; i-- > 1000;) {
        hooks.discard(marks[i]);
        if (not hooks.empty(marks[i])) ++wrong;
        hooks.push([&ran] { ran.push_back(77777); });
        if (hooks.size(marks[i]) != 1) ++wrong;
        hooks.discard(marks[i]);
    }
    CHECK(wrong == 0);
    CHECK(hooks.size(hooks.start()) == 1000);
    run(hooks, hooks.start());
    CHECK(ran.size() == 1000);
    CHECK(ran.front() == 0);
    CHECK(ran.back() == 999);
}

TEST_CASE("HookList: a million hooks run in order", "[S12]") {
    HookList hooks;
    std::size_t next = 0;
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < 1'000'000; ++i) hooks.push([&next, &wrong, i] { wrong += i != next++; });
    CHECK(hooks.size(hooks.start()) == 1'000'000);
    run(hooks, hooks.start());
    CHECK(next == 1'000'000);
    CHECK(wrong == 0);
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: ten thousand nested blocks, every other one rolled back", "[S26]") {
    HookList hooks;
    std::vector<HookList::Mark> marks;
    std::size_t ran = 0;
    std::size_t sum = 0;
    const std::size_t levels = 10'000;
    for (std::size_t i = 0; i < levels; ++i) {
        marks.push_back(hooks.mark());
        hooks.push([&ran, &sum, i] {
            ++ran;
            sum += i;
        });
    }
    CHECK(hooks.size(marks.front()) == levels);
    // The innermost rolls back, the next one is released having registered another, and so on outwards: what a released
    // block kept goes with the next that rolls back.
    for (std::size_t i = levels; i-- > 0;) {
        if (i % 2 == 1)
            hooks.discard(marks[i]);
        else
            hooks.push([&ran, &sum] {
                ++ran;
                sum += 1;
            });
    }
    CHECK(hooks.size(marks.front()) == 2);
    run(hooks, marks.front());
    CHECK(ran == 2);
    CHECK(sum == 1);
}

namespace {

struct Descend {
    HookList* hooks;
    std::size_t* deepest;
    std::size_t levels;
    void operator()() const {
        ++*deepest;
        if (levels == 0) return;
        const HookList::Mark inner = hooks->mark();
        hooks->push(Descend{hooks, deepest, levels - 1});
        run(*hooks, inner);
    }
};

}  // namespace

TEST_CASE("HookList: two thousand hooks, each running in the block of the one before", "[S16]") {
    HookList hooks;
    std::size_t deepest = 0;
    hooks.push(Descend{&hooks, &deepest, 1999});
    run(hooks, hooks.start());
    CHECK(deepest == 2000);
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: the first 448 bytes of hooks need no memory", "[S52]") {
    HookList hooks;
    std::size_t ran = 0;
    std::size_t two = 2;
    support::CountAllocations allocations;
    constexpr std::size_t fit = 448 / (4 * sizeof(void*));  // each hook is a function and three words
    for (std::size_t i = 0; i < fit; ++i) hooks.push([&ran, &two, one = two - 1] { ran += one + two - two; });
    const std::size_t within = allocations.made();
    hooks.push([&ran] { ++ran; });
    const std::size_t beyond = allocations.made();
    CHECK(within == 0);
    CHECK(beyond == 1);
    run(hooks, hooks.start());
    CHECK(ran == fit + 1);
}

TEST_CASE("HookList: the first hundred thousand hooks need at most twenty allocations", "[S52]") {
    HookList hooks;
    std::size_t ran = 0;
    const support::CountAllocations allocations;
    transaction(hooks, 100'000, ran);
    const std::size_t made = allocations.made();
    CHECK(ran == 100'000);
    CHECK(made > 1);
    CHECK(made <= 20);
}

TEST_CASE("HookList: reaching and running hooks allocates nothing", "[S52]") {
    HookList hooks;
    std::size_t ran = 0;
    for (std::size_t i = 0; i < 50'000; ++i) hooks.push([&ran] { ++ran; });
    const support::CountAllocations allocations;
    run(hooks, hooks.start());
    const std::size_t made = allocations.made();
    const std::size_t freed = allocations.freed();
    CHECK(ran == 50'000);
    CHECK(made == 0);
    CHECK(freed == 0);
}

TEST_CASE("HookList: equal transactions neither allocate nor free after the first", "[S52]") {
    const std::size_t size = GENERATE(1u, 14u, 15u, 139u, 140u, 141u, 1000u, 20'000u, 60'000u);
    HookList hooks;
    std::size_t ran = 0;
    transaction(hooks, size, ran);
    const support::CountAllocations allocations;
    for (int i = 0; i < 5; ++i) transaction(hooks, size, ran);
    const std::size_t made = allocations.made();
    const std::size_t freed = allocations.freed();
    CHECK(ran == 6 * size);
    CHECK(made == 0);
    CHECK(freed == 0);
}

TEST_CASE("HookList: equal transactions with huge captures and inner blocks keep their memory too", "[S52]") {
    HookList hooks;
    std::size_t ran = 0;
    const auto once = [&] {
        const HookList::Mark from = hooks.mark();
        for (int i = 0; i < 100; ++i) hooks.push([&ran] { ++ran; });
        const HookList::Mark savepoint = hooks.mark();
        hooks.push([&ran, big = std::array<char, 20'000>{}] { ran += 1000 + static_cast<std::size_t>(big[0]); });
        for (int i = 0; i < 1000; ++i) hooks.push([&ran] { ran += 1000; });
        hooks.discard(savepoint);
        hooks.push([&ran, big = std::array<char, 50'000>{}] { ran += 1 + static_cast<std::size_t>(big[0]); });
        run(hooks, from);
        hooks.trim();
    };
    for (int i = 0; i < 5; ++i) once();  // the first leaves surplus chunks behind, one goes each time
    const support::CountAllocations allocations;
    for (int i = 0; i < 5; ++i) once();
    const std::size_t made = allocations.made();
    const std::size_t freed = allocations.freed();
    CHECK(ran == 10 * 101);
    CHECK(made == 0);
    CHECK(freed == 0);
}

TEST_CASE("HookList: equal transactions with a bigger one inside a hook keep their memory too", "[S13][S52]") {
    HookList hooks;
    std::size_t ran = 0;
    const auto once = [&] {
        hooks.push([&] { transaction(hooks, 5000, ran); });
        hooks.push([&] { transaction(hooks, 10, ran); });
        run(hooks, hooks.start());
        hooks.trim();
    };
    once();
    const support::CountAllocations allocations;
    for (int i = 0; i < 5; ++i) once();
    const std::size_t made = allocations.made();
    const std::size_t freed = allocations.freed();
    CHECK(ran == 6 * 5010);
    CHECK(made == 0);
    CHECK(freed == 0);
}

TEST_CASE("HookList: smaller transactions give the memory back, one chunk per trim", "[S52]") {
    HookList hooks;
    std::size_t ran = 0;
    const support::CountAllocations first;
    transaction(hooks, 20'000, ran);
    const std::size_t chunks = first.made();
    CHECK(chunks > 3);
    CHECK(first.freed() == 0);

    std::vector<std::size_t> freed_by_each(chunks + 3);
    std::size_t made = 0;
    for (std::size_t& freed : freed_by_each) {
        const support::CountAllocations each;
        transaction(hooks, 1, ran);
        freed = each.freed();
        made += each.made();
    }
    // The trim of the big transaction itself keeps all; the first small one still sees it as recent.
    std::vector<std::size_t> expected(chunks, 1);
    expected.resize(chunks + 3, 0);
    CHECK(made == 0);
    CHECK(freed_by_each == expected);
}

TEST_CASE("HookList: trim keeps what the last transaction used", "[S52]") {
    HookList hooks;
    std::size_t ran = 0;
    transaction(hooks, 20'000, ran);
    for (int i = 0; i < 50; ++i) transaction(hooks, 1000, ran);
    const support::CountAllocations allocations;
    for (int i = 0; i < 5; ++i) transaction(hooks, 1000, ran);
    const std::size_t made = allocations.made();
    const std::size_t freed = allocations.freed();
    CHECK(made == 0);
    CHECK(freed == 0);
}

TEST_CASE("HookList: trim inside a hook or an open block frees nothing that is in use", "[S13]") {
    HookList hooks;
    std::size_t ran = 0;
    for (int i = 0; i < 5000; ++i) {
        hooks.push([&] {
            ++ran;
            hooks.trim();
        });
        if (i % 500 == 0) hooks.trim();
    }
    run(hooks, hooks.start());
    for (int i = 0; i < 30; ++i) hooks.trim();
    CHECK(ran == 5000);
    hooks.push([&] { ++ran; });
    run(hooks, hooks.start());
    CHECK(ran == 5001);
}

TEST_CASE("HookList: hooks that push for ever do not need ever more memory", "[S14][S52]") {
    HookList hooks;
    std::size_t ran = 0;
    struct Again {
        HookList* hooks;
        std::size_t* ran;
        void operator()() const {
            ++*ran;
            hooks->push(*this);
        }
    };
    for (int i = 0; i < 10; ++i) hooks.push(Again{&hooks, &ran});
    for (int i = 0; i < 1000; ++i) run(hooks, hooks.start());
    CHECK(ran == 10'000);
    CHECK(hooks.size(hooks.start()) == 10);
    hooks.discard(hooks.start());
    CHECK(hooks.empty(hooks.start()));
}

// ---- One hook at a time

TEST_CASE("HookList: a Run can be called one hook at a time", "[S12][S18]") {
    Words history;
    HookList hooks;
    for (const char* name : {"a", "b"}) hooks.push(Telling{history, name});
    HookList::Run walk{hooks, hooks.start()};
    CHECK(history.empty());
    CHECK(walk.next());
    CHECK(history == Words{"run a", "destroy a"});
    CHECK(walk.done() == 1);
    CHECK(walk.left() == 1);
    hooks.push(Telling{history, "pushed"});
    CHECK(walk.next());
    CHECK(history == Words{"run a", "destroy a", "run b", "destroy b"});
    CHECK_FALSE(walk.next());
    CHECK_FALSE(walk.next());
    CHECK(walk.done() == 2);
    CHECK(walk.left() == 0);
    CHECK(hooks.size(hooks.mark()) == 0);
    CHECK(hooks.size(hooks.start()) == 3);  // their room is given back when the Run ends
}

TEST_CASE("HookList: what is left of a Run that was called one hook at a time", "[S14][S18]") {
    Words history;
    HookList hooks;
    for (const char* name : {"a", "b", "c"}) hooks.push(Telling{history, name});
    {
        HookList::Run walk{hooks, hooks.start()};
        CHECK(walk.next());
        SECTION("is run by calling it") {
            walk();
            CHECK(history == Words{"run a", "destroy a", "run b", "destroy b", "run c", "destroy c"});
            CHECK_FALSE(walk.next());
        }
        SECTION("is destroyed by discard()") {
            walk.discard();
            CHECK(history == Words{"run a", "destroy a", "destroy b", "destroy c"});
            CHECK_FALSE(walk.next());
        }
        SECTION("is destroyed with it") {}
    }
    CHECK(history.back() == "destroy c");
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: one hook at a time, one that throws is gone", "[S14][S19]") {
    Words history;
    HookList hooks;
    for (const char* name : {"a", "b"}) {
        hooks.push([hook = Telling{history, name}]() mutable {
            hook();
            throw 1;
        });
    }
    HookList::Run walk{hooks, hooks.start()};
    CHECK_THROWS_AS(walk.next(), int);
    CHECK(history == Words{"run a", "destroy a"});
    CHECK(walk.done() == 1);
    CHECK(walk.left() == 1);
    CHECK_THROWS_AS(walk.next(), int);
    CHECK(history == Words{"run a", "destroy a", "run b", "destroy b"});
    CHECK_FALSE(walk.next());
}

TEST_CASE("HookList: one hook at a time, over the ends of chunks and over holes", "[S12]") {
    HookList hooks;
    std::vector<int> ran;
    const auto hole = [&] {
        const HookList::Mark savepoint = hooks.mark();
        hooks.push([end = AtEnd{[&] { hooks.push([&ran] { ran.push_back(-1); }); }}] {});
        hooks.discard(savepoint);
    };
    hole();
    for (int i = 0; i < 200; ++i) {
        hooks.push([&ran, i] { ran.push_back(i); });
        if (i % 50 == 0) hole();
    }
    hole();
    std::vector<int> expected{-1};
    for (int i = 0; i < 200; ++i) {
        expected.push_back(i);
        if (i % 50 == 0) expected.push_back(-1);
    }
    expected.push_back(-1);
    std::size_t calls = 0;
    {
        HookList::Run walk{hooks, hooks.start()};
        CHECK(walk.left() == expected.size());
        while (walk.next()) ++calls;
        CHECK(walk.done() == expected.size());
    }
    CHECK(ran == expected);
    CHECK(calls == expected.size());
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: one hook at a time over nothing but a hole runs nothing", "[S12]") {
    HookList hooks;
    hooks.push([end = AtEnd{[&] { hooks.push([end = AtEnd{[&] { hooks.push([] {}); }}] {}); }}] {});
    hooks.discard(hooks.start());
    const HookList::Mark behind_hole = hooks.mark();
    hooks.discard(hooks.start());
    CHECK(hooks.size(hooks.start()) == 1);
    hooks.discard(behind_hole);
    CHECK_FALSE(hooks.empty(hooks.start()));
    HookList::Run walk{hooks, hooks.start()};
    CHECK_FALSE(walk.next());
}

TEST_CASE("HookList: a hook that calls or discards the Run that calls it alone changes nothing", "[S14][S18]") {
    Words history;
    HookList hooks;
    HookList::Run* own = nullptr;
    bool found_another = false;
    hooks.push([&] { found_another = own->next(); });
    hooks.push([&own] { (*own)(); });
    hooks.push([&own] { own->discard(); });
    hooks.push(Telling{history, "a"});
    HookList::Run walk{hooks, hooks.start()};
    own = &walk;
    for (int i = 0; i < 3; ++i) CHECK(walk.next());
    CHECK_FALSE(found_another);
    CHECK(history.empty());
    CHECK(walk.next());
    CHECK(history == Words{"run a", "destroy a"});
    CHECK_FALSE(walk.next());
}

TEST_CASE("HookList: between two hooks of a Run others are registered, run and discarded", "[S16][S17]") {
    Words history;
    HookList hooks;
    for (const char* name : {"a", "b"}) hooks.push(Telling{history, name});
    HookList::Run walk{hooks, hooks.start()};
    CHECK(walk.next());
    const HookList::Mark begin = hooks.mark();
    hooks.push(Telling{history, "c"});
    const HookList::Mark savepoint = hooks.mark();
    hooks.push(Telling{history, "d"});
    hooks.discard(savepoint);
    hooks.trim();
    run(hooks, begin);
    CHECK(walk.next());
    CHECK(history == Words{"run a", "destroy a", "destroy d", "run c", "destroy c", "run b", "destroy b"});
}

TEST_CASE("HookList: Runs of one list may end in any order", "[S14][S16]") {
    Words history;
    HookList hooks;
    std::array<std::optional<HookList::Run>, 3> walks;
    for (auto& walk : walks) {
        const HookList::Mark begin = hooks.mark();
        for (const char* name : {"a", "b"}) hooks.push(Telling{history, name});
        walk.emplace(hooks, begin);
        CHECK(walk->next());
    }
    const auto order = GENERATE(std::array<std::size_t, 3>{0, 1, 2}, std::array<std::size_t, 3>{1, 0, 2},
                                std::array<std::size_t, 3>{0, 2, 1}, std::array<std::size_t, 3>{1, 2, 0},
                                std::array<std::size_t, 3>{2, 0, 1}, std::array<std::size_t, 3>{2, 1, 0});
    for (const std::size_t i : order) {
        history.clear();
        CHECK(walks[i]->next());
        walks[i].reset();
        CHECK(history == Words{"run b", "destroy b"});
        const HookList::Mark begin = hooks.mark();
        hooks.push(Telling{history, "c"});
        const HookList::Mark savepoint = hooks.mark();
        hooks.push(Telling{history, "d"});
        hooks.discard(savepoint);
        run(hooks, begin);
        CHECK(history == Words{"run b", "destroy b", "destroy d", "run c", "destroy c"});
    }
    run(hooks, hooks.start());
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: after Runs that ended in any order, only what the others need is refused", "[S16]") {
    Words history;
    HookList hooks;
    for (const char* name : {"a", "b"}) hooks.push(Telling{history, name});
    HookList::Run first{hooks, hooks.start()};
    CHECK(first.next());
    const HookList::Mark behind_first = hooks.mark();
    hooks.push([&hooks, &history] { hooks.push(Telling{history, "pushed"}); });
    std::optional<HookList::Run> second{std::in_place, hooks, behind_first};
    CHECK(second->next());
    hooks.push(Telling{history, "d"});
    std::optional<HookList::Run> third{std::in_place, hooks, hooks.mark()};
    second.reset();
    third.reset();
    CHECK(hooks.size(behind_first) == 2);
    hooks.discard(behind_first);
    CHECK(first.next());
    CHECK(history == Words{"run a", "destroy a", "destroy pushed", "destroy d", "run b", "destroy b"});
}

// ---- What a hook, and a constructor or destructor of a capture, may do with the list

namespace {

using support::AtDestruction;
using support::OnCopy;

enum class Place { copy, move, call, destroy_after_call, destroy_in_discard, beside_a_run };

template <class Do>
struct OnMove {
    explicit OnMove(Do what) : do_it{std::move(what)} {}
    OnMove(OnMove&& other) : do_it{other.do_it} { do_it(); }
    OnMove& operator=(OnMove&&) = delete;
    ~OnMove() = default;
    void operator()() const {}
    Do do_it;
};

// Calls `act` at `place`. Behind what is called, run or discarded there lies another hook.
template <class Act>
void act_at(Place place, HookList& hooks, Act act) {
    switch (place) {
        case Place::copy: {
            const OnCopy hook{act};
            return hooks.push(hook);
        }
        case Place::move:
            return hooks.push(OnMove{act});
        case Place::call:
            hooks.push(act);
            hooks.push([] {});
            return run(hooks, hooks.start());
        case Place::destroy_after_call:
            hooks.push(AtDestruction{act});
            hooks.push([] {});
            return run(hooks, hooks.start());
        case Place::destroy_in_discard:
            hooks.push(AtDestruction{act});
            hooks.push([] {});
            return hooks.discard(hooks.start());
        case Place::beside_a_run: {
            hooks.push([] {});
            HookList::Run walk{hooks, hooks.start()};
            walk.next();
            act();
            return walk();
        }
    }
}

constexpr std::array every_place{
    Place::copy, Place::move, Place::call, Place::destroy_after_call, Place::destroy_in_discard, Place::beside_a_run};

// How a process ends that does `act(hooks, older, inner)` there. Hooks lie behind `older` and behind `inner`.
template <class Act>
support::ProcessEnd end_of_act_at(Place place, Act act) {
    return support::end_of_process([&] {
        const auto hooks = std::make_unique<std::optional<HookList>>(std::in_place);
        HookList& list = **hooks;
        for (int i = 0; i < 20; ++i) list.push([big = std::array<char, 100>{}] { static_cast<void>(big[0]); });
        const HookList::Mark older = list.mark();
        list.push([text = std::string(40, '-')] { static_cast<void>(text.size()); });
        const HookList::Mark inner = list.mark();
        list.push([text = std::string(40, '-')] { static_cast<void>(text.size()); });
        act_at(place, list, [&] {
            const HookList::Mark own = list.mark();  // what is right does not make the rest right
            list.push([text = std::string(40, '-')] { static_cast<void>(text.size()); });
            run(list, own);
            list.discard(own);
            act(*hooks, older, inner);
        });
    });
}

}  // namespace

TEST_CASE("HookList: a block of its own can be run and rolled back at any place", "[S7][S16][S17][S27]") {
    const Place place = GENERATE(from_range(every_place));
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "before"});
    const HookList::Mark older = hooks.mark();
    act_at(place, hooks, [&] {
        CHECK_FALSE(hooks.empty(hooks.start()));
        CHECK(hooks.size(hooks.start()) >= hooks.size(older));
        const HookList::Mark begin = hooks.mark();
        hooks.push(Telling{history, "a"});
        const HookList::Mark first = hooks.mark();
        hooks.push(Telling{history, "b"});
        run(hooks, first);
        const HookList::Mark second = hooks.mark();
        for (int i = 0; i < 200; ++i) hooks.push([end = i] { static_cast<void>(end); });
        hooks.push(Telling{history, "c"});
        hooks.discard(second);
        hooks.trim();
        hooks.discard(hooks.mark());
        run(hooks, begin);
        hooks.push(Telling{history, "stays"});
    });
    const Words block{"run b", "destroy b", "destroy c", "run a", "destroy a"};
    const auto began = std::search(history.begin(), history.end(), block.begin(), block.end());
    CHECK(began != history.end());
    run(hooks, hooks.start());
    CHECK(history.back() == "destroy stays");
    CHECK(std::count(history.begin(), history.end(), "run stays") == 1);
    CHECK(std::count(history.begin(), history.end(), "destroy before") == 1);
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: at any place, failing to get memory registers nothing", "[S7]") {
    const Place place = GENERATE(from_range(every_place));
    HookList hooks;
    int ran = 0;
    int refused = 0;
    std::size_t sizes_that_differ = 0;
    act_at(place, hooks, [&] {
        const HookList::Mark here = hooks.mark();
        const support::FailAllocation fail{0};
        try {
            hooks.push([&ran, big = std::array<char, 5000>{}] { ran += 1 + big[0]; });
        } catch (const std::bad_alloc&) {
            ++refused;
        }
        sizes_that_differ += hooks.size(here);
        hooks.push([&ran] { ran += 10; });
    });
    CHECK(refused == 1);
    CHECK(sizes_that_differ == 0);
    run(hooks, hooks.start());
    CHECK(ran == 10);
}

TEST_CASE("HookList: a failure to get memory in a copy constructor leaves only what was registered before", "[S7]") {
    HookList hooks;
    int ran = 0;
    const auto act = [&] {
        hooks.push([&ran] { ran += 10; });
        const support::FailAllocation fail{0};
        hooks.push([&ran, big = std::array<char, 5000>{}] { ran += 1 + big[0]; });
    };
    const OnCopy hook{act};
    CHECK_THROWS_AS(hooks.push(hook), std::bad_alloc);
    CHECK(hooks.size(hooks.start()) == 1);
    run(hooks, hooks.start());
    CHECK(ran == 10);
}

TEST_CASE("HookList: an exception through the Run of a hook's own block ends that Run first", "[S17][S19]") {
    Words history;
    HookList hooks;
    hooks.push([&] {
        const HookList::Mark inner = hooks.mark();
        hooks.push([hook = Telling{history, "a"}]() mutable {
            hook();
            throw 1;
        });
        hooks.push(Telling{history, "b"});
        HookList::Run walk{hooks, inner};
        walk.next();
    });
    hooks.push(Telling{history, "c"});
    CHECK_THROWS_AS(run(hooks, hooks.start()), int);
    CHECK(history == Words{"run a", "destroy a", "destroy b", "destroy c"});
    CHECK(hooks.empty(hooks.start()));
    hooks.push([&] { hooks.discard(hooks.mark()); });
    run(hooks, hooks.start());
}

TEST_CASE("HookList: to run or discard from an older mark at any place ends the program with a message",
          "[S14][S57][posix]") {
    using End = void (*)(HookList&, HookList::Mark older, HookList::Mark inner);
    constexpr std::array<End, 6> endings{
        [](HookList& hooks, HookList::Mark older, HookList::Mark) { hooks.discard(older); },
        [](HookList& hooks, HookList::Mark, HookList::Mark inner) { hooks.discard(inner); },
        [](HookList& hooks, HookList::Mark, HookList::Mark) { hooks.discard(hooks.start()); },
        [](HookList& hooks, HookList::Mark older, HookList::Mark) { run(hooks, older); },
        [](HookList& hooks, HookList::Mark, HookList::Mark inner) { HookList::Run{hooks, inner}.next(); },
        [](HookList& hooks, HookList::Mark older, HookList::Mark) { HookList::Run{hooks, older}.discard(); },
    };
    for (const Place place : every_place) {
        for (std::size_t i = 0; i < endings.size(); ++i) {
            INFO("place " << static_cast<int>(place) << ", ending " << i);
            const auto end = end_of_act_at(place, [&](auto& hooks, HookList::Mark older, HookList::Mark inner) {
                endings[i](*hooks, older, inner);
            });
            CHECK(end.terminated);
            CHECK(end.said.find("txhooks: hooks were to be run or discarded from a mark older than") == 0);
        }
    }
}

TEST_CASE("HookList: to destroy it at any place ends the program with a message", "[S57][posix]") {
    for (const Place place : every_place) {
        INFO("place " << static_cast<int>(place));
        const auto end = end_of_act_at(place, [](auto& hooks, HookList::Mark, HookList::Mark) { hooks.reset(); });
        CHECK(end.terminated);
        CHECK(end.said.find("txhooks: a list of hooks was destroyed while") == 0);
    }
}

TEST_CASE("HookList: a hook that destroys the Run that calls it ends the program with a message", "[S57][posix]") {
    const bool alone = GENERATE(false, true);
    const auto end = support::end_of_process([alone] {
        HookList hooks;
        std::optional<HookList::Run> walk;
        hooks.push([&walk] { walk.reset(); });
        walk.emplace(hooks, hooks.start());
        alone ? static_cast<void>(walk->next()) : (*walk)();
    });
    CHECK(end.terminated);
    CHECK(end.said.find("txhooks: a HookList::Run was destroyed by one of its own hooks") == 0);
}

// ---- Hooks of the other kinds

namespace {

// Registers one of each kind: "a" to "d".
void push_each_kind(HookList& hooks, Words& history, const std::string& prefix = "") {
    hooks.push(Telling{history, prefix + "commit"});
    hooks.push_before(Telling{history, prefix + "before"});
    hooks.push_rollback(Telling{history, prefix + "rollback"});
    hooks.push_unless_committed(Telling{history, prefix + "unless"});
}

// Over the ends of chunks.
void push_many_of_each_kind(HookList& hooks, std::vector<int>& ran, int many) {
    for (int i = 0; i != many; ++i) {
        hooks.push([&ran, i] { ran.push_back(i); });
        hooks.push_before([&ran, i, wide = std::array<char, 100>{}] { ran.push_back(1000 + i + wide[0]); });
        hooks.push_rollback([&ran, i] { ran.push_back(2000 + i); });
        hooks.push_unless_committed([&ran, i, big = std::array<char, 300>{}] { ran.push_back(3000 + i + big[0]); });
    }
}

std::vector<int> numbers(int from, int to) {
    std::vector<int> all;
    for (; from != to; ++from) all.push_back(from);
    return all;
}

}  // namespace

TEST_CASE("HookList: of four kinds those run whose end has come, and only commit hooks are counted",
          "[S61][S77][S79]") {
    Words history;
    HookList hooks;
    push_each_kind(hooks, history);
    CHECK(hooks.size(hooks.start()) == 1);
    SECTION("before the commit, and after it") {
        hooks.before(hooks.start());
        CHECK(history == Words{"run before", "destroy before"});
        hooks.before(hooks.start());
        CHECK(hooks.size(hooks.start()) == 1);
        history.clear();
        HookList::Run walk{hooks, hooks.start()};
        CHECK(walk.left() == 1);
        walk();
        CHECK(walk.done() == 1);
        CHECK(history == Words{"run commit", "destroy commit", "destroy rollback", "destroy unless"});
    }
    SECTION("after a commit that nothing was done before") {
        run(hooks, hooks.start());
        CHECK(history == Words{"run commit", "destroy commit", "destroy before", "destroy rollback", "destroy unless"});
    }
    SECTION("after a rollback: the last first, and then all are destroyed in order") {
        hooks.roll_back(hooks.start());
        CHECK(history == Words{"run unless", "run rollback", "destroy commit", "destroy before", "destroy rollback",
                               "destroy unless"});
    }
    SECTION("after an end that proves nothing") {
        hooks.end_unproven(hooks.start());
        CHECK(history == Words{"run unless", "destroy commit", "destroy before", "destroy rollback", "destroy unless"});
    }
    SECTION("discarded") {
        hooks.discard(hooks.start());
        CHECK(history == Words{"destroy commit", "destroy before", "destroy rollback", "destroy unless"});
    }
    SECTION("one at a time") {
        {
            HookList::Run walk{hooks, hooks.start()};
            CHECK(walk.next());
            CHECK(history == Words{"run commit", "destroy commit"});
            CHECK_FALSE(walk.next());
        }
        CHECK(history == Words{"run commit", "destroy commit", "destroy before", "destroy rollback", "destroy unless"});
    }
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: its destructor runs no hook of any kind", "[S79]") {
    Words history;
    {
        HookList hooks;
        push_each_kind(hooks, history);
    }
    CHECK(history == Words{"destroy commit", "destroy before", "destroy rollback", "destroy unless"});
}

TEST_CASE("HookList: what a hook before the commit pushes runs in the same pass, behind those that wait",
          "[S61][S79]") {
    Words history;
    HookList hooks;
    hooks.push_before([&] {
        hooks.push_before(Telling{history, "pushed"});
        push_each_kind(hooks, history, "other ");
    });
    hooks.push_before(Telling{history, "waited"});
    hooks.before(hooks.start());
    CHECK(history == Words{"run waited", "destroy waited", "run pushed", "destroy pushed", "run other before",
                           "destroy other before"});
    history.clear();
    run(hooks, hooks.start());
    CHECK(history ==
          Words{"run other commit", "destroy other commit", "destroy other rollback", "destroy other unless"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: savepoints in a hook before the commit", "[S61][S79]") {
    Words history;
    HookList hooks;
    hooks.push_before([&] {
        const HookList::Mark savepoint = hooks.mark();
        push_each_kind(hooks, history, "undone ");
        hooks.roll_back(savepoint);
        const HookList::Mark another = hooks.mark();
        hooks.push_before(Telling{history, "nested"});
        hooks.before(another);
        for (int i = 0; i != 300; ++i) hooks.push([&history] { history.clear(); });
        hooks.discard(another);
        hooks.push_before(Telling{history, "stays"});
    });
    hooks.push_before(Telling{history, "last"});
    hooks.before(hooks.start());
    CHECK(history == Words{"run undone unless", "run undone rollback", "destroy undone commit", "destroy undone before",
                           "destroy undone rollback", "destroy undone unless", "run nested", "destroy nested",
                           "run last", "destroy last", "run stays", "destroy stays"});
    CHECK(hooks.size(hooks.start()) == 0);
    run(hooks, hooks.start());
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a hook before the commit that throws ends the pass and is gone", "[S62][S65][S79]") {
    Words history;
    HookList hooks;
    push_each_kind(hooks, history, "first ");
    hooks.push_before([hook = Telling{history, "throws"}]() mutable {
        hook();
        throw 1;
    });
    push_each_kind(hooks, history, "later ");
    CHECK_THROWS_AS(hooks.before(hooks.start()), int);
    CHECK(history == Words{"run first before", "destroy first before", "run throws", "destroy throws"});
    history.clear();
    SECTION("rolled back, what waited is undone") {
        hooks.roll_back(hooks.start());
        CHECK(history == Words{"run later unless", "run later rollback", "run first unless", "run first rollback",
                               "destroy first commit", "destroy first rollback", "destroy first unless",
                               "destroy later commit", "destroy later before", "destroy later rollback",
                               "destroy later unless"});
    }
    SECTION("called again, it runs the ones after it") {
        hooks.before(hooks.start());
        CHECK(history == Words{"run later before", "destroy later before"});
        hooks.discard(hooks.start());
    }
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: of what hooks throw the first is thrown, when all have run and are destroyed", "[S70][S79]") {
    Words history;
    HookList hooks;
    const bool proven = GENERATE(false, true);
    for (const int i : {1, 2, 3}) {
        hooks.push_unless_committed([hook = Telling{history, std::to_string(i)}, i]() mutable {
            hook();
            throw i;
        });
    }
    hooks.push(Telling{history, "commit"});
    int thrown = 0;
    try {
        proven ? hooks.roll_back(hooks.start()) : hooks.end_unproven(hooks.start());
    } catch (const int number) {
        thrown = number;
        history.push_back("caught");
    }
    CHECK(thrown == 3);
    CHECK(history ==
          Words{"run 3", "run 2", "run 1", "destroy 1", "destroy 2", "destroy 3", "destroy commit", "caught"});
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: a savepoint that is undone takes along what lies behind its mark, and no more", "[S68][S79]") {
    Words history;
    HookList hooks;
    push_each_kind(hooks, history, "outer ");
    const HookList::Mark savepoint = hooks.mark();
    push_each_kind(hooks, history, "inner ");
    hooks.roll_back(savepoint);
    CHECK(history == Words{"run inner unless", "run inner rollback", "destroy inner commit", "destroy inner before",
                           "destroy inner rollback", "destroy inner unless"});
    CHECK(hooks.empty(savepoint));
    history.clear();
    hooks.end_unproven(hooks.start());
    CHECK(history.front() == "run outer unless");
    CHECK(history.size() == 5);
}

TEST_CASE("HookList: what hooks of an undo push stays, and may be undone in its turn", "[S72][S79]") {
    Words history;
    HookList hooks;
    hooks.push(Telling{history, "outer"});
    const HookList::Mark savepoint = hooks.mark();
    hooks.push_rollback([&] {
        const HookList::Mark own = hooks.mark();
        push_each_kind(hooks, history, "nested ");
        hooks.roll_back(own);
        hooks.push_rollback(Telling{history, "pushed"});
    });
    hooks.push(Telling{history, "inner"});
    hooks.roll_back(savepoint);
    CHECK(history == Words{"run nested unless", "run nested rollback", "destroy nested commit", "destroy nested before",
                           "destroy nested rollback", "destroy nested unless", "destroy inner"});
    CHECK_FALSE(hooks.empty(savepoint));
    history.clear();
    hooks.roll_back(savepoint);
    CHECK(history == Words{"run pushed", "destroy pushed"});
    run(hooks, hooks.start());
    CHECK(history.back() == "destroy outer");
    CHECK(hooks.empty(hooks.start()));
}

TEST_CASE("HookList: hooks of every kind over the ends of chunks", "[S61][S70][S79]") {
    constexpr int many = 400;
    std::vector<int> ran;
    HookList hooks;
    push_many_of_each_kind(hooks, ran, 3);
    const HookList::Mark savepoint = hooks.mark();
    push_many_of_each_kind(hooks, ran, many);
    CHECK(hooks.size(savepoint) == many);
    SECTION("before the commit, and after it") {
        hooks.before(savepoint);
        CHECK(ran == numbers(1000, 1000 + many));
        ran.clear();
        run(hooks, savepoint);
        CHECK(ran == numbers(0, many));
    }
    SECTION("undone") {
        hooks.roll_back(savepoint);
        std::vector<int> expected;
        for (int i = many; i-- != 0;) expected.insert(expected.end(), {3000 + i, 2000 + i});
        CHECK(ran == expected);
    }
    SECTION("unproven") {
        hooks.end_unproven(savepoint);
        std::vector<int> expected = numbers(3000, 3000 + many);
        std::reverse(expected.begin(), expected.end());
        CHECK(ran == expected);
    }
    CHECK(hooks.empty(savepoint));
    CHECK(hooks.size(hooks.start()) == 3);
}

TEST_CASE("HookList: captures of every kind are aligned, stay where they are, and may be immovable inside",
          "[S3][S79]") {
    struct alignas(64) Pinned {
        explicit Pinned(int& count) : ran{&count} {}
        Pinned(const Pinned& other) : ran{other.ran} {}
        Pinned& operator=(const Pinned&) = delete;
        ~Pinned() = default;
        void operator()() const {
            const bool fits = self == this and reinterpret_cast<std::uintptr_t>(this) % 64 == 0;
            *ran += fits ? 1 : -1000;
        }
        int* ran;
        const Pinned* self = this;
    };
    int ran = 0;
    const Pinned hook{ran};
    HookList hooks;
    for (int i = 0; i != 50; ++i) {
        hooks.push_rollback([] {});
        hooks.push_before(hook);
        hooks.push_rollback(hook);
        hooks.push_unless_committed(hook);
    }
    hooks.before(hooks.start());
    CHECK(ran == 50);
    hooks.roll_back(hooks.start());
    CHECK(ran == 150);
}

TEST_CASE("HookList: a copy that throws, or fails to get memory, registers no hook of any kind", "[S74][S79]") {
    Words history;
    HookList hooks;
    bool throws = false;
    const support::OnCopy hook{[&throws] {
        if (throws) throw 1;
    }};
    throws = true;
    hooks.push(Telling{history, "first"});
    const HookList::Mark begin = hooks.mark();
    CHECK_THROWS_AS(hooks.push_before(hook), int);
    CHECK_THROWS_AS(hooks.push_rollback(hook), int);
    CHECK_THROWS_AS(hooks.push_unless_committed(hook), int);
    const std::array<char, 5000> big{};
    std::size_t refused = 0;
    const auto refuse = [&](const auto& push) {
        const support::FailAllocation fail{0};
        try {
            push([&history, big] { history.push_back(std::to_string(big[0])); });
        } catch (const std::bad_alloc&) {
            ++refused;
        }
    };
    refuse([&](const auto& each) { hooks.push_before(each); });
    refuse([&](const auto& each) { hooks.push_rollback(each); });
    refuse([&](const auto& each) { hooks.push_unless_committed(each); });
    CHECK(refused == 3);
    CHECK(hooks.empty(begin));
    hooks.before(hooks.start());
    hooks.roll_back(hooks.start());
    CHECK(history == Words{"destroy first"});
}

TEST_CASE("HookList: to run the hooks of any kind allocates nothing", "[S52][S79]") {
    HookList hooks;
    std::size_t ran = 0;
    for (int i = 0; i != 300; ++i) {
        hooks.push_before([&ran] { ++ran; });
        hooks.push_rollback([&ran] { ++ran; });
        hooks.push_unless_committed([&ran] { ++ran; });
    }
    const support::CountAllocations allocations;
    hooks.before(hooks.start());
    hooks.roll_back(hooks.start());
    const std::size_t made = allocations.made();
    CHECK(made == 0);
    CHECK(ran == 900);
}

TEST_CASE("HookList: used again and again for any kind it needs no more memory", "[S52][S79]") {
    HookList hooks;
    const auto transaction = [&hooks](int end) {
        const HookList::Mark begin = hooks.mark();
        for (int i = 0; i != 100; ++i) {
            hooks.push_before([] {});
            hooks.push_rollback([] {});
            hooks.push([] {});
        }
        hooks.before(begin);
        if (end == 0) run(hooks, begin);
        if (end == 1) hooks.roll_back(begin);
        if (end == 2) hooks.end_unproven(begin);
    };
    for (int end = 0; end != 3; ++end) transaction(end);
    const support::CountAllocations allocations;
    for (int i = 0; i != 300; ++i) transaction(i % 3);
    const std::size_t made = allocations.made();
    CHECK(made == 0);
}

TEST_CASE("HookList: to begin at an older mark, from a hook of any kind, ends the program with a message",
          "[S57][S79][posix]") {
    using Act = void (*)(HookList&, HookList::Mark);
    constexpr std::array<Act, 5> acts{
        [](HookList& hooks, HookList::Mark mark) { hooks.before(mark); },
        [](HookList& hooks, HookList::Mark mark) { hooks.roll_back(mark); },
        [](HookList& hooks, HookList::Mark mark) { hooks.end_unproven(mark); },
        [](HookList& hooks, HookList::Mark mark) { hooks.discard(mark); },
        [](HookList& hooks, HookList::Mark mark) { run(hooks, mark); },
    };
    enum class In { before, roll_back, end_unproven, run };
    for (const In in : {In::before, In::roll_back, In::end_unproven, In::run}) {
        for (std::size_t i = 0; i != acts.size(); ++i) {
            INFO("in " << static_cast<int>(in) << ", act " << i);
            const auto end = support::end_of_process([&] {
                HookList hooks;
                hooks.push([] {});
                const HookList::Mark begin = hooks.mark();
                const auto hook = [&] {
                    const HookList::Mark own = hooks.mark();  // what is right does not make the rest right
                    hooks.push_rollback([] {});
                    hooks.roll_back(own);
                    acts[i](hooks, begin);
                };
                if (in == In::before) hooks.push_before(hook);
                if (in == In::run) hooks.push(hook);
                if (in == In::roll_back) hooks.push_rollback(hook);
                if (in == In::end_unproven) hooks.push_unless_committed(hook);
                hooks.push([] {});
                if (in == In::before) hooks.before(begin);
                if (in == In::run) run(hooks, begin);
                if (in == In::roll_back) hooks.roll_back(begin);
                if (in == In::end_unproven) hooks.end_unproven(begin);
            });
            CHECK(end.terminated);
            CHECK(end.said.find("txhooks: hooks were to be run or discarded from a mark older than") == 0);
        }
    }
}

TEST_CASE("HookList: beside a Run, or while a hook is copied, no older hook is called of any kind",
          "[S57][S79][posix]") {
    using Act = void (*)(HookList&, HookList::Mark);
    constexpr std::array<Act, 3> acts{
        [](HookList& hooks, HookList::Mark mark) { hooks.before(mark); },
        [](HookList& hooks, HookList::Mark mark) { hooks.roll_back(mark); },
        [](HookList& hooks, HookList::Mark mark) { hooks.end_unproven(mark); },
    };
    for (const Place place : every_place) {
        for (std::size_t i = 0; i != acts.size(); ++i) {
            INFO("place " << static_cast<int>(place) << ", act " << i);
            const auto end = end_of_act_at(
                place, [&](auto& hooks, HookList::Mark older, HookList::Mark) { acts[i](*hooks, older); });
            CHECK(end.terminated);
            CHECK(end.said.find("txhooks: hooks were to be run or discarded from a mark older than") == 0);
        }
    }
}

TEST_CASE("HookList: to destroy it from a hook of any kind ends the program with a message", "[S57][S79][posix]") {
    for (const int kind : {0, 1, 2}) {
        const auto end = support::end_of_process([kind] {
            const auto hooks = std::make_unique<std::optional<HookList>>(std::in_place);
            HookList& list = **hooks;
            if (kind == 0) list.push_before([&hooks] { hooks->reset(); });
            if (kind == 1) list.push_rollback([&hooks] { hooks->reset(); });
            if (kind == 2) list.push_unless_committed([&hooks] { hooks->reset(); });
            if (kind == 0) list.before(list.start());
            if (kind == 1) list.roll_back(list.start());
            if (kind == 2) list.end_unproven(list.start());
        });
        CHECK(end.terminated);
        CHECK(end.said.find("txhooks: a list of hooks was destroyed while") == 0);
    }
}

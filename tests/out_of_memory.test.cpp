// SPDX-License-Identifier: MIT
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/faults.hpp"
#include "support/trace.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>

using support::CountAllocations;
using support::FailAllocation;
using support::Sink;
using txhooks::Atomic;
using txhooks::Connection;
using txhooks::ConnectionState;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::HookFailure;
using txhooks::testing::FakeBackend;

namespace {

// An engine that needs no memory: what allocates then is txhooks, or a capture.
class Engine {
public:
    void begin() {
        open_ = true;
        ++begun;
    }
    txhooks::CommitResult commit() noexcept {
        open_ = false;
        ++committed;
        allocations_at_commit = since_start.made();
        return {txhooks::Outcome::committed};
    }
    void rollback() { open_ = false; }
    void savepoint(unsigned) {}
    void release(unsigned) {}
    void rollback_to(unsigned) {}
    ConnectionState state() const noexcept { return open_ ? ConnectionState::open : ConnectionState::idle; }

    CountAllocations since_start;
    std::size_t allocations_at_commit = 0;
    int begun = 0;
    int committed = 0;

private:
    bool open_ = false;
};

// Which hooks ran, in order, without memory.
class Ran {
public:
    void add(char hook) noexcept {
        if (size_ < text_.size()) text_[size_++] = hook;
    }
    std::string text() const { return {text_.data(), size_}; }
    bool has(char hook) const { return text().find(hook) != std::string::npos; }

private:
    std::array<char, 256> text_{};
    std::size_t size_ = 0;
};

int alive = 0;

// A capture on the heap, counted.
class Heap {
public:
    explicit Heap(char key) : key_{std::make_unique<char>(key)} { ++alive; }
    Heap(const Heap& other) : key_{std::make_unique<char>(*other.key_)} { ++alive; }
    Heap& operator=(const Heap&) = delete;
    ~Heap() { --alive; }
    char key() const noexcept { return *key_; }

private:
    std::unique_ptr<char> key_;
};

struct alignas(64) Large {
    char bytes[300] = {};
    bool fits() const noexcept { return reinterpret_cast<std::uintptr_t>(this) % alignof(Large) == 0; }
};

void drop(void*, const char*, const std::exception_ptr&) {}

// Blocks, rollbacks, large and heap captures, a hook with a block of its own, robust hooks, one that throws.
template <class Db>
void tell(Db& db, FakeBackend& rows, Ran& ran, DetachedHooks* after, bool hook_throws) {
    const auto add = [&](char key) {
        rows.put(std::string{key});
        db.on_commit([&ran, heap = Heap{key}] { ran.add(heap.key()); });
    };
    db.atomic({.detach = after}, [&] {
        add('a');
        try {
            db.atomic([&] {
                for (char key = 'A'; key <= 'T'; ++key) {
                    rows.put(std::string{key});
                    db.on_commit([&ran, heap = Heap{key}, large = Large{}] {
                        if (large.fits()) ran.add(heap.key());
                    });
                }
                try {
                    Atomic tx{db};
                    add('b');
                    tx.rollback();
                } catch (const std::bad_alloc&) {
                    static_cast<void>(0);
                }
                add('c');
            });
        } catch (const std::bad_alloc&) {
            static_cast<void>(0);
        }
        try {
            db.atomic({.join = true}, [&] { add('d'); });
        } catch (const std::bad_alloc&) {
            static_cast<void>(0);
        }
        rows.put("e");
        db.on_commit(
            txhooks::robust,
            [&ran](const Heap& heap) {
                ran.add(heap.key());
                throw 5;
            },
            Heap{'e'});
        rows.put("f");
        db.on_commit([&, heap = Heap{'f'}] {
            ran.add(heap.key());
            db.atomic([&] { add('g'); });
        });
        if (hook_throws) db.on_commit([heap = Heap{'x'}] { throw heap.key(); });
        add('h');
    });
    if (after != nullptr) after->run();
}

// How many allocations there were to fail.
template <class Act>
std::size_t fail_each(Act act) {
    for (std::size_t nth = 0;; ++nth)
        if (not act(nth)) return nth;
}

}  // namespace

TEST_CASE("out of memory: whichever allocation fails, hooks run if and only if their rows are there",
          "[S7][S19][S21][S28][S44][S48][S52]") {
    for (const bool any_connection : {false, true})
        for (const bool detached : {false, true})
            for (const bool hook_throws : {false, true}) {
                const std::size_t allocations = fail_each([&](std::size_t nth) {
                    Ran ran;
                    HookedConnection<FakeBackend> db;
                    Connection& any = db;
                    db.set_error_sink(drop);
                    bool failed = false;
                    std::exception_ptr left;
                    {
                        DetachedHooks after;
                        const FailAllocation fail{nth};
                        try {
                            any_connection ? tell(any, db, ran, detached ? &after : nullptr, hook_throws)
                                           : tell(db, db, ran, detached ? &after : nullptr, hook_throws);
                        } catch (...) {
                            left = std::current_exception();
                        }
                        failed = fail.happened();
                    }
                    const std::string told = support::name_of(left);
                    INFO("allocation " << nth << (any_connection ? ", any connection" : "")
                                       << (detached ? ", detached" : "") << (hook_throws ? ", a hook throws" : "")
                                       << ": " << told << ", ran " << ran.text());
                    CHECK(alive == 0);
                    CHECK_FALSE(db.in_atomic_block());
                    CHECK(db.pending_hooks() == 0);
                    std::string wrong;
                    for (const char key : std::string{"abcdefghABCDEFGHIJKLMNOPQRST"}) {
                        const bool visible = db.committed(std::string{key}).has_value();
                        const bool excused = told.starts_with("HookError") or told.starts_with("CommitUnknown");
                        if (ran.has(key) ? not visible : visible and not excused) wrong += key;
                    }
                    CHECK(wrong == "");
                    if (not failed) {
                        CHECK(told == (hook_throws ? "HookError committed <- ?" : "none"));
                        CHECK(ran.text() ==
                              (hook_throws ? "aABCDEFGHIJKLMNOPQRSTcdefg" : "aABCDEFGHIJKLMNOPQRSTcdefgh"));
                    } else if (not hook_throws) {
                        CHECK(told != "UsageError");
                        CHECK(told.find("TransactionLost") == std::string::npos);
                    }

                    // And the next transaction works, or says why not.
                    Ran next;
                    const auto again = [&] {
                        db.atomic([&] {
                            db.put("y");
                            db.on_commit([&] { next.add('y'); });
                        });
                    };
                    if (not db.usable()) {
                        CHECK(support::ending(again) == "ConnectionBroken");
                        if (db.FakeBackend::state() != ConnectionState::idle) db.execute("ROLLBACK");
                        db.reset();
                    }
                    CHECK(support::ending(again) == "returned");
                    CHECK(next.text() == "y");
                    return failed;
                });
                CHECK(allocations > 50);
            }
}

TEST_CASE("on_commit: that runs out of memory has registered nothing, and the block goes on", "[S7]") {
    const std::size_t allocations = fail_each([](std::size_t nth) {
        Ran ran;
        std::string expected;
        expected.reserve(256);
        HookedConnection<Engine> db;
        bool failed = false;
        std::size_t left_behind = 0;
        {
            const FailAllocation fail{nth};
            db.atomic([&] {
                for (int i = 0; i != 3; ++i) {
                    for (char key = 'a'; key <= 'z'; ++key) {
                        const std::size_t before = db.pending_hooks();
                        try {
                            if (key % 4 == 0)
                                db.on_commit([&ran, key, large = Large{}] {
                                    if (large.fits()) ran.add(key);
                                });
                            else if (key % 4 == 1)
                                db.on_commit(txhooks::robust, [&ran, heap = Heap{key}] { ran.add(heap.key()); });
                            else if (key % 4 == 2)
                                db.on_commit([&ran](const Heap& heap) { ran.add(heap.key()); }, Heap{key});
                            else
                                db.on_commit([&ran, key] { ran.add(key); });
                            expected += key;
                        } catch (const std::bad_alloc&) {
                            left_behind += db.pending_hooks() - before;
                        }
                    }
                }
            });
            failed = fail.happened();
        }
        INFO("allocation " << nth);
        CHECK(left_behind == 0);
        CHECK(ran.text() == expected);
        CHECK(expected.size() == (failed ? 77 : 78));
        CHECK(alive == 0);
        CHECK(db.committed == 1);
        return failed;
    });
    CHECK(allocations > 30);
}

TEST_CASE("Atomic: opening and ending one allocates nothing", "[S52]") {
    HookedConnection<Engine> db;
    Connection& any = db;
    Ran ran;
    const CountAllocations count;
    {
        Atomic tx{db};
        db.on_commit([&] { ran.add('a'); });
        {
            Atomic inner{db};
            Atomic joined{db, {.join = true}};
            db.on_commit([&] { ran.add('b'); });
            joined.commit();
            inner.commit();
        }
        {
            Atomic inner{any};
            db.on_commit([&] { ran.add('c'); });
            inner.rollback();
        }
        tx.commit();
    }
    {
        Atomic tx{any};
        any.on_commit([&] { ran.add('d'); });
        tx.rollback();
    }
    const std::size_t made = count.made();
    CHECK(made == 0);
    CHECK(ran.text() == "ab");
}

TEST_CASE("commit: reaching and running the hooks allocates nothing after COMMIT", "[S52]") {
    for (const HookFailure policy : {HookFailure::stop, HookFailure::run_all, HookFailure::report}) {
        Ran ran;
        HookedConnection<Engine> db;
        db.set_error_sink(drop);
        db.set_on_hook_failure(policy);
        Atomic tx{db};
        std::string expected;
        for (int i = 0; i != 100; ++i) {
            db.on_commit([&ran, heap = Heap{'a'}, large = Large{}] {
                if (large.fits()) ran.add(heap.key());
            });
            db.on_commit(txhooks::robust, [&ran, heap = Heap{'b'}] {
                ran.add(heap.key());
                throw 5;
            });
            expected += "ab";
        }
        tx.commit();
        const std::size_t made = db.since_start.made();
        CHECK(made == db.allocations_at_commit);
        CHECK(ran.text() == expected);
        CHECK(alive == 0);
    }
}

TEST_CASE("detach: a block that gets no memory for its hooks was not begun", "[S40][S60]") {
    HookedConnection<Engine> db;
    Ran ran;
    DetachedHooks after;
    std::string left;
    {
        const FailAllocation fail{0};
        left = support::ending([&] { Atomic tx{db, {.detach = &after}}; });
    }
    CHECK(left == "std::bad_alloc");
    CHECK(db.begun == 0);
    CHECK_FALSE(db.in_atomic_block());
    CHECK(db.usable());
    db.atomic([&] { db.on_commit([&] { ran.add('a'); }); });
    CHECK(ran.text() == "a");
    db.atomic({.detach = &after}, [&] { db.on_commit([&] { ran.add('b'); }); });
    CHECK(after.size() == 1);
    const CountAllocations count;
    after.run();
    const std::size_t made = count.made();
    CHECK(made == 0);
    CHECK(ran.text() == "ab");
}

TEST_CASE("detach: a BEGIN that fails gives back what was made for the hooks", "[S40][S60]") {
    for (const support::When when : {support::When::before_effect, support::When::after_effect}) {
        Ran ran;
        HookedConnection<FakeBackend> db;
        DetachedHooks after;
        db.faults.fail(support::Verb::begin, when, 1);
        CHECK_THROWS_AS(Atomic(db, {.detach = &after}), int);
        CHECK(after.size() == 0);
        db.atomic([&] { db.on_commit([&] { ran.add('a'); }); });
        CHECK(ran.text() == "a");
        db.atomic({.detach = &after}, [&] { db.on_commit([&, heap = Heap{'b'}] { ran.add(heap.key()); }); });
        after.run();
        CHECK(ran.text() == "ab");
        CHECK(alive == 0);
    }
}

// ---- Hooks of other kinds

namespace {

// Rows a to d, each with hooks of every kind that keep something on the heap; the row is written when they are there. A
// hook before COMMIT registers more of them, row b is in a savepoint, and whatever is told, all may fail at the end.
template <class Db>
void tell_each_kind(Db& db, FakeBackend& rows, Ran& ran, Ran& undone, Ran& doubtful, bool fails) {
    const auto add = [&](char key) {
        db.on_rollback([&undone, heap = Heap{key}, large = Large{}] {
            if (large.fits()) undone.add(heap.key());
        });
        db.unless_committed([&doubtful](const Heap& heap) { doubtful.add(heap.key()); }, Heap{key});
        rows.put(std::string{key});
        db.on_commit([&ran, heap = Heap{key}] { ran.add(heap.key()); });
    };
    db.atomic([&] {
        for (int i = 0; i != 5; ++i) db.on_rollback([large = Large{}] { static_cast<void>(large.fits()); });
        add('a');
        try {
            db.atomic([&] {
                add('b');
                throw 5;
            });
        } catch (int) {
            static_cast<void>(0);
        } catch (const std::bad_alloc&) {
            static_cast<void>(0);
        }
        db.before_commit([&add, heap = Heap{'c'}] { add(heap.key()); });
        add('d');
        db.before_commit([fails] {
            if (fails) throw 6;
        });
    });
}

}  // namespace

TEST_CASE("out of memory: whichever allocation fails, of the hooks of every kind those of the outcome run",
          "[S7][S52][S61][S62][S68][S69][S74]") {
    for (const bool any_connection : {false, true})
        for (const bool fails : {false, true}) {
            const std::size_t allocations = fail_each([&](std::size_t nth) {
                Ran ran;
                Ran undone;
                Ran doubtful;
                HookedConnection<FakeBackend> db;
                Connection& any = db;
                db.set_error_sink(drop);
                bool failed = false;
                std::exception_ptr left;
                {
                    const FailAllocation fail{nth};
                    try {
                        any_connection ? tell_each_kind(any, db, ran, undone, doubtful, fails)
                                       : tell_each_kind(db, db, ran, undone, doubtful, fails);
                    } catch (...) {
                        left = std::current_exception();
                    }
                    failed = fail.happened();
                }
                const std::string told = support::name_of(left);
                INFO("allocation " << nth << (any_connection ? ", any connection" : "") << (fails ? ", fails" : "")
                                   << ": " << told << ", ran " << ran.text() << ", undone " << undone.text()
                                   << ", doubtful " << doubtful.text());
                CHECK(alive == 0);
                CHECK_FALSE(db.in_atomic_block());
                const bool broken = not db.usable() or told.starts_with("CommitUnknown");
                std::string wrong;
                for (const char key : std::string{"abcd"}) {
                    const bool visible = db.committed(std::string{key}).has_value();
                    if (visible and undone.has(key)) wrong += key;
                    if (not visible and ran.has(key)) wrong += key;
                    if (ran.has(key) and (undone.has(key) or doubtful.has(key))) wrong += key;
                    // Those of unless_committed were registered later, and so were not there where these are alone.
                    if (doubtful.has(key) and not undone.has(key) and not broken) wrong += key;
                }
                CHECK(wrong == "");
                if (not failed) {
                    CHECK(ran.text() == (fails ? "" : "adc"));
                    CHECK(undone.text() == (fails ? "bcda" : "b"));
                    CHECK(doubtful.text() == undone.text());
                }
                if (broken) {
                    if (db.FakeBackend::state() != ConnectionState::idle) db.execute("ROLLBACK");
                    db.reset();
                }
                Ran next;
                db.atomic([&] { db.on_commit([&] { next.add('y'); }); });
                CHECK(next.text() == "y");
                return failed;
            });
            CHECK(allocations > 20);
        }
}

TEST_CASE("register: a hook of another kind that runs out of memory is not there, and the block goes on", "[S7][S74]") {
    const std::size_t allocations = fail_each([](std::size_t nth) {
        Ran ran;
        std::string expected_before;
        std::string expected_undone;
        expected_before.reserve(256);
        expected_undone.reserve(256);
        HookedConnection<Engine> db;
        bool failed = false;
        {
            const FailAllocation fail{nth};
            Atomic tx{db};
            for (char key = 'a'; key <= 'z'; ++key) {
                try {
                    const auto hook = [&ran, heap = Heap{key}, large = Large{}] {
                        if (large.fits()) ran.add(heap.key());
                    };
                    if (key % 3 == 0) db.on_rollback(hook);
                    if (key % 3 == 1) db.unless_committed(hook);
                    if (key % 3 == 2) db.before_commit(hook);
                    (key % 3 == 2 ? expected_before : expected_undone) += key;
                } catch (const std::bad_alloc&) {
                    static_cast<void>(0);
                }
            }
            db.before_commit([&db] { db.set_rollback(true); });
            const std::size_t made = db.since_start.made();
            tx.commit();
            const std::size_t made_since = db.since_start.made() - made;
            CHECK(made_since == 0);
            failed = fail.happened();
        }
        INFO("allocation " << nth);
        CHECK(ran.text() == expected_before + std::string{expected_undone.rbegin(), expected_undone.rend()});
        CHECK(expected_before.size() + expected_undone.size() == (failed ? 25 : 26));
        CHECK(alive == 0);
        CHECK(db.committed == 0);
        return failed;
    });
    CHECK(allocations > 26);
}

TEST_CASE("rollback: reaching and running the hooks of what is undone allocates nothing", "[S52][S68][S69][S70]") {
    Ran ran;
    HookedConnection<Engine> db;
    db.set_error_sink(drop);
    std::size_t made = 0;
    {
        Atomic tx{db};
        Atomic inner{db};
        for (int i = 0; i != 50; ++i) {
            db.on_rollback([&ran, heap = Heap{'a'}, large = Large{}] {
                if (large.fits()) ran.add(heap.key());
            });
            db.unless_committed([&ran, heap = Heap{'b'}] { ran.add(heap.key()); });
            db.on_commit([heap = Heap{'c'}] { static_cast<void>(heap.key()); });
            db.before_commit([heap = Heap{'d'}] { static_cast<void>(heap.key()); });
            if (i == 24) inner.commit();
        }
        Atomic last{db};
        db.on_rollback([&ran] { ran.add('e'); });
        const CountAllocations count;
        last.rollback();
        tx.rollback();
        made = count.made();
    }
    CHECK(made == 0);
    std::string expected = "e";
    for (int i = 0; i != 50; ++i) expected += "ba";
    CHECK(ran.text() == expected);
    CHECK(alive == 0);
}

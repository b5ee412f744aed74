// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/txhooks.hpp>

#include <cstddef>
#include <cstdint>

namespace benchmarks {

/// The compiler must assume that what `p` points to, and all other memory, is read and written here.
inline void keep(const void* p) noexcept {
    asm volatile("" : : "r"(p) : "memory");
}

/// What every hook counts into.
using Counter = std::uint64_t;

/// Hooks with captures of 8 and 24 bytes. `Place` makes a type of its own for each place, as lambdas have.
template <class Place>
struct Hook8 {
    Counter* counter;
    void operator()() const noexcept { ++*counter; }
    static Hook8 with(Counter& counter, std::uint64_t) noexcept { return {&counter}; }
};
template <class Place>
struct Hook24 {
    Counter* counter;
    std::uint64_t a;
    std::uint64_t b;
    void operator()() const noexcept { *counter += a ^ b; }
    static Hook24 with(Counter& counter, std::uint64_t value) noexcept { return {&counter, value, value}; }
};

/// A database that costs nothing.
struct NoopBackend {
    void begin() noexcept {}
    txhooks::CommitResult commit() noexcept { return {txhooks::Outcome::committed}; }
    void rollback() noexcept {}
    void savepoint(unsigned) noexcept {}
    void release(unsigned) noexcept {}
    void rollback_to(unsigned) noexcept {}
};

using NoopConnection = txhooks::HookedConnection<NoopBackend>;

/// The least that a nested RAII transaction can do: no hooks, no checks.
template <class Backend>
class NestingGuard {
public:
    struct Connection {
        Backend backend;
        unsigned depth = 0;
    };

    explicit NestingGuard(Connection& db) : db_{db} {
        if (db_.depth == 0)
            db_.backend.begin();
        else
            db_.backend.savepoint(db_.depth);
        ++db_.depth;
    }
    NestingGuard(const NestingGuard&) = delete;
    NestingGuard& operator=(const NestingGuard&) = delete;
    ~NestingGuard() {
        if (ended_) return;
        if (--db_.depth == 0)
            db_.backend.rollback();
        else
            db_.backend.rollback_to(db_.depth);
    }

    void commit() {
        if (db_.depth == 1)
            db_.backend.commit();
        else
            db_.backend.release(db_.depth - 1);
        --db_.depth;
        ended_ = true;
    }

private:
    Connection& db_;
    bool ended_ = false;
};

/// The floor: memory that is there, and for each hook a function pointer and a capture, stored behind the one before, and
/// one indirect call; no checks, no growth, no destruction.
template <class Hook>
class Floor {
public:
    explicit Floor(std::size_t most) : entries_{new Entry[most]} {}
    Floor(const Floor&) = delete;
    Floor& operator=(const Floor&) = delete;
    ~Floor() { delete[] entries_; }

    void push(const Hook& hook) noexcept {
        next_->run = [](void* capture) { (*static_cast<Hook*>(capture))(); };
        ::new (static_cast<void*>(next_->capture)) Hook(hook);
        ++next_;
    }
    void run() noexcept {
        for (Entry* at = entries_; at != next_; ++at) at->run(at->capture);
        next_ = entries_;
    }

private:
    struct Entry {
        void (*run)(void* capture);
        alignas(Hook) std::byte capture[sizeof(Hook)];
    };
    Entry* entries_;
    Entry* next_ = entries_;
};

}  // namespace benchmarks

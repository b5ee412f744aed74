// SPDX-License-Identifier: MIT

// Prints what hooks cost in memory, a name and a number on each line: allocations (exact), bytes, page faults, and the
// worst single registration among a million.

#include "measured.hpp"
#include "peers.hpp"
#include "support/allocations.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <memory>
#include <vector>

#include <malloc.h>
#include <sys/resource.h>

namespace {

using namespace benchmarks;
using support::CountAllocations;
using txhooks::Atomic;

constexpr std::size_t million = 1'000'000;

void print(const char* name, double value) {
    std::printf("%s %.12g\n", name, value);
}

template <class Db>
void register_hooks(Db& db, std::size_t hooks, Counter& counter) {
    for (std::size_t i = 0; i != hooks; ++i) db.on_commit(Hook24<Db>::with(counter, i));
}

void transaction(NoopConnection& db, std::size_t hooks) {
    Counter counter = 0;
    Atomic tx{db};
    register_hooks(db, hooks, counter);
    tx.commit();
    keep(&counter);
}

/// Each hook opens a block of its own and registers another hook in it.
void reentrant_transaction(NoopConnection& db, std::size_t hooks) {
    Counter counter = 0;
    Atomic tx{db};
    for (std::size_t i = 0; i != hooks; ++i)
        db.on_commit([&db, &counter, i] {
            Atomic own{db};
            db.on_commit(Hook24<struct Here>::with(counter, i));
            own.commit();
        });
    tx.commit();
    keep(&counter);
}

std::size_t allocations_of(auto&& work) {
    const CountAllocations count;
    work();
    return count.made();
}

void print_allocations() {
    {
        NoopConnection db;
        print("allocations/first_448_bytes", static_cast<double>(allocations_of([&] { transaction(db, 448 / 32); })));
    }
    {
        NoopConnection db;
        print("allocations/first_100k", static_cast<double>(allocations_of([&] { transaction(db, 100'000); })));
    }
    std::size_t made = 0;
    for (const std::size_t hooks : {1u, 100u, 10'000u, 1'000'000u}) {
        NoopConnection db;
        transaction(db, hooks);
        made += allocations_of([&] {
            for (int again = 0; again != 5; ++again) transaction(db, hooks);
        });
    }
    print("allocations/steady", static_cast<double>(made));
    made = 0;
    for (const std::size_t hooks : {1u, 100u, 10'000u}) {
        NoopConnection db;
        reentrant_transaction(db, hooks);
        made += allocations_of([&] {
            for (int again = 0; again != 5; ++again) reentrant_transaction(db, hooks);
        });
    }
    print("allocations/steady_reentrant", static_cast<double>(made));
}

double heap_bytes() {
    const struct mallinfo2 heap = mallinfo2();
    return static_cast<double>(heap.uordblks + heap.hblkhd);
}

double resident_bytes() {
    long pages = 0;
    if (std::FILE* const file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
        if (std::fscanf(file, "%*s %ld", &pages) != 1) pages = 0;
        std::fclose(file);
    }
    return static_cast<double>(pages) * 4096;
}

long page_faults() {
    struct rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

void print_memory() {
    const double heap_before = heap_bytes();
    const double resident_before = resident_bytes();
    NoopConnection db;
    Counter counter = 0;
    {
        Atomic tx{db};
        register_hooks(db, million, counter);
        print("memory/million_hooks", heap_bytes() - heap_before);
        print("memory/million_hooks_resident", resident_bytes() - resident_before);
        tx.commit();
    }
    transaction(db, million);
    const long faults_before = page_faults();
    for (int again = 0; again != 5; ++again) transaction(db, million);
    print("memory/faults_of_5_equal", static_cast<double>(page_faults() - faults_before));

    transaction(db, 1);
    print("memory/kept_after_1_small", heap_bytes() - heap_before);
    int small = 1;
    for (double kept = 0; small != 1000 and kept != heap_bytes(); ++small) {
        kept = heap_bytes();
        transaction(db, 1);
    }
    print("memory/small_until_given_back", small - 1);
    print("memory/kept_after_small", heap_bytes() - heap_before);
    print("memory/kept_after_small_resident", resident_bytes() - resident_before);
}

/// The longest time of one registration among a million in a first transaction, in nanoseconds: for each of them the
/// shortest of all repetitions, so that what only disturbed the machine does not count.
template <class Db, class Block>
class WorstRegistration {
public:
    void repeat() {
        using Clock = std::chrono::steady_clock;
        Db db;
        Counter counter = 0;
        Block tx{db};
        auto before = Clock::now();
        for (std::size_t i = 0; i != million; ++i) {
            db.on_commit(Hook24<struct Here>::with(counter, i));
            const auto after = Clock::now();
            shortest_[i] = std::min(shortest_[i], static_cast<double>((after - before).count()));
            before = after;
        }
        tx.commit();
        keep(&counter);
    }
    double worst() const { return *std::max_element(shortest_.begin(), shortest_.end()); }

private:
    std::vector<double> shortest_ = std::vector<double>(million, std::numeric_limits<double>::infinity());
};

void print_worst_registration() {
    WorstRegistration<NoopConnection, Atomic<NoopConnection>> ours;
    WorstRegistration<VectorOfFunctions, PeerBlock<VectorOfFunctions>> vector;
    for (int repetition = 0; repetition != 9; ++repetition) {
        ours.repeat();
        vector.repeat();
    }
    print("worst_registration_ns/txhooks", ours.worst());
    print("worst_registration_ns/vector_of_function", vector.worst());
}

}  // namespace

/// `memory --exact` prints the allocations only.
int main(int argc, char**) {
    print_allocations();
    if (argc > 1) return 0;
    print_memory();
    print_worst_registration();
}

// SPDX-License-Identifier: MIT

// Times of txhooks and of what people write instead, on a database that costs nothing.

#include "measured.hpp"
#include "peers.hpp"

#include <benchmark/benchmark.h>
#include <boost/signals2/signal.hpp>

#include <cstdio>
#include <memory>
#include <vector>

namespace {

using namespace benchmarks;
using benchmark::State;
using txhooks::Atomic;

/// Boost.Signals2: a signal whose slots are dropped after it was fired. It knows no savepoints.
class Signal {
public:
    using Mark = int;
    std::size_t open_blocks = 0;

    Mark open() { return 0; }
    template <class Hook>
    void on_commit(const Hook& hook) {
        signal_.connect(hook);
    }
    void release(Mark) {}
    void roll_back(Mark) {}
    void run() {
        signal_();
        signal_.disconnect_all_slots();
    }

private:
    boost::signals2::signal<void()> signal_;
};

template <class Db>
struct BlockOf {
    using type = PeerBlock<Db>;
};
template <>
struct BlockOf<NoopConnection> {
    using type = Atomic<NoopConnection>;
};
template <class Db>
using Block = typename BlockOf<Db>::type;

/// Whether a peer does what it is compared for: which hooks run, and in what order.
template <class Db>
bool runs_the_right_hooks() {
    Db db;
    std::vector<int> ran;
    const auto add = [&](int hook) { db.on_commit([&ran, hook] { ran.push_back(hook); }); };
    Block<Db> tx{db};
    add(1);
    {
        Block<Db> kept{db};
        add(2);
        {
            Block<Db> undone{db};
            add(3);
            undone.rollback();
        }
        add(4);
        kept.commit();
    }
    {
        Block<Db> undone{db};
        {
            Block<Db> kept{db};
            add(5);
            kept.commit();
        }
        undone.rollback();
    }
    add(6);
    tx.commit();
    return ran == std::vector{1, 2, 4, 6};
}

std::size_t size_of(const State& state) {
    return static_cast<std::size_t>(state.range(0));
}

/// A transaction with so many hooks.
template <class Db>
void hooks(State& state) {
    const std::size_t count = size_of(state);
    Db db;
    Counter counter = 0;
    for (auto _ : state) {
        Block<Db> tx{db};
        for (std::size_t i = 0; i != count; ++i) {
            db.on_commit(Hook24<struct Here>::with(counter, i));
            keep(&counter);
        }
        tx.commit();
        keep(&counter);
    }
}

void hooks_floor(State& state) {
    const std::size_t count = size_of(state);
    Floor<Hook24<struct Here>> list{count};
    Counter counter = 0;
    for (auto _ : state) {
        for (std::size_t i = 0; i != count; ++i) {
            list.push(Hook24<struct Here>::with(counter, i));
            keep(&list);
        }
        list.run();
        keep(&counter);
    }
}

void hooks_hook_list(State& state) {
    const std::size_t count = size_of(state);
    txhooks::HookList list;
    Counter counter = 0;
    for (auto _ : state) {
        const txhooks::HookList::Mark begin = list.mark();
        for (std::size_t i = 0; i != count; ++i) {
            list.push(Hook24<struct Here>::with(counter, i));
            keep(&counter);
        }
        txhooks::HookList::Run{list, begin}();
        keep(&counter);
    }
}

template <class Db>
void level(Db& db, Counter& counter, std::size_t depth) {
    Block<Db> tx{db};
    db.on_commit(Hook24<struct Here>::with(counter, depth));
    keep(&counter);
    if (depth > 1) level(db, counter, depth - 1);
    tx.commit();
}

/// A transaction with so many blocks in one another, each with a hook.
template <class Db>
void depth(State& state) {
    Db db;
    Counter counter = 0;
    for (auto _ : state) {
        level(db, counter, size_of(state));
        keep(&counter);
    }
}

/// A transaction with so many savepoints one after another, each with a hook, every other one rolled back.
template <class Db>
void savepoints(State& state) {
    const std::size_t count = size_of(state);
    Db db;
    Counter counter = 0;
    for (auto _ : state) {
        Block<Db> tx{db};
        for (std::size_t i = 0; i != count; ++i) {
            Block<Db> inner{db};
            db.on_commit(Hook24<struct Here>::with(counter, i));
            keep(&counter);
            if (i % 2 != 0)
                inner.rollback();
            else
                inner.commit();
        }
        tx.commit();
        keep(&counter);
    }
}

}  // namespace

BENCHMARK(hooks_floor)->Name("hooks/floor")->RangeMultiplier(10)->Range(1, 100'000);
BENCHMARK(hooks<NoopConnection>)->Name("hooks/txhooks")->RangeMultiplier(10)->Range(1, 100'000);
BENCHMARK(hooks_hook_list)->Name("hooks/hook_list")->RangeMultiplier(10)->Range(1, 100'000);
BENCHMARK(hooks<VectorOfFunctions>)->Name("hooks/vector_of_function")->RangeMultiplier(10)->Range(1, 100'000);
BENCHMARK(hooks<KeptVectorOfFunctions>)->Name("hooks/kept_vector_of_function")->RangeMultiplier(10)->Range(1, 100'000);
#if defined(__cpp_lib_move_only_function)
BENCHMARK(hooks<VectorOfMoveOnlyFunctions>)
    ->Name("hooks/vector_of_move_only_function")
    ->RangeMultiplier(10)
    ->Range(1, 100'000);
#endif
BENCHMARK(hooks<VectorPerSavepoint>)->Name("hooks/vector_per_savepoint")->RangeMultiplier(10)->Range(1, 100'000);
BENCHMARK(hooks<DjangoWay>)->Name("hooks/django_way")->RangeMultiplier(10)->Range(1, 100'000);
BENCHMARK(hooks<Signal>)->Name("hooks/signals2")->RangeMultiplier(10)->Range(1, 100'000);

BENCHMARK(depth<NoopConnection>)->Name("depth/txhooks")->RangeMultiplier(10)->Range(1, 1000);
BENCHMARK(depth<VectorOfFunctions>)->Name("depth/vector_of_function")->RangeMultiplier(10)->Range(1, 1000);
BENCHMARK(depth<VectorPerSavepoint>)->Name("depth/vector_per_savepoint")->RangeMultiplier(10)->Range(1, 1000);
BENCHMARK(depth<DjangoWay>)->Name("depth/django_way")->RangeMultiplier(10)->Range(1, 1000);

BENCHMARK(savepoints<NoopConnection>)->Name("savepoints/txhooks")->RangeMultiplier(10)->Range(10, 100'000);
BENCHMARK(savepoints<VectorOfFunctions>)
    ->Name("savepoints/vector_of_function")
    ->RangeMultiplier(10)
    ->Range(10, 100'000);
BENCHMARK(savepoints<VectorPerSavepoint>)
    ->Name("savepoints/vector_per_savepoint")
    ->RangeMultiplier(10)
    ->Range(10, 100'000);
BENCHMARK(savepoints<DjangoWay>)->Name("savepoints/django_way")->RangeMultiplier(10)->Range(10, 10'000);

int main(int argc, char** argv) {
    if (not runs_the_right_hooks<NoopConnection>() or not runs_the_right_hooks<VectorOfFunctions>() or
        not runs_the_right_hooks<KeptVectorOfFunctions>() or not runs_the_right_hooks<VectorPerSavepoint>() or
        not runs_the_right_hooks<DjangoWay>()) {
        std::fputs("time: one of them runs the wrong hooks\n", stderr);
        return 1;
    }
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}

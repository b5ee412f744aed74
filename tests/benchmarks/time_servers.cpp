// SPDX-License-Identifier: MIT

// Times of transactions of servers.

#include "servers.hpp"

#include <benchmark/benchmark.h>

#include <string>

namespace {

template <class Subject, class Work>
void transactions(benchmark::State& state) {
    Subject subject;
    for (auto _ : state) subject.transaction(Work{});
}

}  // namespace

int main(int argc, char** argv) {
    benchmarks::each_subject([&]<class Subject, class Work>(const std::string& name) {
        benchmark::RegisterBenchmark(name.c_str(), transactions<Subject, Work>)->UseRealTime();
    });
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}

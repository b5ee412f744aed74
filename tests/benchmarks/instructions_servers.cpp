// SPDX-License-Identifier: MIT

// As instructions.cpp, with transactions of servers: what the client executes.

#include "cases.hpp"
#include "servers.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace {

template <class Subject, class Work>
void transactions(std::size_t times) {
    Subject subject;
    for (; times != 0; --times) subject.transaction(Work{});
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<benchmarks::Case> cases;
    benchmarks::each_subject([&]<class Subject, class Work>(const std::string& name) {
        cases.push_back({name, transactions<Subject, Work>});
    });
    return benchmarks::run_case(argc, argv, cases);
}

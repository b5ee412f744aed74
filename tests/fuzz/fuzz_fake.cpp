// SPDX-License-Identifier: MIT

// The random programs of tests/random on the fake backend, with the fuzzer's bytes for dice:
//
//     txhooks_fuzz -max_total_time=60
//
// A violation shows the program and aborts.

#include "random/dice.hpp"
#include "random/fake_world.hpp"
#include "random/generator.hpp"
#include "random/history.hpp"
#include "random/interpreter.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    using namespace random_programs;
    Dice dice{bytes, size};
    const Program program = Generator{dice}.program();
    Counts counts{};
    const std::string violation = Interpreter<FakeWorld>{program, counts, false}.run();
    if (violation.empty()) return 0;
    Interpreter<FakeWorld>{program, counts, true}.run();
    std::fprintf(stderr, "VIOLATION: %s\n", violation.c_str());
    std::abort();
}

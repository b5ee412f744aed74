// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace benchmarks {

struct Case {
    std::string name;
    void (*run)(std::size_t times);
};

/// `program <case> <times>` runs that case; without arguments the program lists its cases.
inline int run_case(int argc, char** argv, const std::vector<Case>& cases) {
    if (argc != 3) {
        for (const Case& c : cases) std::puts(c.name.c_str());
        return argc == 1 ? 0 : 2;
    }
    for (const Case& c : cases) {
        if (c.name != argv[1]) continue;
        c.run(std::strtoul(argv[2], nullptr, 10));
        return 0;
    }
    std::fprintf(stderr, "no such case: %s\n", argv[1]);
    return 2;
}

}  // namespace benchmarks

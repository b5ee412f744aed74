// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace benchmarks {

struct Case {
    const char* name;
    void (*run)(std::size_t times);
};

/// `program <case> <times>` runs that case; without arguments the program lists its cases.
inline int run_case(int argc, char** argv, std::initializer_list<Case> cases) {
    if (argc != 3) {
        for (const Case& c : cases) std::puts(c.name);
        return argc == 1 ? 0 : 2;
    }
    for (const Case& c : cases) {
        if (std::strcmp(c.name, argv[1]) != 0) continue;
        c.run(std::strtoul(argv[2], nullptr, 10));
        return 0;
    }
    std::fprintf(stderr, "no such case: %s\n", argv[1]);
    return 2;
}

}  // namespace benchmarks

// SPDX-License-Identifier: MIT
#pragma once

// What the programs of the guide share: they say what happens, and check it.

#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using Log = std::vector<std::string>;

inline std::string said_so_far;
inline bool all_well = true;

template <class... Words>
void say(const Words&... words) {
    std::ostringstream line;
    (line << ... << words);
    std::cout << line.str() << '\n';
    said_so_far += line.str() + ";";
}

// What was said since it was last asked for.
inline std::string said() {
    return std::exchange(said_so_far, "");
}

inline void check(bool holds, int line = __builtin_LINE()) {
    if (holds) return;
    std::cout << "WRONG: line " << line << '\n';
    all_well = false;
}

inline int verdict() {
    std::cout << (all_well ? "as the page says\n" : "WRONG\n");
    return all_well ? 0 : 1;
}

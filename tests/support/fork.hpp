// SPDX-License-Identifier: MIT
#pragma once

#include "support/catch.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace support {

/// What `act` says in a child process, which ends without any destructor.
template <class Act>
std::string in_a_child(Act act) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    REQUIRE(child != -1);
    if (child == 0) {
        const std::string said = act();
        if (write(ends[1], said.data(), said.size()) < 0) _exit(1);
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char buffer[512];
    for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;) said.append(buffer, static_cast<size_t>(n));
    close(ends[0]);
    waitpid(child, nullptr, 0);
    return said;
}

}  // namespace support

// SPDX-License-Identifier: MIT
#pragma once

#include <signal.h>

#include <chrono>
#include <stdexcept>
#include <thread>

namespace distributed {

template <class Condition>
void until(Condition condition) {
    using std::chrono::steady_clock;
    const auto end = steady_clock::now() + std::chrono::seconds{60};
    while (not condition()) {
        if (steady_clock::now() > end) throw std::runtime_error{"waited in vain"};
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
}

inline void end_process(int pid, int how) {
    if (pid <= 1 or kill(pid, how) != 0) throw std::runtime_error{"no such process"};
}

/// One that is nobody's here.
inline void kill_process(int pid) {
    end_process(pid, SIGKILL);
    until([&] { return kill(pid, 0) != 0; });
}

}  // namespace distributed

// SPDX-License-Identifier: MIT
#pragma once

// Programs beside the example's, which end with it.

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// Ends a process of ours at once. kill() takes an id that is not positive for many processes, not one.
inline void end_process(pid_t id) noexcept {
    if (id <= 0) return;
    kill(id, SIGKILL);
    waitpid(id, nullptr, 0);
}

/// Throws if that takes more than a minute.
template <class Condition>
void wait_until(const std::string& what, Condition condition) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes{1};
    std::chrono::microseconds pause{100};
    for (; not condition(); pause = std::min(pause * 2, std::chrono::microseconds{20'000})) {
        if (std::chrono::steady_clock::now() > give_up) throw std::runtime_error{"in vain: until " + what};
        std::this_thread::sleep_for(pause);
    }
}

/// A program that ends with this object, or when ours has ended in whatever way. Start it on the main thread: Linux ends
/// it with the thread that it was started on.
class Process {
public:
    /// What it prints is added to the file `log`, if there is one.
    explicit Process(std::vector<std::string> words, std::string log = {}) : log_{std::move(log)} {
        std::vector<char*> arguments;
        for (std::string& word : words) arguments.push_back(word.data());
        arguments.push_back(nullptr);
        const pid_t ours = getpid();
        id_ = fork();
        if (id_ != 0) return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == ours and (log_.empty() or prints_to(log_.c_str()))) execv(arguments[0], arguments.data());
        _exit(127);
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() { end_process(id_); }

    /// Throws, with what its log says, if it has ended.
    void must_run() {
        if (id_ > 0 and waitpid(id_, nullptr, WNOHANG) == 0) return;
        id_ = 0;
        std::string said = "a program has ended:";
        std::ifstream in{log_};
        for (std::string line; std::getline(in, line);) said += "\n" + line;
        throw std::runtime_error{said};
    }

    /// Asks it to end.
    void terminate() noexcept {
        if (id_ > 0) kill(id_, SIGTERM);
    }

    /// Waits for its end. Returns how it came, as waitpid() says it.
    int wait() {
        int status = -1;
        wait_until("a program ends", [&] { return id_ <= 0 or waitpid(id_, &status, WNOHANG) != 0; });
        id_ = 0;
        return status;
    }

private:
    static bool prints_to(const char* log) noexcept {
        const int file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        return file >= 0 and dup2(file, STDOUT_FILENO) >= 0 and dup2(file, STDERR_FILENO) >= 0;
    }

    std::string log_;
    pid_t id_;
};

/// Debian's Python, which has Debian's modules, and a program that stands beside this file.
inline std::vector<std::string> python(const std::string& program, const std::string& argument) {
    return {"/usr/bin/python3", std::filesystem::absolute(__FILE__).parent_path() / program, argument};
}

}  // namespace support

// SPDX-License-Identifier: MIT
#pragma once

// Programs beside the example's, which end with it.

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace support {

/// Ends a process of ours at once. kill() takes an id that is not positive for many processes, not one.
inline void end_process(pid_t id) noexcept {
    if (id <= 0) return;
    kill(id, SIGKILL);
    waitpid(id, nullptr, 0);
}

/// A program in Python that stands beside this file, run in a folder, where what it prints goes to <program>.log. It ends
/// with this object, or when ours has ended in whatever way. Start it on the main thread: Linux ends it with the thread
/// that it was started on.
class Python {
public:
    Python(const std::string& program, const std::string& folder) : log_{folder + "/" + program + ".log"} {
        const std::string file = (std::filesystem::absolute(__FILE__).parent_path() / program).string();
        const pid_t ours = getpid();
        id_ = fork();
        if (id_ != 0) return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int log = open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (getppid() == ours and chdir(folder.c_str()) == 0 and dup2(log, 1) == 1 and dup2(log, 2) == 2)
            execl("/usr/bin/python3", "python3", file.c_str(), nullptr);  // Debian's, as its modules are
        _exit(127);
    }
    Python(const Python&) = delete;
    Python& operator=(const Python&) = delete;
    ~Python() { end_process(id_); }

    /// Throws, with what it has printed, if it has ended by itself.
    void check() {
        if (id_ > 0 and waitpid(id_, nullptr, WNOHANG) == 0) return;
        id_ = 0;
        std::string said = "it has ended:";
        std::ifstream log{log_};
        for (std::string line; std::getline(log, line);) said += "\n" + line;
        throw std::runtime_error{said};
    }

private:
    std::string log_;
    pid_t id_;
};

}  // namespace support

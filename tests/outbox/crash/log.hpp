// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace crash {

/// Microseconds: the same for every process, whatever it believes that the time is (host_clock.hpp).
inline std::int64_t now() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(since).count();
}

/// What happens, in the order in which it is noted.
enum class What : char {
    begun = 'b',      // of job `a`, run `b`, attempt `c`; its lease lasts until `d`, or longer. 0: not known
    effect = 'e',     // outside the database, of job `a`, run `b`
    returned = 'r',   // the handler of job `a`, run `b`; `d`: how
    extended = 'x',   // job `a`, run `b`: until `d`
    settled = 's',    // told by the observer: `id`, attempt `c`, step `d`
    block = 'q',      // `a` is entered
    committed = 'c',  // `a` is, with `b` jobs
    failed = 'f',     // block `a` threw `text`; `d`: the Trouble
    died = 'd',       // told by the parent
    crashed = 'v',    // a server, told by the parent; `d`: it is there again
    trouble = 'm',    // claiming or settling threw `text`; `d`: the Trouble, `c`: not out of work()
    held = 'h',       // a worker has stopped, and `d` rows say it holds them
};

/// How a handler returned.
enum class How : std::int64_t { well, threw, again, gave_up };

struct Line {
    What what = What::begun;
    std::int64_t process = 0;  // a number that no other process has
    std::int64_t a = 0, b = 0, c = 0, d = 0;
    std::string id = {};
    std::string text = {};
    std::int64_t time = 0;
};

/// A file that all processes append to.
class Log {
public:
    explicit Log(const std::string& path, std::int64_t process)
        : file_{open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)}, process_{process} {
        if (file_ == -1) throw std::runtime_error{"cannot write " + path};
    }
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;
    ~Log() { close(file_); }

    void note(Line line) const noexcept {
        if (line.process == 0) line.process = process_;
        for (char& c : line.text) c = c == '\n' ? ' ' : c;
        char text[600];
        const int size = std::snprintf(
            text, sizeof text - 1, "%c %lld %lld %lld %lld %lld %lld %s %s", static_cast<char>(line.what),
            static_cast<long long>(now()), static_cast<long long>(line.process), static_cast<long long>(line.a),
            static_cast<long long>(line.b), static_cast<long long>(line.c), static_cast<long long>(line.d),
            line.id.empty() ? "-" : line.id.c_str(), line.text.c_str());
        const auto length =
            static_cast<std::size_t>(size) < sizeof text - 2 ? static_cast<std::size_t>(size) : sizeof text - 2;
        text[length] = '\n';
        if (write(file_, text, length + 1) != static_cast<ssize_t>(length + 1)) std::abort();
    }

private:
    int file_;
    std::int64_t process_;
};

inline std::vector<Line> read_log(const std::string& path) {
    std::ifstream file{path};
    std::vector<Line> lines;
    char what = 0;
    for (Line line; file >> what >> line.time >> line.process >> line.a >> line.b >> line.c >> line.d >> line.id;) {
        std::getline(file, line.text);
        line.what = static_cast<What>(what);
        lines.push_back(line);
    }
    return lines;
}

}  // namespace crash

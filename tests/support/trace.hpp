// SPDX-License-Identifier: MIT
#pragma once

#include "support/exceptions.hpp"

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif
#include <csignal>
#include <cstdio>

namespace support {

using Log = std::vector<std::string>;

inline std::string join(const std::vector<std::string>& parts, const char* between = ",") {
    std::string all;
    for (const std::string& part : parts) {
        if (&part != &parts.front()) all += between;
        all += part;
    }
    return all;
}

/// What happened, in order.
class Trace {
public:
    Trace() = default;
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;

    void note(std::string event) { events_.push_back(std::move(event)); }
    void clear() { events_.clear(); }
    /// All of it: "1,2,3".
    std::string text() const { return join(events_); }

    /// A hook that notes `name` when it runs.
    auto hook(std::string name) {
        return [this, name = std::move(name)] { note(name); };
    }

    /// A hook that notes `name` and then throws `error`.
    template <class Error>
    auto throwing(std::string name, Error error) {
        return [this, name = std::move(name), error = std::move(error)] {
            note(name);
            throw error;
        };
    }

    /// A move-only hook that notes `name` when it runs and "~name" when it is destroyed.
    class Probe {
    public:
        Probe(Trace& trace, std::string name) : trace_{&trace}, name_{std::move(name)} {}
        Probe(Probe&& other) noexcept : trace_{std::exchange(other.trace_, nullptr)}, name_{std::move(other.name_)} {}
        Probe& operator=(Probe&&) = delete;
        ~Probe() {
            if (trace_ != nullptr) trace_->note("~" + name_);
        }
        void operator()() const { trace_->note(name_); }

    private:
        Trace* trace_;
        std::string name_;
    };
    Probe probe(std::string name) { return {*this, std::move(name)}; }

private:
    std::vector<std::string> events_;
};

/// Calls `act` when it is destroyed, unless it was moved from: a capture whose destructor does something.
template <class Act>
class AtDestruction {
public:
    explicit AtDestruction(Act act) : act_{std::move(act)} {}
    AtDestruction(AtDestruction&& other) noexcept
        : act_{std::move(other.act_)}, armed_{std::exchange(other.armed_, false)} {}
    AtDestruction& operator=(AtDestruction&&) = delete;
    ~AtDestruction() {
        if (armed_) act_();
    }
    void operator()() const {}

private:
    Act act_;
    bool armed_ = true;
};

/// An error sink that remembers: `Sink sink{db};`
class Sink {
public:
    Sink() = default;
    template <class Db>
    explicit Sink(Db& db) {
        listen_to(db);
    }
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;

    template <class Db>
    void listen_to(Db& db) {
        db.set_error_sink(&Sink::add, this);
    }

    /// The names of the exceptions reported, in order: "disk full,none".
    std::string text() const { return join(errors_); }
    const Log& errors() const noexcept { return errors_; }
    const Log& sentences() const noexcept { return sentences_; }
    /// Each sentence with its exception, if there is one: "txhooks: while rolling back a block: disk full".
    Log lines() const {
        Log lines = sentences_;
        for (std::size_t i = 0; i != lines.size(); ++i)
            if (errors_[i] != "none") lines[i] += ": " + errors_[i];
        return lines;
    }
    bool empty() const noexcept { return errors_.empty(); }
    void clear() {
        errors_.clear();
        sentences_.clear();
    }

private:
    static void add(void* self, const char* what, const std::exception_ptr& error) {
        static_cast<Sink*>(self)->sentences_.emplace_back(what);
        static_cast<Sink*>(self)->errors_.push_back(name_of(error));
    }

    Log sentences_;
    Log errors_;
};

/// How a process ended that did nothing but `act()`.
struct ProcessEnd {
    bool terminated;   ///< by std::terminate, and not by returning from `act`
    std::string said;  ///< on stderr
};

#ifdef _WIN32

// What needs fork(), or a thread whose end unwinds its stack, has the tag [posix] and is left out there.
template <class Act>
std::string stderr_of(Act) {
    throw std::logic_error{"not on Windows"};
}
template <class Act>
ProcessEnd end_of_process(Act) {
    throw std::logic_error{"not on Windows"};
}

#else

/// What `act()` writes to stderr.
template <class Act>
std::string stderr_of(Act act) {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error{"pipe failed"};
    std::fflush(stderr);
    const int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    const auto restore = [&] {
        std::fflush(stderr);
        dup2(saved, STDERR_FILENO);
        close(saved);
    };
    try {
        act();
    } catch (...) {
        restore();
        close(ends[0]);
        throw;
    }
    restore();
    std::string text;
    char buffer[512];
    for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
    close(ends[0]);
    return text;
}

template <class Act>
ProcessEnd end_of_process(Act act) {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error{"pipe failed"};
    const pid_t child = fork();
    if (child == -1) throw std::runtime_error{"fork failed"};
    if (child == 0) {
        std::signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        // A use after free ends the process as well: only this handler proves std::terminate.
        std::set_terminate([] { _exit(66); });
        act();
        _exit(0);
    }
    close(ends[1]);
    ProcessEnd end{};
    char buffer[512];
    for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
        end.said.append(buffer, static_cast<size_t>(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    end.terminated = WIFEXITED(status) and WEXITSTATUS(status) == 66;
    return end;
}

#endif

}  // namespace support

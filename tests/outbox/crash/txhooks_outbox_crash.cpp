// SPDX-License-Identifier: MIT

// Kills the processes that add and run jobs, and the servers, and looks whether the promises hold all the same: every
// committed job has run or is dead, none ran that was not committed, and so on; the table that it prints says what.
//
//     txhooks_outbox_crash [--engine sqlite|postgres|mariadb]... [--seconds N] [--require N] [--seed S]
//
// For each engine: producers and workers are killed by SIGKILL at any time for N seconds, and kill themselves where it
// hurts; a server is killed now and then too, and started again. Then there are only workers, until nothing is left but
// dead jobs. Exits with 1 if a count is not zero that must be, or if fewer than `--require` jobs died in each of the
// four ways. A seed gives the same dice, not the same run. (txhooks_distributed_jobs is the same with other engines.)

#include "engine.hpp"
#include "judge.hpp"
#include "log.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace crash {
namespace {

struct Wanted {
    std::vector<std::string> engines = {};
    std::int64_t seconds = 60;
    std::int64_t required = 50;
    std::uint64_t seed = 0;
};

struct Child {
    std::string role;
    pid_t pid;
    std::int64_t process;
};

/// The parent of all processes on one engine.
class Parent {
public:
    Parent(const Engine& engine, const Wanted& wanted)
        : engine_{engine}, wanted_{wanted}, dice_{wanted.seed}, log_{folder_ + "/log", -1} {
        const std::unique_ptr<Session> session = engine.connect(folder_);
        engine.create_tables(*session);
    }
    Parent(const Parent&) = delete;
    Parent& operator=(const Parent&) = delete;
    ~Parent() {
        for (const Child& child : children_) kill(child.pid, SIGKILL);
        for (const Child& child : children_) waitpid(child.pid, nullptr, 0);
    }

    /// Whether all is as promised.
    bool run() {
        for (const std::string& role : engine_.roles) start(role);
        kill_and_start();
        const bool drained = drain();
        if (not drained) say("jobs are left after a minute");
        start("last");
        const bool last = wait_until_done(10);
        if (not last) say("a job that is due is not seen");
        end("worker");
        const std::unique_ptr<Session> session = engine_.connect(folder_);
        const Judge judge{*session, read_log(folder_ + "/log"), engine_.nature};
        const bool good = report(judge.counts()) and sound_ and drained and last;
        if (good)
            std::filesystem::remove_all(folder_);
        else
            say("the log is " + folder_ + "/log");
        return good;
    }

private:
    void start(const std::string& role) {
        const std::int64_t process = ++processes_;
        const std::string arguments[] = {
            "--be", role, engine_.name, folder_, std::to_string(process), std::to_string(dice_())};
        std::vector<char*> argv{const_cast<char*>("txhooks_outbox_crash")};
        for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
        argv.push_back(nullptr);
        const pid_t parent = getpid(), pid = fork();
        if (pid == -1) throw std::runtime_error{"cannot start a process"};
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == parent) execv("/proc/self/exe", argv.data());
            _exit(127);
        }
        children_.push_back({role, pid, process});
    }

    // Those that have ended are started again, as long as there are to be some.
    void reap(bool again) {
        for (std::size_t i = 0; i < children_.size();) {
            int status = 0;
            if (waitpid(children_[i].pid, &status, WNOHANG) == 0) {
                ++i;
                continue;
            }
            const Child child = children_[i];
            children_.erase(children_.begin() + static_cast<std::ptrdiff_t>(i));
            ended(child, status);
            if (again and child.role != "last") start(child.role);
        }
    }

    void ended(const Child& child, int status) {
        if (WIFSIGNALED(status)) log_.note({.what = What::died, .process = child.process});
        const bool as_meant =
            WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL or WTERMSIG(status) == SIGTERM : WEXITSTATUS(status) == 0;
        if (as_meant) return;
        sound_ = false;
        say(child.role + ' ' + std::to_string(child.process) + " ended with status " + std::to_string(status));
    }

    void kill_and_start() {
        const std::int64_t begun = now(), until = begun + wanted_.seconds * 1'000'000;
        std::int64_t next_kill = begun + 500'000, next_stop = begun + 700'000, next_crash = begun + 3'000'000,
                     next_word = begun + 10'000'000;
        while (now() < until) {
            sleep(milliseconds{10});
            reap(true);
            if (now() > next_kill and not children_.empty()) {
                kill(children_[dice_() % children_.size()].pid, SIGKILL);
                next_kill = now() + 100'000 + static_cast<std::int64_t>(dice_() % 1'400'000);
            }
            if (now() > next_stop) {
                const Child& child = children_[dice_() % children_.size()];
                if (child.role == "worker") kill(child.pid, SIGTERM);
                next_stop = now() + static_cast<std::int64_t>(dice_() % 3'000'000);
            }
            if (crashing_.valid() and crashing_.wait_for(milliseconds{0}) == std::future_status::ready) {
                await_crash();
                next_crash = now() + 3'000'000 + static_cast<std::int64_t>(dice_() % 3'000'000);
            }
            if (crashing_.valid()) continue;
            if (now() > next_crash and engine_.crash) {
                log_.note({.what = What::crashed});
                crashing_ = std::async(std::launch::async, engine_.crash);
            } else if (now() > next_word) {
                say(std::to_string((now() - begun) / 1'000'000) + " s, " + std::to_string(processes_) + " processes, " +
                    std::to_string(waiting()) + " jobs wait");
                next_word = now() + 10'000'000;
            }
        }
        if (crashing_.valid()) await_crash();
    }

    void await_crash() {
        crashing_.get();
        log_.note({.what = What::crashed, .d = 1});
    }

    bool drain() {
        end("producer");
        return wait_until_done(60);
    }
    bool wait_until_done(int seconds) {
        const std::int64_t until = now() + seconds * 1'000'000;
        while (now() < until) {
            reap(true);
            const bool still = std::any_of(children_.begin(), children_.end(),
                                           [](const Child& child) { return child.role == "last"; });
            if (not still and waiting() == 0) return true;
            sleep(milliseconds{20});
        }
        return false;
    }

    // Those that are not stopped by the signal are killed.
    void end(const std::string& role) {
        for (const Child& child : children_)
            if (child.role == role) kill(child.pid, SIGTERM);
        const std::int64_t until = now() + 20'000'000;
        std::vector<Child> others;
        for (const Child& child : children_) {
            if (child.role != role) {
                others.push_back(child);
                continue;
            }
            int status = 0;
            while (waitpid(child.pid, &status, WNOHANG) == 0) {
                sleep(milliseconds{10});
                if (now() < until) continue;
                say(child.role + ' ' + std::to_string(child.process) + " does not stop");
                sound_ = false;
                kill(child.pid, SIGKILL);
                waitpid(child.pid, &status, 0);
                break;
            }
            ended(child, status);
        }
        children_ = others;
    }

    std::int64_t waiting() {
        return engine_.connect(folder_)->number("SELECT count(*) FROM txhooks_job WHERE due < 9223372036854775807");
    }

    bool report(const std::vector<Count>& counts) {
        bool good = true;
        std::printf("\n%s, seed %llu\n", engine_.name, static_cast<unsigned long long>(wanted_.seed));
        for (const Count& count : counts) {
            const bool wrong =
                (count.must_be_zero and count.count != 0) or (count.is_required and count.count < wanted_.required);
            std::printf("    %-32s %7lld%s\n", count.name, static_cast<long long>(count.count),
                        not wrong            ? ""
                        : count.must_be_zero ? "  WRONG"
                                             : "  TOO FEW");
            if (wrong and count.must_be_zero)
                for (const std::string& example : count.examples) std::printf("        %s\n", example.c_str());
            good = good and not wrong;
        }
        std::fflush(stdout);
        return good;
    }

    void say(const std::string& text) {
        std::printf("%s: %s\n", engine_.name, text.c_str());
        std::fflush(stdout);
    }

    static std::string new_folder() {
        std::string folder = (std::filesystem::temp_directory_path() / "txhooks-crash.XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        return folder;
    }

    const Engine& engine_;
    const Wanted& wanted_;
    std::mt19937_64 dice_;
    const std::string folder_ = new_folder();
    const Log log_;
    std::vector<Child> children_;
    std::future<void> crashing_;
    std::int64_t processes_ = 0;
    bool sound_ = true;
};

const Engine& engine(const std::string& name) {
    for (const Engine& each : engines())
        if (each.name == name) return each;
    throw std::runtime_error{"not built for " + name};
}

int main(int argc, char* argv[]) {
    if (argc == 7 and std::string{argv[1]} == "--be")
        return engine(argv[3]).be({argv[2], argv[4], std::stoll(argv[5]), std::stoull(argv[6])});

    Wanted wanted;
    wanted.seed = std::random_device{}();
    for (int i = 1; i < argc; i += 2) {
        const std::string option = argv[i];
        if (i + 1 == argc) throw std::runtime_error{option + " wants a value"};
        const std::string value = argv[i + 1];
        if (option == "--engine")
            wanted.engines.push_back(value);
        else if (option == "--seconds")
            wanted.seconds = std::stoll(value);
        else if (option == "--require")
            wanted.required = std::stoll(value);
        else if (option == "--seed")
            wanted.seed = std::stoull(value);
        else
            throw std::runtime_error{"unknown option " + option};
    }
    if (wanted.engines.empty())
        for (const Engine& each : engines()) wanted.engines.push_back(each.name);
    bool good = true;
    for (const std::string& name : wanted.engines) good = Parent{engine(name), wanted}.run() and good;
    return good ? 0 : 1;
}

}  // namespace
}  // namespace crash

int main(int argc, char* argv[]) {
    try {
        return crash::main(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "txhooks_outbox_crash: %s\n", e.what());
        return 2;
    }
}

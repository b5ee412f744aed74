// SPDX-License-Identifier: MIT

// How long after COMMIT a handler begins, in a worker that has nothing else to do: wake_up <engine>. In this process, whose
// worker looks by itself only every ten seconds; and in another one, which looks every 100 ms.

#include "jobs.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <random>
#include <thread>

namespace {

using namespace benchmarks;
using namespace std::chrono_literals;

constexpr std::chrono::microseconds poll = 100ms;

// When a handler began, on the clock that all processes share; 0: not yet.
using Begun = std::atomic<Clock::rep>;
static_assert(Begun::is_always_lock_free);

template <class Engine>
struct Worker {
    Worker(const std::filesystem::path& folder, Begun& begun) : engine{folder, "wake_up"}, db{engine.backend()} {
        types.template handle<Elsewhere>([&](const Elsewhere&) { begun = Clock::now().time_since_epoch().count(); },
                                         {.in_worker = true});
        engine.set_durable(false);
    }
    Engine engine;
    typename Engine::Db db;
    txhooks::JobTypes<typename Engine::Db> types;
    txhooks::Outbox<typename Engine::Db> outbox{db, types};
};

// Commits blocks with a job each, at random moments.
template <class Engine>
void measure(const std::string& name, Engine& engine, typename Engine::Db& db,
             txhooks::JobTypes<typename Engine::Db>& types, Begun& begun, int blocks) {
    txhooks::Outbox<typename Engine::Db> outbox{db, types};
    std::minstd_rand random{1};
    std::vector<double> times;
    for (int block = 0; block <= blocks; ++block) {
        std::this_thread::sleep_for(std::chrono::microseconds{5000 + random() % 20000});
        begun = 0;
        Clock::time_point committed;
        db.atomic([&] {
            db.on_commit([&]() noexcept { committed = Clock::now(); });
            engine.insert();
            outbox.add(Elsewhere{});
        });
        while (begun == 0) std::this_thread::sleep_for(20us);
        if (block == 0) continue;  // the worker may not have waited yet
        times.push_back(micros(Clock::duration{begun.load()} - committed.time_since_epoch()));
    }
    figure(name + "/median", median(times));
    figure(name + "/p99", quantile(times, 0.99));
}

template <class Engine>
void measure() {
    const TemporaryFolder folder;
    auto* const begun =
        static_cast<Begun*>(mmap(nullptr, sizeof(Begun), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (begun == MAP_FAILED) throw std::runtime_error{"no memory to share"};

    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        try {
            Worker<Engine> worker{folder, *begun};
            worker.outbox.create_table();
            *begun = 1;
            worker.outbox.work(poll);
        } catch (const std::exception& e) {
            std::fprintf(stderr, "the worker: %s\n", e.what());
        }
        _exit(EXIT_FAILURE);
    }
    while (*begun == 0) {
        if (waitpid(child, nullptr, WNOHANG) != 0) throw std::runtime_error{"the worker has ended"};
        std::this_thread::sleep_for(1ms);
    }
    {
        Engine engine{folder, "wake_up"};
        engine.set_durable(false);
        typename Engine::Db db{engine.backend()};
        txhooks::JobTypes<typename Engine::Db> none;
        measure("elsewhere", engine, db, none, *begun, 150);
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);

    Worker<Engine> worker{folder, *begun};
    std::thread thread{[&] { worker.outbox.work(10s); }};
    {
        Engine engine{folder, "wake_up"};
        engine.set_durable(false);
        typename Engine::Db db{engine.backend()};
        measure("here", engine, db, worker.types, *begun, 300);
    }
    worker.outbox.stop();
    thread.join();
    figure("poll", micros(poll));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    return with_engine(argv[1], []<class Engine> { measure<Engine>(); });
}

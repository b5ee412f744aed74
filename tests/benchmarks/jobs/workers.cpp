// SPDX-License-Identifier: MIT

// Workers on PostgreSQL, and what gives them work:
//
//     workers fill <database> <jobs>                         adds jobs that do nothing, and runs none
//     workers drain <database> <processes> <threads> <jobs>  runs them, and tells how many seconds that took
//     workers produce <database> <rate> <jobs> <first>       a block with a job so many times a second, numbered from <first> on
//     workers work <database> <file>                         runs those until SIGTERM; tells each second when it is, and the
//                                                            microseconds of a claim
//
// Of the jobs of `produce` every other one is booked in the transaction that takes it away, in the table `booked`; the others
// are written into <file> by their number, perhaps several times. Some are delayed, some fail at first.

#include "jobs.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <thread>

namespace {

using namespace benchmarks;
using namespace std::chrono_literals;
using Db = Postgres::Db;

// ---- Jobs that do nothing

void fill(const std::string& database, std::size_t jobs) {
    Postgres engine{{}, database};
    Db db{engine.backend()};
    txhooks::JobTypes<Db> none;
    txhooks::Outbox<Db> outbox{db, none};
    outbox.create_table();
    engine.execute("TRUNCATE txhooks_job");
    for (std::size_t added = 0; added != jobs;) {
        db.atomic([&] {
            for (int some = 0; some != 5000 and added != jobs; ++some, ++added) outbox.add(Elsewhere{});
        });
    }
    engine.settle_down();
    engine.execute("CHECKPOINT");
}

// What processes share.
struct Progress {
    std::atomic<std::size_t> ready, ran;
    std::atomic<bool> go, done;
};
static_assert(std::atomic<std::size_t>::is_always_lock_free and std::atomic<bool>::is_always_lock_free);

void run_jobs(Progress& progress, const std::string& database, std::size_t threads) {
    txhooks::JobTypes<Db> types;
    types.handle<Elsewhere>([&](const Elsewhere&) { ++progress.ran; }, {.in_worker = true});
    std::vector<std::thread> working;
    for (std::size_t thread = 0; thread != threads; ++thread) {
        working.emplace_back([&] {
            Postgres engine{{}, database};
            Db db{engine.backend()};
            txhooks::Outbox<Db> outbox{db, types};
            std::thread stops{[&] {
                while (not progress.done) std::this_thread::sleep_for(2ms);
                outbox.stop();
            }};
            ++progress.ready;
            while (not progress.go) std::this_thread::sleep_for(100us);
            outbox.work(100ms);
            stops.join();
        });
    }
    for (std::thread& thread : working) thread.join();
}

void drain(const std::string& database, std::size_t processes, std::size_t threads, std::size_t jobs) {
    void* const shared = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) throw std::runtime_error{"no memory to share"};
    auto& progress = *new (shared) Progress{};
    for (std::size_t process = 0; process != processes; ++process) {
        if (fork() != 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        try {
            run_jobs(progress, database, threads);
        } catch (const std::exception& e) {
            std::fprintf(stderr, "a worker: %s\n", e.what());
            _exit(EXIT_FAILURE);
        }
        _exit(EXIT_SUCCESS);
    }
    const auto wait_until = [](const auto& reached) {
        while (not reached()) {
            if (waitpid(-1, nullptr, WNOHANG) != 0) throw std::runtime_error{"a worker has ended"};
            std::this_thread::sleep_for(200us);
        }
    };
    const support::PostgresHandle looks{support::postgres_server("dbname=" + database)};
    wait_until([&] { return progress.ready == processes * threads; });
    const Clock::time_point begun = Clock::now();
    progress.go = true;
    wait_until([&] { return progress.ran >= jobs; });
    wait_until([&] { return support::run(looks, "SELECT 1 FROM txhooks_job LIMIT 1").empty(); });
    figure("seconds", micros(Clock::now() - begun) / 1e6);
    if (progress.ran != jobs) throw std::runtime_error{"a job was run twice"};
    progress.done = true;
    for (int status = 0; wait(&status) > 0;)
        if (status != 0) throw std::runtime_error{"a worker failed"};
}

// ---- Jobs with a number

struct Numbered {
    std::size_t number = 0;
    friend std::string to_payload(const Numbered& job) { return std::to_string(job.number); }
    friend void from_payload(std::string_view stored, Numbered& job) { job.number = std::stoull(std::string{stored}); }
    bool fails_at_first() const noexcept { return number % 50 < 2; }
};
struct Booked : Numbered {
    static constexpr const char* job_name = "booked";
};
struct Written : Numbered {
    static constexpr const char* job_name = "written";
};

void produce(const std::string& database, double rate, std::size_t jobs, std::size_t first) {
    Postgres engine{{}, database};
    Db db{engine.backend()};
    txhooks::JobTypes<Db> none;
    txhooks::Outbox<Db> outbox{db, none};
    const Clock::time_point begun = Clock::now();
    for (std::size_t number = first; number != first + jobs; ++number) {
        std::this_thread::sleep_until(begun + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>{
                                                  static_cast<double>(number - first) / rate}));
        const std::chrono::seconds delay{number % 20 == 5 ? number % 30 : 0};
        db.atomic([&] {
            engine.insert();
            if (number % 2 == 0)
                outbox.add(Booked{{number}}, {.delay = delay});
            else
                outbox.add(Written{{number}}, {.delay = delay});
        });
    }
    figure("seconds", micros(Clock::now() - begun) / 1e6);
}

volatile sig_atomic_t stopping = 0;

void work(const std::string& database, const char* file) {
    const int written = open(file, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (written < 0) throw std::runtime_error{std::string{"cannot write "} + file};
    Postgres engine{{}, database};
    Db db{engine.backend()};
    db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});  // of jobs that fail at first
    Clock::time_point begun{};
    const auto begin = [&](const Numbered& job, const txhooks::JobRun& run) {
        if (begun == Clock::time_point{}) begun = Clock::now();
        if (run.attempt() == 1 and job.fails_at_first()) throw std::runtime_error{"at first"};
    };
    txhooks::JobTypes<Db> types;
    types.handle<Booked>(txhooks::in_transaction,
                         [&](Db&, const Booked& job, txhooks::JobRun& run) {
                             begin(job, run);
                             engine.execute("INSERT INTO booked VALUES (" + std::to_string(job.number) + ")");
                         },
                         {.in_worker = true, .lease = 2s});
    types.handle<Written>(
        [&](const Written& job, txhooks::JobRun& run) {
            begin(job, run);
            if (write(written, &job.number, sizeof job.number) != sizeof job.number)
                throw std::runtime_error{"the disk is full"};
        },
        {.in_worker = true, .lease = 2s});
    txhooks::Outbox<Db> outbox{db, types};
    signal(SIGTERM, [](int) { stopping = 1; });
    std::vector<double> claims;
    Clock::time_point told = Clock::now();
    while (stopping == 0) {
        begun = {};
        const Clock::time_point called = Clock::now();
        if (outbox.run_due() == 0)
            std::this_thread::sleep_for(5ms);
        else if (begun != Clock::time_point{})
            claims.push_back(micros(begun - called));
        if (Clock::now() - told < 1s or claims.empty()) continue;
        const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
        std::printf("%.3f %.1f\n", now.count(), median(claims));
        std::fflush(stdout);
        claims.clear();
        told = Clock::now();
    }
}

int run(const std::vector<std::string>& words) {
    const auto number = [&](std::size_t at) { return static_cast<std::size_t>(std::stoull(words[at])); };
    const std::string act = words.empty() ? "" : words[0];
    if (act == "fill" and words.size() == 3)
        fill(words[1], number(2));
    else if (act == "drain" and words.size() == 5)
        drain(words[1], number(2), number(3), number(4));
    else if (act == "produce" and words.size() == 5)
        produce(words[1], std::stod(words[2]), number(3), number(4));
    else if (act == "work" and words.size() == 3)
        work(words[1], words[2].c_str());
    else
        return 2;
    return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run({argv + 1, argv + argc});
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return EXIT_FAILURE;
    }
}

// SPDX-License-Identifier: MIT
//
// COMMIT waits for a standby: the wait is cancelled, the session ended, the connection cut, the server killed. What is in
// doubt is resolved, also when the standby has taken the primary's place.
//
//     tests/support/servers/postgres_pair with <this program> [interleavings] [failovers]
//
// Each block writes a row, which has a hook. Truth is what the primary says in the end. Prints how often what happened;
// the exit code is 1 if a hook ran without its row, or not with it, or twice, or the caller was not told what is expected.
// One hook is expected to run for a row that is lost then: COMMIT answers yes when its wait is cancelled.

#include "postgres_pair.hpp"
#include "support/exceptions.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpq.hpp>
#include <txhooks/doubt.hpp>

#include <signal.h>
#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <future>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

using namespace support;
using namespace distributed;
using namespace std::chrono_literals;

namespace {

// ---- A block, and what is done to it

enum class Trouble { nothing, cancel, terminate, cut, kill };

std::string name(Trouble trouble) {
    constexpr const char* names[] = {"nothing", "wait cancelled", "session ended", "connection cut", "backend killed"};
    return names[static_cast<std::size_t>(trouble)];
}

constexpr const char* row_there = "; row there, hooks run: ";
constexpr const char* no_row = "; no row, hooks run: ";
const std::string kept = row_there + std::string{"1"};
const std::string dropped = no_row + std::string{"0"};

class Block {
public:
    explicit Block(int n) : n_{n} {
        db_.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
    }

    void play() {
        told_ = without_cause(ending([&] {
            db_.atomic({.resolve = &doubt_}, [&] {
                const std::string failed = attempt(handle_, "INSERT INTO t VALUES (" + std::to_string(n_) + ")");
                if (not failed.empty()) throw std::runtime_error{"failed in a statement, " + failed};
                db_.on_commit([&] { ++ran_; });
            });
        }));
    }

    void await_wait(PGconn* others) const {
        until([&] {
            return run(others, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = " +
                                   std::to_string(pid_)) == "1";
        });
    }

    void meet(Trouble trouble, PGconn* others) {
        if (trouble == Trouble::cancel) run(others, "SELECT pg_cancel_backend(" + std::to_string(pid_) + ")");
        if (trouble == Trouble::terminate) {
            const std::string pid = std::to_string(pid_);
            run(others, "SELECT pg_terminate_backend(" + pid + ")");
            until([&] { return run(others, "SELECT count(*) FROM pg_stat_activity WHERE pid = " + pid) == "0"; });
        }
        if (trouble == Trouble::cut) shutdown(PQsocket(handle_), SHUT_RDWR);
        if (trouble != Trouble::kill) return;
        end_process(pid_, SIGKILL);
        until([&] { return not attempt(others, "SELECT 1").empty(); });  // every session ends with it
    }

    // Asks until there is an answer. A COMMIT that arrives later must fail.
    void resolve() {
        if (not doubt_.in_doubt()) return;
        std::string answer;
        until([&] {
            const PostgresHandle handle = connect();
            txhooks::HookedConnection fresh{static_cast<PGconn*>(handle)};
            answer = ending([&] { return doubt_.resolve(fresh); });
            return not doubt_.in_doubt();
        });
        told_ += ", resolved to " + answer;
        const std::string late = "BEGIN; INSERT INTO t VALUES (" + std::to_string(n_) +
                                 "); INSERT INTO txhooks_commit (id, committed) VALUES ('" + doubt_.marker() +
                                 "', true); COMMIT";
        until([&] {
            const std::string state = attempt(connect(), late);
            return state.empty() or state == "23505";
        });
    }

    // What the caller was told, and what is true.
    std::string history() const {
        const bool there = run(connect(), "SELECT 1 FROM t WHERE n = " + std::to_string(n_)) == "1";
        return told_ + (there ? row_there : no_row) + std::to_string(ran_);
    }

private:
    int n_;
    int ran_ = 0;
    std::string told_;
    PostgresHandle handle_ = connect("options=-csynchronous_commit=remote_apply");
    int pid_ = PQbackendPID(handle_);
    txhooks::Doubt doubt_;
    txhooks::HookedConnection<PGconn*> db_{static_cast<PGconn*>(handle_)};
};

// ---- How often what happened

class Tally {
public:
    void add(const std::string& what, bool as_expected) {
        ++times_[what];
        if (as_expected) return;
        ++violations_;
        std::printf("VIOLATION: %s\n", what.c_str());
    }
    int print(const char* title, int rounds) const {
        std::printf("%s: %d\n", title, rounds);
        for (const auto& [what, times] : times_) std::printf("%8d  %s\n", times, what.c_str());
        std::printf("%8d  violations\n", violations_);
        return violations_;
    }

private:
    std::map<std::string, int> times_;
    int violations_ = 0;
};

// ---- One primary

// Replay on the standby is paused in some, so that COMMIT waits; the trouble comes while it does, or at any time.
int interleave(int rounds) {
    Tally tally;
    std::mt19937 dice{1};
    const PostgresHandle on_standby = connect_to_standby();
    for (int round = 1; round <= rounds; ++round) {
        const bool waits = dice() % 2 == 0;
        const bool paused = waits or dice() % 2 == 0;
        const auto trouble = dice() % 16 == 0 ? Trouble::kill : static_cast<Trouble>(dice() % 4);
        const std::chrono::microseconds moment{dice() % 3000};
        const std::chrono::microseconds pause{dice() % 20000};
        Block block{round};
        if (paused) run(on_standby, "SELECT pg_wal_replay_pause()");
        auto meeting = std::async(std::launch::async, [&, others = connect()] {
            if (waits)
                block.await_wait(others);
            else
                std::this_thread::sleep_for(moment);
            block.meet(trouble, others);
            std::this_thread::sleep_for(pause);
            if (paused) run(on_standby, "SELECT pg_wal_replay_resume()");
        });
        block.play();
        block.resolve();
        meeting.get();

        const bool answered = trouble == Trouble::nothing or trouble == Trouble::cancel;
        const std::string history = block.history();
        const bool as_expected =
            waits ? history == (answered ? "returned" : "CommitUnknown unknown, resolved to committed") + kept
                  : history.ends_with(kept) or history.ends_with(dropped);
        tally.add((waits ? "while it waits, " : "at any time, ") + name(trouble) + ": " + history, as_expected);
    }
    return tally.print("interleavings", rounds);
}

// ---- The standby takes over

struct Story {
    bool received;  // by the standby, which has not replayed it; or it is cut off from the primary
    Trouble trouble;
    bool asked_early;  // the old primary is asked what became of the COMMIT
};

std::string what(const Story& story) {
    return (story.received ? "received by the standby, " : "not received by the standby, ") + name(story.trouble) +
           (story.asked_early ? ", old primary asked" : "");
}

void hold_back_standby(const Story& story) {
    if (story.received)
        run(connect_to_standby(), "SELECT pg_wal_replay_pause()");
    else
        cut_off_standby();
}

void await_received(PGconn* on_primary) {
    const PostgresHandle on_standby = connect_to_standby();
    const std::string end = run(on_primary, "SELECT pg_current_wal_flush_lsn()");
    until([&] { return run(on_standby, "SELECT pg_last_wal_receive_lsn() >= '" + end + "'") == "t"; });
}

int fail_over_often(int first_round, int failovers) {
    constexpr Story stories[] = {
        {false, Trouble::nothing, false}, {true, Trouble::nothing, false},    {false, Trouble::cancel, false},
        {true, Trouble::cancel, false},   {false, Trouble::terminate, false}, {true, Trouble::terminate, false},
        {false, Trouble::cut, false},     {true, Trouble::cut, false},        {false, Trouble::terminate, true},
        {true, Trouble::terminate, true}, {false, Trouble::cut, true},        {true, Trouble::cut, true},
    };
    Tally tally;
    std::mt19937 dice{1};
    for (int round = 0; round != failovers; ++round) {
        const Story& story = stories[static_cast<std::size_t>(round) % std::size(stories)];
        Block block{first_round + round};
        {
            const PostgresHandle others = connect();
            hold_back_standby(story);
            auto playing = std::async(std::launch::async, [&] { block.play(); });
            block.await_wait(others);
            if (story.received) await_received(others);
            block.meet(story.trouble, others);
            if (story.trouble != Trouble::nothing) playing.get();
            std::future<void> asking;
            if (story.asked_early) {
                asking = std::async(std::launch::async, [&] { block.resolve(); });
                asking.wait_for(300ms);
            }
            fail_over(dice() % 2 == 0 ? SIGKILL : SIGQUIT);
            if (playing.valid()) playing.get();
            if (asking.valid()) asking.get();
        }
        block.resolve();

        const std::string expected = story.trouble == Trouble::cancel
                                         ? "returned" + (story.received ? kept : no_row + std::string{"1"})
                                     : story.received ? "CommitUnknown unknown, resolved to committed" + kept
                                                      : "CommitUnknown unknown, resolved to rolled_back" + dropped;
        const std::string history = block.history();
        tally.add(what(story) + ": " + history, history == expected);
        await_standby();
    }
    return tally.print("failovers", failovers);
}

}  // namespace

int main(int argc, char* argv[]) {
    if (std::getenv("TXHOOKS_POSTGRES") == nullptr) {
        std::printf("start a pair first, and name the folder of its primary in TXHOOKS_POSTGRES\n");
        return 2;
    }
    try {
        const int rounds = argc > 1 ? std::atoi(argv[1]) : 300;
        const int failovers = argc > 2 ? std::atoi(argv[2]) : 24;
        const PostgresHandle db = connect();
        run(db, "CREATE TABLE t (n int PRIMARY KEY)");
        run(db, marker_table);
        const int violations = interleave(rounds) + fail_over_often(rounds + 1, failovers);
        return violations == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } catch (const std::exception& e) {
        std::printf("%s\n", e.what());
        return EXIT_FAILURE;
    }
}

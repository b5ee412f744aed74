// SPDX-License-Identifier: MIT
//
// Two nodes of a Galera cluster commit conflicting transactions at the same time: the loser's hooks do not run, the
// winner's run once. Galera decides at COMMIT (certification), or rolls the loser back at any time before.
//
//     tests/support/servers/galera with <this program> [interleavings]
//
// Each interleaving is a block on each node: both write the same row, and one of their own, which has a hook. Truth is
// what both nodes say afterwards. Prints how often what happened; the exit code is 1 if a hook ran without its row, or
// not with it, or twice, unless the caller was told of a doubt or a loss, and then none may have run.

#include "support/exceptions.hpp"
#include "support/mariadb_server.hpp"

#include <txhooks/backends/mariadb.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <random>
#include <string>
#include <thread>

using namespace support;

namespace {

struct Cluster {
    MariadbServer first;
    MariadbServer second;
    explicit Cluster(const std::string& folder)
        : first{MariadbServer::in(folder + "/1")}, second{MariadbServer::in(folder + "/2")} {}
};

// The statements of user code: which of them failed.
struct StatementFailed {
    unsigned code;
};

void execute(MYSQL* db, const std::string& sql) {
    if (const unsigned code = attempt(db, sql); code != 0) throw StatementFailed{code};
}

template <class Adapter>
class Node {
public:
    Node(const MariadbServer& server, int number)
        : number_{number}, handle_{Login{.server = server}}, other_{Login{.server = server}}, db_{handle_.get()} {
        db_.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        run(other_, "SET wsrep_sync_wait = 1");  // see what the other node has committed
    }

    // Writes the row that both write and one of its own, waits for the other node, commits.
    void play(int round, std::atomic<int>& ready, std::chrono::microseconds delay) {
        ran = 0;
        bool arrived = false;
        const auto meet = [&] {
            arrived = true;
            ++ready;
            while (ready < 2) std::this_thread::yield();
            const auto until = std::chrono::steady_clock::now() + delay;
            while (std::chrono::steady_clock::now() < until) {}
        };
        ended = ending([&] {
            try {
                db_.atomic([&] {
                    execute(handle_,
                            "INSERT INTO mine VALUES (" + std::to_string(round) + ", " + std::to_string(number_) + ")");
                    db_.on_commit([&] { ++ran; });
                    execute(handle_, "UPDATE both_write SET writer = " + std::to_string(2 * round + number_));
                    meet();
                });
            } catch (const StatementFailed& error) {
                throw std::runtime_error{"rolled back in a statement, " + std::to_string(error.code)};
            }
        });
        if (not arrived) ++ready;
        if (not db_.usable()) {
            while (attempt(handle_, "ROLLBACK") == 1317) {}
            db_.reset();
        }
    }

    bool sees(int round, int number) {
        return values(other_, "SELECT 1 FROM mine WHERE round = " + std::to_string(round) +
                                  " AND node = " + std::to_string(number)) == "1";
    }

    int ran = 0;
    std::string ended;

private:
    int number_;
    Handle handle_;
    Handle other_;
    txhooks::HookedConnection<MYSQL*, Adapter> db_;
};

template <class Adapter>
int play(const Cluster& cluster, const char* name, int rounds) {
    {
        Handle db{Login{.server = cluster.first}};
        run(db, "CREATE OR REPLACE TABLE mine (round INT, node INT, PRIMARY KEY (round, node))");
        run(db, "CREATE OR REPLACE TABLE both_write (n INT PRIMARY KEY, writer INT)");
        run(db, "INSERT INTO both_write VALUES (1, 0)");
    }
    Node<Adapter> first{cluster.first, 1};
    Node<Adapter> second{cluster.second, 2};
    first.sees(0, 1);
    second.sees(0, 1);
    std::map<std::string, int> endings;
    std::array<int, 3> winners{};
    int violations = 0;
    std::mt19937 dice{1};
    for (int round = 1; round <= rounds; ++round) {
        std::atomic<int> ready = 0;
        const std::chrono::microseconds first_delay{dice() % 100};
        const std::chrono::microseconds second_delay{dice() % 100};
        std::thread other{[&] { second.play(round, ready, second_delay); }};
        first.play(round, ready, first_delay);
        other.join();
        int won = 0;
        for (Node<Adapter>* node : {&first, &second}) {
            const int number = node == &first ? 1 : 2;
            const bool there = first.sees(round, number);
            const bool told =
                node->ended.find("Unknown") != std::string::npos or node->ended.find("Lost") != std::string::npos;
            const bool kept = told ? node->ran == 0 : node->ran == (there ? 1 : 0);
            if (not kept or there != second.sees(round, number)) {
                ++violations;
                std::printf("VIOLATION in round %d, node %d: %s, hook ran %d times, row there: %d\n", round, number,
                            node->ended.c_str(), node->ran, there);
            }
            ++endings[node->ended + (there ? ": row there, hook ran " : ": no row, hook ran ") +
                      std::to_string(node->ran) + " times"];
            if (there) ++won;
        }
        ++winners[static_cast<std::size_t>(won)];
    }
    std::printf("%s: %d interleavings; one node won in %d, both in %d, none in %d\n", name, rounds, winners[1],
                winners[2], winners[0]);
    for (const auto& [ended, times] : endings) std::printf("%8d  %s\n", times, ended.c_str());
    std::printf("%8d  violations\n", violations);
    return violations;
}

}  // namespace

int main(int argc, char* argv[]) {
    const char* const folder = std::getenv("TXHOOKS_GALERA");
    if (folder == nullptr) {
        std::printf("start a cluster first, and name its folder in TXHOOKS_GALERA\n");
        return 2;
    }
    try {
        const int rounds = argc > 1 ? std::atoi(argv[1]) : 3000;
        const Cluster cluster{folder};
        const int violations = play<txhooks::BackendAdapter<MYSQL*>>(cluster, "compound", rounds) +
                               play<txhooks::mariadb::Plain>(cluster, "plain", rounds);
        return violations == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } catch (const std::exception& e) {
        std::printf("%s\n", e.what());
        return EXIT_FAILURE;
    }
}

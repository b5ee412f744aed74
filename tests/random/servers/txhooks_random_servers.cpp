// SPDX-License-Identifier: MIT

// Runs random blocks of several clients at once on real servers against the promise, with hooks of every kind: one of
// on_commit ran if and only if its row is visible from another connection; one of on_rollback ran only if it is not; one
// of unless_committed ran unless the commit was proven; what one of before_commit wrote is there with all the rest.
//
//     txhooks_random_servers [--postgres N] [--mariadb N] [--seed S] [--replay SERVER:SEED]
//
// N is how many outermost blocks there are to be; S picks them. A batch is a few clients with one witness; the truth is
// read when they have gone. Exits with 1 if anything was violated, and says with which seed; also if something that so
// many blocks should have shown was not seen. What the clients do to each other is never twice the same: the same batch may
// have to be run several times.

#include "batch.hpp"
#include "tally.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace random_programs {
namespace {

constexpr unsigned long blocks_of_a_batch = 500;

// The witness is picked by the seed, so that this says all.
bool run(const Server& server, std::uint64_t seed, unsigned long batches, unsigned long blocks,
         std::vector<Column>& columns) {
    const std::vector<Server::Witness> witnesses = server.connect();
    std::vector<Column> mine;
    for (const Server::Witness& witness : witnesses)
        mine.emplace_back(std::string{server.name} + ' ' + witness.name, Tally{});
    bool sound = true;
    for (; batches != 0 and sound; --batches, ++seed) {
        const std::size_t i = seed % witnesses.size();
        const Report report = witnesses[i].run(seed, blocks);
        mine[i].second += report.tally;
        sound = report.violation.empty();
        if (sound) continue;
        std::fflush(stdout);
        std::fprintf(stderr, "VIOLATION: %s: %s\nagain: txhooks_random_servers --replay %s:%llu\n",
                     mine[i].first.c_str(), report.violation.c_str(), server.name,
                     static_cast<unsigned long long>(seed));
    }
    columns.insert(columns.end(), mine.begin(), mine.end());
    Tally sum;
    for (const Column& column : mine) sum += column.second;
    const std::string missing = not_seen(sum, server.never);
    if (not missing.empty()) std::fprintf(stderr, "NOT SEEN: %s: %s\n", server.name, missing.c_str());
    return sound and missing.empty();
}

int main(int argc, char* argv[]) {
    std::map<std::string, unsigned long> blocks;
    std::uint64_t seed = 1;
    std::string replayed;
    for (int i = 1; i < argc; i += 2) {
        const std::string option = argv[i];
        if (i + 1 == argc) throw std::runtime_error{option + " wants a value"};
        const std::string value = argv[i + 1];
        if (option == "--seed")
            seed = std::stoull(value);
        else if (option == "--replay")
            replayed = value;
        else if (option.starts_with("--"))
            blocks[option.substr(2)] = std::stoul(value);
        else
            throw std::runtime_error{"unknown option " + option};
    }
    std::uint64_t first = seed * 1'000'000;
    if (not replayed.empty()) {
        const std::size_t colon = replayed.find(':');
        if (colon == std::string::npos) throw std::runtime_error{"--replay wants what was printed"};
        blocks = {{replayed.substr(0, colon), 1}};
        first = std::stoull(replayed.substr(colon + 1));
    }

    std::vector<Column> columns;
    bool sound = true;
    for (const auto& [name, wanted] : blocks) {
        const auto server = std::find_if(servers().begin(), servers().end(),
                                         [&called = name](const Server& each) { return each.name == called; });
        if (server == servers().end()) throw std::runtime_error{"not built for " + name};
        const unsigned long batches = (wanted + blocks_of_a_batch - 1) / blocks_of_a_batch;
        sound = run(*server, first, batches, blocks_of_a_batch, columns) and sound;
    }
    print(columns);
    return sound ? 0 : 1;
}

}  // namespace
}  // namespace random_programs

int main(int argc, char* argv[]) {
    try {
        return random_programs::main(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "txhooks_random_servers: %s\n", e.what());
        return 2;
    }
}

// SPDX-License-Identifier: MIT

// Runs random programs against the promise: a commit hook ran if and only if its row is visible from a second
// connection, and the other kinds as it follows from that.
//
//     txhooks_random [--fake N] [--sqlite N] [--seed S] [--replay WORLD:SEED] [--verbose]
//
// N is how many blocks are to be opened, at least; S picks the programs. Exits with 1 if anything was violated; the
// program that did it is shown then, with the command that runs it again. Exits with 1 too if a batch that is large
// enough has not seen each kind of hook run, and each way to end.

#include "dice.hpp"
#include "fake_world.hpp"
#include "generator.hpp"
#include "history.hpp"
#include "interpreter.hpp"
#include "sqlite_world.hpp"

#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

namespace random_programs {
namespace {

using DefaultSqlite = SqliteWorld<txhooks::BackendAdapter<sqlite3*>>;
using CountingSqlite = SqliteWorld<txhooks::sqlite::Counting<sqlite3*>>;

template <class World>
bool run_seed(std::uint64_t seed, Counts& counts, bool verbose) {
    Dice dice{seed};
    const Program program = Generator{dice}.program();
    if (verbose) std::fprintf(stderr, "%s:%llu\n", World::name, static_cast<unsigned long long>(seed));
    const std::string violation = Interpreter<World>{program, counts, verbose}.run();
    if (violation.empty()) return true;
    std::fflush(stdout);
    if (not verbose) {
        Counts ignored{};
        Interpreter<World>{program, ignored, true}.run();
    }
    std::fprintf(stderr, "VIOLATION: %s\nagain: txhooks_random --replay %s:%llu\n", violation.c_str(), World::name,
                 static_cast<unsigned long long>(seed));
    return false;
}

void print(const Counts& c) {
    std::printf(
        "  %lu blocks: %lu outermost, %lu nested; %lu refused to open; in %lu programs, %lu of them compared with the "
        "model\n"
        "  outermost: %lu committed, %lu committed with HookError, %lu rolled back, %lu aborted, %lu unknown,\n"
        "    %lu lost (%lu rolled back, %lu committed, %lu unknown); %lu in doubt resolved as committed, %lu as "
        "rolled back;\n"
        "    %lu commits tried again after still_open, %lu times broken and recovered\n"
        "  hooks: %lu registered in blocks, %lu at once; ran: %lu on_commit, %lu before_commit, %lu on_rollback, %lu "
        "unless_committed;\n"
        "    %lu threw, %lu discarded; on_commit: %lu lost, %lu in doubt, %lu dropped behind one that threw\n"
        "  violations: %lu\n",
        c.blocks(), c.outermost, c.nested, c.refused, c.programs, c.modelled, c.committed, c.hook_error, c.rolled_back,
        c.aborted, c.unknown, c.lost_rolled_back + c.lost_committed + c.lost_unknown, c.lost_rolled_back,
        c.lost_committed, c.lost_unknown, c.resolved_committed, c.resolved_rolled_back, c.retried, c.recovered, c.hooks,
        c.at_once, c.ran[0], c.ran[1], c.ran[2], c.ran[3], c.threw, c.discarded, c.were_lost, c.in_doubt, c.dropped,
        c.violations);
}

// Whether the batch has seen each kind of hook run, and each way to end that its world has, if it was large enough.
template <class World>
bool has_seen_all(const Counts& c) {
    constexpr unsigned long shows_hooks = 1'000;
    constexpr unsigned long shows_all = 20'000;  // a COMMIT of SQLite is in doubt once in two thousand blocks
    constexpr unsigned long shows_resolved = 100'000;
    const struct {
        const char* what;
        unsigned long seen;
        unsigned long enough;
        bool possible = true;
    } sights[] = {
        {"hook of on_commit() that ran", c.ran[0], shows_hooks},
        {"hook of before_commit() that ran", c.ran[1], shows_hooks},
        {"hook of on_rollback() that ran", c.ran[2], shows_hooks},
        {"hook of unless_committed() that ran", c.ran[3], shows_hooks},
        {"hook outside blocks", c.at_once, shows_hooks},
        {"hook that was discarded", c.discarded, shows_hooks},
        {"hook that was dropped behind one that threw", c.dropped, shows_all},
        {"hook whose transaction was lost", c.were_lost, shows_all},
        {"hook whose transaction was in doubt", c.in_doubt, shows_all},
        {"program compared with the model", c.modelled, shows_hooks},
        {"block that was refused", c.refused, shows_all},
        {"block that was committed", c.committed, shows_all},
        {"HookError", c.hook_error, shows_all},
        {"block that was rolled back", c.rolled_back, shows_all},
        {"TransactionAborted", c.aborted, shows_all},
        {"CommitUnknown", c.unknown, shows_all},
        {"loss known to be rolled back", c.lost_rolled_back, shows_all, World::proves_losses},
        {"loss known to be committed", c.lost_committed, shows_all, World::proves_losses},
        {"loss of unknown outcome", c.lost_unknown, shows_all, World::has_unknown_losses},
        {"doubt resolved as committed", c.resolved_committed, shows_resolved, World::has_markers},
        {"doubt resolved as rolled back", c.resolved_rolled_back, shows_resolved, World::has_markers},
        {"COMMIT that was tried again", c.retried, shows_all},
        {"connection that broke and recovered", c.recovered, shows_all},
    };
    bool all = true;
    for (const auto& sight : sights) {
        if (sight.seen != 0 or not sight.possible or c.blocks() < sight.enough) continue;
        std::fprintf(stderr, "NOT SEEN in %lu blocks of %s: a %s; this batch proves nothing about it\n", c.blocks(),
                     World::name, sight.what);
        all = false;
    }
    return all;
}

template <class World>
bool run_batch(unsigned long blocks, std::uint64_t batch, bool verbose) {
    if (blocks == 0) return true;
    std::uint64_t seed = batch * 1'000'000'000;  // of the first program
    std::printf("%s: batch %llu, programs from %s:%llu on\n", World::name, static_cast<unsigned long long>(batch),
                World::name, static_cast<unsigned long long>(seed));
    std::fflush(stdout);
    Counts counts{};
    while (counts.blocks() < blocks and counts.violations == 0) run_seed<World>(seed++, counts, verbose);
    print(counts);
    return counts.violations == 0 and has_seen_all<World>(counts);
}

bool replay(const std::string& name) {
    const std::size_t colon = name.find(':');
    if (colon == std::string::npos) throw std::runtime_error{"--replay wants what was printed, such as fake:1"};
    const std::string world = name.substr(0, colon);
    const std::uint64_t seed = std::stoull(name.substr(colon + 1));
    Counts counts{};
    if (world == FakeWorld::name) return run_seed<FakeWorld>(seed, counts, true);
    if (world == DefaultSqlite::name) return run_seed<DefaultSqlite>(seed, counts, true);
    if (world == CountingSqlite::name) return run_seed<CountingSqlite>(seed, counts, true);
    throw std::runtime_error{"no such world: " + world};
}

int main(int argc, char* argv[]) {
    unsigned long fake = 20000;
    unsigned long sqlite = 5000;
    std::uint64_t seed = 1;
    std::string replayed;
    bool verbose = false;
    for (int i = 1; i != argc; ++i) {
        const std::string option = argv[i];
        const auto value = [&] {
            if (++i == argc) throw std::runtime_error{option + " wants a value"};
            return std::string{argv[i]};
        };
        if (option == "--verbose")
            verbose = true;
        else if (option == "--fake")
            fake = std::stoul(value());
        else if (option == "--sqlite")
            sqlite = std::stoul(value());
        else if (option == "--seed")
            seed = std::stoull(value());
        else if (option == "--replay")
            replayed = value();
        else
            throw std::runtime_error{"unknown option " + option};
    }
    if (not replayed.empty()) return replay(replayed) ? 0 : 1;

    bool sound = run_batch<FakeWorld>(fake, seed, verbose);
    sound = run_batch<DefaultSqlite>((sqlite + 1) / 2, seed, verbose) and sound;
    sound = run_batch<CountingSqlite>(sqlite / 2, seed, verbose) and sound;
    return sound ? 0 : 1;
}

}  // namespace
}  // namespace random_programs

int main(int argc, char* argv[]) {
    try {
        return random_programs::main(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "txhooks_random: %s\n", e.what());
        return 2;
    }
}

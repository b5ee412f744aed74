// SPDX-License-Identifier: MIT
#pragma once

#include "client.hpp"
#include "ledger.hpp"
#include "random/dice.hpp"
#include "tally.hpp"

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

namespace random_programs {

/// What a batch has to tell.
struct Report {
    Tally tally;
    std::string violation;
};

using Batch = std::function<Report(std::uint64_t seed, unsigned long blocks)>;

/// A server, and what looks after the transactions on it.
struct Server {
    struct Witness {
        const char* name;
        Batch run;
    };
    const char* name;
    std::vector<Count> never;  // is counted
    std::function<std::vector<Witness>()> connect;
};

inline std::vector<Server>& servers() {
    static std::vector<Server> all;
    return all;
}

/// Several clients at once; then, when all their sessions are gone, what others see.
template <class Engine, class Adapter>
Report run_batch(Engine& engine, std::uint64_t seed, unsigned long blocks) {
    using OneClient = Client<Engine, Adapter>;
    Dice dice{seed};
    engine.empty_tables();
    std::vector<std::unique_ptr<OneClient>> clients(2 + dice.below(3));
    std::vector<std::exception_ptr> errors(clients.size());
    std::vector<std::thread> threads;
    for (unsigned i = 0; i != clients.size(); ++i) {
        clients[i] = std::make_unique<OneClient>(engine, seed * 16 + i + 1, i);
        threads.emplace_back([&, i] {
            try {
                clients[i]->work((blocks + i) / clients.size());
            } catch (...) {
                errors[i] = std::current_exception();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors)
        if (error) std::rethrow_exception(error);

    engine.wait_until_alone();
    const Rows rows = engine.rows();
    Report report;
    for (const auto& client : clients) {
        std::string violation = client->violation();
        if (not violation.empty()) ++client->tally()[Count::violations];
        for (const Transaction& transaction : client->transactions()) {
            count(transaction, rows, client->tally());
            const std::string what = wrong(transaction, rows);
            if (what.empty()) continue;
            ++client->tally()[Count::violations];
            if (violation.empty())
                violation = what + ", told: " + count_names[static_cast<std::size_t>(transaction.told)] + "\n  " +
                            transaction.story;
        }
        report.tally += client->tally();
        if (report.violation.empty()) report.violation = violation;
    }
    return report;
}

}  // namespace random_programs

// SPDX-License-Identifier: MIT

// How long a claim of fifty jobs takes: claims <engine>. From the call of run_due() until the first of its handlers
// begins; among so many jobs that wait, and where other rows are in the way. In turns, each table in its own database.

#include "jobs.hpp"

namespace {

using namespace benchmarks;

struct Rows {
    std::string name;
    std::size_t waiting;
    std::size_t dead = 0;       // deleted, and kept by a snapshot that somebody holds
    std::size_t unhandled = 0;  // of a name that nobody handles
};

template <class Engine>
class Table {
    using Db = typename Engine::Db;

public:
    Table(const std::filesystem::path& folder, const Rows& rows)
        : name_{rows.name}, engine_{folder, "claims_" + rows.name} {
        engine_.set_durable(false);
        types_.template handle<Elsewhere>(
            [this](const Elsewhere&) {
                if (begun_ == Clock::time_point{}) begun_ = Clock::now();
            },
            {.in_worker = true});
        outbox_.create_table();
        if (rows.dead != 0) {
            fill("elsewhere", rows.dead, 2);
            engine_.settle_down();
            if constexpr (requires { engine_.hold_snapshot(); }) {
                other_ = std::make_unique<Engine>(folder, "claims_" + rows.name);
                other_->hold_snapshot();
            }
            engine_.execute("DELETE FROM txhooks_job");
        }
        fill("elsewhere", rows.waiting, 1);
        if (rows.unhandled != 0) fill("unhandled", rows.unhandled, 3);
        engine_.settle_down();
    }

    void claim() {
        begun_ = {};
        const Clock::time_point called = Clock::now();
        const std::size_t ran = outbox_.run_due();
        if (ran != 50) throw std::runtime_error{"a claim of " + std::to_string(ran) + " jobs"};
        times_.push_back(micros(begun_ - called));
        db_.atomic([&] {
            for (std::size_t job = 0; job != ran; ++job) outbox_.add(Elsewhere{});
        });
    }

    void tell() const {
        figure(name_ + "/median", median(times_));
        figure(name_ + "/p99", quantile(times_, 0.99));
    }

private:
    // Due since so many hours, one after the other.
    void fill(const std::string& name, std::size_t count, int hours) {
        const std::string since = std::to_string(hours);
        engine_.execute("INSERT INTO txhooks_job (id, name, payload, due) SELECT " +
                        Engine::id("n + 10000000 * " + since) + ", '" + name + "', 'ann@example.org', " +
                        Engine::clock() + " - " + since + " * 3600000000 + n FROM " + Engine::numbers(count));
    }

    std::string name_;
    Engine engine_;
    std::unique_ptr<Engine> other_;
    Clock::time_point begun_{};
    txhooks::JobTypes<Db> types_;
    Db db_{engine_.backend()};
    txhooks::Outbox<Db> outbox_{db_, types_};
    std::vector<double> times_;
};

template <class Engine>
void measure() {
    const TemporaryFolder folder;
    std::vector<Rows> all{{"1000", 1000}, {"10000", 10000}, {"100000", 100000}, {"1000000", 1000000}};
    all.push_back({.name = "unhandled", .waiting = 1000, .unhandled = 200000});
    if constexpr (requires(Engine& engine) { engine.hold_snapshot(); })
        all.push_back({.name = "snapshot", .waiting = 1000, .dead = 40000});
    std::vector<std::unique_ptr<Table<Engine>>> tables;
    for (const Rows& rows : all) tables.push_back(std::make_unique<Table<Engine>>(folder, rows));
    for (int claims = 0; claims != 300; ++claims)
        for (const auto& table : tables) table->claim();
    for (const auto& table : tables) table->tell();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    return with_engine(argv[1], []<class Engine> { measure<Engine>(); });
}

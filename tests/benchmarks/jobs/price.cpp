// SPDX-License-Identifier: MIT

// What a job costs a block: price <engine> durable|lazy. One INSERT; that and a job; that and ten; that and a job which is
// run and completed here. In turns, within one run.

#include "jobs.hpp"

#include <array>

namespace {

using namespace benchmarks;

constexpr std::array kinds{"block", "one_job", "ten_jobs", "run_here"};

template <class Engine>
void measure(bool durable) {
    const TemporaryFolder folder;
    Engine engine{folder, "price"};
    engine.set_durable(durable);
    typename Engine::Db db{engine.backend()};
    txhooks::JobTypes<typename Engine::Db> types;
    std::size_t ran = 0, added = 0;
    types.template handle<Here>([&](const Here& job) { ran += job.address.size() != 0; });
    txhooks::Outbox<typename Engine::Db> outbox{db, types};
    outbox.create_table();

    const auto time_of = [&](std::size_t kind, std::size_t blocks) {
        const Clock::time_point begun = Clock::now();
        for (std::size_t n = 0; n != blocks; ++n) {
            db.atomic([&] {
                engine.insert();
                if (kind == 1) outbox.add(Elsewhere{});
                for (int job = 0; kind == 2 and job != 10; ++job) outbox.add(Elsewhere{});
                if (kind == 3) outbox.add(Here{});
            });
        }
        const double time = micros(Clock::now() - begun) / static_cast<double>(blocks);
        if (kind == 3) added += blocks;
        engine.execute("DELETE FROM txhooks_job");
        return time;
    };

    constexpr std::size_t rounds = 41;
    for (std::size_t kind = 0; kind != kinds.size(); ++kind) time_of(kind, 20);
    const auto blocks = static_cast<std::size_t>(20000 / time_of(0, 20)) + 5;
    std::array<std::vector<double>, kinds.size()> times, ratios;
    for (std::size_t round = 0; round != rounds; ++round) {
        for (std::size_t kind = 0; kind != kinds.size(); ++kind) {
            times[kind].push_back(time_of(kind, blocks));
            ratios[kind].push_back(times[kind].back() / times[0].back());
        }
    }
    if (ran != added) throw std::runtime_error{"not every job was run"};
    figure("least", quantile(times[0], 0));
    figure(kinds[0], median(times[0]));
    for (std::size_t kind = 1; kind != kinds.size(); ++kind) figure(kinds[kind], median(ratios[kind]));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    return with_engine(argv[1], [&]<class Engine> { measure<Engine>(std::string_view{argv[2]} == "durable"); });
}

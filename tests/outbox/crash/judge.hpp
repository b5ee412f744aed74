// SPDX-License-Identifier: MIT
#pragma once

// What the log and the tables say in the end.

#include "engine.hpp"
#include "jobs.hpp"
#include "log.hpp"
#include "process.hpp"

#include <txhooks/outbox/job_types.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace crash {

struct Count {
    const char* name;
    std::int64_t count = 0;
    bool must_be_zero = false;
    bool is_required = false;
    std::vector<std::string> examples = {};
};

class Judge {
public:
    Judge(Session& session, const std::vector<Line>& log, const Nature& nature) : nature_{nature} {
        read(session);
        read(log);
        for (const auto& [number, job] : jobs_) judge(job);
        judge_orders();
        for (const auto& [number, runs] : runs_)
            if (not jobs_.contains(number)) add(without_row, number, *runs.front());
        for (const auto& [number, times] : effects_)
            if (not jobs_.contains(number)) add(without_row, number);
        judge_blocks();
        judge_deaths();
    }

    const std::vector<Count>& counts() const { return counts_; }

private:
    using Step = txhooks::JobEvent::Step;

    enum Counted {
        committed,
        undone,
        lost,
        left_over,
        without_row,
        inside_doubled,
        outside_doubled,
        outside_again,
        out_of_order,
        overlapping,
        settled_late,
        refused,
        held,
        crashed_servers,
        dead,
        dead_not_meant,
        died_before,
        died_in,
        died_behind,
        past_lease
    };

    struct Committed {
        std::int64_t number, block;
        Type type;
        Plan plan;
        bool here;
        std::string key;
    };
    struct Run {
        std::int64_t job, number, process, attempt;
        std::int64_t begun, lease_ends;  // 0: not known
        std::string id;
        Type type;
        std::int64_t returned = 0;  // 0: it did not
        How how = How::well;
        int effects = 0;
        std::int64_t settled = 0;  // 0: nobody was told
        Step step = Step::succeeded;
        std::int64_t seen = 0;  // running

        bool ended_by_itself() const { return returned != 0 and (how != How::well or step == Step::failed); }
        bool succeeded() const { return settled != 0 and step == Step::succeeded; }
    };
    struct Block {
        std::int64_t process = 0;
        bool ended = false;
        std::int64_t committed = 0;
        std::int64_t told = 0, there = 0;  // jobs
    };
    static constexpr std::int64_t never = INT64_MAX;
    static constexpr std::int64_t inexact = 5'000;  // microseconds
    static constexpr std::int64_t lease_us = 300'000;

    // ---- What there is

    void read(Session& session) {
        for (const auto& row : session.rows("SELECT job, block, type, plan, here, job_key FROM committed")) {
            const std::int64_t number = std::stoll(row[0]);
            jobs_[number] = {number,
                             std::stoll(row[1]),
                             static_cast<Type>(std::stoi(row[2])),
                             static_cast<Plan>(std::stoi(row[3])),
                             row[4] != "0",
                             row[5]};
            ++blocks_[std::stoll(row[1])].there;
            if (row[5].empty()) continue;
            std::int64_t& last = last_of_key_[row[5]];
            last = std::max(last, number);
        }
        counts_[committed].count = static_cast<std::int64_t>(jobs_.size());
        for (const auto& row : session.rows("SELECT job, count(*) FROM effects GROUP BY job"))
            effects_[std::stoll(row[0])] = std::stoll(row[1]);
        for (const auto& row : session.rows("SELECT payload, due FROM txhooks_job"))
            rows_[number_in(row[0])] = std::stoll(row[1]);
    }

    // PostgreSQL shows bytes as \x and hexadecimal digits.
    static std::int64_t number_in(const std::string& payload) {
        if (not payload.starts_with("\\x")) return std::stoll(payload);
        std::string bytes;
        for (std::size_t i = 2; i + 1 < payload.size(); i += 2)
            bytes += static_cast<char>(std::stoi(payload.substr(i, 2), nullptr, 16));
        return std::stoll(bytes);
    }

    void read(const std::vector<Line>& log) {
        std::map<std::pair<std::int64_t, std::int64_t>, Run*> by_number;
        std::map<std::pair<std::int64_t, std::string>, Run*> by_id;
        std::map<std::int64_t, std::int64_t> seen;
        for (const Line& line : log) {
            if (line.what != What::died) seen[line.process] = std::max(seen[line.process], line.time);
            const auto run = by_number.find({line.process, line.b});
            switch (line.what) {
                case What::begun: {
                    all_.push_back(std::make_unique<Run>(Run{line.a, line.b, line.process, line.c, line.time, line.d,
                                                             line.id, static_cast<Type>(std::stoi(line.text))}));
                    Run* const added = all_.back().get();
                    by_number[{line.process, line.b}] = added;
                    by_id[{line.process, line.id}] = added;
                    runs_[line.a].push_back(added);
                    break;
                }
                case What::effect:
                    ++run->second->effects;
                    break;
                case What::returned:
                    run->second->returned = line.time;
                    run->second->how = static_cast<How>(line.d);
                    break;
                case What::extended:
                    if (run->second->lease_ends != 0)
                        run->second->lease_ends = std::max(run->second->lease_ends, line.d);
                    break;
                case What::settled: {
                    const auto of = by_id.find({line.process, line.id});
                    if (of == by_id.end() or of->second->attempt != line.c) break;
                    of->second->settled = line.time;
                    of->second->step = static_cast<Step>(line.d);
                    break;
                }
                case What::block:
                    blocks_[line.a].process = line.process;
                    break;
                case What::committed:
                    blocks_[line.a].committed = line.time;
                    blocks_[line.a].told = line.b;
                    [[fallthrough]];
                case What::failed:
                    blocks_[line.a].ended = true;
                    if (line.d == static_cast<std::int64_t>(Trouble::fault)) add_refused(line);
                    break;
                case What::died:
                    dead_.insert(line.process);
                    break;
                case What::crashed:
                    if (line.d == 0) {
                        ++counts_[crashed_servers].count;
                        crashes_.push_back({line.time, never});
                    } else {
                        crashes_.back().second = line.time;
                    }
                    break;
                case What::trouble: {
                    const auto trouble = static_cast<Trouble>(line.d);
                    const bool may_be = trouble == Trouble::in_the_way and line.c != 0 and nature_.refuses;
                    if (trouble != Trouble::expected and not may_be) add_refused(line);
                    break;
                }
                case What::held:
                    if (not nature_.refuses) counts_[held].count += line.d;
                    break;
            }
        }
        for (const auto& run : all_) run->seen = run->returned != 0 ? run->returned : seen[run->process];
    }

    void add_refused(const Line& line) {
        if (++counts_[refused].count <= 5) counts_[refused].examples.push_back(line.text);
    }

    // ---- One job

    void judge(const Committed& job) {
        static const std::vector<Run*> none;
        const auto found = runs_.find(job.number);
        const std::vector<Run*>& runs = found == runs_.end() ? none : found->second;
        const auto row = rows_.find(job.number);
        const auto in = effects_.find(job.number);
        const std::int64_t inside = in == effects_.end() ? 0 : in->second;

        if (row != rows_.end()) {
            if (row->second != never)
                add(left_over, job.number);
            else
                add(ends_dead(job.plan) ? dead : dead_not_meant, job.number);
        } else if (ends_dead(job.plan)) {
            if (not was_replaced(job)) add(lost, job.number);
        } else {
            const bool has_run = is_inside(job.type) ? inside != 0
                                                     : std::any_of(runs.begin(), runs.end(),
                                                                   [](const Run* run) { return run->effects != 0; });
            if (not has_run and not was_replaced(job)) add(lost, job.number);
        }
        if (inside > (ends_dead(job.plan) ? 0 : 1)) add(inside_doubled, job.number);

        for (std::size_t i = 0; i != runs.size(); ++i)
            for (std::size_t j = i + 1; j != runs.size(); ++j) judge(*runs[i], *runs[j], job, j == i + 1);
        if (not is_inside(job.type)) {
            const auto effects =
                std::count_if(runs.begin(), runs.end(), [](const Run* run) { return run->effects != 0; });
            if (effects > 1) add(outside_again, job.number);
        }
        for (const Run* const run : runs)
            if (run->settled != 0 and run->step == Step::superseded) add(past_lease, job.number, *run);
    }

    // A job with the same key, added later, which took its place or came after it.
    bool was_replaced(const Committed& job) const {
        return not job.key.empty() and last_of_key_.at(job.key) != job.number;
    }

    // `first` has begun before `second`.
    void judge(const Run& first, const Run& second, const Committed& job, bool is_next) {
        if (is_inside(job.type) and nature_.locks_for_all) {
            const bool at_once = second.begun < first.seen - inexact and not crashed(first.begun, second.begun);
            if (at_once) add(overlapping, job.number, second);
        } else {
            const bool again = first.succeeded() and second.begun > first.settled;
            if (again and not is_inside(job.type) and not crashed(first.settled, second.begun))
                add(outside_doubled, job.number, second);
            const bool lease_lasts = first.lease_ends != 0 and second.begun < first.lease_ends - inexact;
            if (is_next and lease_lasts and (not first.ended_by_itself() or second.begun < first.returned))
                add(overlapping, job.number, second);
            // It was the second's when the first one returned.
            if (first.returned != 0 and second.begun < first.returned and first.settled != 0 and
                first.step != Step::superseded)
                add(settled_late, job.number, first);
        }
        const bool older_won = first.succeeded() and second.settled != 0 and second.step == Step::superseded and
                               first.attempt < second.attempt and not crashed(first.begun, second.settled);
        if (older_won) add(settled_late, job.number, first);
    }

    bool crashed(std::int64_t from, std::int64_t until) const {
        return nature_.forgets and std::any_of(crashes_.begin(), crashes_.end(), [&](const auto& crash) {
                   return crash.first <= until and crash.second >= from;
               });
    }

    // ---- What was told to be committed is there

    void judge_blocks() {
        for (const auto& [number, block] : blocks_)
            if (block.there < block.told and ++counts_[undone].count <= 5)
                counts_[undone].examples.push_back("block " + std::to_string(number));
    }

    // ---- Those of one name that are to run one after the other

    void judge_orders() {
        for (const Type type : {Type::ordered, Type::ordered_inside}) {
            std::vector<const Run*> runs;
            for (const auto& run : all_)
                if (run->type == type) runs.push_back(run.get());
            std::sort(runs.begin(), runs.end(), [](const Run* a, const Run* b) { return a->begun < b->begun; });
            for (std::size_t i = 0; i != runs.size(); ++i)
                for (std::size_t j = i + 1; j != runs.size(); ++j) judge_order(*runs[i], *runs[j]);
        }
    }

    // `first` has begun before `second`.
    void judge_order(const Run& first, const Run& second) {
        if (first.job == second.job) return;
        const bool lease_lasts = first.lease_ends != 0 and second.begun < first.lease_ends - inexact;
        if (lease_lasts and second.begun < first.seen - inexact) add(out_of_order, second.job, second);
        // The older one waited, and that was known when the younger one was claimed at the earliest.
        const bool late = second.settled == 0 or second.step == Step::superseded;  // begun with somebody else's job
        if (late or not(second.id < first.id) or not jobs_.contains(second.job)) return;
        const auto block = blocks_.find(jobs_.at(second.job).block);
        if (block == blocks_.end() or block->second.committed == 0) return;
        // Its block may begin late, when its lease is over but nobody has taken it.
        const std::int64_t claimed = first.begun - lease_us * (is_inside(first.type) ? 3 : 1);
        if (block->second.committed < claimed - 100'000) add(out_of_order, first.job, first);
    }

    // ---- Where jobs have died

    void judge_deaths() {
        for (const auto& run : all_) {
            if (run->settled != 0 or not dead_.contains(run->process)) continue;
            if (run->returned == 0)
                add(died_in, run->job, *run);
            else if (run->how != How::threw or not is_inside(run->type))
                add(died_behind, run->job, *run);
        }
        for (const auto& [number, job] : jobs_) {
            const auto block = blocks_.find(job.block);
            if (not job.here or block == blocks_.end() or block->second.ended) continue;
            if (not dead_.contains(block->second.process)) continue;
            const auto runs = runs_.find(number);
            const bool begun = runs != runs_.end() and
                               std::any_of(runs->second.begin(), runs->second.end(),
                                           [&](const Run* run) { return run->process == block->second.process; });
            if (not begun) add(died_before, number);
        }
    }

    void add(Counted what, std::int64_t job) {
        ++counts_[what].count;
        if (counts_[what].examples.size() < 5) counts_[what].examples.push_back("job " + std::to_string(job));
    }
    void add(Counted what, std::int64_t job, const Run& run) {
        add(what, job);
        if (counts_[what].count <= 5)
            counts_[what].examples.back() += ", process " + std::to_string(run.process) + ", attempt " +
                                             std::to_string(run.attempt) + ", at " + std::to_string(run.begun);
    }

    const Nature nature_;
    std::map<std::int64_t, Committed> jobs_;
    std::map<std::string, std::int64_t> last_of_key_;
    std::map<std::int64_t, std::int64_t> effects_;
    std::map<std::int64_t, std::int64_t> rows_;  // job, due
    std::vector<std::unique_ptr<Run>> all_;
    std::map<std::int64_t, std::vector<Run*>> runs_;  // of each job, as they began
    std::map<std::int64_t, Block> blocks_;
    std::set<std::int64_t> dead_;                                 // processes
    std::vector<std::pair<std::int64_t, std::int64_t>> crashes_;  // until all was there again

    std::vector<Count> counts_{
        {"committed"},
        {"committed, as was told, and gone", 0, true},
        {"lost", 0, true},
        {"left over", 0, true},
        {"run without a committed row", 0, true},
        {"effects inside doubled", 0, true},
        {"effects outside doubled", 0, true},
        {"(with a reason)"},
        {"out of order", 0, true},
        {"two live runs in one lease", 0, true},
        {"settled by a superseded run", 0, true},
        {"refused without a reason", 0, true},
        {"held by nobody", 0, true},
        {"servers killed"},
        {"dead, as meant"},
        {"dead, not meant", 0, true},
        {"died between COMMIT and run", 0, false, true},
        {"died in the handler", 0, false, true},
        {"died between run and settlement", 0, false, true},
        {"outlived their lease", 0, false, true},
    };
};

}  // namespace crash

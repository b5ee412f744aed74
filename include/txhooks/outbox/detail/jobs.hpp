// SPDX-License-Identifier: MIT
#pragma once

// What an Outbox does: jobs wait in the open block, are written before its COMMIT, run after it, and are settled; or they
// are claimed, run and settled. It is alive as long as a job of it waits in a block, perhaps longer than the Outbox.

#include <txhooks/detail/access.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outbox/detail/job_blocks.hpp>
#include <txhooks/outbox/detail/job_claims.hpp>
#include <txhooks/outbox/detail/job_id.hpp>
#include <txhooks/outbox/detail/job_runs.hpp>
#include <txhooks/outbox/job.hpp>
#include <txhooks/outbox/job_store.hpp>
#include <txhooks/outbox/job_types.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <semaphore>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace txhooks::detail {

template <class Db>
class Jobs final : public LastBeforeCommit, public JobWorker, public std::enable_shared_from_this<Jobs<Db>> {
    using Store = typename JobBlocks<Db>::Store;
    using Handler = JobHandler<Db>;
    using Clock = std::chrono::steady_clock;
    using Micros = std::chrono::microseconds;
    using Ended = EndedJob;

public:
    Jobs(Db& db, JobTypes<Db>& types) : db_{db}, types_{types} { detail::blocks(db).set_last_before_commit(this); }
    Jobs(const Jobs&) = delete;
    Jobs& operator=(const Jobs&) = delete;
    ~Jobs() { leave(); }

    Db& db() noexcept { return db_; }

    // The Outbox is gone, and so may be the JobTypes.
    void close() noexcept {
        runs_.close();
        blocks_.close();
        leave_if_nothing_waits();
    }

    // ---- A job is added

    void add(std::string_view name, std::string&& payload, const JobOptions& options) {
        refuse(payload, options);
        types_.seal();
        if (!db_.in_atomic_block()) return db_.atomic([&] { add_to_block(name, std::move(payload), options); });
        add_to_block(name, std::move(payload), options);
    }

    // ---- Jobs are claimed and run

    // Returns how many were run. `working`: for work(), where others work too, and stop() may be called.
    std::size_t run_due(bool working = false) {
        blocks_.refuse_in_block(
            "txhooks: run_due() in an atomic block; end that first: jobs are claimed in blocks of their own");
        const std::shared_ptr<Jobs> alive = this->shared_from_this();  // a handler may destroy the Outbox
        types_.seal();
        const ClaimedJobs claimed = claims_.claim(working ? batch_ : most_claimed);
        next_due_ = claimed.next_due;
        std::vector<Ended> ended;
        const Clock::time_point begun = Clock::now();
        Clock::time_point settled = begun;
        std::size_t ran = 0, bytes = 0;
        for (const JobRow& job : claimed.jobs) {
            bytes += job.payload.size();
            const Handler* const handler = types_.find(job.name);
            if (handler == nullptr) continue;  // it would be a store that returns what it was not asked for
            if (runs_.closed() || (working && stopped_.load(std::memory_order_relaxed))) {
                ended.push_back(runs_.given_back(job));
                continue;
            }
            ended.push_back(
                runs_.run(*handler, job, begins_until(claimed.since, *handler, claimed.jobs.size()), claimed.lapsed));
            ran += ended.back().step != JobEvent::Step::given_back || ended.back().ran;
            if (Clock::now() - settled >= settle_every) {
                runs_.settle(ended);
                settled = Clock::now();
            }
        }
        runs_.settle(ended);
        if (working && !claimed.jobs.empty()) size_batch(Clock::now() - begun, bytes);
        return ran;
    }

    // A worker takes a few jobs at a time where each takes long, because others may be idle, or is large.
    void size_batch(Clock::duration took, std::size_t bytes) noexcept {
        if (took > 4 * settle_every || bytes > batch_bytes)
            batch_ = (std::max)(batch_ / 2, std::size_t{1});
        else if (took < settle_every)
            batch_ = (std::min)(2 * batch_, most_worked);
    }

    // One of several has waited for the others: what is left of its lease must do for a run.
    static Clock::time_point begins_until(Clock::time_point since, const Handler& handler, std::size_t jobs) noexcept {
        return since + (jobs > 1 ? handler.options.lease / 2 : handler.options.lease);
    }

    void work(Micros poll) {
        blocks_.refuse_in_block("txhooks: work() in an atomic block; end that first");
        if (poll <= Micros{0}) throw UsageError{"txhooks: work() looks again after more than no time"};
        if (working_) throw UsageError{"txhooks: work() is running on this Outbox already"};
        poll = (std::min)(poll, ten_years);
        const std::shared_ptr<Jobs> alive = this->shared_from_this();
        const Working working{*this};
        while (!runs_.closed() && !stopped_.load(std::memory_order_relaxed)) {
            next_due_ = ten_years;
            bool wait = false;
            try {
                wait = run_due(true) == 0;
            } catch (...) {
                if (!blocks_.is_transient(std::current_exception())) throw;
                wait = true;
            }
            if (!wait) continue;
            // Not all workers at once.
            const auto jitter = Clock::now().time_since_epoch().count() % 1024;
            const auto some = poll.count() / 2 + jitter * (poll.count() / 2) / 1024;
            woken_.try_acquire_for((std::max)(Micros{1000}, (std::min)(Micros{some}, next_due_)));
            while (woken_.try_acquire()) {}
        }
    }

    void stop() noexcept {
        stopped_.store(true);
        woken_.release();
    }
    void wake() noexcept override { woken_.release(); }

    // ---- Looking at the table

    void create_table() {
        blocks_.refuse_in_block("txhooks: create_table() in an atomic block; on some engines DDL would commit it");
        Store::create_table(db_.backend());
    }

    // Does `act(store)` in a block.
    template <class Act>
    auto with_store(const Act& act) {
        return blocks_.in_block({}, act);
    }

    std::vector<JobStats> stats() {
        std::vector<JobStats> all = with_store([](Store& store) { return store.stats(); });
        for (JobStats& stats : all) stats.handled_here = types_.find(stats.name) != nullptr;
        return all;
    }

private:
    // ---- One job in a block

    // The jobs that were written before the same COMMIT.
    struct Group;

    struct Added {
        Added(std::shared_ptr<Jobs> in, std::string_view name_, std::string&& payload_, const JobOptions& options)
            : jobs{std::move(in)},
              id{make_job_id()},
              name{name_},
              payload{std::move(payload_)},
              key{options.key},
              delay{options.delay},
              handler{jobs->types_.find(name)},
              transaction{detail::blocks(jobs->db_).transaction()},
              place{jobs->waiting_.size()} {
            jobs->waiting_.push_back(this);
        }
        Added(const Added&) = delete;
        Added& operator=(const Added&) = delete;
        ~Added() {
            if (jobs) jobs->gone(*this);
        }

        std::shared_ptr<Jobs> jobs;  // null: written, and not to be run here; another thread may have it
        std::string id;
        std::string name;
        std::string payload;
        std::string key;
        Micros delay;
        const Handler* handler;
        const void* transaction;
        std::size_t place;                       // among those that wait, or in its group
        std::shared_ptr<Group> group = nullptr;  // null: not written yet
        bool begun = false;
    };

    struct Group {
        const void* transaction;
        Clock::time_point since;    // when the leases began
        Clock::time_point settled;  // when something was settled last
        Micros shortest_lease = (Micros::max)();
        std::vector<Added*> jobs;  // null: gone
        std::vector<Ended> ended;
        std::string ahead_of_commit = {};  // what inserts jobs, and goes out with COMMIT
        bool open = true;                  // its transaction
        bool undone = false;               // not committed, as far as is known
    };

    // The hook that knows how the transaction of a group ends. It goes at every end, whoever gets the commit hooks.
    class EndOfTransaction {
    public:
        EndOfTransaction(std::shared_ptr<Jobs> jobs, std::shared_ptr<Group> group) noexcept
            : jobs_{std::move(jobs)}, group_{std::move(group)}, workers_{jobs_->types_.workers()} {}
        EndOfTransaction(EndOfTransaction&&) noexcept = default;
        EndOfTransaction& operator=(EndOfTransaction&&) = delete;
        ~EndOfTransaction() {
            if (!group_) return;
            group_->open = false;
            jobs_->leave_if_nothing_waits();
            if (!group_->undone) workers_->wake();
        }
        void operator()() const noexcept { group_->undone = true; }

    private:
        std::shared_ptr<Jobs> jobs_;
        std::shared_ptr<Group> group_;
        std::shared_ptr<JobWorkers> workers_;  // the JobTypes may be gone
    };

    // The hook that runs a job.
    struct RunAdded {
        std::unique_ptr<Added> added;
        void operator()() {
            if (added->group != nullptr) added->jobs->run_added(*added);
        }
    };

    // The hook behind the last of a group. It also does its work when it is discarded after the COMMIT, by a hook that threw.
    class Settle {
    public:
        Settle(std::shared_ptr<Jobs> jobs, std::shared_ptr<Group> group)
            : jobs_{std::move(jobs)}, group_{std::move(group)} {}
        Settle(Settle&&) noexcept = default;
        Settle& operator=(Settle&&) = delete;
        ~Settle() {
            if (jobs_ && !group_->undone) jobs_->settle_or_report(*group_);
        }
        void operator()() {
            const std::shared_ptr<Jobs> jobs = std::move(jobs_);
            jobs->settle_or_report(*group_);
        }

    private:
        std::shared_ptr<Jobs> jobs_;
        std::shared_ptr<Group> group_;
    };

    static void refuse(const std::string& payload, const JobOptions& options) {
        if (options.key.size() > 255) throw UsageError{"txhooks: the key of a job has at most 255 bytes"};
        if (options.key.find('\0') != std::string_view::npos)
            throw UsageError{"txhooks: the key of a job has no zero byte"};
        if (payload.size() > 1024 * 1024)
            throw UsageError{
                "txhooks: the payload of a job has at most 1 MB; store what is larger elsewhere, and its place in the "
                "job"};
        if (options.delay < Micros{0} || options.delay > ten_years)
            throw UsageError{"txhooks: the delay of a job is not negative, and at most ten years"};
    }

    void add_to_block(std::string_view name, std::string&& payload, const JobOptions& options) {
        detail::blocks(db_).ask_last_before_commit();
        db_.on_commit(RunAdded{std::make_unique<Added>(this->shared_from_this(), name, std::move(payload), options)});
    }

    // A job is discarded, or has run.
    void gone(Added& added) noexcept {
        if (added.group == nullptr) {
            if (added.place < waiting_.size() && waiting_[added.place] == &added) waiting_[added.place] = nullptr;
            while (!waiting_.empty() && waiting_.back() == nullptr) waiting_.pop_back();
            leave_if_nothing_waits();
            return;
        }
        added.group->jobs[added.place] = nullptr;
        if (added.begun || added.group->undone) return;
        attempt([&] { added.group->ended.push_back(runs_.given_back(row(added))); });  // else its lease runs out
    }

    void leave_if_nothing_waits() noexcept {
        if (runs_.closed() && waiting_.empty() && group_ahead_of_commit() == nullptr) leave();
    }
    void leave() noexcept {
        if (!std::exchange(registered_, false)) return;
        if (Blocks* const db = watch_.alive()) db->set_last_before_commit(nullptr);
    }

    // ---- Before COMMIT

    bool last_before_commit() override {
        renew();
        const std::vector<Added*> jobs = take_waiting();
        if (runs_.closed() && (!jobs.empty() || group_ahead_of_commit() != nullptr))
            throw UsageError{
                "txhooks: the Outbox was destroyed before the block ended in which jobs were added to it; everything "
                "is rolled "
                "back"};
        if (jobs.empty()) return false;
        write(jobs);
        return true;
    }

    // Those of the open transaction. (One that is being rolled back may still be there, with its jobs.) What is added while
    // they are written is for the next time.
    std::vector<Added*> take_waiting() {
        const void* const transaction = detail::blocks(db_).transaction();
        std::vector<Added*> jobs;
        for (Added*& added : waiting_)
            if (added != nullptr && added->transaction == transaction) jobs.push_back(std::exchange(added, nullptr));
        while (!waiting_.empty() && waiting_.back() == nullptr) waiting_.pop_back();
        return jobs;
    }

    // An earlier try to COMMIT may have left the transaction open, with leases that have begun then.
    void renew() {
        const void* const transaction = detail::blocks(db_).transaction();
        std::erase_if(open_, [&](const std::weak_ptr<Group>& each) {
            const std::shared_ptr<Group> group = each.lock();
            return !group || !group->open || group->transaction != transaction;
        });
        for (const std::weak_ptr<Group>& each : open_) {
            const std::shared_ptr<Group> group = each.lock();
            const Clock::time_point now = Clock::now();
            if (!group || std::chrono::duration_cast<Micros>(now - group->since) < group->shortest_lease / 10) continue;
            blocks_.with_store_here([&](Store& store) {
                for (const Added* const added : group->jobs)
                    if (added != nullptr) store.extend(added->id, 1, added->handler->options.lease);
            });
            group->since = now;
        }
    }

    void write(const std::vector<Added*>& all) {
        const bool handed_over = detail::blocks(db_).hands_hooks_over();
        const std::vector<Added*> jobs = without_repetitions(all);
        auto group = std::make_shared<Group>();
        group->transaction = detail::blocks(db_).transaction();
        group->jobs.reserve(jobs.size());
        group->since = group->settled = Clock::now();
        std::vector<NewJob> rows;
        rows.reserve(jobs.size());
        for (Added* const added : jobs) {
            NewJob& row = rows.emplace_back(NewJob{added->id, added->name, added->payload, added->key, added->delay});
            const bool here = added->handler != nullptr && added->handler->here() && !handed_over &&
                              added->key.empty() && added->delay == Micros{0};
            if (!here) continue;
            row.lease = added->handler->options.lease;
            group->shortest_lease = (std::min)(group->shortest_lease, row.lease);
            group->jobs.push_back(added);
        }
        open_.push_back(group);
        insert(rows, *group);
        db_.unless_committed(EndOfTransaction{this->shared_from_this(), group});
        if (!group->jobs.empty()) db_.on_commit(Settle{this->shared_from_this(), group});
        for (std::size_t place = 0; place != group->jobs.size(); ++place) {
            group->jobs[place]->place = place;
            group->jobs[place]->group = group;
        }
        for (Added* const added : all)
            if (added->group == nullptr) added->jobs = nullptr;
    }

    void insert(std::span<const NewJob> rows, Group& group) {
        const std::string holder = job_holder();
        if constexpr (can_go_ahead_of_commit) {
            if (Group* const earlier = group_ahead_of_commit()) {
                blocks_.with_store_here([&](Store& store) { store.insert(earlier->ahead_of_commit); });
                earlier->ahead_of_commit.clear();
            }
            // Not before it is known that the table is there: what then fails says what to do.
            if (has_inserted_ && one_batch(rows) == rows.size() && detail::blocks(db_).commits_by_engine()) {
                group.ahead_of_commit = Store::insertion(rows, holder);
                return;
            }
        }
        blocks_.with_store_here([&](Store& store) {
            for (; !rows.empty(); rows = rows.subspan(one_batch(rows)))
                store.insert(rows.first(one_batch(rows)), holder);
        });
        has_inserted_ = true;
    }

    static std::size_t one_batch(std::span<const NewJob> rows) noexcept {
        std::size_t count = 0;
        for (std::size_t bytes = 0; count != rows.size() && count != batch_jobs; ++count) {
            bytes += rows[count].payload.size();
            if (bytes > batch_bytes && count != 0) break;
        }
        return count;
    }

    Group* group_ahead_of_commit() noexcept {
        const void* const transaction = detail::blocks(db_).transaction();
        for (const std::weak_ptr<Group>& each : open_) {
            const std::shared_ptr<Group> group = each.lock();
            if (group && group->open && !group->undone && group->transaction == transaction &&
                !group->ahead_of_commit.empty())
                return group.get();  // the transaction has it, too
        }
        return nullptr;
    }
    const char* ahead_of_commit() noexcept override {
        const Group* const group = group_ahead_of_commit();
        return group == nullptr ? nullptr : group->ahead_of_commit.c_str();
    }
    void went_ahead_of_commit() noexcept override {
        if (Group* const group = group_ahead_of_commit()) group->ahead_of_commit.clear();
    }

    // By name and key, so that two programs lock keys in the same order. Of those with the same key the last one counts.
    static std::vector<Added*> without_repetitions(std::vector<Added*> jobs) {
        const auto before = [](const Added* a, const Added* b) {
            return a->name != b->name ? a->name < b->name : a->key < b->key;
        };
        std::sort(jobs.begin(), jobs.end(), [&](const Added* a, const Added* b) {
            return before(a, b) || (!before(b, a) && a->place < b->place);
        });
        std::vector<Added*> unique;
        for (Added* const added : jobs) {
            const bool again = !unique.empty() && !added->key.empty() && !before(unique.back(), added);
            if (again)
                unique.back() = added;
            else
                unique.push_back(added);
        }
        return unique;
    }

    // ---- After COMMIT

    void run_added(Added& added) {
        const std::shared_ptr<Group> group = added.group;
        added.begun = true;
        const Failure failure = attempt([&] {
            const JobRow job = row(added);
            group->ended.push_back(
                runs_.closed()
                    ? runs_.given_back(job)
                    : runs_.run(*added.handler, job, begins_until(group->since, *added.handler, group->jobs.size())));
        });
        if (failure)
            detail::blocks(db_).report("txhooks: a job could not be run after its commit; it is when its lease is over",
                                       failure);
        if (Clock::now() - group->settled >= settle_every) settle_or_report(*group);
    }

    static JobRow row(Added& added) {
        JobRow row;
        row.id = added.id;
        row.name = added.name;
        row.payload = std::move(added.payload);
        row.claim = row.attempts = 1;
        return row;
    }

    void settle_or_report(Group& group) noexcept {
        std::vector<Ended> ended = std::exchange(group.ended, {});
        const Failure failure = attempt([&] { runs_.settle(ended); });
        group.settled = Clock::now();
        if (failure)
            detail::blocks(db_).report(
                "txhooks: jobs have run after their commit, but that could not be noted; they run again when their "
                "lease is over",
                failure);
    }

    class Working {
    public:
        explicit Working(Jobs& jobs) : jobs_{jobs}, workers_{jobs.types_.workers()} {
            workers_->add(jobs);
            jobs.working_ = true;
        }
        Working(const Working&) = delete;
        Working& operator=(const Working&) = delete;
        ~Working() {
            jobs_.working_ = false;
            workers_->remove(jobs_);
            jobs_.stopped_.store(false);
        }

    private:
        Jobs& jobs_;
        std::shared_ptr<JobWorkers> workers_;  // the JobTypes may be gone
    };

    static constexpr bool can_go_ahead_of_commit =
        HasCommitBehind<std::remove_reference_t<decltype(std::declval<Db&>().adapter())>> && InsertsAsText<Store>;
    static constexpr std::size_t batch_jobs = 500;
    static constexpr std::size_t batch_bytes = 1024 * 1024;
    static constexpr std::size_t most_claimed = 50;
    static constexpr std::size_t most_worked = 200;
    static constexpr Micros settle_every = std::chrono::milliseconds{50};

    Db& db_;
    JobTypes<Db>& types_;
    JobBlocks<Db> blocks_{db_};
    JobRuns<Db> runs_{blocks_, db_, types_};
    JobClaims<Db> claims_{blocks_, types_};
    Blocks::Watch watch_{detail::blocks(db_)};
    std::vector<Added*> waiting_;             // for the COMMIT of the open transaction; null: gone
    std::vector<std::weak_ptr<Group>> open_;  // written, and perhaps not committed yet
    bool registered_ = true;                  // with the connection, as the one that writes last
    bool has_inserted_ = false;
    bool working_ = false;
    std::size_t batch_ = 1;        // jobs that work() claims at once
    Micros next_due_ = ten_years;  // so long from now
    std::atomic<bool> stopped_ = false;
    std::counting_semaphore<> woken_{0};
};

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// What an Outbox does: jobs wait in the open block, are written before its COMMIT, run after it, and are settled; or they
// are claimed, run and settled. It is alive as long as a job of it waits in a block, perhaps longer than the Outbox.

#include <txhooks/detail/access.hpp>
#include <txhooks/detail/exception_text.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outbox/detail/job_id.hpp>
#include <txhooks/outbox/detail/readable_text.hpp>
#include <txhooks/outbox/job.hpp>
#include <txhooks/outbox/job_run.hpp>
#include <txhooks/outbox/job_store.hpp>
#include <txhooks/outbox/job_types.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <semaphore>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace txhooks::detail {

template <class Db>
using backend_of = std::remove_cvref_t<decltype(std::declval<Db&>().backend())>;

// What HookedConnection::atomic gives a function that takes an argument.
template <class Db>
decltype(auto) session_of(Db& db) {
    if constexpr (HasSession<std::remove_reference_t<decltype(db.adapter())>>)
        return db.adapter().session();
    else
        return db.backend();
}

template <class Db>
class Jobs final : public LastBeforeCommit, public JobWorker, public std::enable_shared_from_this<Jobs<Db>> {
    using Store = JobStore<backend_of<Db>>;
    using Handler = JobHandler<Db>;
    using Clock = std::chrono::steady_clock;
    using Micros = std::chrono::microseconds;
    using Options = options_of<Db>;
    static_assert(sizeof(CheckedStore<Store, decltype(std::declval<Db&>().backend()),
                                      decltype(session_of(std::declval<Db&>()))>) != 0);

public:
    Jobs(Db& db, JobTypes<Db>& types) : db_{db}, types_{types} { blocks(db).set_last_before_commit(this); }
    Jobs(const Jobs&) = delete;
    Jobs& operator=(const Jobs&) = delete;
    ~Jobs() { leave(); }

    Db& db() noexcept { return db_; }

    // The Outbox is gone, and so may be the JobTypes.
    void close() noexcept {
        closed_ = true;
        if (waiting_.empty()) leave();
    }

    // ---- A job is added

    void add(std::string_view name, std::string&& payload, const JobOptions& options) {
        refuse(payload, options);
        types_.seal();
        if (!db_.in_atomic_block()) return db_.atomic([&] { add_to_block(name, std::move(payload), options); });
        add_to_block(name, std::move(payload), options);
    }

    // ---- Jobs are claimed and run

    // Returns how many were run. `until_stopped`: what is not begun when stop() is called is given back.
    std::size_t run_due(bool until_stopped = false) {
        refuse_in_block(
            "txhooks: run_due() in an atomic block; end that first: jobs are claimed in blocks of their own");
        const std::shared_ptr<Jobs> alive = this->shared_from_this();  // a handler may destroy the Outbox
        types_.seal();
        bool lapsed = false;
        Clock::time_point since;
        const std::vector<JobRow> jobs = claim(since, lapsed);
        std::vector<Ended> ended;
        Clock::time_point settled = Clock::now();
        std::size_t ran = 0;
        for (const JobRow& job : jobs) {
            const Handler* const handler = types_.find(job.name);
            if (handler == nullptr) continue;  // it would be a store that returns what it was not asked for
            if (closed_ || (until_stopped && stopped_.load(std::memory_order_relaxed))) {
                ended.push_back(given_back(job));
                continue;
            }
            ended.push_back(run(*handler, job, since + handler->options.lease, lapsed));
            ran += ended.back().step != JobEvent::Step::given_back || ended.back().ran;
            if (Clock::now() - settled >= settle_every) {
                settle(ended);
                settled = Clock::now();
            }
        }
        settle(ended);
        return ran;
    }

    void work(Micros poll) {
        refuse_in_block("txhooks: work() in an atomic block; end that first");
        if (poll <= Micros{0}) throw UsageError{"txhooks: work() looks again after more than no time"};
        if (working_) throw UsageError{"txhooks: work() is running on this Outbox already"};
        poll = (std::min)(poll, ten_years);
        const std::shared_ptr<Jobs> alive = this->shared_from_this();
        const Working working{*this};
        std::minstd_rand jitter{std::random_device{}()};
        while (!closed_ && !stopped_.load(std::memory_order_relaxed)) {
            next_due_ = poll;
            bool wait = false;
            try {
                wait = run_due(true) == 0;
            } catch (...) {
                if (!is_transient(std::current_exception())) throw;
                wait = true;
            }
            if (!wait) continue;
            const auto some = poll.count() / 2 + static_cast<std::int64_t>(jitter() % 1024) * (poll.count() / 2) / 1024;
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
        refuse_in_block("txhooks: create_table() in an atomic block; on some engines DDL would commit it");
        Store::create_table(db_.backend());
    }

    // Does `act(store)` in a block.
    template <class Act>
    auto with_store(const Act& act) {
        return in_block(Options{}, act);
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
              transaction{blocks(jobs->db_).transaction()},
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

    struct Ended {
        std::string id;
        std::string name;
        std::int64_t claim = 0;
        std::int64_t attempt = 0;
        JobEvent::Step step = JobEvent::Step::succeeded;
        Micros duration{0};
        std::string error;
        bool ran = false;
        bool settled = false;  // nothing is left to do
        JobEnd::To to = JobEnd::To::done;
        Micros delay{0};
        std::int64_t attempts = 0;
    };

    struct Group {
        const void* transaction;
        Clock::time_point since;    // when the leases began
        Clock::time_point settled;  // when something was settled last
        Micros shortest_lease = (Micros::max)();
        std::vector<Added*> jobs;  // null: gone
        std::vector<Ended> ended;
        bool open = true;     // its transaction
        bool undone = false;  // not committed, as far as is known
    };

    // The hook that knows how the transaction of a group ends. It goes at every end, whoever gets the commit hooks.
    class EndOfTransaction {
    public:
        EndOfTransaction(std::shared_ptr<Group> group, std::shared_ptr<JobWorkers> workers) noexcept
            : group_{std::move(group)}, workers_{std::move(workers)} {}
        EndOfTransaction(EndOfTransaction&&) noexcept = default;
        EndOfTransaction& operator=(EndOfTransaction&&) = delete;
        ~EndOfTransaction() {
            if (!group_) return;
            group_->open = false;
            if (!group_->undone) workers_->wake();
        }
        void operator()() const noexcept { group_->undone = true; }

    private:
        std::shared_ptr<Group> group_;
        std::shared_ptr<JobWorkers> workers_;
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
        blocks(db_).ask_last_before_commit();
        db_.on_commit(RunAdded{std::make_unique<Added>(this->shared_from_this(), name, std::move(payload), options)});
    }

    // A job is discarded, or has run.
    void gone(Added& added) noexcept {
        if (added.group == nullptr) {
            if (added.place < waiting_.size() && waiting_[added.place] == &added) waiting_[added.place] = nullptr;
            while (!waiting_.empty() && waiting_.back() == nullptr) waiting_.pop_back();
            if (closed_ && waiting_.empty()) leave();
            return;
        }
        added.group->jobs[added.place] = nullptr;
        if (added.begun || added.group->undone) return;
        attempt([&] { added.group->ended.push_back(given_back(row(added))); });  // else its lease runs out
    }

    void leave() noexcept {
        if (!std::exchange(registered_, false)) return;
        if (Blocks* const db = watch_.alive()) db->set_last_before_commit(nullptr);
    }

    // ---- Before COMMIT

    bool last_before_commit() override {
        renew();
        const std::vector<Added*> jobs = take_waiting();
        if (jobs.empty()) return false;
        if (closed_)
            throw UsageError{
                "txhooks: the Outbox was destroyed before the block ended in which jobs were added to it; everything "
                "is rolled "
                "back"};
        write(jobs);
        return true;
    }

    // Those of the open transaction. (One that is being rolled back may still be there, with its jobs.) What is added while
    // they are written is for the next time.
    std::vector<Added*> take_waiting() {
        const void* const transaction = blocks(db_).transaction();
        std::vector<Added*> jobs;
        for (Added*& added : waiting_)
            if (added != nullptr && added->transaction == transaction) jobs.push_back(std::exchange(added, nullptr));
        while (!waiting_.empty() && waiting_.back() == nullptr) waiting_.pop_back();
        return jobs;
    }

    // An earlier try to COMMIT may have left the transaction open, with leases that have begun then.
    void renew() {
        const void* const transaction = blocks(db_).transaction();
        std::erase_if(open_, [&](const std::weak_ptr<Group>& each) {
            const std::shared_ptr<Group> group = each.lock();
            return !group || !group->open || group->transaction != transaction;
        });
        for (const std::weak_ptr<Group>& each : open_) {
            const std::shared_ptr<Group> group = each.lock();
            const Clock::time_point now = Clock::now();
            if (!group || std::chrono::duration_cast<Micros>(now - group->since) < group->shortest_lease / 10) continue;
            with_store_here([&](Store& store) {
                for (const Added* const added : group->jobs)
                    if (added != nullptr) store.extend(added->id, 1, added->handler->options.lease);
            });
            group->since = now;
        }
    }

    void write(const std::vector<Added*>& all) {
        const bool handed_over = blocks(db_).hands_hooks_over();
        const std::vector<Added*> jobs = without_repetitions(all);
        auto group = std::make_shared<Group>();
        group->transaction = blocks(db_).transaction();
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
        insert(rows);
        db_.unless_committed(EndOfTransaction{group, types_.workers()});
        if (!group->jobs.empty()) db_.on_commit(Settle{this->shared_from_this(), group});
        for (std::size_t place = 0; place != group->jobs.size(); ++place) {
            group->jobs[place]->place = place;
            group->jobs[place]->group = group;
        }
        for (Added* const added : all)
            if (added->group == nullptr) added->jobs = nullptr;
    }

    void insert(std::span<const NewJob> rows) {
        const std::string holder = job_holder();
        with_store_here([&](Store& store) {
            while (!rows.empty()) {
                std::size_t count = 0;
                for (std::size_t bytes = 0; count != rows.size() && count != batch_jobs; ++count) {
                    bytes += rows[count].payload.size();
                    if (bytes > batch_bytes && count != 0) break;
                }
                store.insert(rows.first(count), holder);
                rows = rows.subspan(count);
            }
        });
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
            group->ended.push_back(closed_ ? given_back(job)
                                           : run(*added.handler, job, group->since + added.handler->options.lease));
        });
        if (failure)
            blocks(db_).report("txhooks: a job could not be run after its commit; it is when its lease is over",
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
        const Failure failure = attempt([&] { settle(ended); });
        group.settled = Clock::now();
        if (failure)
            blocks(db_).report(
                "txhooks: jobs have run after their commit, but that could not be noted; they run again when their "
                "lease is over",
                failure);
    }

    // ---- One run

    class Run final : public JobRun {
    public:
        Run(Jobs& jobs, const Handler& handler, const JobRow& job)
            : JobRun{job.id, job.attempts}, jobs_{jobs}, handler_{handler}, claim_{job.claim} {}

        bool extend(Micros lease) override {
            if (lease <= Micros{0}) throw UsageError{"txhooks: extend() by nothing, or less"};
            if (handler_.in_block) return true;  // nobody else gets at its row
            return jobs_.in_block(jobs_.db_.in_atomic_block() ? Options{} : claiming(), [&](Store& store) {
                return store.extend(this->id_, claim_, (std::min)(lease, ten_years));
            });
        }

        bool gave_up() const noexcept { return this->verdict_ == Verdict::dead; }
        bool comes_again() const noexcept { return this->verdict_ == Verdict::again; }
        bool was_reading() const noexcept { return this->reading_; }
        Micros delay() const noexcept { return this->delay_; }
        const std::string& reason() const noexcept { return this->reason_; }

    private:
        Jobs& jobs_;
        const Handler& handler_;
        std::int64_t claim_;
    };

    // `lapsed`: the last who had it has ended without a word.
    Ended run(const Handler& handler, const JobRow& job, Clock::time_point lease_ends, bool lapsed = false) {
        if (Clock::now() >= lease_ends || !db_.usable()) return given_back(job);
        if (job.attempts > most_attempts(handler))
            return bury(handler, job, job.error.empty() ? "its last run ended without a word" : job.error, false,
                        lapsed);
        Run run{*this, handler, job};
        Ended ended = ended_as(job);
        ended.ran = true;
        bool superseded = false;
        const Clock::time_point begun = Clock::now();
        bool undone = false;
        const Failure failure = attempt([&] { call(handler, job, run, superseded, undone); });
        ended.duration = std::chrono::duration_cast<Micros>(Clock::now() - begun);
        const Outcome outcome = outcome_of(failure);
        std::string text = failure ? text_of(failure) : std::string{};
        if (superseded) {
            ended.step = JobEvent::Step::superseded;
            ended.settled = true;
        } else if (handler.in_block && !undone && outcome == Outcome::committed) {
            ended.settled = true;  // the row is gone
            if (failure) report(job, "ran, but a hook of it threw", failure);
        } else if (run.gave_up() || (failure && job.attempts >= handler.attempts())) {
            if (run.gave_up()) text = readable_text(failure ? run.reason() + " (" + text + ")" : run.reason());
            Ended dead = bury(handler, job, text, run.was_reading());
            dead.duration = ended.duration;
            dead.ran = true;
            if (failure) report(job, "failed for the last time", failure);
            return dead;
        } else if (failure) {
            report(job, "failed, and is tried again", failure);
            wait(ended, JobEvent::Step::failed, pause(handler.options, job.attempts), job.attempts, std::move(text));
        } else if (run.comes_again()) {
            wait(ended, JobEvent::Step::given_back, run.delay(), job.attempts - 1, job.error);
        }
        return ended;
    }

    void call(const Handler& handler, const JobRow& job, Run& run, bool& superseded, bool& undone) {
        if (!handler.in_block) {
            const Blocks::CloseLeftOpen close{blocks(db_)};
            handler.run(db_, job.payload, run);
            if (db_.in_atomic_block())
                throw UsageError{"txhooks: the handler of a job returned with an atomic block open; end it before"};
            return;
        }
        db_.atomic([&] {
            db_.unless_committed([&]() noexcept { undone = true; });
            const JobEnd done{.id = job.id, .claim = job.claim};
            superseded = !settle_here(done);
            if (superseded) return db_.set_rollback(true);
            handler.run(db_, job.payload, run);
            if (run.gave_up() || run.comes_again()) db_.set_rollback(true);
        });
        if (undone && !superseded && !run.gave_up() && !run.comes_again()) refuse_set_rollback();
    }

    [[noreturn]] static void refuse_set_rollback() {
        throw UsageError{
            "txhooks: set_rollback() in the transaction of a job: it is tried again; to end it call give_up(), "
            "again_in(), or "
            "throw"};
    }

    // The job is dead, and told to be in the same transaction as its compensation.
    Ended bury(const Handler& handler, const JobRow& job, std::string error, bool unreadable, bool lapsed = false) {
        Ended ended = ended_as(job);
        ended.step = JobEvent::Step::dead;
        ended.to = JobEnd::To::dead;
        ended.attempts = job.attempts;
        ended.error = std::move(error);
        if (!handler.on_dead || unreadable) return ended;
        // What is counted beyond the attempts of the handler are those of its burial.
        const std::int64_t limit = most_attempts(handler);
        const std::int64_t burial = (std::max)(job.attempts - limit, std::int64_t{1});
        const std::int64_t burials = handler.options.attempts == no_end ? 20 : handler.attempts();
        if (burial > burials && lapsed) {
            ended.error += "; on_dead ended without a word";
            report(job, "is dead without its on_dead, in which the process ended each time", {});
            return ended;
        }
        bool mine = true, undone = false;
        const Failure failure = attempt([&] {
            db_.atomic([&] {
                db_.unless_committed([&]() noexcept { undone = true; });
                mine = settle_here(end_of(ended));
                if (mine) handler.on_dead(db_, job.payload, ended.error);
            });
            if (undone && mine) refuse_set_rollback();
        });
        if (!mine) ended.step = JobEvent::Step::superseded;
        ended.settled = !mine || (!undone && outcome_of(failure) == Outcome::committed);
        if (!failure) return ended;
        report(job, "is dead, but on_dead threw", failure);
        if (ended.settled) return ended;
        if (burial >= burials)
            ended.error += "; on_dead: " + text_of(failure);
        else
            wait(ended, JobEvent::Step::failed, pause(handler.options, burial), limit + burial, std::move(ended.error));
        return ended;
    }

    // With 1, a job whose process died is run once more, alone: it may not have begun.
    static std::int64_t most_attempts(const Handler& handler) noexcept {
        return (std::max)(handler.attempts(), std::int64_t{2});
    }

    static Ended ended_as(const JobRow& job) {
        Ended ended;
        ended.id = job.id;
        ended.name = job.name;
        ended.claim = job.claim;
        ended.attempt = job.attempts;
        return ended;
    }
    static Ended given_back(const JobRow& job) {
        Ended ended = ended_as(job);
        wait(ended, JobEvent::Step::given_back, Micros{0}, job.attempts - 1, job.error);
        return ended;
    }
    static void wait(Ended& ended, JobEvent::Step step, Micros delay, std::int64_t attempts, std::string error) {
        ended.to = JobEnd::To::wait;
        ended.step = step;
        ended.delay = delay;
        ended.attempts = attempts;
        ended.error = std::move(error);
    }
    static JobEnd end_of(const Ended& ended) {
        return {ended.id, ended.claim, ended.to, ended.delay, ended.attempts, ended.error};
    }

    static Micros pause(const HandlerOptions& options, std::int64_t attempt) noexcept {
        Micros pause = options.first_delay;
        for (; attempt > 1 && pause < options.longest_delay; --attempt)
            pause = pause > options.longest_delay / 2 ? options.longest_delay : pause * 2;
        return (std::min)(pause, options.longest_delay);
    }

    static Outcome outcome_of(const Failure& failure) noexcept {
        if (!failure) return Outcome::committed;
        if (!failure.error) return Outcome::unknown;
        try {
            std::rethrow_exception(failure.error);
        } catch (const HookError&) {
            return Outcome::committed;
        } catch (...) {
            return Outcome::unknown;
        }
    }

    static std::string text_of(const Failure& failure) {
        std::string text = "an exception of another language";
        if (failure.error) with_text_of(failure.error, [&](const char* what) { text = what; });
        return readable_text(text);
    }

    void report(const JobRow& job, const char* what, const Failure& failure) noexcept {
        attempt([&] {
            const std::string text = "txhooks: job '" + job.name + "' " + job.id + ", attempt " +
                                     std::to_string(job.attempts) + ": it " + what;
            blocks(db_).report(text.c_str(), failure);
        });
    }

    // ---- Settlement

    // Takes out what is settled then. In the order of ids, in which everybody locks.
    void settle(std::vector<Ended>& all) {
        std::vector<Ended> ended = std::exchange(all, {});
        std::sort(ended.begin(), ended.end(), [](const Ended& a, const Ended& b) { return a.id < b.id; });
        std::vector<JobEnd> ends;
        for (const Ended& each : ended) {
            if (each.settled)
                tell(each);
            else
                ends.push_back(end_of(each));
        }
        std::vector<bool> mine;
        if (!ends.empty()) {
            for (unsigned attempts = 1;; ++attempts) {
                try {
                    const Lazily lazily{db_.backend()};
                    mine = in_block(claiming(), [&](Store& store) { return settle_by(store, ends); });
                    break;
                } catch (...) {
                    if (attempts == 3 || !is_transient(std::current_exception())) throw;
                }
            }
        }
        std::size_t next = 0;
        for (Ended& each : ended) {
            if (each.settled) continue;
            const bool lost = !mine[next++];
            if (lost && each.ran) each.step = JobEvent::Step::superseded;
            tell(each);
        }
    }

    void tell(const Ended& ended) noexcept {
        if (ended.step == JobEvent::Step::superseded) {
            JobRow job;
            job.name = ended.name;
            job.id = ended.id;
            job.attempts = ended.attempt;
            report(job, "has outlived its lease: it is somebody else's, and what became of this run does not count",
                   {});
        }
        if (!closed_) types_.tell({ended.name, ended.id, ended.attempt, ended.step, ended.duration, ended.error});
    }

    static std::vector<bool> settle_by(Store& store, std::span<const JobEnd> ends) {
        std::vector<bool> mine;
        for (; !ends.empty(); ends = ends.subspan((std::min)(ends.size(), batch_jobs))) {
            const auto some = ends.first((std::min)(ends.size(), batch_jobs));
            const std::vector<bool> answers = store.settle(some, true);
            if (answers.size() != some.size())
                throw UsageError{
                    "txhooks: the JobStore of this connection did not answer for each job that it settled"};
            mine.insert(mine.end(), answers.begin(), answers.end());
        }
        return mine;
    }

    // In the open block. Whether it was still this claim's.
    bool settle_here(const JobEnd& end) {
        return with_store_here([&](Store& store) -> bool { return store.settle({&end, 1}, false)[0]; });
    }

    bool is_transient(const std::exception_ptr& error) noexcept {
        if (!error) return false;
        if constexpr (requires { db_.adapter().transient(error); })
            return db_.adapter().transient(error) && db_.usable();
        return false;
    }

    // ---- Claims

    // `since`: when the leases begin. `lapsed`: it is one whose lease ran out.
    std::vector<JobRow> claim(Clock::time_point& since, bool& lapsed) {
        const Clock::time_point now = Clock::now();
        bool full = now - looked_ >= look_every;
        std::vector<FirstJob> due = look(full);
        if (due.empty() && !full) due = look(true);
        if (due.empty()) return {};
        const std::string holder = job_holder();
        std::vector<JobRow> jobs;
        since = Clock::now();
        in_block(claiming(), [&](Store& store) {
            jobs.clear();
            const auto claim_from = [&](const FirstJob& first, bool with_holder) {
                const Handler& handler = *types_.find(first.name);
                JobClaim wanted{.name = first.name, .holder = holder, .lease = handler.options.lease};
                wanted.limit = with_holder || handler.in_order() ? 1 : batch_claims - jobs.size();
                wanted.from = mark_of(first.name);
                wanted.lapsed = with_holder;
                wanted.in_order = handler.in_order();
                std::vector<JobRow> claimed = store.claim(wanted);
                jobs.insert(jobs.end(), std::make_move_iterator(claimed.begin()),
                            std::make_move_iterator(claimed.end()));
            };
            if (due.front().lapsed) claim_from(due.front(), true);
            lapsed = !jobs.empty();
            if (lapsed) return;  // alone: it may end this process too
            for (const FirstJob& first : due)
                if (jobs.size() < batch_claims) claim_from(first, false);
        });
        return jobs;
    }

    // What is due, the longest first. Not `full`: as far as is known that nothing lies before it.
    std::vector<FirstJob> look(bool full) {
        if (full) {
            marks_.clear();
            looked_ = Clock::now();
        }
        std::vector<JobsNamed> names;
        types_.each_name([&](const std::string& name, const Handler& handler) {
            names.push_back({name, handler.in_order(), handler.in_order() ? 0 : mark_of(name)});
        });
        if (names.empty()) return {};
        std::vector<FirstJob> first;
        std::int64_t now = 0;
        in_block(looking(), [&](Store& store) {
            first.clear();
            now = store.look(names, first);
        });
        std::vector<FirstJob> due;
        std::int64_t next = JobRow::never_due;
        for (const FirstJob& each : first) {
            if (each.due == JobRow::never_due) continue;
            if (each.due <= now)
                due.push_back(each);
            else
                next = (std::min)(next, each.due);
            const std::int64_t from = (std::min)(each.due, now);  // what is added from now on is due later
            const auto mark =
                std::find_if(marks_.begin(), marks_.end(), [&](const Mark& m) { return m.name == each.name; });
            if (mark != marks_.end())
                mark->due = from;
            else
                marks_.push_back({std::string{each.name}, from});
        }
        if (next != JobRow::never_due) next_due_ = (std::min)(next_due_, Micros{next - now});
        std::sort(due.begin(), due.end(), [](const FirstJob& a, const FirstJob& b) { return a.due < b.due; });
        return due;
    }

    std::int64_t mark_of(std::string_view name) const noexcept {
        for (const Mark& mark : marks_)
            if (mark.name == name) return mark.due;
        return 0;
    }

    // ---- Blocks

    void refuse_in_block(const char* text) const {
        if (db_.in_atomic_block()) throw UsageError{text};
    }

    static Options claiming() {
        Options options;
        if constexpr (requires { options.begin = Store::begin_claim(); }) options.begin = Store::begin_claim();
        return options;
    }

    static Options looking() {
        Options options;
        if constexpr (requires { options.begin = Store::begin_look(); }) options.begin = Store::begin_look();
        return options;
    }

    template <class Act>
    auto in_block(const Options& options, const Act& act) {
        return db_.atomic(options, [&] { return with_store_here(act); });
    }
    // In the block that is open.
    template <class Act>
    auto with_store_here(const Act& act) {
        Store store{session_of(db_)};
        return act(store);
    }

    struct NotLazily {
        template <class Backend>
        explicit NotLazily(Backend&&) noexcept {}
    };
    template <class S>
    struct LazilyOf {
        using type = NotLazily;
    };
    template <class S>
        requires requires { typename S::Lazily; }
    struct LazilyOf<S> {
        using type = typename S::Lazily;
    };
    using Lazily = typename LazilyOf<Store>::type;

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

    struct Mark {
        std::string name;
        std::int64_t due;
    };

    static constexpr std::size_t batch_jobs = 500;
    static constexpr std::size_t batch_bytes = 1024 * 1024;
    static constexpr std::size_t batch_claims = 50;
    static constexpr Micros settle_every = std::chrono::milliseconds{50};
    static constexpr Micros look_every = std::chrono::seconds{1};

    Db& db_;
    JobTypes<Db>& types_;
    Blocks::Watch watch_{blocks(db_)};
    std::vector<Added*> waiting_;             // for the COMMIT of the open transaction; null: gone
    std::vector<std::weak_ptr<Group>> open_;  // written, and perhaps not committed yet
    bool registered_ = true;                  // with the connection, as the one that writes last
    bool closed_ = false;
    bool working_ = false;
    std::vector<Mark> marks_;
    Clock::time_point looked_{};
    Micros next_due_{0};
    std::atomic<bool> stopped_ = false;
    std::counting_semaphore<> woken_{0};
};

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// One attempt of a job, and how it ended: the handler, the burial, the settlement.

#include <txhooks/detail/access.hpp>
#include <txhooks/detail/exception_text.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outbox/detail/job_blocks.hpp>
#include <txhooks/outbox/detail/readable_text.hpp>
#include <txhooks/outbox/job_run.hpp>
#include <txhooks/outbox/job_store.hpp>
#include <txhooks/outbox/job_types.hpp>
#include <txhooks/outcome.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace txhooks::detail {

// What is to be noted of an attempt, and told.
struct EndedJob {
    std::string id;
    std::string name;
    std::int64_t claim = 0;
    std::int64_t attempt = 0;
    JobEvent::Step step = JobEvent::Step::succeeded;
    std::chrono::microseconds duration{0};
    std::string error;
    bool ran = false;
    bool settled = false;  // nothing is left to do
    JobEnd::To to = JobEnd::To::done;
    std::chrono::microseconds delay{0};
    std::int64_t attempts = 0;
};

template <class Db>
class JobRuns {
    using Store = typename JobBlocks<Db>::Store;
    using Handler = JobHandler<Db>;
    using Clock = std::chrono::steady_clock;
    using Micros = std::chrono::microseconds;
    using Ended = EndedJob;

public:
    JobRuns(JobBlocks<Db>& blocks, Db& db, const JobTypes<Db>& types) : blocks_{blocks}, db_{db}, types_{types} {}

    // The JobTypes may be gone.
    void close() noexcept { closed_ = true; }
    bool closed() const noexcept { return closed_; }

    // `lapsed`: the last who had it has ended without a word.
    Ended run(const Handler& handler, const JobRow& job, Clock::time_point begins_until, bool lapsed = false) {
        if (Clock::now() >= begins_until || !db_.usable()) return given_back(job);
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

    static Ended given_back(const JobRow& job) {
        Ended ended = ended_as(job);
        wait(ended, JobEvent::Step::given_back, Micros{0}, job.attempts - 1, job.error);
        return ended;
    }

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
                    mine = settle_lazily(ends);
                    break;
                } catch (...) {
                    if (attempts == 3 || !blocks_.is_transient(std::current_exception())) throw;
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

private:
    class Run final : public JobRun {
    public:
        Run(JobRuns& jobs, const Handler& handler, const JobRow& job)
            : JobRun{job.id, job.attempts}, jobs_{jobs}, handler_{handler}, claim_{job.claim} {}

        bool extend(Micros lease) override {
            if (lease <= Micros{0}) throw UsageError{"txhooks: extend() by nothing, or less"};
            if (handler_.in_block) return true;  // nobody else gets at its row
            return jobs_.blocks_.in_block(
                jobs_.db_.in_atomic_block() ? options_of<Db>{} : jobs_.blocks_.claiming(),
                [&](Store& store) { return store.extend(this->id_, claim_, (std::min)(lease, ten_years)); });
        }

        bool gave_up() const noexcept { return this->verdict_ == Verdict::dead; }
        bool comes_again() const noexcept { return this->verdict_ == Verdict::again; }
        bool was_reading() const noexcept { return this->reading_; }
        Micros delay() const noexcept { return this->delay_; }
        const std::string& reason() const noexcept { return this->reason_; }

    private:
        JobRuns& jobs_;
        const Handler& handler_;
        std::int64_t claim_;
    };

    void call(const Handler& handler, const JobRow& job, Run& run, bool& superseded, bool& undone) {
        if (!handler.in_block) {
            const Blocks::CloseLeftOpen close{detail::blocks(db_)};
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
        const bool last = ended.settled || burial >= burials;
        report(job, last ? "is dead, but on_dead threw" : "is to be dead, but on_dead threw, and is tried again",
               failure);
        if (ended.settled) return ended;
        if (last)
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
            detail::blocks(db_).report(text.c_str(), failure);
        });
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

    std::vector<bool> settle_lazily(std::span<const JobEnd> ends) {
        if constexpr (SettlesAlone<Store, decltype(db_.backend())> && requires { db_.adapter().state(); }) {
            if (db_.usable() && db_.adapter().state() == ConnectionState::idle) {
                std::vector<bool> mine = Store::settle_alone(db_.backend(), ends);
                if (!mine.empty()) return all_answered(std::move(mine), ends.size());
            }
        }
        [[maybe_unused]] const auto lazily = blocks_.lazily();
        return blocks_.in_block(blocks_.settling(), [&](Store& store) { return settle_by(store, ends); });
    }

    static std::vector<bool> all_answered(std::vector<bool> answers, std::size_t asked) {
        if (answers.size() == asked) return answers;
        throw UsageError{"txhooks: the JobStore of this connection did not answer for each job that it settled"};
    }
    static std::vector<bool> settle_by(Store& store, std::span<const JobEnd> ends) {
        std::vector<bool> mine;
        for (; !ends.empty(); ends = ends.subspan((std::min)(ends.size(), most_settled))) {
            const auto some = ends.first((std::min)(ends.size(), most_settled));
            const std::vector<bool> answers = all_answered(store.settle(some, true), some.size());
            mine.insert(mine.end(), answers.begin(), answers.end());
        }
        return mine;
    }

    // In the open block. Whether it was still this claim's.
    bool settle_here(const JobEnd& end) {
        return blocks_.with_store_here(
            [&](Store& store) -> bool { return all_answered(store.settle({&end, 1}, false), 1)[0]; });
    }

    static constexpr std::size_t most_settled = 500;

    JobBlocks<Db>& blocks_;
    Db& db_;
    const JobTypes<Db>& types_;
    bool closed_ = false;
};

}  // namespace txhooks::detail

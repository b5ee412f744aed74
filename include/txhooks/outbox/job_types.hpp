// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/callable.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outbox/job.hpp>
#include <txhooks/outbox/job_run.hpp>
#include <txhooks/result_traits.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace txhooks {

/// `types.handle<Job>(txhooks::in_transaction, f)`: `f` runs in the transaction that deletes the job's row, so that what it
/// writes in this database is committed exactly once.
struct in_transaction_t {};
inline constexpr in_transaction_t in_transaction{};

namespace detail {

// `attempts` without an end.
inline constexpr unsigned no_end = ~0u;

}  // namespace detail

#ifndef forever
/// `HandlerOptions::attempts`: never dead for having failed too often. Where Qt's macro of that name is defined, `~0u`.
inline constexpr unsigned forever = detail::no_end;
#endif

/// How the jobs of one type are run.
struct HandlerOptions {
    /// Only by `work` and `run_due`, not on the committing thread: for slow work.
    bool in_worker = false;
    /// One at a time, the oldest committed one; one that waits (it failed, has a delay, said `again_in`) holds the others
    /// back, until it is done or dead. Implies `in_worker`.
    bool in_order = false;
    /// So many runs may fail before the job is dead; one whose process ended counts. `forever`: no end. (With 1, a job whose
    /// process ended is run once more: it may have died of another job, before it began.)
    unsigned attempts = 20;
    /// So long a run may take, before others take the job for one whose process has died.
    std::chrono::microseconds lease = std::chrono::minutes{1};
    /// The pause before the second attempt; then twice that, and so on, up to `longest_delay`.
    std::chrono::microseconds first_delay = std::chrono::seconds{1};
    std::chrono::microseconds longest_delay = std::chrono::hours{1};
    /// Names that the job had before: their rows are run too.
    std::vector<std::string> also = {};
};

/// One step in a job's life, as `JobTypes::observe` tells it.
struct JobEvent {
    enum class Step : unsigned char {
        succeeded,
        failed,      ///< and is tried again
        dead,        ///< given up for good
        superseded,  ///< this run outlived its lease, and the job is somebody else's
        given_back,  ///< claimed and not begun; or the handler said `again_in`
    };

    std::string_view name = {};
    std::string_view id = {};
    std::int64_t attempt = 0;
    Step step = Step::succeeded;
    std::chrono::microseconds duration{0};  ///< of the handler
    std::string_view error = {};
};

namespace detail {

template <class Db>
class Jobs;
template <class Db>
class JobRuns;
template <class Db>
class JobClaims;

// What is known of the jobs of one type.
template <class Db>
struct JobHandler {
    std::string name;
    bool in_block = false;  // in_transaction
    HandlerOptions options = {};
    std::function<void(Db&, std::string_view payload, JobRun&)> run = nullptr;
    std::function<void(Db&, std::string_view payload, std::string_view error)> on_dead = nullptr;

    std::int64_t attempts() const noexcept { return options.attempts; }
    bool in_order() const noexcept { return options.in_order; }
    bool here() const noexcept { return !options.in_worker && !options.in_order; }
};

// Whom a commit wakes.
class JobWorker {
public:
    virtual void wake() noexcept = 0;

protected:
    ~JobWorker() = default;
};

class JobWorkers {
public:
    void add(JobWorker& worker) {
        const std::lock_guard lock{mutex_};
        workers_.push_back(&worker);
    }
    void remove(JobWorker& worker) noexcept {
        const std::lock_guard lock{mutex_};
        std::erase(workers_, &worker);
    }
    void wake() noexcept {
        const std::lock_guard lock{mutex_};
        for (JobWorker* const worker : workers_) worker->wake();
    }

private:
    std::mutex mutex_;
    std::vector<JobWorker*> workers_;
};

}  // namespace detail

/// What jobs this program can run, and how:
///
///     txhooks::JobTypes<Db> types;
///     types.handle<Welcome>([&](const Welcome& w, txhooks::JobRun& run) { mailer.send(w.address, run.id()); });
///     types.handle<Invoice>(txhooks::in_transaction, [](Db& db, const Invoice& i) { ... });
///
/// Filled before threads share it and before the first job is added; outlives every `Outbox` that is made of it.
template <class Db>
class JobTypes {
public:
    JobTypes() = default;
    JobTypes(const JobTypes&) = delete;
    JobTypes& operator=(const JobTypes&) = delete;

    /// Jobs of type `Job` are run by `handler(job)`, `handler(job, run)` or `handler(db, job, run)`: at least once, on the
    /// committing thread or another. It is called as const, perhaps by several threads at once, with no block open. What
    /// it throws is a failed attempt, which is tried again; what it returns is ignored.
    ///
    /// Throws: `UsageError` if the type or a name is handled already, an option does not fit, or a job was added or looked for.
    template <class Job, class Handler>
    void handle(Handler&& handler, HandlerOptions options = {}) {
        using F = const std::decay_t<Handler>&;
        constexpr bool plain = std::is_invocable_v<F, const Job&>;
        constexpr bool with_run = std::is_invocable_v<F, const Job&, JobRun&>;
        constexpr bool with_db = std::is_invocable_v<F, Db&, const Job&, JobRun&>;
        static_assert(plain || with_run || with_db,
                      "txhooks: a handler is called, as const, with (const Job&), (const Job&, JobRun&) or (Db&, const "
                      "Job&, JobRun&)");
        if constexpr (with_db) {
            refuse_result<std::invoke_result_t<F, Db&, const Job&, JobRun&>>();
            add<Job>(handler, std::move(options), false,
                     [](F f, Db& db, const Job& job, JobRun& run) { f(db, job, run); });
        } else if constexpr (with_run) {
            refuse_result<std::invoke_result_t<F, const Job&, JobRun&>>();
            add<Job>(handler, std::move(options), false, [](F f, Db&, const Job& job, JobRun& run) { f(job, run); });
        } else if constexpr (plain) {
            refuse_result<std::invoke_result_t<F, const Job&>>();
            add<Job>(handler, std::move(options), false, [](F f, Db&, const Job& job, JobRun&) { f(job); });
        }
    }

    /// The same, in a block that deletes the job's row: `handler(db, job)` or `handler(db, job, run)`. What it writes over
    /// `db` is committed exactly once.
    template <class Job, class Handler>
    void handle(in_transaction_t, Handler&& handler, HandlerOptions options = {}) {
        using F = const std::decay_t<Handler>&;
        constexpr bool plain = std::is_invocable_v<F, Db&, const Job&>;
        constexpr bool with_run = std::is_invocable_v<F, Db&, const Job&, JobRun&>;
        static_assert(
            plain || with_run,
            "txhooks: a handler in_transaction is called, as const, with (Db&, const Job&) or (Db&, const Job&, "
            "JobRun&)");
        if constexpr (with_run) {
            refuse_result<std::invoke_result_t<F, Db&, const Job&, JobRun&>>();
            add<Job>(handler, std::move(options), true,
                     [](F f, Db& db, const Job& job, JobRun& run) { f(db, job, run); });
        } else if constexpr (plain) {
            refuse_result<std::invoke_result_t<F, Db&, const Job&>>();
            add<Job>(handler, std::move(options), true, [](F f, Db& db, const Job& job, JobRun&) { f(db, job); });
        }
    }

    /// `function(db, job, error)` runs in the transaction that makes a job dead: the place for a compensation. Not for a
    /// payload that cannot be read. If it throws, it is tried again like a handler, as often; then the job is dead
    /// without it, and the error sink is told.
    /// Throws: `UsageError` if `Job` is not handled yet, or has one already.
    template <class Job, class Function>
    void on_dead(Function&& function) {
        using F = const std::decay_t<Function>&;
        static_assert(std::is_invocable_v<F, Db&, const Job&, std::string_view>,
                      "txhooks: on_dead calls its function, as const, with (Db&, const Job&, std::string_view error)");
        if constexpr (std::is_invocable_v<F, Db&, const Job&, std::string_view>)
            refuse_dead_result<std::invoke_result_t<F, Db&, const Job&, std::string_view>>();
        refuse_in_use();
        detail::JobHandler<Db>* const handler = find_type(type_of<Job>());
        if (handler == nullptr) throw UsageError{"txhooks: on_dead for a job without a handler; call handle first"};
        if (handler->on_dead) throw UsageError{"txhooks: on_dead was called twice for a job"};
        if (detail::is_empty(function)) throw UsageError{"txhooks: on_dead was given an empty function"};
        auto shared = std::make_shared<const std::decay_t<Function>>(static_cast<Function&&>(function));
        handler->on_dead = [shared](Db& db, std::string_view payload, std::string_view error) {
            std::optional<Job> job;
            if (detail::attempt([&] { job.emplace(JobPayload<Job>::load(payload)); })) return;
            (*shared)(db, std::as_const(*job), error);
        };
    }

    /// Calls `function(context, event)` for each step of a job that this program runs, on the thread that runs it. Null: no
    /// longer. Throws: as `handle`.
    void observe(void (*function)(void* context, const JobEvent& event) noexcept, void* context = nullptr) {
        refuse_in_use();
        observer_ = function;
        observer_context_ = context;
    }

private:
    friend class detail::Jobs<Db>;
    friend class detail::JobRuns<Db>;
    friend class detail::JobClaims<Db>;

    void seal() noexcept { in_use_.store(true, std::memory_order_relaxed); }
    const detail::JobHandler<Db>* find(std::string_view name) const noexcept {
        for (const auto& entry : names_)
            if (entry.name == name) return entry.handler;
        return nullptr;
    }
    template <class Use>
    void each_name(const Use& use) const {
        for (const auto& entry : names_) use(entry.name, *entry.handler);
    }
    void tell(const JobEvent& event) const noexcept {
        if (observer_ != nullptr) observer_(observer_context_, event);
    }
    const std::shared_ptr<detail::JobWorkers>& workers() const noexcept { return workers_; }

    struct Name {
        std::string name;
        detail::JobHandler<Db>* handler;
    };

    template <class Job>
    static const void* type_of() noexcept {
        static constexpr char here = 0;
        return &here;
    }

    template <class Result>
    static constexpr void refuse_result() {
        using Value = std::remove_cvref_t<Result>;
        static_assert(
            !detail::CanFail<Value> && !detail::Asynchronous<Value>,
            "txhooks: a handler returns a coroutine, a future, or a result that can mean failure, and nobody would "
            "look at it; throw, or call JobRun::give_up or again_in, and return nothing");
    }

    template <class Result>
    static constexpr void refuse_dead_result() {
        using Value = std::remove_cvref_t<Result>;
        static_assert(
            !detail::CanFail<Value> && !detail::Asynchronous<Value>,
            "txhooks: the function of on_dead returns a coroutine, a future, or a result that can mean failure, and "
            "nobody would look at it; throw, and return nothing");
    }

    template <class Job, class Handler, class Call>
    void add(Handler&& handler, HandlerOptions&& options, bool in_block, Call call) {
        constexpr std::string_view name = detail::job_name<Job>();
        constexpr bool fits = requires(std::string_view stored) {
            { JobPayload<Job>::load(stored) } -> std::convertible_to<Job>;
        };
        static_assert(
            fits,
            "txhooks: a job is read from its bytes; write void from_payload(std::string_view, Job&) beside it, or "
            "specialise txhooks::JobPayload<Job>");
        refuse_in_use();
        refuse(options);
        if (detail::is_empty(handler)) throw UsageError{"txhooks: handle was given an empty function"};
        if (find_type(type_of<Job>()) != nullptr) throw UsageError{"txhooks: a type of jobs is handled twice"};
        if (find(name) != nullptr) throw UsageError{"txhooks: two types of jobs have the same name"};
        for (const std::string& also : options.also) {
            if (!detail::is_job_name(also))
                throw UsageError{"txhooks: a name in HandlerOptions::also is not one that a job can have"};
            if (find(also) != nullptr || also == name)
                throw UsageError{"txhooks: a name in HandlerOptions::also is that of another job"};
        }
        auto shared = std::make_shared<const std::decay_t<Handler>>(static_cast<Handler&&>(handler));
        auto entry = std::make_unique<detail::JobHandler<Db>>();
        entry->name = name;
        entry->in_block = in_block;
        entry->options = std::move(options);
        entry->run = [shared, call](Db& db, std::string_view payload, JobRun& run) {
            run.reading_ = true;
            const Job job = JobPayload<Job>::load(payload);
            run.reading_ = false;
            call(*shared, db, job, run);
        };
        std::vector<Name> names = names_;
        names.push_back({entry->name, entry.get()});
        for (const std::string& also : entry->options.also) names.push_back({also, entry.get()});
        handlers_.push_back({type_of<Job>(), std::move(entry)});
        names_ = std::move(names);
    }

    void refuse_in_use() const {
        if (in_use_.load(std::memory_order_relaxed))
            throw UsageError{"txhooks: JobTypes are filled before the first job is added, or looked for"};
    }
    static void refuse(const HandlerOptions& options) {
        using std::chrono::microseconds;
        if (options.attempts == 0) throw UsageError{"txhooks: HandlerOptions::attempts is at least 1"};
        if (options.lease <= microseconds{0} || options.lease > detail::ten_years)
            throw UsageError{"txhooks: HandlerOptions::lease is more than nothing and at most ten years"};
        if (options.first_delay < microseconds{0} || options.longest_delay < options.first_delay ||
            options.longest_delay > detail::ten_years)
            throw UsageError{
                "txhooks: HandlerOptions::first_delay is not negative, and longest_delay not shorter, and at most ten "
                "years"};
    }

    detail::JobHandler<Db>* find_type(const void* type) const noexcept {
        for (const auto& each : handlers_)
            if (each.first == type) return each.second.get();
        return nullptr;
    }

    std::vector<std::pair<const void*, std::unique_ptr<detail::JobHandler<Db>>>> handlers_;
    std::vector<Name> names_;
    void (*observer_)(void*, const JobEvent&) noexcept = nullptr;
    void* observer_context_ = nullptr;
    std::atomic<bool> in_use_ = false;
    std::shared_ptr<detail::JobWorkers> workers_ = std::make_shared<detail::JobWorkers>();
};

}  // namespace txhooks

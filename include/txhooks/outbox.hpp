// SPDX-License-Identifier: MIT
#pragma once

/// Jobs that survive the process. A job is a commit hook whose existence is a row: written in the transaction that it
/// belongs to, run after its proven COMMIT, and found again by any process if this one dies.
///
///     txhooks::JobTypes<Db> types;
///     types.handle<Welcome>([&](const Welcome& w, txhooks::JobRun& run) { mailer.send(w.address, run.id()); });
///     txhooks::Outbox<Db> outbox{db, types};
///
///     db.atomic([&] {
///         db.exec("INSERT INTO user (name) VALUES ('Ann')");
///         outbox.add(Welcome{"ann@example.org"});
///     });
///
/// Include the header of your driver's store, which includes this one: `<txhooks/outbox/sqlite3.hpp>` and its neighbours.

#include <txhooks/hooked_connection.hpp>
#include <txhooks/outbox/detail/jobs.hpp>
#include <txhooks/outbox/job_queue.hpp>
#include <txhooks/outbox/job_store.hpp>
#include <txhooks/outbox/job_types.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace txhooks {

/// The jobs of one connection. One thread at a time, as the connection; other threads and processes have their own.
///
/// Dies before the connection, and after every block in which jobs were added: else that block is rolled back, and its
/// `commit()` throws `UsageError`.
template <class Db>
class Outbox final : public JobQueue {
    using Store = JobStore<detail::backend_of<Db>>;

public:
    /// Throws: `UsageError` if the connection has one already.
    Outbox(Db& db, JobTypes<Db>& types) : jobs_{std::make_shared<detail::Jobs<Db>>(db, types)} {}
    Outbox(const Outbox&) = delete;
    Outbox& operator=(const Outbox&) = delete;
    ~Outbox() { jobs_->close(); }

    Connection& connection() noexcept override { return jobs_->db(); }

    // ---- Running

    /// Claims what is due and runs it, up to fifty jobs, of those that this program handles: what was left by processes that
    /// died, what failed before and is due again, what was to wait. Returns how many were run. A job whose lease ran out
    /// without a word is claimed alone.
    ///
    /// Failures of handlers go to the error sink, and the job is tried again later.
    /// Throws: what the driver throws, then jobs that have run may run again; `UsageError` in a block.
    std::size_t run_due() { return jobs_->run_due(); }

    /// The same in a loop, on a thread and a connection of its own, until `stop()`. Where there is nothing to do it waits until
    /// a commit of this program wakes it (through the same `JobTypes`), or something becomes due, or for about `poll`: so long
    /// may a job of another process go unseen.
    ///
    /// When stopped, it gives back what it has claimed and not begun. Throws when its connection breaks: call it again with
    /// another; a lock that was not to be had is no reason.
    void work(std::chrono::microseconds poll = std::chrono::seconds{1}) { jobs_->work(poll); }

    /// Ends `work()` after the handler that is running. From any thread, also in a signal handler. Holds until `work()`
    /// returns: called before, that returns at once.
    void stop() noexcept { jobs_->stop(); }

    // ---- Looking at the table. In the open block, or in one of its own. What that block has added has no rows before its
    // COMMIT. Throws what the driver throws.

    /// How the jobs of each name stand, by name; also of those that this program does not handle.
    std::vector<JobStats> stats() { return jobs_->stats(); }
    /// Rows, the oldest first.
    std::vector<JobRow> list(const JobFilter& filter = {}) {
        return jobs_->with_store([&](Store& store) { return store.list(filter); });
    }
    /// The jobs that were given up. They stay until `revive` or `cancel`.
    std::vector<JobRow> dead_letters() { return list({.dead = true, .limit = all}); }
    /// Those of one type that are not dead, the oldest first, read from their payloads: for tests.
    template <class Job>
    std::vector<Job> queued() {
        std::vector<Job> jobs;
        for (const JobRow& row : list({.name = detail::job_name<Job>(), .limit = all}))
            if (!row.dead()) jobs.push_back(JobPayload<Job>::load(row.payload));
        return jobs;
    }

    /// A dead job is due again, with all its attempts. False: it is not dead, or not there.
    bool revive(std::string_view id) {
        return jobs_->with_store([&](Store& store) { return store.revive(id); });
    }
    /// Deletes a job that nobody is running, dead or not. False: it runs, or is not there.
    bool cancel(std::string_view id) {
        return jobs_->with_store([&](Store& store) { return store.cancel(id); });
    }
    /// Deletes the job with this key that has not begun. False: there is none.
    template <class Job>
    bool cancel(std::string_view key) {
        return jobs_->with_store([&](Store& store) { return store.cancel(detail::job_name<Job>(), key); });
    }

    // ---- The table

    /// Its DDL. The library never migrates by itself.
    static std::string schema() { return Store::schema(); }
    /// Makes it where it is missing. Outside of blocks. Throws: what the driver throws; `UsageError` in a block.
    void create_table() { jobs_->create_table(); }

private:
    void add_stored(std::string_view name, std::string payload, const JobOptions& options) override {
        jobs_->add(name, static_cast<std::string&&>(payload), options);
    }

    static constexpr std::size_t all = ~std::size_t{0} >> 1;

    std::shared_ptr<detail::Jobs<Db>> jobs_;
};

}  // namespace txhooks

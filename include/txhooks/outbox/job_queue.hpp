// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/outbox/job.hpp>

#include <string>
#include <string_view>

namespace txhooks {

/// Where code adds jobs that need not know who runs them, as it takes a `Connection&` to register hooks. Every `Outbox` is
/// one.
class JobQueue {
public:
    /// Adds a job to the open block: it has a row if and only if that commits, with every savepoint around this call. Outside
    /// any block it opens one of its own.
    ///
    /// The row is written behind the last hook before COMMIT. If this program handles the job, it runs in its place among the
    /// commit hooks; not if it has a key or a delay, is for workers, or the block hands its hooks over (`.detach`,
    /// `.resolve`): then whoever looks next runs it.
    ///
    /// Throws: what storing the job throws; `UsageError` for a key, a delay or a payload (1 MB) that does not fit; as
    /// `Connection::on_commit`. After a throw: nothing was added. What the INSERT throws leaves the block's end, and rolls
    /// it back.
    template <class Job>
    void add(const Job& job, const JobOptions& options = {}) {
        add_stored(detail::job_name<Job>(), detail::stored(job), options);
    }

    /// The connection whose blocks the jobs belong to.
    virtual Connection& connection() noexcept = 0;

protected:
    JobQueue() = default;
    JobQueue(const JobQueue&) = default;
    JobQueue& operator=(const JobQueue&) = default;
    ~JobQueue() = default;

    virtual void add_stored(std::string_view name, std::string payload, const JobOptions& options) = 0;
};

}  // namespace txhooks

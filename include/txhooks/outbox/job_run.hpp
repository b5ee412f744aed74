// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/outbox/job.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace txhooks {

template <class Db>
class JobTypes;

/// One run of a job's handler.
class JobRun {
public:
    /// 36 characters, a UUID; the same in every attempt: an idempotency key for the outside world.
    std::string_view id() const noexcept { return id_; }
    /// From 1. A job whose process died before it began has used one up.
    std::int64_t attempt() const noexcept { return attempt_; }

    /// The lease lasts until so long from now (at most ten years). False: the job is somebody else's, because the lease was over: stop.
    /// In a block that is open on the connection it is part of that. In a handler `in_transaction` it has nothing to do:
    /// nobody else gets at the row; but where the type is `in_order` the next job may begin when the lease is over, and on
    /// another node of a Galera cluster this one: there give it a lease that is longer than its run.
    /// Throws: what the driver throws.
    virtual bool extend(std::chrono::microseconds lease) = 0;

    /// When the handler has returned, or thrown, the job is dead: no further attempt makes sense. What a handler
    /// `in_transaction` wrote is rolled back. The last call of this and `again_in` wins.
    void give_up(std::string_view reason) {
        reason_ = reason;
        verdict_ = Verdict::dead;
    }
    /// When the handler has returned, the job waits for so long (at most ten years). No attempt is used up. What a handler `in_transaction`
    /// wrote is rolled back.
    void again_in(std::chrono::microseconds delay) noexcept {
        const std::chrono::microseconds none{0};
        delay_ = delay < none ? none : delay > detail::ten_years ? detail::ten_years : delay;
        verdict_ = Verdict::again;
    }

protected:
    template <class Db>
    friend class JobTypes;  // which reads the payload

    enum class Verdict : unsigned char { done, again, dead };

    JobRun(std::string_view id, std::int64_t attempt) : id_{id}, attempt_{attempt} {}
    JobRun(const JobRun&) = delete;
    JobRun& operator=(const JobRun&) = delete;
    virtual ~JobRun() = default;

    std::string_view id_;
    std::int64_t attempt_;
    Verdict verdict_ = Verdict::done;
    bool reading_ = false;  // the payload
    std::chrono::microseconds delay_{0};
    std::string reason_;
};

}  // namespace txhooks

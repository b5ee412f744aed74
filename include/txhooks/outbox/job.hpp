// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <chrono>
#include <concepts>
#include <string>
#include <string_view>

namespace txhooks {

/// How a job becomes bytes and is read again. By default it is what argument-dependent lookup finds:
///
///     std::string to_payload(const Job&);
///     void from_payload(std::string_view stored, Job&);    // Job needs a default constructor
///
/// Specialise it for anything else; `<txhooks/outbox/nlohmann_json.hpp>` does that for types with `to_json` and
/// `from_json`. What `store` throws leaves `add`; what `load` throws is a failed attempt of that job.
template <class Job>
struct JobPayload {
    static std::string store(const Job& job)
        requires requires { to_payload(job); }
    {
        return to_payload(job);
    }
    static Job load(std::string_view stored)
        requires requires(Job& job) {
            Job{};
            from_payload(stored, job);
        }
    {
        Job job{};
        from_payload(stored, job);
        return job;
    }
};

/// What one `add` may ask for.
struct JobOptions {
    /// Of one name and key at most one job waits that has not begun: another `add` renews its payload and delay. Up to 255
    /// bytes; empty: no key. A job with a key does not run on the committing thread.
    std::string_view key = {};
    /// Not before so long after the commit's INSERT. A job that waits does not run on the committing thread.
    std::chrono::microseconds delay{0};
};

namespace detail {

// No delay and no lease is longer: a time plus that fits into 64 bits.
inline constexpr std::chrono::microseconds ten_years = std::chrono::hours{24 * 3650};

template <class Job>
concept NamedJob = requires { std::string_view{Job::job_name}; };

constexpr bool is_job_name(std::string_view name) noexcept {
    for (const char c : name) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '-') return false;
    }
    return !name.empty() && name.size() <= 64;
}

template <class Job>
constexpr std::string_view job_name() noexcept {
    static_assert(NamedJob<Job>,
                  "txhooks: a job has a name, by which its rows are known for ever: static constexpr const char* "
                  "job_name = \"...\";");
    if constexpr (NamedJob<Job>) {
        static_assert(is_job_name(Job::job_name),
                      "txhooks: job_name is 1 to 64 letters, digits, '_', '.' or '-', and a constant expression");
        return Job::job_name;
    } else {
        return {};
    }
}

template <class Job>
std::string stored(const Job& job) {
    constexpr bool fits = requires {
        { JobPayload<Job>::store(job) } -> std::convertible_to<std::string>;
    };
    static_assert(fits,
                  "txhooks: a job is stored as bytes; write std::string to_payload(const Job&) and void "
                  "from_payload(std::string_view, Job&) beside it, or specialise txhooks::JobPayload<Job>");
    if constexpr (fits)
        return JobPayload<Job>::store(job);
    else
        return {};
}

}  // namespace detail
}  // namespace txhooks

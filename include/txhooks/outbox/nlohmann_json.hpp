// SPDX-License-Identifier: MIT
#pragma once

/// Jobs stored as JSON by nlohmann/json: types with its `to_json` and `from_json`, written by hand or by its macros,
/// and without a `to_payload` and `from_payload` of their own.
///
///     struct Welcome {
///         static constexpr const char* job_name = "welcome";
///         std::string address;
///     };
///     NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Welcome, address)
///
/// Rows outlive the program that wrote them: give a field that is added later a default
/// (`NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT`). Text must be UTF-8: else `add` throws
/// `nlohmann::json::type_error`. Include it in every file that adds or handles such jobs.

#include <txhooks/outbox/job.hpp>

#include <nlohmann/json.hpp>

#include <concepts>
#include <string>
#include <string_view>

namespace txhooks {
namespace detail {

template <class Job>
concept StoredItself = requires(const Job& job, Job& read, std::string_view stored) {
    { to_payload(job) } -> std::convertible_to<std::string>;
    from_payload(stored, read);
};

template <class Job>
concept StoredAsJson = !StoredItself<Job> && requires(const Job& job, nlohmann::json& json) {
    nlohmann::adl_serializer<Job>::to_json(json, job);
    json.get<Job>();
};

}  // namespace detail

template <detail::StoredAsJson Job>
struct JobPayload<Job> {
    static std::string store(const Job& job) { return nlohmann::json(job).dump(); }
    static Job load(std::string_view stored) { return nlohmann::json::parse(stored).get<Job>(); }
};

}  // namespace txhooks

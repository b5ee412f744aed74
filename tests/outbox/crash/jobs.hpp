// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/outbox/job.hpp>

#include <charconv>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace crash {

/// The types of jobs. Those named inside write their effect in the transaction.
enum class Type : int {
    here,
    worker,
    inside,
    inside_worker,
    keyed,
    ordered,
    ordered_inside,
    fragile,  // few attempts
    fragile_here,
    fragile_inside,
    count
};

constexpr bool is_inside(Type type) {
    return type == Type::inside or type == Type::inside_worker or type == Type::ordered_inside or
           type == Type::fragile_inside;
}
constexpr bool is_ordered(Type type) {
    return type == Type::ordered or type == Type::ordered_inside;
}
constexpr bool is_fragile(Type type) {
    return type >= Type::fragile;
}
constexpr bool is_run_here(Type type) {
    return type == Type::here or type == Type::inside or type == Type::fragile_here or type == Type::fragile_inside;
}

/// What the handler does.
enum class Plan : int {
    well,
    slow,                // takes a while
    throws,              // at first
    sleeps,              // past its lease, at first
    sleeps_then_throws,  // the same, and its successor is still running then
    extends,             // its lease, and needs it
    again,               // sometimes
    adds,                // a job
    dies,                // before its effect, at first
    dies_late,           // after it
    dies_next,           // when the next handler begins
    dies_in_commit,      // inside: before COMMIT, or after
    gives_up,            // from here on: ends dead
    always_throws,
    always_dies,
    count
};

constexpr bool ends_dead(Plan plan) {
    return plan >= Plan::gives_up;
}

struct Work {
    std::int64_t number = 0;
    Plan plan = Plan::well;
};

inline std::string to_payload(const Work& work) {
    return std::to_string(work.number) + ' ' + std::to_string(static_cast<int>(work.plan));
}
inline void from_payload(std::string_view stored, Work& work) {
    int plan = 0;
    const char* const end = stored.data() + stored.size();
    const auto [space, error] = std::from_chars(stored.data(), end, work.number);
    if (error != std::errc{} or space == end or std::from_chars(space + 1, end, plan).ec != std::errc{})
        throw std::runtime_error{"not what was stored"};
    work.plan = static_cast<Plan>(plan);
}

template <Type T>
constexpr const char* name_of() {
    constexpr const char* names[] = {"here",    "worker",         "inside",  "inside_worker", "keyed",
                                     "ordered", "ordered_inside", "fragile", "fragile_here",  "fragile_inside"};
    return names[static_cast<int>(T)];
}
template <Type T>
struct Named : Work {
    static constexpr const char* job_name = name_of<T>();
};

}  // namespace crash

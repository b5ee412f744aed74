// SPDX-License-Identifier: MIT
#pragma once

// What is due, and whose it is now.

#include <txhooks/outbox/detail/job_blocks.hpp>
#include <txhooks/outbox/detail/job_id.hpp>
#include <txhooks/outbox/job_store.hpp>
#include <txhooks/outbox/job_types.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace txhooks::detail {

// Jobs that were claimed together.
struct ClaimedJobs {
    std::vector<JobRow> jobs = {};
    std::chrono::steady_clock::time_point since = {};  // when the leases began
    bool lapsed = false;                               // it is one whose lease ran out without a word
    std::chrono::microseconds next_due = ten_years;    // of what is not due yet, so long from now
};

template <class Db>
class JobClaims {
    using Store = typename JobBlocks<Db>::Store;
    using Handler = JobHandler<Db>;
    using Clock = std::chrono::steady_clock;
    using Micros = std::chrono::microseconds;

public:
    JobClaims(JobBlocks<Db>& blocks, const JobTypes<Db>& types) : blocks_{blocks}, types_{types} {}

    // At most `limit` of them.
    ClaimedJobs claim(std::size_t limit) {
        ClaimedJobs claimed;
        bool full = Clock::now() - looked_ >= look_every;
        std::vector<FirstJob> due = look(full, claimed.next_due);
        if (due.empty() && !full) due = look(true, claimed.next_due);
        if (due.empty()) return claimed;
        const std::string holder = job_holder();
        claimed.since = Clock::now();
        blocks_.in_block(blocks_.claiming(), [&](Store& store) {
            claimed.jobs.clear();
            const auto claim_from = [&](const FirstJob& first, bool lapsed) {
                const Handler& handler = *types_.find(first.name);
                JobClaim wanted{.name = first.name, .holder = holder, .lease = handler.options.lease};
                wanted.limit = lapsed || handler.in_order() ? 1 : limit - claimed.jobs.size();
                wanted.from = mark_of(first.name);
                wanted.lapsed = lapsed;
                wanted.in_order = handler.in_order();
                for (JobRow& job : store.claim(wanted)) claimed.jobs.push_back(std::move(job));
            };
            if (due.front().lapsed) claim_from(due.front(), true);
            claimed.lapsed = !claimed.jobs.empty();
            if (claimed.lapsed) return;  // alone: it may end this process too
            for (const FirstJob& first : due)
                if (claimed.jobs.size() < limit) claim_from(first, false);
        });
        return claimed;
    }

private:
    // What is due, the longest first. Not `full`: as far as is known that nothing lies before it.
    std::vector<FirstJob> look(bool full, Micros& next_due) {
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
        blocks_.in_block(blocks_.looking(), [&](Store& store) {
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
        if (next != JobRow::never_due) next_due = Micros{next - now};
        std::sort(due.begin(), due.end(), [](const FirstJob& a, const FirstJob& b) { return a.due < b.due; });
        return due;
    }

    std::int64_t mark_of(std::string_view name) const noexcept {
        for (const Mark& mark : marks_)
            if (mark.name == name) return mark.due;
        return 0;
    }

    struct Mark {
        std::string name;
        std::int64_t due;
    };

    static constexpr Micros look_every = std::chrono::seconds{1};

    JobBlocks<Db>& blocks_;
    const JobTypes<Db>& types_;
    std::vector<Mark> marks_;  // of each name: nothing lies before this `due`, as far as is known
    Clock::time_point looked_{};
};

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

/// Jobs without a database: an `Outbox` over `testing::FakeBackend`, for unit tests. It promises what those over
/// databases do; transactions, savepoints and losses of the fake apply to it.
///
///     txhooks::HookedConnection<txhooks::testing::FakeBackend> db;
///     txhooks::JobTypes<decltype(db)> types;                       // no handler: jobs stay where they are added
///     txhooks::Outbox outbox{db, types};
///     sign_up(db, outbox, "ann");                                  // your code
///     CHECK(db.log() == Log{"BEGIN", "INSERT ann", "INSERT jobs: welcome", "COMMIT"});
///     CHECK(outbox.queued<Welcome>().at(0).name == "ann");
///
///     db.pass_time(std::chrono::hours{1});                         // its clock stands still between two of these
///     outbox.run_due();
///
/// A call of the store that writes is one statement of the log, with the names of the jobs: `INSERT jobs: mail,
/// welcome` in the block that added them; `DELETE jobs: welcome` for those that are done or cancelled, and `UPDATE
/// jobs: mail` for what is claimed, waits, or is dead, in blocks of the outbox's own. What only reads (`queued`,
/// `list`, `stats`, a look for what is due) is a BEGIN and a COMMIT without a statement between them: compare the log
/// before you ask, or clear it.
///
/// A job is the row `txhooks_job/<id>`: `db.committed("txhooks_job/" + id)` tells whether others see it.

#include <txhooks/outbox.hpp>
#include <txhooks/testing/fake_backend.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace txhooks {

template <std::derived_from<testing::FakeBackend> Backend>
class JobStore<Backend> {
    using Micros = std::chrono::microseconds;

public:
    explicit JobStore(testing::FakeBackend& db) noexcept : db_{db} {}

    static std::string schema() { return "-- txhooks_job: rows of testing::FakeBackend, which needs no table;\n"; }
    static void create_table(testing::FakeBackend&) {}

    void insert(std::span<const NewJob> jobs, std::string_view holder) {
        const std::int64_t now = clock();
        std::vector<JobRow> rows = all();
        Change change{db_, "INSERT"};
        for (const NewJob& job : jobs) {
            const bool leased = job.lease != Micros{0};
            JobRow* row = find(rows, [&](const JobRow& r) { return waits(r, job.name, job.key); });
            if (row == nullptr) {
                row = &rows.emplace_back();
                row->id = job.id;
                row->name = job.name;
                row->claim = row->attempts = leased;
                if (leased) row->holder = holder;
                row->key = job.key;
                row->created = now;
            }
            row->payload = job.payload;
            row->due = now + (leased ? job.lease : job.delay).count();
            change.put(*row);
        }
        change.write();
    }

    std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first) {
        const std::vector<JobRow> rows = all();
        for (const JobsNamed& wanted : names) {
            const JobRow* best = nullptr;
            for (const JobRow& row : rows) {
                if (row.name != wanted.name || row.dead() || row.due < wanted.from) continue;
                if (best == nullptr || (!wanted.in_order && row.due < best->due)) best = &row;
            }
            if (best != nullptr) first.push_back({wanted.name, best->due, !best->holder.empty()});
        }
        return clock();
    }

    std::vector<JobRow> claim(const JobClaim& wanted) {
        const std::int64_t now = clock();
        std::vector<JobRow> rows = all();
        std::erase_if(rows, [&](const JobRow& row) { return row.name != wanted.name || row.dead(); });
        if (wanted.in_order) {
            const auto held = [&](const JobRow& row) { return row.due > now && !row.holder.empty(); };
            if (std::any_of(rows.begin(), rows.end(), held)) return {};  // it may be younger: committed earlier
            if (!rows.empty()) rows.resize(1);
        }
        std::erase_if(rows, [&](const JobRow& row) {
            return row.due > now || (!wanted.in_order && row.due < wanted.from) || row.holder.empty() == wanted.lapsed;
        });
        std::sort(rows.begin(), rows.end(),
                  [](const JobRow& a, const JobRow& b) { return a.due != b.due ? a.due < b.due : a.id < b.id; });
        if (rows.size() > wanted.limit) rows.resize(wanted.limit);
        Change change{db_, "UPDATE"};
        for (JobRow& row : rows) {
            row.due = now + wanted.lease.count();
            row.holder = wanted.holder;
            ++row.claim;
            ++row.attempts;
            change.put(row);
        }
        change.write();
        return rows;
    }

    std::vector<bool> settle(std::span<const JobEnd> ends, bool) {
        std::vector<bool> mine;
        std::vector<JobRow> rows = all();
        Change done{db_, "DELETE"};
        Change put{db_, "UPDATE"};
        for (const JobEnd& end : ends) {
            JobRow* const row = find(rows, [&](const JobRow& r) { return r.id == end.id && r.claim == end.claim; });
            mine.push_back(row != nullptr);
            if (row == nullptr) continue;
            if (end.to == JobEnd::To::done) {
                done.erase(*row);
                rows.erase(rows.begin() + (row - rows.data()));
                continue;
            }
            row->due = end.to == JobEnd::To::dead ? JobRow::never_due : clock() + end.delay.count();
            row->attempts = end.attempts;
            row->error = end.error;
            row->holder.clear();
            put.put(*row);
        }
        done.write();
        put.write();
        return mine;
    }

    bool extend(std::string_view id, std::int64_t claim, Micros lease) {
        return update([&](const JobRow& r) { return r.id == id && r.claim == claim && !r.holder.empty(); },
                      [&](JobRow& r) { r.due = clock() + lease.count(); });
    }

    std::vector<JobRow> list(const JobFilter& filter) {
        std::vector<JobRow> rows = all();
        std::erase_if(rows, [&](const JobRow& row) {
            return (!filter.name.empty() && row.name != filter.name) || (filter.dead && !row.dead());
        });
        if (rows.size() > filter.limit) rows.resize(filter.limit);
        return rows;
    }

    std::vector<JobStats> stats() {
        const std::int64_t now = clock();
        std::vector<JobRow> rows = all();
        std::sort(rows.begin(), rows.end(), [](const JobRow& a, const JobRow& b) { return a.name < b.name; });
        std::vector<JobStats> all;
        for (const JobRow& row : rows) {
            if (all.empty() || all.back().name != row.name) all.emplace_back().name = row.name;
            JobStats& stats = all.back();
            ++(row.dead() ? stats.dead : row.due <= now ? stats.due : row.holder.empty() ? stats.later : stats.running);
            stats.oldest = (std::max)(stats.oldest, Micros{row.due < now ? now - row.due : 0});
        }
        return all;
    }

    bool revive(std::string_view id) {
        return update([&](const JobRow& r) { return r.id == id && r.dead(); },
                      [&](JobRow& r) {
                          r.due = clock();
                          r.attempts = 0;
                          r.error.clear();
                      });
    }
    bool cancel(std::string_view id) {
        return erase([&](const JobRow& r) { return r.id == id && (r.holder.empty() || r.due <= clock()); });
    }
    bool cancel(std::string_view name, std::string_view key) {
        return erase([&](const JobRow& r) { return waits(r, name, key); });
    }

private:
    static constexpr const char* prefix = "txhooks_job/";

    // One statement: the rows it changes, and the names of their jobs for the log.
    class Change {
    public:
        Change(testing::FakeBackend& db, const char* verb) : db_{db}, statement_{verb} { statement_ += " jobs: "; }
        void put(const JobRow& row) { add(row, encoded(row)); }
        void erase(const JobRow& row) { add(row, std::nullopt); }
        void write() {
            if (!rows_.empty()) db_.write(std::move(statement_), std::move(rows_));
        }

    private:
        void add(const JobRow& row, std::optional<std::string> value) {
            if (!rows_.empty()) statement_ += ", ";
            statement_ += row.name;
            rows_.emplace_back(prefix + row.id, std::move(value));
        }

        testing::FakeBackend& db_;
        std::string statement_;
        std::vector<std::pair<std::string, std::optional<std::string>>> rows_;
    };

    std::int64_t clock() const noexcept {
        return std::chrono::duration_cast<Micros>(db_.now().time_since_epoch()).count();
    }

    static bool waits(const JobRow& row, std::string_view name, std::string_view key) noexcept {
        return !key.empty() && row.key == key && row.name == name && row.claim == 0;
    }

    template <class Is>
    static JobRow* find(std::vector<JobRow>& rows, const Is& is) {
        const auto row = std::find_if(rows.begin(), rows.end(), is);
        return row == rows.end() ? nullptr : &*row;
    }
    template <class Is, class Act>
    bool update(const Is& is, const Act& act) {
        std::vector<JobRow> rows = all();
        JobRow* const row = find(rows, is);
        if (row == nullptr) return false;
        act(*row);
        Change change{db_, "UPDATE"};
        change.put(*row);
        change.write();
        return true;
    }
    template <class Is>
    bool erase(const Is& is) {
        std::vector<JobRow> rows = all();
        const JobRow* const row = find(rows, is);
        if (row == nullptr) return false;
        Change change{db_, "DELETE"};
        change.erase(*row);
        change.write();
        return true;
    }

    // By id, as their keys are.
    std::vector<JobRow> all() const {
        std::vector<JobRow> rows;
        for (const auto& [key, value] : db_.rows(prefix)) {
            rows.push_back(decoded(value));
            rows.back().id = key.substr(std::string_view{prefix}.size());
        }
        return rows;
    }

    // Each column is its length, a colon, and its bytes.
    static std::string encoded(const JobRow& row) {
        std::string all;
        for (const std::string& column :
             {row.name, std::to_string(row.due), std::to_string(row.claim), std::to_string(row.attempts), row.holder,
              row.key, row.error, std::to_string(row.created), row.payload})
            all += std::to_string(column.size()) + ':' + column;
        return all;
    }
    static JobRow decoded(const std::string& all) {
        std::size_t at = 0;
        const auto text = [&] {
            const std::size_t colon = all.find(':', at);
            const std::string column = all.substr(colon + 1, std::stoul(all.substr(at, colon - at)));
            at = colon + 1 + column.size();
            return column;
        };
        const auto number = [&] { return std::int64_t{std::stoll(text())}; };
        JobRow row;
        row.name = text();
        row.due = number();
        row.claim = number();
        row.attempts = number();
        row.holder = text();
        row.key = text();
        row.error = text();
        row.created = number();
        row.payload = text();
        return row;
    }

    testing::FakeBackend& db_;
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backends/detail/postgres.hpp>
#include <txhooks/outbox/detail/hex.hpp>
#include <txhooks/outbox/detail/readable_text.hpp>
#include <txhooks/outbox/job_store.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace txhooks::postgres::detail {

using JobCells = std::vector<std::vector<std::string>>;  // rows; NULL is ""

using txhooks::detail::hex;

// Of what encode(..., 'hex') returns.
inline std::string bytes_of(std::string_view hex) {
    const auto value = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::string bytes;
    bytes.reserve(hex.size() / 2);
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        bytes += static_cast<char>(value(hex[i]) << 4 | value(hex[i + 1]));
    return bytes;
}

// The same, whatever standard_conforming_strings and bytea_output are.
inline std::string job_bytes(std::string_view bytes) {
    return "E'\\\\x" + hex(bytes) + '\'';
}

// A literal that means the same whatever client_encoding and standard_conforming_strings are. "" is NULL.
inline std::string job_text(std::string_view utf8) {
    if (utf8.empty()) return "NULL";
    for (const char c : utf8)
        if (c < ' ' || c > '~' || c == '\'' || c == '\\')
            return "convert_from(decode('" + hex(utf8) + "', 'hex'), 'UTF8')";
    return '\'' + std::string{utf8} + '\'';
}

inline bool is_uuid(std::string_view id) noexcept {
    bool good = id.size() == 36;
    for (std::size_t i = 0; good && i != id.size(); ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        good = dash ? id[i] == '-' : (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f');
    }
    return good;
}
// NULL is what is no UUID: there is no such row, and that is no error.
inline std::string job_uuid(std::string_view id) {
    return is_uuid(id) ? '\'' + std::string{id} + "'::uuid" : "NULL::uuid";
}

// The table of jobs in PostgreSQL, 13 or later. `Driver` is made of what runs SQL there, and has
// JobCells run(const std::string&), the rows of the last of these statements.
template <class Driver>
class JobTable {
    using Micros = std::chrono::microseconds;

public:
    explicit JobTable(typename Driver::Session session) noexcept : driver_{session} {}

    // At a higher level what others claim at the same time would be an error, not a row to pass over; and whoever has
    // looked at rows could make a block of theirs fail that is serializable.
    static Begin begin_claim() noexcept { return {.isolation = Isolation::read_committed}; }
    static Begin begin_look() noexcept { return begin_claim(); }

    // Rows come and go at once, so vacuum may not wait for a share of the table. No fillfactor: every change is one of
    // `due`, which is in an index, so a new version gains nothing from room beside the old one.
    static std::string schema() {
        return "CREATE TABLE IF NOT EXISTS txhooks_job (\n"
               "    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),\n"
               "    name TEXT NOT NULL,\n"
               "    payload BYTEA NOT NULL,\n"
               "    due BIGINT NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,\n"
               "    claim BIGINT NOT NULL DEFAULT 0,\n"
               "    attempts BIGINT NOT NULL DEFAULT 0,\n"
               "    holder TEXT,\n"
               "    job_key TEXT,\n"
               "    error TEXT,\n"
               "    created BIGINT NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)\n"
               "    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,\n"
               "        autovacuum_vacuum_cost_delay = 0);\n"
               "CREATE INDEX IF NOT EXISTS txhooks_job_due ON txhooks_job (name, due);\n"
               "CREATE UNIQUE INDEX IF NOT EXISTS txhooks_job_key ON txhooks_job (name, job_key)\n"
               "    WHERE claim = 0 AND job_key IS NOT NULL;\n";
    }

    void insert(std::span<const NewJob> jobs, std::string_view holder) {
        if (!jobs.empty()) insert(insertion(jobs, holder));
    }
    void insert(const std::string& insertion) { driver_.run(insertion); }

    // What is not as the table has it by itself is planned sooner if it is not written down.
    static std::string insertion(std::span<const NewJob> jobs, std::string_view holder) {
        std::string sql = "INSERT INTO txhooks_job (id, name, payload, due, claim, attempts, holder, job_key) VALUES ";
        bool keyed = false;
        for (const NewJob& job : jobs) {
            const bool leased = job.lease != Micros{0};
            const Micros later = leased ? job.lease : job.delay;
            keyed = keyed || !job.key.empty();
            sql += (&job == jobs.data() ? "(" : ", (") + job_text(job.id) + ", " + job_text(job.name) + ", " +
                   job_bytes(job.payload) + ", " + (later == Micros{0} ? "DEFAULT" : after(later)) +
                   (leased ? ", 1, 1, " + job_text(holder) : ", DEFAULT, DEFAULT, NULL") + ", " + job_text(job.key) +
                   ')';
        }
        if (keyed)
            sql +=
                " ON CONFLICT (name, job_key) WHERE claim = 0 AND job_key IS NOT NULL DO UPDATE SET payload = "
                "excluded.payload, due = excluded.due";
        return sql + ';';
    }

    std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first) {
        std::string sql = "SELECT -1, " + clock() + ", false";
        for (std::size_t i = 0; i != names.size(); ++i)
            sql += " UNION ALL (SELECT " + std::to_string(i) +
                   ", due, holder IS NOT NULL FROM txhooks_job WHERE name = " + job_text(names[i].name) +
                   " AND due >= " + std::to_string(names[i].from) + " AND due < " + never() +
                   (names[i].in_order ? " ORDER BY id LIMIT 1)" : " ORDER BY due, id LIMIT 1)");
        std::int64_t now = 0;
        for (const std::vector<std::string>& row : driver_.run(sql + " ORDER BY 1")) {
            if (row[0] == "-1")
                now = number(row[1]);
            else
                first.push_back({names[static_cast<std::size_t>(number(row[0]))].name, number(row[1]), row[2] == "t"});
        }
        return now;
    }

    std::vector<JobRow> claim(const JobClaim& wanted) {
        const std::string name = job_text(wanted.name);
        // What others commit after this statement has begun is seen when a row is locked, and these are asked again.
        std::string which = "name = " + name + " AND due <= (SELECT now FROM clock) AND holder IS " +
                            (wanted.lapsed ? "NOT NULL" : "NULL");
        if (wanted.in_order) {
            // One claim at a time of such a name, so that each sees what the last one took.
            const std::string lock = std::to_string(claims_in_order) + ", hashtext(" + name + ')';
            if (!any("SELECT 1 WHERE pg_try_advisory_xact_lock(" + lock + ')')) return {};
            // Ids are not committed in their order: it may be a younger one that runs.
            which += " AND id = (SELECT id FROM txhooks_job WHERE name = " + name + " AND due < " + never() +
                     " ORDER BY id LIMIT 1) AND NOT EXISTS (SELECT FROM txhooks_job WHERE name = " + name +
                     " AND due > (SELECT now FROM clock) AND due < " + never() + " AND holder IS NOT NULL)";
        } else {
            which += " AND due >= " + std::to_string(wanted.from);
        }
        std::vector<JobRow> jobs = rows(
            "WITH clock AS MATERIALIZED (SELECT " + clock() +
                " AS now), picked AS MATERIALIZED (SELECT id, due FROM txhooks_job WHERE " + which +
                " ORDER BY due, id LIMIT " + std::to_string(wanted.limit) +
                " FOR UPDATE SKIP LOCKED), taken AS (UPDATE txhooks_job AS job SET due = (SELECT now FROM clock) + " +
                std::to_string(wanted.lease.count()) + ", holder = " + job_text(wanted.holder) +
                ", claim = claim + 1, attempts = attempts + 1 FROM picked WHERE job.id = picked.id RETURNING "
                "job.*, picked.due AS was) ",
            "taken ORDER BY was, id", "''::text, ", "''::text, ");
        for (JobRow& job : jobs) {
            job.name = wanted.name;
            job.holder = wanted.holder;
        }
        return jobs;
    }

    std::vector<bool> settle(std::span<const JobEnd> ends, bool lazily) {
        return settle_by(lazily ? not_waiting : "", ends);
    }

    bool extend(std::string_view id, std::int64_t claim, Micros lease) {
        return any("UPDATE txhooks_job SET due = " + after(lease) + " WHERE id = " + job_uuid(id) +
                   " AND claim = " + std::to_string(claim) + " AND holder IS NOT NULL RETURNING 1");
    }

    std::vector<JobRow> list(const JobFilter& filter) {
        std::string from = "txhooks_job WHERE true";
        if (!filter.name.empty()) from += " AND name = " + job_text(filter.name);
        if (filter.dead) from += " AND due = " + never();
        from += " ORDER BY id";
        if (filter.limit < static_cast<std::size_t>(JobRow::never_due))
            from += " LIMIT " + std::to_string(filter.limit);
        return rows("", from);
    }

    std::vector<JobStats> stats() {
        const JobCells cells =
            driver_.run("WITH clock AS MATERIALIZED (SELECT " + clock() +
                        " AS now) SELECT encode(convert_to(name, 'UTF8'), 'hex'), count(*) FILTER (WHERE due <= now), "
                        "count(*) FILTER (WHERE due > now AND due < " +
                        never() +
                        " AND holder IS NULL), "
                        "count(*) FILTER (WHERE due > now AND due < " +
                        never() +
                        " AND holder IS NOT NULL), "
                        "count(*) FILTER (WHERE due = " +
                        never() +
                        "), greatest(max(now) - min(due), 0) "
                        "FROM txhooks_job, clock GROUP BY name ORDER BY name COLLATE \"C\"");
        std::vector<JobStats> all;
        for (const std::vector<std::string>& row : cells) {
            const auto count = [&](std::size_t column) { return static_cast<std::size_t>(number(row[column])); };
            all.push_back({bytes_of(row[0]), count(1), count(2), count(3), count(4), Micros{number(row[5])}});
        }
        return all;
    }

    bool revive(std::string_view id) {
        return any("UPDATE txhooks_job SET due = " + clock() + ", attempts = 0, error = NULL WHERE id = " +
                   job_uuid(id) + " AND due = " + never() + " RETURNING 1");
    }
    bool cancel(std::string_view id) {
        return any("DELETE FROM txhooks_job WHERE id = " + job_uuid(id) + " AND (holder IS NULL OR due <= " + clock() +
                   ") RETURNING 1");
    }
    bool cancel(std::string_view name, std::string_view key) {
        return any("DELETE FROM txhooks_job WHERE name = " + job_text(name) + " AND job_key = " + job_text(key) +
                   " AND claim = 0 RETURNING 1");
    }

protected:
    // Several statements in one string are one transaction.
    static std::vector<bool> settle_alone_by(typename Driver::Session session, std::span<const JobEnd> ends) {
        return JobTable{session}.settle_by(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; " + std::string{not_waiting}, ends);
    }

    // Where it is there no lock is taken: CREATE INDEX would wait for all who write, and let nobody write meanwhile.
    // Where it is not, one at a time creates it: CREATE ... IF NOT EXISTS of two at once fails, and says so in a notice
    // otherwise.
    static void create_table_by(typename Driver::Session session) {
        Driver driver{session};
        if (!driver.run("SELECT 1 WHERE to_regclass(format('%I.txhooks_job_key', current_schema())) IS NOT NULL")
                 .empty())
            return;
        driver.run("SELECT set_config('client_min_messages', 'warning', true), pg_advisory_xact_lock(" +
                   std::to_string(creates_table) + "); " + schema());
    }

private:
    // Of advisory locks: "txhk" and one more.
    static constexpr std::int32_t claims_in_order = 0x7478686b;
    static constexpr std::int32_t creates_table = 0x7478686c;

    static std::string clock() { return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"; }
    static std::string after(Micros time) { return clock() + " + " + std::to_string(time.count()); }
    static std::string never() { return std::to_string(JobRow::never_due); }
    static std::int64_t number(const std::string& text) { return std::stoll(text); }

    static constexpr const char* not_waiting = "SET LOCAL synchronous_commit = off; ";

    std::vector<bool> settle_by(const std::string& first, std::span<const JobEnd> ends) {
        if (ends.empty()) return {};
        bool all_done = true;
        for (const JobEnd& end : ends) all_done = all_done && end.to == JobEnd::To::done;
        const JobCells settled = driver_.run(first + (all_done ? erase(ends) : erase_and_put(ends)));
        std::unordered_set<std::string_view> found;
        for (const std::vector<std::string>& row : settled) found.insert(row[0]);
        std::vector<bool> mine;
        for (const JobEnd& end : ends) mine.push_back(found.contains(end.id));
        return mine;
    }

    // Planned in a fraction of the time that the other takes. By `= ANY` the rows are looked up by their ids, however few
    // there seem to be in the table.
    static std::string erase(std::span<const JobEnd> ends) {
        if (ends.size() == 1)
            return "DELETE FROM txhooks_job WHERE id = " + job_uuid(ends[0].id) +
                   " AND claim = " + std::to_string(ends[0].claim) + " RETURNING id";
        std::string ids, claims;
        for (const JobEnd& end : ends) {
            if (!is_uuid(end.id)) continue;
            const char* const comma = ids.empty() ? "" : ",";
            ids += comma + std::string{end.id};
            claims += comma + std::to_string(end.claim);
        }
        return "DELETE FROM txhooks_job WHERE id = ANY('{" + ids +
               "}'::uuid[]) AND (id, claim) IN (SELECT * FROM unnest('{" + ids + "}'::uuid[], '{" + claims +
               "}'::bigint[])) RETURNING id";
    }

    // All rows are locked in the order of their ids before the first changes.
    static std::string erase_and_put(std::span<const JobEnd> ends) {
        std::string sql = "WITH ended (id, claim, done, due, attempts, error) AS MATERIALIZED (VALUES ";
        for (const JobEnd& end : ends) {
            const bool done = end.to == JobEnd::To::done;
            sql += (&end == ends.data() ? "(" : ", (") + job_uuid(end.id) + ", " + std::to_string(end.claim) +
                   "::bigint, " + (done ? "true" : "false") + ", " +
                   (done                         ? "0::bigint"
                    : end.to == JobEnd::To::dead ? never() + "::bigint"
                                                 : after(end.delay)) +
                   ", " + std::to_string(end.attempts) + "::bigint, " +
                   (done ? "NULL" : job_text(txhooks::detail::readable_text(end.error))) + "::text)";
        }
        return sql +
               "), mine AS MATERIALIZED (SELECT job.id FROM txhooks_job AS job JOIN ended USING (id, claim) ORDER BY "
               "job.id FOR UPDATE OF job), erased AS (DELETE FROM txhooks_job AS job USING mine JOIN ended USING (id) "
               "WHERE "
               "job.id = mine.id AND done RETURNING job.id), put AS (UPDATE txhooks_job AS job SET due = ended.due, "
               "attempts "
               "= ended.attempts, error = ended.error, holder = NULL FROM mine JOIN ended USING (id) WHERE job.id = "
               "mine.id "
               "AND NOT done RETURNING job.id) SELECT id FROM erased UNION ALL SELECT id FROM put";
    }

    bool any(const std::string& sql) { return !driver_.run(sql).empty(); }

    // In hex nothing depends on client_encoding or bytea_output.
    std::vector<JobRow> rows(const std::string& with, const std::string& from,
                             const char* name = "encode(convert_to(name, 'UTF8'), 'hex'), ",
                             const char* holder = "encode(convert_to(holder, 'UTF8'), 'hex'), ") {
        const JobCells cells = driver_.run(
            with + "SELECT id, " + name + "encode(payload, 'hex'), due, claim, attempts, " + holder +
            "encode(convert_to(job_key, 'UTF8'), 'hex'), encode(convert_to(error, 'UTF8'), 'hex'), created FROM " +
            from);
        std::vector<JobRow> all;
        for (const std::vector<std::string>& row : cells)
            all.push_back({row[0], bytes_of(row[1]), bytes_of(row[2]), number(row[3]), number(row[4]), number(row[5]),
                           bytes_of(row[6]), bytes_of(row[7]), bytes_of(row[8]), number(row[9])});
        return all;
    }

    Driver driver_;
};

// What is told in place of the server's error about a table that is not there: its first line, and what to do.
inline std::string job_table_missing(std::string_view text) {
    return std::string{text.substr(0, text.find('\n'))} +
           "; make it with Outbox::create_table(), or with the DDL of schema()";
}
inline constexpr const char* undefined_table = "42P01";

}  // namespace txhooks::postgres::detail

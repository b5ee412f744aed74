// SPDX-License-Identifier: MIT
#pragma once

/// Jobs that survive the process, over a `MYSQL*` to a MariaDB server, 10.6 or later. Not with `binlog_format =
/// STATEMENT`: InnoDB then refuses to write at READ COMMITTED, where jobs are claimed and settled.

#include <txhooks/backends/mariadb.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/outbox/detail/mariadb.hpp>

#include <mysql.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace txhooks {

template <>
class JobStore<MYSQL*> {
    using Micros = std::chrono::microseconds;
    using Result = mariadb::detail::JobResult;

public:
    explicit JobStore(MYSQL* db) noexcept : db_{db} {}

    // Gap locks would stop the INSERTs of others.
    static mariadb::Begin begin_claim() noexcept { return {.isolation = mariadb::Isolation::read_committed}; }
    // SERIALIZABLE would lock what is only looked at.
    static mariadb::Begin begin_look() noexcept { return begin_claim(); }

    static std::string schema() {
        const std::string now = clock;
        return "CREATE TABLE IF NOT EXISTS txhooks_job (\n"
               "    id CHAR(36) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL DEFAULT (UUID()) PRIMARY KEY,\n"
               "    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,\n"
               "    payload LONGBLOB NOT NULL,\n"
               "    due BIGINT NOT NULL DEFAULT (" +
               now +
               "),\n"
               "    claim BIGINT NOT NULL DEFAULT 0,\n"
               "    attempts BIGINT NOT NULL DEFAULT 0,\n"
               "    holder VARCHAR(191) CHARACTER SET ascii COLLATE ascii_nopad_bin,\n"
               "    job_key VARBINARY(255),\n"
               "    waiting_key VARBINARY(255) AS (IF(claim = 0, job_key, NULL)) PERSISTENT,\n"
               "    error TEXT CHARACTER SET utf8mb4,\n"
               "    created BIGINT NOT NULL DEFAULT (" +
               now +
               "),\n"
               "    INDEX txhooks_job_due (name, due, id),\n"
               "    UNIQUE INDEX txhooks_job_key (name, waiting_key)) ENGINE=InnoDB;\n";
    }

    static void create_table(MYSQL* db) {
        std::string sql = schema();
        sql.resize(sql.rfind(';'));
        JobStore{db}.send(sql);
    }

    void insert(std::span<const NewJob> jobs, std::string_view holder) { insert(insertion(jobs, holder)); }
    void insert(const std::string& insertion) { send({insertion.data(), insertion.size() - 1}); }

    static std::string insertion(std::span<const NewJob> jobs, std::string_view holder) {
        std::string sql = "INSERT INTO txhooks_job (id, name, payload, due, claim, attempts, holder, job_key) VALUES ";
        bool keyed = false;
        for (const NewJob& job : jobs) {
            const bool leased = job.lease != Micros{0};
            const char* const once = leased ? ",1,1," : ",0,0,";
            keyed = keyed || !job.key.empty();
            append(sql, &job == jobs.data() ? "(" : ",(", hex(job.id), ",", hex(job.name), ",", hex(job.payload), ",",
                   in(leased ? job.lease : job.delay), once, hex_or_null(leased ? holder : std::string_view{}), ",",
                   hex_or_null(job.key), ")");
        }
        if (keyed) sql += " ON DUPLICATE KEY UPDATE payload = VALUES(payload), due = VALUES(due)";
        return sql + ';';
    }

    std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first) {
        std::string sql;
        for (std::size_t i = 0; i < names.size(); ++i)
            append(sql, "(SELECT ", i, ", due, holder IS NOT NULL FROM txhooks_job ", names[i].in_order ? "" : by_due,
                   " WHERE name = ", hex(names[i].name), " AND due >= ", names[i].from, " AND due < ",
                   JobRow::never_due, " ORDER BY ", names[i].in_order ? "" : "due, ", "id LIMIT 1) UNION ALL ");
        append(sql, "(SELECT -1, ", clock, ", 0)");
        std::int64_t now = 0;
        for (Result rows = query(sql); rows.next();) {
            if (rows.number(0) < 0)
                now = rows.number(1);
            else
                first.push_back(
                    {names[static_cast<std::size_t>(rows.number(0))].name, rows.number(1), rows.number(2) != 0});
        }
        return now;
    }

    std::vector<JobRow> claim(const JobClaim& wanted) {
        std::string where;
        if (!wanted.in_order)
            append(where, by_due, " WHERE name = ", hex(wanted.name), " AND due >= ", wanted.from);
        else if (!first_in_order(wanted, where))
            return {};
        append(where, " AND due <= ", clock, " AND holder IS ", wanted.lapsed ? "NOT NULL" : "NULL");
        if (!wanted.lapsed) where += " AND (waiting_key IS NULL" + locked_keys(wanted, where) + ")";
        append(where, " ORDER BY due, id LIMIT ", wanted.limit, " FOR UPDATE SKIP LOCKED");
        std::int64_t now = 0;
        std::vector<JobRow> jobs = select(where, &now);
        if (jobs.empty()) return jobs;
        Rows taken;
        for (JobRow& job : jobs) {
            job.due = now + wanted.lease.count();
            job.holder = wanted.holder;
            ++job.claim;
            ++job.attempts;
            taken.add(hex(job.id), " AS id");
        }
        change("UPDATE ", taken.joined(), " SET due = ", jobs[0].due, ", holder = ", hex_or_null(wanted.holder),
               ", claim = claim + 1, attempts = attempts + 1");
        return jobs;
    }

    std::vector<bool> settle(std::span<const JobEnd> ends, bool) {
        if (is_one_done(ends)) return {erase_one(ends[0])};
        const std::unordered_map<std::string, std::int64_t> claims = lock(ends);
        std::vector<bool> mine;
        Rows done, others;
        for (const JobEnd& end : ends) {
            const auto found = claims.find(std::string{end.id});
            mine.push_back(found != claims.end() && found->second == end.claim);
            if (!mine.back()) continue;
            if (end.to == JobEnd::To::done)
                done.add(hex(end.id), " AS id");
            else
                others.add(hex(end.id), " AS id, ",
                           end.to == JobEnd::To::dead ? std::to_string(JobRow::never_due) : in(end.delay), " AS due, ",
                           end.attempts, " AS attempts, ", hex_or_null(end.error), " AS error");
        }
        if (!done.empty()) change("DELETE j FROM ", done.joined());
        if (!others.empty())
            change("UPDATE ", others.joined(),
                   " SET j.holder = NULL, j.due = l.due, j.attempts = l.attempts, j.error = l.error");
        return mine;
    }

    // One statement is a transaction of its own, and locks one row.
    static std::vector<bool> settle_alone(MYSQL* db, std::span<const JobEnd> ends) {
        if (!is_one_done(ends)) return {};
        return {JobStore{db}.erase_one(ends[0])};
    }

    bool extend(std::string_view id, std::int64_t claim, Micros lease) {
        // An UPDATE that changes nothing would count as none: always another time.
        return change("UPDATE txhooks_job AS j FORCE INDEX (PRIMARY) SET due = ", in(lease), " + (due = ", in(lease),
                      ") WHERE id = ", hex(id), " AND claim = ", claim, " AND holder IS NOT NULL") == 1;
    }

    std::vector<JobRow> list(const JobFilter& filter) {
        std::string where;
        append(where, "WHERE due >= ", filter.dead ? JobRow::never_due : INT64_MIN);
        if (!filter.name.empty()) append(where, " AND name = ", hex(filter.name));
        append(where, " ORDER BY id LIMIT ", filter.limit);
        return select(where);
    }

    std::vector<JobStats> stats() {
        std::string sql;
        append(sql,
               "SELECT name, SUM(due <= now), SUM(due > now AND due < never AND holder IS NULL), SUM(due > now AND due "
               "< never "
               "AND holder IS NOT NULL), SUM(due = never), MAX(now) - MIN(due) FROM txhooks_job, (SELECT ",
               clock, " AS now, ", JobRow::never_due, " AS never) AS times GROUP BY name ORDER BY name");
        std::vector<JobStats> all;
        for (Result rows = query(sql); rows.next();) {
            JobStats& stats = all.emplace_back();
            stats.name = rows.text(0);
            stats.due = static_cast<std::size_t>(rows.number(1));
            stats.later = static_cast<std::size_t>(rows.number(2));
            stats.running = static_cast<std::size_t>(rows.number(3));
            stats.dead = static_cast<std::size_t>(rows.number(4));
            if (rows.number(5) > 0) stats.oldest = Micros{rows.number(5)};
        }
        return all;
    }

    bool revive(std::string_view id) {
        return change("UPDATE txhooks_job AS j FORCE INDEX (PRIMARY) SET due = ", clock,
                      ", attempts = 0, error = NULL WHERE id = ", hex(id), " AND due = ", JobRow::never_due) == 1;
    }
    bool cancel(std::string_view id) {
        return change(erase, "id = ", hex(id), " AND (holder IS NULL OR due <= ", clock, ")") == 1;
    }
    bool cancel(std::string_view name, std::string_view key) {
        return change("DELETE j FROM txhooks_job AS j FORCE INDEX (txhooks_job_key) WHERE name = ", hex(name),
                      " AND waiting_key = ", hex(key)) == 1;
    }

private:
    static bool is_one_done(std::span<const JobEnd> ends) noexcept {
        return ends.size() == 1 && ends[0].to == JobEnd::To::done;
    }
    bool erase_one(const JobEnd& end) { return change(erase, "id = ", hex(end.id), " AND claim = ", end.claim) == 1; }

    // No time zone, and no hour that comes twice.
    static constexpr const char* clock = "TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', UTC_TIMESTAMP(6))";
    // A statement that looks at more rows than it takes locks them, and commits of others die of 1213: what it looks at
    // is never left to the optimizer.
    static constexpr const char* by_due = "FORCE INDEX (txhooks_job_due)";
    static constexpr const char* erase = "DELETE j FROM txhooks_job AS j FORCE INDEX (PRIMARY) WHERE ";

    static std::string hex(std::string_view bytes) { return mariadb::detail::hex(bytes); }
    static std::string hex_or_null(std::string_view bytes) { return mariadb::detail::hex_or_null(bytes); }
    static std::string in(Micros time) { return clock + (" + " + std::to_string(time.count())); }

    static void append_one(std::string& sql, std::string_view text) { sql += text; }
    template <std::integral Number>
    static void append_one(std::string& sql, Number number) {
        sql += std::to_string(number);
    }
    template <class... Parts>
    static void append(std::string& sql, const Parts&... parts) {
        (append_one(sql, parts), ...);
    }

    // Rows by id, with what is told of each. For IN a small table would be read as a whole: who settles would wait for
    // all who settle.
    class Rows {
    public:
        template <class... Columns>
        void add(const Columns&... fields) {
            append(list_, list_.empty() ? "SELECT " : " UNION ALL SELECT ", fields...);
        }
        bool empty() const noexcept { return list_.empty(); }
        std::string joined() const {
            return "(" + list_ +
                   ") AS l STRAIGHT_JOIN txhooks_job AS j FORCE INDEX (PRIMARY) ON j.id = CONVERT(l.id USING "
                   "ascii) COLLATE ascii_nopad_bin";
        }

    private:
        std::string list_;
    };

    void send(std::string_view sql) {
        if (mysql_real_query(db_, sql.data(), sql.size()) != 0) mariadb::detail::fail(db_);
    }
    Result query(std::string_view sql) {
        send(sql);
        MYSQL_RES* const rows = mysql_store_result(db_);
        if (rows == nullptr) mariadb::detail::fail(db_);
        return Result{rows};
    }
    // How many rows it changed.
    template <class... Parts>
    std::uint64_t change(const Parts&... parts) {
        std::string sql;
        append(sql, parts...);
        send(sql);
        return mysql_affected_rows(db_);
    }

    std::vector<JobRow> select(std::string_view where, std::int64_t* now = nullptr) {
        std::string sql;
        append(sql, "SELECT id, name, payload, due, claim, attempts, holder, job_key, CAST(error AS BINARY), created, ",
               clock, " FROM txhooks_job ", where);
        std::vector<JobRow> all;
        for (Result rows = query(sql); rows.next();) {
            all.push_back({rows.text(0), rows.text(1), rows.text(2), rows.number(3), rows.number(4), rows.number(5),
                           rows.text(6), rows.text(7), rows.text(8), rows.number(9)});
            if (now != nullptr) *now = rows.number(10);
        }
        return all;
    }

    // The keys of what may be claimed. An INSERT locks a key that waits in its index, then the row. Were the row locked
    // first here, and the key then taken out of the index, commits of others would die of 1213.
    std::string locked_keys(const JobClaim& wanted, const std::string& where) {
        std::string sql, keys;
        append(sql, "SELECT j.waiting_key FROM (SELECT waiting_key FROM txhooks_job ", where,
               " ORDER BY due, id LIMIT ", wanted.limit * 4,
               ") AS l STRAIGHT_JOIN txhooks_job AS j FORCE INDEX (txhooks_job_key) ON j.name = ", hex(wanted.name),
               " AND j.waiting_key = l.waiting_key LIMIT ", wanted.limit, " FOR UPDATE SKIP LOCKED");
        for (Result rows = query(sql); rows.next();)
            append(keys, keys.empty() ? " OR waiting_key IN (" : ",", hex(rows.text(0)));
        return keys.empty() ? keys : keys + ')';
    }

    // Which row is to be locked, as it was seen without a lock: who comes second finds it locked or changed, never the
    // next one. None while one runs: one with a lower id may have been committed since.
    bool first_in_order(const JobClaim& wanted, std::string& where) {
        const std::string name = hex(wanted.name);
        std::string sql;
        append(sql, "SELECT id, claim, holder IS NOT NULL, due <= ", clock,
               " AND NOT EXISTS (SELECT 1 FROM txhooks_job ", by_due, " WHERE name = ", name, " AND due > ", clock,
               " AND due < ", JobRow::never_due, " AND holder IS NOT NULL) FROM txhooks_job WHERE name = ", name,
               " AND due < ", JobRow::never_due, " ORDER BY id LIMIT 1");
        Result rows = query(sql);
        if (!rows.next() || (rows.number(2) != 0) != wanted.lapsed || rows.number(3) == 0) return false;
        append(where, "FORCE INDEX (PRIMARY) WHERE id = ", hex(rows.text(0)), " AND claim = ", rows.number(1));
        return true;
    }

    // Locks their rows, in this order: the claim of each that is there.
    std::unordered_map<std::string, std::int64_t> lock(std::span<const JobEnd> ends) {
        std::unordered_map<std::string, std::int64_t> claims;
        if (ends.empty()) return claims;
        Rows rows;
        for (const JobEnd& end : ends) rows.add(hex(end.id), " AS id");
        for (Result found = query("SELECT j.id, j.claim FROM " + rows.joined() + " FOR UPDATE"); found.next();)
            claims.emplace(found.text(0), found.number(1));
        return claims;
    }

    MYSQL* db_;
};

}  // namespace txhooks

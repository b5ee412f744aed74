// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backends/detail/sqlite.hpp>
#include <txhooks/outbox/job_store.hpp>

#include <sqlite3.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace txhooks::sqlite::detail {

// Statements of one connection that wait to be used again, each known by the address of its SQL.
class KeptStatements {
public:
    KeptStatements() = default;
    KeptStatements(const KeptStatements&) = delete;
    KeptStatements& operator=(const KeptStatements&) = delete;
    ~KeptStatements() { close(); }

    // From now on none stays: the connection may be closed before this dies.
    void close() noexcept {
        closed_ = true;
        for (Place& place : places_) sqlite3_finalize(std::exchange(place.statement, nullptr));
    }

    // Its place, also while it is in use.
    std::size_t place_of(const char* sql) {
        std::size_t at = 0;
        while (at != places_.size() && places_[at].sql != sql) ++at;
        if (at == places_.size()) places_.push_back({sql});
        return at;
    }
    // Null: it has not been prepared, or is in use.
    sqlite3_stmt* take(std::size_t place) noexcept { return std::exchange(places_[place].statement, nullptr); }
    void give_back(std::size_t place, sqlite3_stmt* statement) noexcept {
        if (!closed_ && places_[place].statement == nullptr)
            places_[place].statement = statement;
        else
            sqlite3_finalize(statement);
    }

private:
    struct Place {
        const char* sql;
        sqlite3_stmt* statement = nullptr;
    };

    std::vector<Place> places_;
    bool closed_ = false;
};

// The statement `head` + `sql`, taken from those that are kept for as long as it is used. `sql` is a literal. `Driver` makes
// exceptions.
template <class Driver>
class JobStatement {
public:
    JobStatement(KeptStatements& kept, sqlite3* db, const char* sql, std::string_view head = {})
        : kept_{kept}, place_{kept.place_of(sql)}, db_{db}, statement_{kept.take(place_)} {
        if (statement_ != nullptr) return;
        const std::string all = std::string{head} + sql;
        check(sqlite3_prepare_v3(db, all.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr));
    }
    JobStatement(const JobStatement&) = delete;
    JobStatement& operator=(const JobStatement&) = delete;
    ~JobStatement() {
        sqlite3_reset(statement_);           // what it says has been thrown by next()
        sqlite3_clear_bindings(statement_);  // what they refer to may be gone before the next run
        kept_.give_back(place_, statement_);
    }

    // Runs it, with these for its parameters: they stay where they are until it has run. True: there is a row.
    template <class... Values>
    bool run(const Values&... values) {
        sqlite3_reset(statement_);
        int at = 0;
        (bind(++at, values), ...);
        return next();
    }
    bool next() {
        const int rc = sqlite3_step(statement_);
        if (rc == SQLITE_ROW) return true;
        check(rc == SQLITE_DONE ? SQLITE_OK : rc);
        return false;
    }

    std::int64_t number(int column) noexcept { return sqlite3_column_int64(statement_, column); }
    // In UTF-8, also where the database is in UTF-16.
    std::string text(int column) {
        const bool is_text = sqlite3_column_type(statement_, column) == SQLITE_TEXT;
        const void* const bytes =
            is_text ? sqlite3_column_text(statement_, column) : sqlite3_column_blob(statement_, column);
        const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
        return bytes == nullptr ? std::string{} : std::string{static_cast<const char*>(bytes), size};
    }

private:
    void bind(int at, std::int64_t value) { check(sqlite3_bind_int64(statement_, at, value)); }
    void bind(int at, std::string_view value) {
        if (value.empty()) return check(sqlite3_bind_null(statement_, at));
        check(sqlite3_bind_text(statement_, at, value.data(), static_cast<int>(value.size()), SQLITE_STATIC));
    }
    void bind(int at, std::span<const char> value) {
        check(sqlite3_bind_blob(statement_, at, value.empty() ? "" : value.data(), static_cast<int>(value.size()),
                                SQLITE_STATIC));
    }

    void check(int rc) const {
        if (rc == SQLITE_OK) return;
        if (std::strstr(sqlite3_errmsg(db_), "no such table: txhooks_job") != nullptr)
            std::rethrow_exception(Driver::job_error(
                rc, "no such table: txhooks_job; make it with Outbox::create_table(), or with the DDL of schema()"));
        std::rethrow_exception(Driver::error(db_, rc, Outcome::rolled_back));
    }

    KeptStatements& kept_;
    std::size_t place_;
    sqlite3* db_;
    sqlite3_stmt* statement_;
};

// The table of jobs in SQLite, 3.34 or later. Its clock is the host's.
template <class Driver>
class JobTable {
    using Statement = JobStatement<Driver>;
    using Micros = std::chrono::microseconds;

public:
    using Kept = KeptStatements;

    JobTable(typename Driver::Handle db, Kept& kept) noexcept : db_{Driver::handle(db)}, kept_{kept} {}

    static Begin begin_claim() noexcept { return Begin::immediate; }
    // The first thing that it does is to write: it takes the lock as surely as the other.
    static Begin begin_settle() noexcept { return Begin::deferred; }

    // Not WITHOUT ROWID: that writes a page less for a small job, but compares whole rows where they are larger than a quarter
    // of a page: at a backlog of jobs of 100 kB an INSERT takes four times as long, a claim three times.
    // The index has the id, too: many may be due at the same time, and are then not sorted at each look.
    static std::string schema() {
        return "CREATE TABLE IF NOT EXISTS txhooks_job (\n"
               "    id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || "
               "'-4' ||\n"
               "        substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || "
               "hex(randomblob(6)))),\n"
               "    name TEXT NOT NULL,\n"
               "    payload BLOB NOT NULL,\n"
               "    due INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)),\n"
               "    claim INTEGER NOT NULL DEFAULT 0,\n"
               "    attempts INTEGER NOT NULL DEFAULT 0,\n"
               "    holder TEXT,\n"
               "    job_key TEXT,\n"
               "    error TEXT,\n"
               "    created INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS "
               "INTEGER)));\n"
               "CREATE INDEX IF NOT EXISTS txhooks_job_due ON txhooks_job (name, due, id);\n"
               "CREATE UNIQUE INDEX IF NOT EXISTS txhooks_job_key ON txhooks_job (name, job_key)\n"
               "    WHERE claim = 0 AND job_key IS NOT NULL;\n";
    }

    static void create_table(typename Driver::Handle backend) {
        sqlite3* const db = Driver::handle(backend);
        if (sqlite3_exec(db, schema().c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
            std::rethrow_exception(Driver::error(db, sqlite3_extended_errcode(db), Outcome::rolled_back));
    }

    void insert(std::span<const NewJob> jobs, std::string_view holder) {
        Statement statement{
            kept_, db_,
            "INSERT INTO txhooks_job (id, name, payload, due, claim, attempts, holder, job_key, created) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8) ON CONFLICT (name, job_key) WHERE claim = 0 AND "
            "job_key IS NOT NULL DO UPDATE SET payload = excluded.payload, due = excluded.due"};
        for (const NewJob& job : jobs) {
            const bool leased = job.lease != Micros{0};
            const std::int64_t now = clock();
            statement.run(job.id, job.name, std::span<const char>{job.payload},
                          now + (leased ? job.lease : job.delay).count(), std::int64_t{leased},
                          leased ? holder : std::string_view{}, job.key, now);
        }
    }

    std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first) {
        for (const JobsNamed& name : names) {
            Statement statement{kept_, db_,
                                name.in_order
                                    ? "SELECT due, holder IS NOT NULL FROM txhooks_job WHERE name = ?1 AND due "
                                      ">= ?2 AND due < ?3 ORDER BY id LIMIT 1"
                                    : "SELECT due, holder IS NOT NULL FROM txhooks_job WHERE name = ?1 AND due "
                                      ">= ?2 AND due < ?3 ORDER BY due, id LIMIT 1"};
            if (statement.run(name.name, name.from, JobRow::never_due))
                first.push_back({name.name, statement.number(0), statement.number(1) != 0});
        }
        return clock();
    }

    std::vector<JobRow> claim(const JobClaim& wanted) {
        const std::int64_t now = clock();
        std::vector<JobRow> jobs;
        if (wanted.in_order) {
            Statement held{
                kept_, db_,
                "SELECT 1 FROM txhooks_job WHERE name = ?1 AND due > ?2 AND due < ?3 AND holder IS NOT NULL LIMIT 1"};
            if (held.run(wanted.name, now, JobRow::never_due)) return {};  // it may be younger: committed earlier
            jobs = rows("WHERE name = ?1 AND due < ?2 ORDER BY id LIMIT 1", wanted.name, JobRow::never_due);
            if (!jobs.empty() && (jobs[0].due > now || jobs[0].holder.empty() == wanted.lapsed)) return {};
        } else {
            jobs = rows(
                wanted.lapsed
                    ? "WHERE name = ?1 AND due >= ?2 AND due <= ?3 AND holder IS NOT NULL ORDER BY due, id LIMIT ?4"
                    : "WHERE name = ?1 AND due >= ?2 AND due <= ?3 AND holder IS NULL ORDER BY due, id LIMIT ?4",
                wanted.name, wanted.from, now, static_cast<std::int64_t>(wanted.limit));
        }
        Statement take{
            kept_, db_,
            "UPDATE txhooks_job SET due = ?1, holder = ?2, claim = claim + 1, attempts = attempts + 1 WHERE id = ?3"};
        for (JobRow& job : jobs) {
            job.due = now + wanted.lease.count();
            job.holder = wanted.holder;
            ++job.claim;
            ++job.attempts;
            take.run(job.due, wanted.holder, std::string_view{job.id});
        }
        return jobs;
    }

    std::vector<bool> settle(std::span<const JobEnd> ends, bool) {
        std::vector<bool> mine;
        for (const JobEnd& end : ends) {
            const bool done = end.to == JobEnd::To::done;
            mine.push_back(
                done
                    ? changes("DELETE FROM txhooks_job WHERE id = ?1 AND claim = ?2", end.id, end.claim)
                    : changes("UPDATE txhooks_job SET due = ?3, attempts = ?4, error = ?5, holder = NULL WHERE id = ?1 "
                              "AND claim = ?2",
                              end.id, end.claim,
                              end.to == JobEnd::To::dead ? JobRow::never_due : clock() + end.delay.count(),
                              end.attempts, end.error));
        }
        return mine;
    }

    bool extend(std::string_view id, std::int64_t claim, Micros lease) {
        return changes("UPDATE txhooks_job SET due = ?3 WHERE id = ?1 AND claim = ?2 AND holder IS NOT NULL", id, claim,
                       clock() + lease.count());
    }

    std::vector<JobRow> list(const JobFilter& filter) {
        const auto limit = static_cast<std::int64_t>(filter.limit);
        return rows("WHERE (?1 IS NULL OR name = ?1) AND due >= ?2 ORDER BY id LIMIT ?3", filter.name,
                    filter.dead ? JobRow::never_due : INT64_MIN, limit);
    }

    std::vector<JobStats> stats() {
        Statement statement{
            kept_, db_,
            "SELECT name, sum(due <= ?1), sum(due > ?1 AND due < ?2 AND holder IS NULL), sum(due > ?1 AND due < "
            "?2 AND holder IS NOT NULL), sum(due = ?2), min(due) FROM txhooks_job GROUP BY name ORDER BY name"};
        std::vector<JobStats> all;
        const std::int64_t now = clock();
        for (bool row = statement.run(now, JobRow::never_due); row; row = statement.next()) {
            JobStats& stats = all.emplace_back();
            stats.name = statement.text(0);
            stats.due = static_cast<std::size_t>(statement.number(1));
            stats.later = static_cast<std::size_t>(statement.number(2));
            stats.running = static_cast<std::size_t>(statement.number(3));
            stats.dead = static_cast<std::size_t>(statement.number(4));
            if (statement.number(5) < now) stats.oldest = Micros{now - statement.number(5)};
        }
        return all;
    }

    bool revive(std::string_view id) {
        return changes("UPDATE txhooks_job SET due = ?2, attempts = 0, error = NULL WHERE id = ?1 AND due = ?3", id,
                       clock(), JobRow::never_due);
    }
    bool cancel(std::string_view id) {
        return changes("DELETE FROM txhooks_job WHERE id = ?1 AND (holder IS NULL OR due <= ?2)", id, clock());
    }
    bool cancel(std::string_view name, std::string_view key) {
        return changes("DELETE FROM txhooks_job WHERE name = ?1 AND job_key = ?2 AND claim = 0", name, key);
    }

    /// In WAL mode a settlement that is lost is one more run: no fsync for it.
    class Lazily {
    public:
        Lazily(typename Driver::Handle db, Kept& kept) : db_{Driver::handle(db)} {
            if (sqlite3_get_autocommit(db_) == 0) return;  // it cannot be changed in a transaction
            const std::int64_t level = synchronous();
            if (level < full) return;
            Statement mode{kept, db_, "PRAGMA main.journal_mode"};
            if (!mode.run() || mode.text(0) != "wal") return;
            before_ = level;
            set(normal);
        }
        Lazily(const Lazily&) = delete;
        Lazily& operator=(const Lazily&) = delete;
        ~Lazily() {
            if (before_ != 0) set(before_);
        }

    private:
        static constexpr std::int64_t normal = 1, full = 2;
        // It says what was true when it was prepared: not kept.
        std::int64_t synchronous() const {
            Kept none;
            Statement level{none, db_, "PRAGMA main.synchronous"};
            return level.run() ? level.number(0) : normal;
        }
        void set(std::int64_t level) noexcept {
            char sql[] = "PRAGMA main.synchronous = 0";
            sql[sizeof sql - 2] = static_cast<char>('0' + level);
            sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
        }

        sqlite3* db_;
        std::int64_t before_ = 0;
    };

private:
    static std::int64_t clock() noexcept {
        return std::chrono::duration_cast<Micros>(std::chrono::system_clock::now().time_since_epoch()).count();
    }

    template <class... Values>
    bool changes(const char* sql, const Values&... values) {
        Statement statement{kept_, db_, sql};
        statement.run(values...);
        return sqlite3_changes(db_) != 0;
    }

    template <class... Values>
    std::vector<JobRow> rows(const char* where, const Values&... values) {
        Statement statement{
            kept_, db_, where,
            "SELECT id, name, payload, due, claim, attempts, holder, job_key, error, created FROM txhooks_job "};
        std::vector<JobRow> all;
        for (bool row = statement.run(values...); row; row = statement.next())
            all.push_back({statement.text(0), statement.text(1), statement.text(2), statement.number(3),
                           statement.number(4), statement.number(5), statement.text(6), statement.text(7),
                           statement.text(8), statement.number(9)});
        return all;
    }

    sqlite3* db_;
    Kept& kept_;
};

}  // namespace txhooks::sqlite::detail

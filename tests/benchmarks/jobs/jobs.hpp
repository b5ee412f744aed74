// SPDX-License-Identifier: MIT
#pragma once

// What the benchmarks of jobs share: the jobs, the engines, times.

#include "support/mariadb_server.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/outbox/libpq.hpp>
#include <txhooks/outbox/mariadb.hpp>
#include <txhooks/outbox/sqlite3.hpp>

#include <sqlite3.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace benchmarks {

// ---- Times

using Clock = std::chrono::steady_clock;

inline double micros(Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
}

/// The value below which `share` of them are.
inline double quantile(std::vector<double> all, double share) {
    if (all.empty()) throw std::runtime_error{"nothing was measured"};
    std::sort(all.begin(), all.end());
    return all[static_cast<std::size_t>(share * static_cast<double>(all.size() - 1) + 0.5)];
}
inline double median(const std::vector<double>& all) {
    return quantile(all, 0.5);
}

/// What a program tells jobs.py.
inline void figure(const std::string& name, double value) {
    std::printf("%s %.9g\n", name.c_str(), value);
    std::fflush(stdout);
}

// ---- Jobs

struct Mail {
    std::string address = "ann@example.org";
    friend std::string to_payload(const Mail& job) { return job.address; }
    friend void from_payload(std::string_view stored, Mail& job) { job.address = stored; }
};
/// Is run on the committing thread.
struct Here : Mail {
    static constexpr const char* job_name = "here";
};
/// Is left to whoever looks.
struct Elsewhere : Mail {
    static constexpr const char* job_name = "elsewhere";
};

// ---- Engines: a connection to the database `name`, which is made if it is not there

/// The disk that programs are started on, not the memory that /tmp may be.
class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string folder = (std::filesystem::current_path() / "jobs.XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        path_ = folder;
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    operator const std::filesystem::path&() const noexcept { return path_; }

private:
    std::filesystem::path path_;
};

class Sqlite {
public:
    using Db = txhooks::HookedConnection<sqlite3*>;

    Sqlite(const std::filesystem::path& folder, const std::string& name) {
        sqlite3* db = nullptr;
        const int rc = sqlite3_open((folder / (name + ".db")).c_str(), &db);
        handle_.reset(db);
        if (rc != SQLITE_OK) throw std::runtime_error{"cannot open a database in " + folder.string()};
        sqlite3_busy_timeout(db, 10000);
        execute("PRAGMA journal_mode = WAL");
        execute("CREATE TABLE IF NOT EXISTS priced (n INTEGER PRIMARY KEY)");
        sqlite3_stmt* insert = nullptr;
        sqlite3_prepare_v2(db, "INSERT INTO priced VALUES (NULL)", -1, &insert, nullptr);
        insert_.reset(insert);
    }

    sqlite3* backend() const noexcept { return handle_.get(); }
    void execute(const std::string& sql) {
        if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
            throw std::runtime_error{sql + ": " + sqlite3_errmsg(handle_.get())};
    }
    void insert() {
        sqlite3_step(insert_.get());
        if (sqlite3_reset(insert_.get()) != SQLITE_OK) throw std::runtime_error{sqlite3_errmsg(handle_.get())};
    }
    /// Whether COMMIT waits for the disk.
    void set_durable(bool durable) { execute(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL"); }

    // For filling a table: rows (n) from 1 to `count`, an id that rises with n, the clock of the table.
    static std::string numbers(std::size_t count) {
        return "(WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < " + std::to_string(count) +
               ") SELECT n FROM r)";
    }
    static std::string id(const std::string& n) { return "printf('00000000-0000-7000-8000-%012x', " + n + ")"; }
    static std::string clock() { return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"; }
    void settle_down() {}

private:
    struct Close {
        void operator()(sqlite3* db) const noexcept { sqlite3_close(db); }
        void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
    };
    std::unique_ptr<sqlite3, Close> handle_;
    std::unique_ptr<sqlite3_stmt, Close> insert_;
};

class Postgres {
public:
    using Db = txhooks::HookedConnection<PGconn*>;

    Postgres(const std::filesystem::path&, const std::string& name) : handle_{connect(name)} {
        execute("CREATE TABLE IF NOT EXISTS priced (n SERIAL PRIMARY KEY)");
    }

    PGconn* backend() const noexcept { return handle_; }
    void execute(const std::string& sql) { support::execute(handle_, sql); }
    void insert() { execute("INSERT INTO priced DEFAULT VALUES"); }
    void set_durable(bool durable) {
        execute(durable ? "SET synchronous_commit = on" : "SET synchronous_commit = off");
    }

    static std::string numbers(std::size_t count) { return "generate_series(1, " + std::to_string(count) + ") AS n"; }
    static std::string id(const std::string& n) {
        return "('00000000-0000-7000-8000-' || lpad(to_hex(" + n + "), 12, '0'))::uuid";
    }
    static std::string clock() { return "(extract(epoch FROM now()) * 1000000)::bigint"; }
    void settle_down() { execute("VACUUM ANALYZE txhooks_job"); }
    void hold_snapshot() { execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1"); }

private:
    static std::string connect(const std::string& name) {
        support::attempt(support::PostgresHandle{}, "CREATE DATABASE " + name);
        return support::postgres_server("dbname=" + name);
    }
    support::PostgresHandle handle_;
};

class Mariadb {
public:
    using Db = txhooks::HookedConnection<MYSQL*>;

    Mariadb(const std::filesystem::path&, const std::string& name) {
        execute("CREATE DATABASE IF NOT EXISTS " + name);
        mysql_select_db(handle_, name.c_str());
        execute("CREATE TABLE IF NOT EXISTS priced (n INT AUTO_INCREMENT PRIMARY KEY)");
    }

    MYSQL* backend() { return handle_.get(); }
    void execute(const std::string& sql) { support::run(handle_, sql); }
    void insert() { execute("INSERT INTO priced () VALUES ()"); }
    void set_durable(bool durable) {
        execute(durable ? "SET GLOBAL innodb_flush_log_at_trx_commit = 1"
                        : "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    }

    static std::string numbers(std::size_t count) {
        return "(SELECT seq AS n FROM seq_1_to_" + std::to_string(count) + ") AS numbers";
    }
    static std::string id(const std::string& n) {
        return "CONCAT('00000000-0000-7000-8000-', LPAD(HEX(" + n + "), 12, '0'))";
    }
    static std::string clock() {
        return "TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', UTC_TIMESTAMP(6))";
    }
    void settle_down() { execute("ANALYZE TABLE txhooks_job"); }
    void hold_snapshot() { execute("START TRANSACTION WITH CONSISTENT SNAPSHOT"); }

private:
    support::Handle handle_{{.read_timeout = 600}};  // filling takes a while
};

/// Calls `act.template operator()<Engine>()` with the engine of that name; returns an exit code.
template <class Act>
int with_engine(std::string_view name, const Act& act) {
    try {
        if (name == "sqlite") return act.template operator()<Sqlite>(), EXIT_SUCCESS;
        if (name == "postgres") return act.template operator()<Postgres>(), EXIT_SUCCESS;
        if (name == "mariadb") return act.template operator()<Mariadb>(), EXIT_SUCCESS;
        std::fprintf(stderr, "sqlite, postgres or mariadb\n");
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
    }
    return EXIT_FAILURE;
}

}  // namespace benchmarks

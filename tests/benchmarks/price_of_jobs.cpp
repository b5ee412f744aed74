// SPDX-License-Identifier: MIT

// What a job costs a block: one INSERT, over one INSERT and a job, over one INSERT and a job that is run and completed here.
// In turns, within one run; with the disk waited for and without. Prints a table. `run --jobs` gives it servers.

#include "support/mariadb_server.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/outbox/libpq.hpp>
#include <txhooks/outbox/mariadb.hpp>
#include <txhooks/outbox/sqlite3.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Job {
    std::string address = "ann@example.org";
    friend std::string to_payload(const Job& job) { return job.address; }
    friend void from_payload(std::string_view stored, Job& job) { job.address = stored; }
};
struct Later : Job {
    static constexpr const char* job_name = "later";
};
struct Here : Job {
    static constexpr const char* job_name = "here";
};

class Sqlite {
public:
    using Db = txhooks::HookedConnection<sqlite3*>;
    explicit Sqlite(bool durable) {
        std::string folder = (std::filesystem::current_path() / "price.XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        folder_ = folder;
        if (sqlite3_open((folder_ / "price.db").c_str(), &handle_) != SQLITE_OK)
            throw std::runtime_error{"cannot open"};
        execute("PRAGMA journal_mode = WAL");
        execute(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
        execute("CREATE TABLE priced (n INTEGER PRIMARY KEY)");
        sqlite3_prepare_v2(handle_, "INSERT INTO priced VALUES (NULL)", -1, &insert_, nullptr);
    }
    Sqlite(const Sqlite&) = delete;
    Sqlite& operator=(const Sqlite&) = delete;
    ~Sqlite() {
        sqlite3_finalize(insert_);
        sqlite3_close(handle_);
        std::filesystem::remove_all(folder_);
    }
    sqlite3* backend() { return handle_; }
    void execute(const char* sql) { sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr); }
    void insert() {
        sqlite3_step(insert_);
        sqlite3_reset(insert_);
    }

private:
    std::filesystem::path folder_;
    sqlite3* handle_ = nullptr;
    sqlite3_stmt* insert_ = nullptr;
};

class Postgres {
public:
    using Db = txhooks::HookedConnection<PGconn*>;
    explicit Postgres(bool durable) {
        execute(durable ? "SET synchronous_commit = on" : "SET synchronous_commit = off");
        execute("SET client_min_messages = error");
        execute("CREATE TABLE IF NOT EXISTS priced (n SERIAL PRIMARY KEY)");
    }
    PGconn* backend() { return handle_; }
    void execute(const char* sql) { PQclear(PQexec(handle_, sql)); }
    void insert() { execute("INSERT INTO priced DEFAULT VALUES"); }

private:
    support::PostgresHandle handle_;
};

class Mariadb {
public:
    using Db = txhooks::HookedConnection<MYSQL*>;
    explicit Mariadb(bool durable) {
        execute(durable ? "SET GLOBAL innodb_flush_log_at_trx_commit = 1"
                        : "SET GLOBAL innodb_flush_log_at_trx_commit = 2");
        execute("CREATE TABLE IF NOT EXISTS priced (n INT AUTO_INCREMENT PRIMARY KEY)");
    }
    MYSQL* backend() { return handle_; }
    void execute(std::string_view sql) { mysql_real_query(handle_, sql.data(), sql.size()); }
    void insert() { execute("INSERT INTO priced () VALUES ()"); }

private:
    support::Handle handle_;
};

template <class Engine>
void measure(const char* name, bool durable) {
    using Clock = std::chrono::steady_clock;
    constexpr int rounds = 15, blocks = 100;
    Engine engine{durable};
    typename Engine::Db db{engine.backend()};
    txhooks::JobTypes<typename Engine::Db> types;
    std::size_t ran = 0;
    types.template handle<Here>([&](const Here& job) { ran += job.address.size() != 0; });
    txhooks::Outbox<typename Engine::Db> outbox{db, types};
    outbox.create_table();
    std::array<std::vector<double>, 3> times;
    for (int round = 0; round <= rounds; ++round) {
        for (std::size_t kind = 0; kind != 3; ++kind) {
            const Clock::time_point begun = Clock::now();
            for (int n = 0; n != blocks; ++n) {
                db.atomic([&] {
                    engine.insert();
                    if (kind == 1) outbox.add(Later{});
                    if (kind == 2) outbox.add(Here{});
                });
            }
            const double time = std::chrono::duration<double, std::micro>(Clock::now() - begun).count() / blocks;
            if (round != 0) times[kind].push_back(time);  // the first one warms up
            engine.execute("DELETE FROM txhooks_job");
        }
    }
    if (ran != static_cast<std::size_t>((rounds + 1) * blocks)) throw std::runtime_error{"not every job was run"};
    const auto median = [](std::vector<double> all) {
        std::sort(all.begin(), all.end());
        return all[all.size() / 2];
    };
    const auto ratio = [&](std::size_t kind) {
        std::vector<double> ratios;
        for (std::size_t i = 0; i != times[0].size(); ++i) ratios.push_back(times[kind][i] / times[0][i]);
        return median(ratios);
    };
    std::printf("| %s, %s | %.0f | %.2f | %.2f |\n", name, durable ? "durable" : "not durable", median(times[0]),
                ratio(1), ratio(2));
    std::fflush(stdout);
}

}  // namespace

int main() {
    std::puts(
        "| | block with one INSERT, µs | and a job, x | and a job run and completed here, x |\n|---|---|---|---|");
    for (const bool durable : {true, false}) {
        measure<Sqlite>("SQLite, WAL", durable);
        measure<Postgres>("PostgreSQL, libpq", durable);
        measure<Mariadb>("MariaDB", durable);
    }
}

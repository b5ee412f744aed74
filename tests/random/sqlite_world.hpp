// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"
#include "trouble.hpp"

#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/txhooks.hpp>

#include <sqlite3.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace random_programs {

/// An open SQLite database. What fails throws `std::runtime_error`.
class SqliteHandle {
public:
    explicit SqliteHandle(const std::string& path) {
        if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) throw std::runtime_error{"cannot open " + path};
    }
    SqliteHandle(const SqliteHandle&) = delete;
    SqliteHandle& operator=(const SqliteHandle&) = delete;
    ~SqliteHandle() {
        sqlite3_finalize(statement_);
        sqlite3_close(db_);
    }

    sqlite3* get() const { return db_; }
    bool try_to(const char* sql) { return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK; }
    void execute(const char* sql) {
        if (not try_to(sql)) throw std::runtime_error{sqlite3_errmsg(db_)};
    }

    /// Runs the one statement that this handle keeps; returns whether there is a row.
    bool with(const char* sql, unsigned number) {
        if (statement_ == nullptr and sqlite3_prepare_v2(db_, sql, -1, &statement_, nullptr) != SQLITE_OK)
            throw std::runtime_error{sqlite3_errmsg(db_)};
        sqlite3_bind_int64(statement_, 1, number);
        const int rc = sqlite3_step(statement_);
        sqlite3_reset(statement_);
        if (rc != SQLITE_ROW and rc != SQLITE_DONE) throw std::runtime_error{sqlite3_errmsg(db_)};
        return rc == SQLITE_ROW;
    }

private:
    sqlite3* db_ = nullptr;
    sqlite3_stmt* statement_ = nullptr;
};

/// A directory that is gone when the program ends; in memory where the system has such a place.
inline const std::filesystem::path& scratch_directory() {
    static const struct Scratch {
        std::filesystem::path path;
        Scratch() {
            const std::filesystem::path shm{"/dev/shm"};
            const auto base = access(shm.c_str(), W_OK) == 0 ? shm : std::filesystem::temp_directory_path();
            path = base / ("txhooks_random." + std::to_string(getpid()));
            std::filesystem::create_directories(path);
        }
        ~Scratch() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    } scratch;
    return scratch.path;
}

/// A SQLite file: failures injected around the verbs, and those the engine has by itself.
template <class Adapter>
class SqliteWorld {
public:
    using Db = txhooks::HookedConnection<sqlite3*, txhooks::testing::FaultyAdapter<Adapter>>;
    static constexpr bool counts = std::is_same_v<Adapter, txhooks::sqlite::Counting<sqlite3*>>;
    static constexpr bool has_begin_modes = true;
    static constexpr bool has_markers = false;
    static constexpr bool proves_losses = counts;
    static constexpr bool has_unknown_losses = true;
    static constexpr const char* name = counts ? "counting" : "sqlite";

    explicit SqliteWorld(std::uint32_t setting) {
        constexpr const char* journals[] = {"PRAGMA journal_mode = WAL", "PRAGMA journal_mode = MEMORY",
                                            "PRAGMA journal_mode = TRUNCATE"};
        handle_.execute(journals[setting % 3]);
        handle_.execute(
            "PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON; CREATE TABLE rows (id INTEGER PRIMARY KEY);"
            "CREATE TABLE blobs (blob);"
            "CREATE TABLE children (parent REFERENCES rows (id) DEFERRABLE INITIALLY DEFERRED);"
            "INSERT INTO rows VALUES (-1);");
    }

    Db& db() { return db_; }
    void put(unsigned row) { handle_.with("INSERT INTO rows VALUES (?)", row); }
    bool sees(unsigned row) { return reader_.with("SELECT 1 FROM rows WHERE id = ?", row); }

    template <class Options>
    static void set_begin(Options& options, unsigned mode) {
        if constexpr (std::is_same_v<decltype(options.begin), txhooks::sqlite::Begin>)
            options.begin = static_cast<txhooks::sqlite::Begin>(mode);
    }

    static bool notices_exchange() { return counts; }

    Said trouble(std::uint32_t number, bool in_block) {
        Numbers numbers{number};
        switch (numbers.below(in_block ? 16 : 8)) {
            default:
                return plan_faults(db_.adapter().faults, numbers);
            case 3:
                other_.try_to("BEGIN IMMEDIATE");
                return harmless("another connection holds a write lock");
            case 4:
                other_.try_to("BEGIN; SELECT * FROM rows");
                return harmless("another connection holds a read lock");
            case 5:
                other_.try_to("ROLLBACK");
                return harmless("another connection lets go");
            case 6:
                return veto_or_wal(numbers);
            case 7:
                interrupt_in_ = static_cast<int>(1 + numbers.below(12));
                sqlite3_progress_handler(handle_.get(), 1, &SqliteWorld::on_progress, this);
                return {"a statement will be interrupted"};
            case 8:
            case 9:
                return statement("INSERT INTO children VALUES (-2)", true);
            case 10:
                return statement("INSERT OR ROLLBACK INTO rows VALUES (-1)");
            case 11:
                return statement("INSERT INTO rows VALUES (-1)", true);
            case 12:
                return fill_up();
            case 13:
            case 14:
                return raw(raw_statements[numbers.below(5)]);
            case 15:
                if (not counts or numbers.below(4) != 0) return raw(raw_statements[numbers.below(5)]);
                sqlite3_commit_hook(handle_.get(), nullptr, nullptr);
                return {"the commit hook slot is taken back"};
        }
    }

    void settle(std::uint32_t number) {
        if (number % 4 == 0) return;
        other_.try_to("ROLLBACK");
        if (number % 4 != 1) handle_.try_to("DELETE FROM children");
    }

    bool foreign_begin() { return handle_.try_to("BEGIN"); }
    void foreign_end() { handle_.try_to("ROLLBACK"); }

    void after_step() {
        if (++steps_ % 3 == 0) other_.try_to("ROLLBACK");
    }

    void recover() {
        stop_hindering();
        other_.try_to("ROLLBACK");
        handle_.try_to("ROLLBACK");
    }

private:
    Said statement(const char* sql, bool harmless = false) { return {sql, not handle_.try_to(sql), false, harmless}; }
    static Said harmless(const char* what) { return {what, false, false, true}; }
    Said raw(const char* sql) { return {sql, not handle_.try_to(sql), true}; }

    // The user's own hooks: one that forbids the next commit, one that fails after it.
    Said veto_or_wal(Numbers& numbers) {
        if (not counts and numbers.below(2) == 0) {
            sqlite3_commit_hook(handle_.get(), &SqliteWorld::veto, this);
            return {"the next COMMIT will be forbidden"};
        }
        sqlite3_wal_hook(handle_.get(), &SqliteWorld::fail_after_commit, this);
        return {"the write-ahead log hook will fail after the next COMMIT"};
    }

    Said fill_up() {
        handle_.try_to("PRAGMA max_page_count = 1");  // as many as there are
        const bool failed = not handle_.try_to("INSERT INTO blobs VALUES (zeroblob(100000))");
        handle_.try_to("PRAGMA max_page_count = 1000000");
        return {"the disk is full", failed};
    }

    void stop_hindering() {
        sqlite3_progress_handler(handle_.get(), 0, nullptr, nullptr);
        sqlite3_wal_hook(handle_.get(), nullptr, nullptr);
        if (not counts) sqlite3_commit_hook(handle_.get(), nullptr, nullptr);
    }

    static int veto(void* self) {
        sqlite3_commit_hook(static_cast<SqliteWorld*>(self)->handle_.get(), nullptr, nullptr);
        return 1;
    }
    static int fail_after_commit(void* self, sqlite3*, const char*, int) {
        sqlite3_wal_hook(static_cast<SqliteWorld*>(self)->handle_.get(), nullptr, nullptr);
        return SQLITE_FULL;
    }
    static int on_progress(void* self) { return --static_cast<SqliteWorld*>(self)->interrupt_in_ == 0 ? 1 : 0; }

    static std::string fresh_path() {
        const std::string path = scratch_directory() / "random.db";
        for (const char* suffix : {"", "-journal", "-wal", "-shm"}) std::remove((path + suffix).c_str());
        return path;
    }

    const std::string path_ = fresh_path();
    SqliteHandle handle_{path_};
    SqliteHandle other_{path_};   // holds locks
    SqliteHandle reader_{path_};  // sees what is committed
    Db db_{handle_.get()};
    int interrupt_in_ = 0;
    unsigned steps_ = 0;
};

}  // namespace random_programs

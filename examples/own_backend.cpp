// SPDX-License-Identifier: MIT
//
// Your own connection class, two ways: it has the verbs as members, of which commit() says what is proven, and works as
// it stands; or it only speaks SQL and gets an adapter of two functions.

#include <txhooks/txhooks.hpp>

#include <sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

// 1. A type with the verbs: a file that whole groups of lines are appended to.
class Journal {
public:
    Journal() {
        if (file_ == nullptr) throw std::runtime_error{"cannot open a journal"};
    }
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;
    ~Journal() { std::fclose(file_); }

    void begin() { open_ = true; }
    txhooks::CommitResult commit() noexcept {
        open_ = false;
        bool written = true;
        for (const std::string& line : pending_) written = written && std::fprintf(file_, "%s\n", line.c_str()) > 0;
        pending_.clear();
        written = std::fflush(file_) == 0 && written;
        // What failed half way may be there in part: nothing is proven.
        return {written ? txhooks::Outcome::committed : txhooks::Outcome::unknown};
    }
    void rollback() {
        pending_.clear();
        open_ = false;
    }
    txhooks::ConnectionState state() const noexcept {
        return open_ ? txhooks::ConnectionState::open : txhooks::ConnectionState::idle;
    }

    void write(std::string line) { pending_.push_back(std::move(line)); }

    // What is in the file.
    std::string read() const {
        char line[64] = "";
        const bool read = std::fseek(file_, 0, SEEK_SET) == 0 && std::fgets(line, sizeof line, file_) != nullptr;
        return read ? line : "nothing";
    }

private:
    std::FILE* file_ = std::tmpfile();
    std::vector<std::string> pending_;
    bool open_ = false;
};

// 2. A type that speaks SQL (here a thin one over SQLite, standing for any driver).
class MyDatabase {
public:
    MyDatabase() { sqlite3_open(":memory:", &handle_); }
    MyDatabase(const MyDatabase&) = delete;
    MyDatabase& operator=(const MyDatabase&) = delete;
    ~MyDatabase() { sqlite3_close(handle_); }

    void run(const char* sql) {
        if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
            throw std::runtime_error{sqlite3_errmsg(handle_)};
    }
    bool in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }

private:
    sqlite3* handle_ = nullptr;
};

template <>
struct txhooks::BackendAdapter<MyDatabase> : txhooks::SqlAdapter<txhooks::BackendAdapter<MyDatabase>> {
    explicit BackendAdapter(MyDatabase& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }
    txhooks::ConnectionState state() const noexcept {
        return db.in_transaction() ? txhooks::ConnectionState::open : txhooks::ConnectionState::idle;
    }
    MyDatabase& db;
};

int main() {
    std::string ran;

    txhooks::HookedConnection<Journal> journal;
    journal.atomic([&] {
        journal.write("hello");
        journal.on_commit([&] {
            std::printf("  in the journal: %s", journal.read().c_str());
            ran += "journal ";
        });
    });

    txhooks::HookedConnection<MyDatabase> db;
    db.atomic([&] {
        db.run("CREATE TABLE t (x)");
        db.on_commit([&] { ran += "sql "; });
        try {
            db.atomic([&] {
                db.on_commit([&] { ran += "never "; });
                db.run("INSERT INTO nowhere VALUES (1)");
            });
        } catch (const std::runtime_error& e) {
            std::printf("  savepoint rolled back: %s\n", e.what());
        }
    });

    std::printf("hooks that ran: %s\n", ran.c_str());
    return ran == "journal sql " ? EXIT_SUCCESS : EXIT_FAILURE;
}

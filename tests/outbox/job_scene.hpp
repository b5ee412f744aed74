// SPDX-License-Identifier: MIT
#pragma once

// Jobs on a file of SQLite, and what a second connection sees of them.

#include <txhooks/outbox/sqlite3.hpp>

#include "support/sqlite_database.hpp"

#include <charconv>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace support {

using JobDb = txhooks::HookedConnection<sqlite3*>;

template <int kind>
struct Numbered {
    int number = 0;

    friend std::string to_payload(const Numbered& job) { return std::to_string(job.number); }
    friend void from_payload(std::string_view stored, Numbered& job) {
        const auto end = stored.data() + stored.size();
        if (std::from_chars(stored.data(), end, job.number).ptr != end or stored.empty())
            throw std::runtime_error{"not a number"};
    }
};

/// Runs on the committing thread.
struct Mail : Numbered<0> {
    static constexpr const char* job_name = "mail";
};
/// For workers.
struct Report : Numbered<1> {
    static constexpr const char* job_name = "report";
};
/// In order.
struct Event : Numbered<2> {
    static constexpr const char* job_name = "event";
};
/// In a transaction.
struct Invoice : Numbered<3> {
    static constexpr const char* job_name = "invoice";
};
/// Nobody handles it.
struct Foreign : Numbered<4> {
    static constexpr const char* job_name = "foreign";
};

/// A process with a connection, its jobs, and what it ran.
class Program {
public:
    explicit Program(const DatabaseFile& file) : handle_{file.path()} {
        run(handle_, "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; CREATE TABLE IF NOT EXISTS t (n INTEGER)");
        db.set_error_sink([](void* self, const char* what,
                             const std::exception_ptr&) { static_cast<Program*>(self)->told.emplace_back(what); },
                          this);
        outbox.create_table();
    }

    void insert(int n) { run(handle_, "INSERT INTO t VALUES (" + std::to_string(n) + ")"); }

    /// What a handler does: notes the job, and what the test wants.
    template <class Job>
    auto note() {
        return [this](const Job& job, txhooks::JobRun& current) {
            ran.push_back(Job::job_name + (' ' + std::to_string(job.number)));
            if (act) act(current);
        };
    }
    template <class Job>
    auto note_in_transaction() {
        return [this](JobDb&, const Job& job, txhooks::JobRun& current) {
            ran.push_back(Job::job_name + (' ' + std::to_string(job.number)));
            insert(job.number);
            if (act) act(current);
        };
    }
    /// Handlers of every job of this file but `Foreign`.
    void handle_all(const txhooks::HandlerOptions& options = {}) {
        txhooks::HandlerOptions worker = options, order = options;
        worker.in_worker = true;
        order.in_order = true;
        types.handle<Mail>(note<Mail>(), options);
        types.handle<Report>(note<Report>(), worker);
        types.handle<Event>(note<Event>(), order);
        types.handle<Invoice>(txhooks::in_transaction, note_in_transaction<Invoice>(), options);
    }

    Handle handle_;
    JobDb db{handle_.get()};
    txhooks::JobTypes<JobDb> types;
    txhooks::Outbox<JobDb> outbox{db, types};
    std::vector<std::string> ran;
    std::vector<std::string> told;  // the error sink
    std::function<void(txhooks::JobRun&)> act;
};

using Strings = std::vector<std::string>;

/// What a fresh connection sees of the jobs: `columns` of each, in the order of their ids.
inline std::string jobs(const DatabaseFile& file, const std::string& columns = "name || ' ' || payload") {
    const Handle fresh{file.path()};
    return values(fresh, "SELECT " + columns + " FROM txhooks_job ORDER BY id");
}
inline void change(const DatabaseFile& file, const std::string& sql) {
    const Handle fresh{file.path()};
    run(fresh, sql);
}
/// Every lease is over, every delay too.
inline void pass_time(const DatabaseFile& file) {
    change(file, "UPDATE txhooks_job SET due = 1 WHERE due < 9223372036854775807");
}

}  // namespace support

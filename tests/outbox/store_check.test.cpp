// SPDX-License-Identifier: MIT

#include <txhooks/outbox/fake.hpp>
#include <txhooks/outbox/sqlite3.hpp>
#include <txhooks/outbox/sqlitecpp.hpp>
#include <txhooks/testing/store_check.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/sqlite_database.hpp"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace txhooks;
using support::DatabaseFile;
using testing::FakeBackend;

namespace {

// A connection of its own to the WAL file.
struct Session {
    explicit Session(const DatabaseFile& file) : handle{file.path()} {
        support::run(handle, "PRAGMA journal_mode = WAL");
        sqlite3_busy_timeout(handle, 300);  // refused before the check loses its patience
    }

    support::Handle handle;
    HookedConnection<sqlite3*> db{handle.get()};
};

template <class Backend>
auto opener(const DatabaseFile& file) {
    return [&file] {
        auto db = std::make_unique<HookedConnection<Backend>>(file.path(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE,
                                                              5000);
        db->exec("PRAGMA journal_mode = WAL");
        return db;
    };
}

// One connection, and no second.
template <class Backend>
auto alone(HookedConnection<Backend>& db) {
    return [&db, first = true]() mutable { return std::exchange(first, false) ? &db : nullptr; };
}

std::vector<std::string> failed(const testing::AdapterReport& report) {
    std::vector<std::string> rows;
    for (const auto& row : report.rows())
        if (row.verdict == testing::AdapterFinding::Verdict::failed) rows.push_back(row.row);
    return rows;
}

template <class Backend>
std::vector<std::string> failed() {
    HookedConnection<Backend> db;
    const testing::AdapterReport report = testing::store_check("broken", alone(db), nullptr);
    INFO(report.table());
    CHECK_FALSE(report.passed());
    return failed(report);
}

bool has(const std::vector<std::string>& rows, const char* row) {
    return std::find(rows.begin(), rows.end(), row) != rows.end();
}

using Good = JobStore<FakeBackend>;

struct Unfenced : FakeBackend {};
struct Uncounted : FakeBackend {};
struct SetsBack : FakeBackend {};
struct Keyless : FakeBackend {};
struct Hasty : FakeBackend {};
struct Mixed : FakeBackend {};
struct Unordered : FakeBackend {};
struct Silent : FakeBackend {};
struct Forgetful : FakeBackend {};
struct Endless : FakeBackend {};

}  // namespace

// They leave one promise out each.

template <>
struct txhooks::JobStore<Unfenced> : Good {
    using Good::Good;
    std::vector<bool> settle(std::span<const JobEnd> ends, bool lazily) {
        std::vector<JobEnd> mine{ends.begin(), ends.end()};
        const std::vector<JobRow> rows = list({});
        for (JobEnd& end : mine)
            for (const JobRow& row : rows)
                if (row.id == end.id) end.claim = row.claim;
        return Good::settle(mine, lazily);
    }
};

template <>
struct txhooks::JobStore<Uncounted> : Good {
    using Good::Good;
    std::vector<JobRow> claim(const JobClaim& wanted) {
        std::vector<JobRow> rows = Good::claim(wanted);
        for (JobRow& row : rows) row.claim = 1;
        return rows;
    }
};

template <>
struct txhooks::JobStore<SetsBack> : Good {
    using Good::Good;
    bool extend(std::string_view id, std::int64_t claim, std::chrono::microseconds lease) {
        for (const JobRow& row : list({}))
            if (row.id == id) return Good::extend(id, row.claim, lease) and claim != 0;
        return false;
    }
};

template <>
struct txhooks::JobStore<Keyless> : Good {
    using Good::Good;
    void insert(std::span<const NewJob> jobs, std::string_view holder) {
        std::vector<NewJob> all{jobs.begin(), jobs.end()};
        for (NewJob& job : all) job.key = {};
        Good::insert(all, holder);
    }
};

template <>
struct txhooks::JobStore<Hasty> : Good {
    explicit JobStore(FakeBackend& db) : Good{db}, db_{db} {}
    std::vector<JobRow> claim(const JobClaim& wanted) {
        db_.pass_time(std::chrono::hours{1});
        std::vector<JobRow> rows = Good::claim(wanted);
        db_.pass_time(-std::chrono::hours{1});
        return rows;
    }
    FakeBackend& db_;
};

template <>
struct txhooks::JobStore<Mixed> : Good {
    using Good::Good;
    std::vector<JobRow> claim(JobClaim wanted) {
        std::vector<JobRow> rows = Good::claim(wanted);
        wanted.lapsed = not wanted.lapsed;
        for (JobRow& row : Good::claim(wanted)) rows.push_back(row);
        return rows;
    }
};

template <>
struct txhooks::JobStore<Unordered> : Good {
    using Good::Good;
    std::vector<JobRow> claim(JobClaim wanted) {
        wanted.in_order = false;
        return Good::claim(wanted);
    }
};

template <>
struct txhooks::JobStore<Silent> : Good {
    using Good::Good;
    std::vector<bool> settle(std::span<const JobEnd> ends, bool lazily) {
        Good::settle(ends, lazily);
        return std::vector<bool>(ends.size(), true);
    }
};

template <>
struct txhooks::JobStore<Forgetful> : Good {
    using Good::Good;
    void insert(std::span<const NewJob> jobs, std::string_view holder) {
        std::vector<NewJob> all{jobs.begin(), jobs.end()};
        for (NewJob& job : all) job.payload = job.payload.substr(0, job.payload.find('\0'));
        Good::insert(all, holder);
    }
};

template <>
struct txhooks::JobStore<Endless> : Good {
    using Good::Good;
    std::vector<JobRow> list(JobFilter filter) {
        filter.limit = 1000;
        return Good::list(filter);
    }
    bool cancel(std::string_view id) {
        for (const JobRow& row : list({}))
            if (row.id == id) return settle(std::vector{JobEnd{id, row.claim}}, false)[0];
        return false;
    }
    using Good::cancel;
};

TEST_CASE("store_check: SQLite keeps it, on two connections to a WAL file") {
    const DatabaseFile file;
    const auto open = [&] {
        const auto session = std::make_shared<Session>(file);
        return std::shared_ptr<HookedConnection<sqlite3*>>{session, &session->db};
    };
    const testing::AdapterReport report = testing::store_check("sqlite3", open, nullptr);
    INFO(report.table());
    CHECK(failed(report).empty());
    CHECK(report.passed());
}

TEST_CASE("store_check: SQLiteCpp keeps it, on two connections to a WAL file") {
    const DatabaseFile file;
    const testing::AdapterReport report = testing::store_check("SQLiteCpp", opener<SQLite::Database>(file), nullptr);
    INFO(report.table());
    CHECK(report.passed());
}

TEST_CASE("store_check: the fake keeps it; what needs two connections is not tried") {
    HookedConnection<FakeBackend> db;
    db.keep_log(false);
    const testing::AdapterReport report = testing::store_check("fake", alone(db), nullptr);
    INFO(report.table());
    CHECK(report.passed());
    CHECK(
        report.table().find("two who claim at once                cannot   not tried: there is one connection only") !=
        std::string::npos);
    CHECK(std::count_if(report.rows().begin(), report.rows().end(),
                        [](const auto& row) { return row.verdict == testing::AdapterFinding::Verdict::cannot; }) == 6);
}

TEST_CASE("store_check: a store that leaves a promise out is found out") {
    CHECK(has(failed<Unfenced>(), "settle: fenced"));
    CHECK(has(failed<Uncounted>(), "a claim counts"));
    CHECK(failed<SetsBack>() == std::vector<std::string>{"settle: fenced"});
    CHECK(has(failed<Keyless>(), "a key renews what waits"));
    CHECK(has(failed<Hasty>(), "claims what is due"));
    CHECK(has(failed<Mixed>(), "lapsed apart from fresh"));
    CHECK(failed<Unordered>() == std::vector<std::string>{"in order", "in order: one at a time"});
    CHECK(failed<Silent>() == std::vector<std::string>{"settle: fenced", "settle: several"});
    CHECK(failed<Forgetful>() == std::vector<std::string>{"payloads of any bytes"});
    CHECK(failed<Endless>() == std::vector<std::string>{"list", "cancel"});
}

TEST_CASE("store_check: two connections that are not to the same database are found out") {
    const testing::AdapterReport report =
        testing::store_check("two", [] { return std::make_unique<HookedConnection<FakeBackend>>(); }, nullptr);
    INFO(report.table());
    CHECK(failed(report) == std::vector<std::string>{"unseen before COMMIT", "claims beside an open claim",
                                                     "inserts beside an open claim", "a key from two at once",
                                                     "superseded by another"});
}

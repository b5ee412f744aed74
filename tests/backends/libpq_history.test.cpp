// SPDX-License-Identifier: MIT
//
// What can be told from command tags alone, against a model of the server that knows the truth.

#include "support/catch.hpp"

#include <txhooks/backends/detail/libpq_history.hpp>

#include <optional>
#include <string>
#include <vector>

using txhooks::Outcome;
using txhooks::postgres::detail::TagHistory;

namespace {

constexpr const char* statements[] = {
    "SELECT 1",          "SELECT 1/0",       "SAVEPOINT", "RELEASE first",       "RELEASE last",
    "ROLLBACK TO first", "ROLLBACK TO last", "ROLLBACK",  "ROLLBACK AND CHAIN",  "COMMIT",
    "COMMIT that fails", "COMMIT AND CHAIN", "BEGIN",     "PREPARE TRANSACTION",
};

// A session of PostgreSQL in which our transaction has just begun.
class Server {
public:
    bool in_transaction = true;
    bool ours = true;
    Outcome fate = Outcome::still_open;  // of ours
    int unreleased = 0;                  // more SAVEPOINT than RELEASE
    bool chained_behind_one = false;     // ROLLBACK AND CHAIN then

    // Returns the command tag, or "" for an error.
    std::string run(const std::string& sql) {
        if (sql == "ROLLBACK" or (sql == "COMMIT" and failed_)) return end(Outcome::rolled_back, "ROLLBACK");
        if (sql == "COMMIT") return end(Outcome::committed, "COMMIT");
        if (sql == "PREPARE TRANSACTION" and (failed_ or not in_transaction))
            return end(Outcome::rolled_back, "ROLLBACK");
        if (sql == "BEGIN" and not in_transaction) {
            in_transaction = true;
            return "BEGIN";
        }
        if (not in_transaction) return sql == "SELECT 1" ? "SELECT" : "";
        if (sql.starts_with("ROLLBACK TO")) {
            if (savepoints_ == 0) return error();
            if (sql == "ROLLBACK TO first") savepoints_ = 1;
            failed_ = false;
            return "ROLLBACK";
        }
        if (sql == "ROLLBACK AND CHAIN" or (sql == "COMMIT AND CHAIN" and failed_)) {
            if (ours and unreleased != 0) chained_behind_one = true;
            end(Outcome::rolled_back, "");
            in_transaction = true;
            return "ROLLBACK";
        }
        if (failed_ or sql == "SELECT 1/0") return error();
        if (sql == "SELECT 1") return "SELECT";
        if (sql == "BEGIN") return "BEGIN";  // with a warning
        if (sql == "SAVEPOINT") {
            ++savepoints_;
            ++unreleased;
            return sql;
        }
        if (sql.starts_with("RELEASE")) {
            if (savepoints_ == 0) return error();
            --unreleased;
            savepoints_ = sql == "RELEASE first" ? 0 : savepoints_ - 1;
            return "RELEASE";
        }
        if (sql == "COMMIT that fails") return end(Outcome::rolled_back, "");
        if (sql == "PREPARE TRANSACTION") return end(Outcome::unknown, sql);
        end(Outcome::committed, "");  // COMMIT AND CHAIN
        in_transaction = true;
        return "COMMIT";
    }

private:
    std::string error() {
        failed_ = true;
        return "";
    }
    std::string end(Outcome outcome, const std::string& tag) {
        if (ours) fate = outcome;
        ours = in_transaction = failed_ = false;
        savepoints_ = unreleased = 0;
        return tag;
    }

    int savepoints_ = 0;
    bool failed_ = false;
};

struct Counts {
    int programs = 0;
    int lost = 0;
    int seen = 0;
    int known = 0;
    int false_alarms = 0;
};

// Tries every program of up to `length` more statements; returns the first that breaks a promise.
std::optional<std::string> try_all(const Server& server, const TagHistory& history, const std::string& program,
                                   bool begun_again, int length, Counts& counts) {
    const bool idle = not server.in_transaction;
    const Outcome fate = history.fate(idle);
    const bool seen = idle or history.ended();
    ++counts.programs;
    counts.lost += server.ours ? 0 : 1;
    counts.seen += not server.ours and seen ? 1 : 0;
    counts.known += not server.ours and fate == server.fate ? 1 : 0;
    counts.false_alarms += server.ours and seen ? 1 : 0;
    if (server.ours and seen and not begun_again) return program + " is taken for a loss";
    if (not server.ours and not seen and not server.chained_behind_one) return program + " is not seen";
    if (seen and fate != Outcome::unknown and fate != server.fate) return program + " is told wrongly";
    if (length == 0) return std::nullopt;
    for (const std::string sql : statements) {
        Server next_server = server;
        TagHistory next_history = history;
        const bool nested_begin = sql == "BEGIN" and server.ours;
        if (const std::string tag = next_server.run(sql); tag.empty())
            next_history.error();
        else
            next_history.tag(tag);
        if (auto broken = try_all(next_server, next_history, program + sql + "; ", begun_again or nested_begin,
                                  length - 1, counts))
            return broken;
    }
    return std::nullopt;
}

}  // namespace

TEST_CASE(
    "libpq history: no tag misleads it; only ROLLBACK AND CHAIN behind an unreleased savepoint is not seen, and only a "
    "BEGIN in a "
    "transaction after ROLLBACK TO is a false alarm",
    "[S50][P08]") {
    Counts counts;
    const auto broken = try_all(Server{}, TagHistory{}, "", false, 5, counts);
    INFO(counts.programs << " programs, " << counts.lost << " lost, " << counts.seen << " seen, " << counts.known
                         << " known, " << counts.false_alarms << " false alarms");
    CHECK(broken.value_or("") == "");
    CHECK(counts.programs == (537824 * 14 - 1) / 13);
    CHECK(counts.lost > 100'000);
    CHECK(counts.seen > counts.lost * 99 / 100);
    CHECK(counts.known > counts.lost * 9 / 10);
    CHECK(counts.false_alarms < counts.programs / 1000);
}

TEST_CASE("libpq history: what the server says when it ends the session is believed", "[S50][P04]") {
    TagHistory history;
    history.tag("INSERT 0 1");
    history.end(Outcome::rolled_back);
    history.end(Outcome::unknown);
    CHECK(history.ended());
    CHECK(history.fate(false) == Outcome::rolled_back);
}

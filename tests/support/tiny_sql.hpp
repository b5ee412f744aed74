// SPDX-License-Identifier: MIT
#pragma once

#include "support/trace.hpp"

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

// A database that speaks SQL: rows are inserted by name, savepoints are named and nest.
class TinySql {
public:
    bool savepoint_begins = false;  // SAVEPOINT outside of a transaction begins one, as in SQLite
    Log log;
    std::vector<std::string> refuse;            // statements that fail, each once
    std::vector<std::string> fail_after_doing;  // the same, after they took effect

    void run(const std::string& sql) {
        log.push_back(sql);
        if (take(refuse, sql)) throw std::runtime_error{"refused: " + sql};
        execute(sql);
        if (take(fail_after_doing, sql)) throw std::runtime_error{"reply lost: " + sql};
    }

    bool in_transaction() const noexcept { return in_transaction_; }
    bool committed(const std::string& row) const { return committed_.count(row) != 0; }

private:
    using Rows = std::map<std::string, int>;

    static bool take(std::vector<std::string>& from, const std::string& sql) {
        for (auto i = from.begin(); i != from.end(); ++i) {
            if (*i != sql) continue;
            from.erase(i);
            return true;
        }
        return false;
    }

    static bool strip(std::string_view& sql, std::string_view prefix) {
        if (sql.substr(0, prefix.size()) != prefix) return false;
        sql.remove_prefix(prefix.size());
        return true;
    }

    void execute(std::string_view sql) {
        if (sql == "BEGIN") {
            if (in_transaction_) throw std::runtime_error{"already in a transaction"};
            in_transaction_ = true;
        } else if (sql == "COMMIT" or sql == "ROLLBACK") {
            if (not in_transaction_) throw std::runtime_error{"no transaction"};
            (sql == "COMMIT" ? committed_ : rows_) = sql == "COMMIT" ? rows_ : committed_;
            savepoints_.clear();
            in_transaction_ = false;
        } else if (strip(sql, "SAVEPOINT ")) {
            if (not in_transaction_ and not savepoint_begins) throw std::runtime_error{"no transaction"};
            in_transaction_ = true;
            savepoints_.emplace_back(sql, rows_);
        } else if (strip(sql, "RELEASE SAVEPOINT ")) {
            savepoints_.resize(find(sql));
        } else if (strip(sql, "ROLLBACK TO SAVEPOINT ")) {
            savepoints_.resize(find(sql) + 1);
            rows_ = savepoints_.back().second;
        } else if (strip(sql, "INSERT ")) {
            rows_[std::string{sql}] = 1;
            if (not in_transaction_) committed_ = rows_;
        }
    }

    std::size_t find(std::string_view name) const {
        for (std::size_t i = savepoints_.size(); i != 0; --i)
            if (savepoints_[i - 1].first == name) return i - 1;
        throw std::runtime_error{"no such savepoint"};
    }

    bool in_transaction_ = false;
    Rows rows_;
    Rows committed_;
    std::vector<std::pair<std::string, Rows>> savepoints_;
};

}  // namespace support

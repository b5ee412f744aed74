// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backend_adapter.hpp>
#include <txhooks/outcome.hpp>
#include <txhooks/testing/faults.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace txhooks::testing {

/// What the fake engine throws by itself.
class FakeError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A database connection for unit tests: no database, but transactions, savepoints and rows that behave like one's.
///
///     HookedConnection<testing::FakeBackend> db;
///     sign_up(db, "ann");                                        // your code
///     CHECK(db.log() == std::vector<std::string>{"BEGIN", "INSERT ann", "COMMIT"});
///     CHECK(db.committed("ann"));                                // as a second connection sees it
///
/// It can fail (`faults`), lose the connection, end the transaction behind the block's back (`execute("ROLLBACK")`),
/// and answer a COMMIT in every way an engine does (`answer_commit`).
class FakeBackend {
public:
    FakeBackend() {
        faults.lose = [this] { lose_connection(); };
    }
    FakeBackend(const FakeBackend&) = delete;
    FakeBackend& operator=(const FakeBackend&) = delete;

    // ---- Rows

    /// Writes a row: in the open transaction, or at once outside one. Throws `ConnectionLostError`, `FakeError`.
    void put(const std::string& key, const std::string& value = "") {
        begin_write("INSERT " + key);
        change(key, value);
    }
    /// Deletes a row, if it is there. Throws as `put`.
    void erase(const std::string& key) {
        begin_write("DELETE " + key);
        change(key, std::nullopt);
    }

    /// A row as this connection sees it.
    std::optional<std::string> get(const std::string& key) const {
        const auto row = rows_.find(key);
        return row == rows_.end() ? std::nullopt : std::optional{row->second};
    }

    /// A row as a second connection sees it: only what is committed.
    std::optional<std::string> committed(const std::string& key) const {
        for (const Change& change : changes_)
            if (change.key == key) return change.before;
        return get(key);
    }

    /// The rows whose keys begin with `prefix`, by key, as this connection sees them. Throws as `put`.
    std::vector<std::pair<std::string, std::string>> rows(std::string_view prefix = {}) const {
        need_sound_connection();
        std::vector<std::pair<std::string, std::string>> found;
        for (auto row = rows_.lower_bound(std::string{prefix}); row != rows_.end(); ++row) {
            if (!std::string_view{row->first}.starts_with(prefix)) break;
            found.push_back(*row);
        }
        return found;
    }

    /// Writes rows, and deletes those without a value, as one statement of the log. Throws as `put`.
    void write(std::string statement, std::vector<std::pair<std::string, std::optional<std::string>>> rows) {
        begin_write(std::move(statement));
        for (auto& [key, value] : rows) change(key, std::move(value));
    }

    // ---- Time

    /// The clock of this database: it stands still, so that a slow machine sees what a fast one does.
    std::chrono::system_clock::time_point now() const noexcept { return now_; }
    /// So much later: what is due by then is due now. Transactions do not undo it.
    void pass_time(std::chrono::microseconds time) noexcept {
        now_ += std::chrono::duration_cast<std::chrono::system_clock::duration>(time);
    }

    // ---- What was asked for

    /// Every statement so far, in order, as SQL would have it.
    const std::vector<std::string>& log() const noexcept { return log_; }
    void clear_log() noexcept { log_.clear(); }
    /// `false`: keeps no log, for long runs.
    void keep_log(bool keep) noexcept { keep_log_ = keep; }

    // ---- Things that go wrong

    /// Failures of the verbs to come.
    Faults faults;

    /// Runs statements separated by `;` as user code would, behind txhooks' back. `BEGIN`, `COMMIT` and `ROLLBACK` do
    /// what they say; everything else is only logged. Throws `FakeError`, `ConnectionLostError`.
    void execute(std::string_view sql) {
        while (!sql.empty()) {
            const std::size_t end = sql.find(';');
            run_raw(trimmed(sql.substr(0, end)));
            sql = end == std::string_view::npos ? std::string_view{} : sql.substr(end + 1);
        }
    }

    /// The connection drops: what was not committed is gone, and everything throws until `reconnect()`.
    void lose_connection() {
        end_transaction(false);
        connected_ = false;
    }
    /// A new session on the same database.
    void reconnect() {
        end_transaction(false);
        connected_ = true;
    }

    /// A statement failed in the way that leaves only ROLLBACK and ROLLBACK TO (PostgreSQL after any error).
    void fail_transaction() noexcept { failed_ = open_; }

    /// How the next COMMIT of a block is answered. What is proven and what is true can differ only for `unknown`.
    struct CommitAnswer {
        Outcome proven = Outcome::committed;
        std::exception_ptr error = nullptr;  ///< reported with it
        bool really_committed = false;       ///< for `unknown`, and a number that nobody knows: the truth
    };
    void answer_commit(CommitAnswer answer) { answers_.push_back(std::move(answer)); }

    /// When a loss (`ROLLBACK; BEGIN` by user code) shows: at once, or only at the end of the outermost block.
    enum class Witness : unsigned char { client_side, at_the_end };
    void set_witness(Witness witness) noexcept { witness_ = witness; }

    // ---- The verbs txhooks calls

    void begin() {
        faults.around(Verb::begin, [this] {
            log("BEGIN");
            begin_transaction();
            ours_ = id_;
        });
    }

    CommitResult commit() noexcept { return commit(nullptr); }

    /// The marker is a row: `INSERT txhooks_commit/<marker>`.
    CommitResult commit(const char* marker) noexcept {
        CommitResult result{Outcome::unknown};
        try {
            faults.around(Verb::commit, [&] {
                const std::size_t before = changes_.size();
                if (marker != nullptr && is_ours() && !failed_) write_marker(marker, "committed");
                log("COMMIT");
                result = answered_commit();
                if (result.outcome == Outcome::still_open) undo(before);
            });
        } catch (...) {
            // The driver threw: the engine is still in the transaction, or nothing is proven.
            result = {is_ours() ? Outcome::still_open : Outcome::unknown, std::current_exception(), false, true};
        }
        if (result.outcome != Outcome::still_open) ours_ = none;
        return result;
    }

    bool was_committed(const char* marker) {
        if (!get(marker_key(marker))) write_marker(marker, "rolled back");
        return get(marker_key(marker)) == "committed";
    }

    void rollback() {
        faults.around(Verb::rollback, [this] {
            log("ROLLBACK");
            const bool lost = ours_ != none && !is_ours();
            const Outcome fate = this->fate();
            ours_ = none;
            if (!open_) throw FakeError{"cannot roll back: no transaction is active"};
            end_transaction(false);
            if (lost) throw TransactionLost{fate};
        });
    }

    void savepoint(unsigned n) {
        faults.around(Verb::savepoint, [&] {
            log("SAVEPOINT txhooks_" + std::to_string(n));
            need_sound_transaction();
            savepoints_.push_back({n, changes_.size()});
        });
    }

    void release(unsigned n) {
        faults.around(Verb::release, [&] {
            log("RELEASE txhooks_" + std::to_string(n));
            need_sound_transaction();
            savepoints_.resize(find_savepoint(n));
        });
    }

    void rollback_to(unsigned n) {
        faults.around(Verb::rollback_to, [&] {
            log("ROLLBACK TO txhooks_" + std::to_string(n));
            need_transaction();
            const std::size_t at = find_savepoint(n);
            undo(savepoints_[at].changes);
            savepoints_.resize(at);
            failed_ = false;
        });
    }

    ConnectionState state() const noexcept {
        if (!connected_) return ConnectionState::lost;
        if (!open_) return ConnectionState::idle;
        if (ours_ != none && id_ != ours_ && witness_ == Witness::client_side) return ConnectionState::lost;
        return failed_ ? ConnectionState::failed : ConnectionState::open;
    }

    /// What became of the transaction txhooks began last.
    Outcome fate() const noexcept {
        if (is_ours()) return Outcome::still_open;
        return last_ended_ok_ ? Outcome::committed : Outcome::rolled_back;
    }

private:
    using Id = unsigned long;
    static constexpr Id none = 0;

    struct Change {
        std::string key;
        std::optional<std::string> before;
    };
    struct Savepoint {
        unsigned number;
        std::size_t changes;
    };

    bool is_ours() const noexcept { return open_ && id_ == ours_; }

    void log(std::string statement) {
        need_connection();
        if (keep_log_) log_.push_back(std::move(statement));
    }

    void need_connection() const {
        if (!connected_) throw ConnectionLostError{};
    }
    void need_transaction() const {
        if (!open_) throw FakeError{"no transaction is active"};
    }
    void need_sound_transaction() const {
        need_transaction();
        if (failed_) throw FakeError{"current transaction is aborted"};
    }
    void need_sound_connection() const {
        need_connection();
        if (failed_) throw FakeError{"current transaction is aborted"};
    }

    std::size_t find_savepoint(unsigned n) const {
        for (std::size_t i = savepoints_.size(); i != 0; --i)
            if (savepoints_[i - 1].number == n) return i - 1;
        if (ours_ != none && !is_ours()) throw TransactionLost{fate()};
        throw FakeError{"no such savepoint: txhooks_" + std::to_string(n)};
    }

    void begin_write(std::string statement) {
        log(std::move(statement));
        need_sound_connection();
    }
    void change(const std::string& key, std::optional<std::string> value) {
        if (open_) {
            std::optional<std::string> before = get(key);  // GCC 11 would leak the copy of key if this threw behind it
            changes_.push_back({key, std::move(before)});
        }
        set(key, std::move(value));
    }

    static std::string marker_key(const char* marker) { return std::string{"txhooks_commit/"} + marker; }
    void write_marker(const char* marker, const char* what) { put(marker_key(marker), what); }

    void set(const std::string& key, std::optional<std::string> value) {
        if (value)
            rows_.insert_or_assign(key, *std::move(value));
        else
            rows_.erase(key);
    }

    void undo(std::size_t changes) {
        while (changes_.size() > changes) {
            Change change = std::move(changes_.back());
            changes_.pop_back();
            set(change.key, std::move(change.before));
        }
    }

    void begin_transaction() {
        if (open_) throw FakeError{"cannot start a transaction within a transaction"};
        open_ = true;
        ++id_;
    }

    void end_transaction(bool commit) {
        if (!open_) return;
        if (!commit) undo(0);
        changes_.clear();
        savepoints_.clear();
        if (id_ == ours_) last_ended_ok_ = commit;
        open_ = failed_ = false;
    }

    CommitResult answered_commit() {
        if (!is_ours()) return {fate(), nullptr, true};
        CommitAnswer answer;
        if (!answers_.empty()) {
            answer = std::move(answers_.front());
            answers_.erase(answers_.begin());
        } else if (failed_) {
            answer.proven = Outcome::rolled_back;  // PostgreSQL: COMMIT is answered ROLLBACK, and that is no error
        }
        if (answer.proven != Outcome::still_open)
            end_transaction(answer.proven == Outcome::committed ||
                            (answer.proven != Outcome::rolled_back && answer.really_committed));
        return {answer.proven, std::move(answer.error)};
    }

    void run_raw(std::string_view statement) {
        if (statement.empty()) return;
        log(std::string{statement});
        if (statement == "BEGIN") begin_transaction();
        if (statement != "COMMIT" && statement != "ROLLBACK") return;
        need_transaction();
        end_transaction(statement == "COMMIT" && !failed_);
    }

    static std::string_view trimmed(std::string_view text) {
        while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
        while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
        return text;
    }

    bool connected_ = true;
    bool open_ = false;
    bool failed_ = false;
    bool last_ended_ok_ = false;
    bool keep_log_ = true;
    Witness witness_ = Witness::client_side;
    std::chrono::system_clock::time_point now_ = std::chrono::system_clock::now();
    Id id_ = none;    // of the transaction begun last, by whomever
    Id ours_ = none;  // of the one txhooks began, until it has seen the end
    std::map<std::string, std::string> rows_;
    std::vector<Change> changes_;
    std::vector<Savepoint> savepoints_;
    std::vector<CommitAnswer> answers_;
    std::vector<std::string> log_;
};

}  // namespace txhooks::testing

// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on a `MYSQL*` of libmariadb (MariaDB Connector/C 3), for a MariaDB server:
///
///     txhooks::HookedConnection db{handle};
///     db.atomic({.begin = {.isolation = txhooks::mariadb::Isolation::serializable}}, [&] { ... });
///
/// For a MySQL server, and for proxies that do not parse compound statements:
///
///     txhooks::HookedConnection<MYSQL*, txhooks::mariadb::Plain> db{handle};
///
/// The handle is borrowed and must stay open while this object lives. What the server reports is thrown as
/// `EngineError` with its error number, SQLSTATE and text. Oracle's libmysqlclient lacks `mariadb_cancel` and
/// `mysql_get_socket`.
///
/// Autocommit must be on outside of blocks (`SET autocommit = 1`): else everything is in a transaction of yours, and a
/// block or hook is refused (`UsageError`).
///
/// After `fork()` in a block only the process that began it can end it. In the other nothing is sent, and every verb of
/// that block is a `UsageError`; leave it by `_exit()`: `mysql_close` would end the session of both.
///
/// Read every result before a block begins or ends, and before `on_commit` outside of blocks (`mysql_store_result`, and
/// `mysql_next_result` until there is none, also after CALL; after `mysql_send_query`, `mysql_read_query_result`): until
/// then nothing is sent, and you get a `UsageError`. (A query of `mysql_send_query` that is still at work cannot be seen if
/// it is over 16 MB, sometimes, or is compressed, over 8 KB, sometimes: then the connection is closed.) Send no second one
/// before the first was answered. A rollback reads what nobody has read, and waits for it. After a failed statement any
/// call here may ask the server for its state first: read `mysql_error` before.
///
/// Not undone by any rollback: tables of MyISAM and other engines without transactions (ROLLBACK then leaves a warning:
/// `mysql_warning_count`), and what came before a statement that commits by itself (CREATE, ALTER, DROP, TRUNCATE,
/// GRANT, LOCK TABLES and their like, also when they fail). The latter ends the transaction: `TransactionLost`. With
/// `innodb_flush_log_at_trx_commit` other than 1, what was committed may vanish when the server crashes.

#include <txhooks/backend_adapter.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>
#include <txhooks/txhooks.hpp>

#include <mysql.h>

#include <poll.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

namespace txhooks {
namespace mariadb {

/// How much a transaction sees of others (the manual's SET TRANSACTION ISOLATION LEVEL).
enum class Isolation : unsigned char { of_session, read_uncommitted, read_committed, repeatable_read, serializable };

/// How an outermost block begins. All of it is for that transaction alone, and costs no round trip of its own, with
/// `Plain` one for the isolation level.
struct Begin {
    Isolation isolation = Isolation::of_session;
    bool read_only = false;            ///< writing is then an error; temporary tables excepted
    bool consistent_snapshot = false;  ///< see what is committed now, not at the first read; needs repeatable_read

    friend bool operator==(const Begin&, const Begin&) = default;
};

namespace detail {

/// What the server answers, by number.
enum Code : unsigned {
    er_parse = 1064,
    er_error_during_commit = 1180,
    er_lock_wait_timeout = 1205,
    er_deadlock = 1213,
    er_option_prevents_statement = 1290,  // read_only
    er_no_such_savepoint = 1305,
    er_signal = 1644,
    er_connection_killed = 1927,
    cr_server_lost = 2013,
};

/// Else the driver says it, and the server may have done what it was asked. (0: the driver does not know what it read.)
constexpr bool is_from_server(unsigned code) noexcept {
    return (code >= 1000 && code < 2000) || (code >= 3000 && code < 5000);
}

/// Whether a query of mysql_send_query was sent, and nothing was read since. The client has no word for it, but `net`
/// shows it, by the number of the next packet and by what lies in its buffer: the beginning of a packet that was sent,
/// or of its rest, or a packet that was read. Missed: compressed queries of 8 to 16 KB or over 16 MB; of others over
/// 16 MB about one in a hundred, and all after rows of 8 MB.
inline bool query_is_out(const MYSQL& db) noexcept {
    const NET& net = db.net;
    const unsigned char* const at = net.buff;
    if (at == nullptr || net.pkt_nr == 0) return false;
    const bool ends_an_answer = at[0] == 0 || at[0] >= 0xFE;
    if (at[3] == 0 && net.pkt_nr <= (net.compress != 0 ? 2 : 1) && at[4] <= 0x1F) return at[4] == COM_QUERY;
    if (net.compress != 0 || ends_an_answer) return false;
    if (net.pkt_nr > 64 || (net.pkt_nr > 1 && at[3] != net.pkt_nr - 1)) return false;
    // Nothing answers mysql_stmt_send_long_data.
    for (const LIST* rest = db.stmts; rest != nullptr; rest = rest->next) {
        const auto* const statement = static_cast<const MYSQL_STMT*>(rest->data);
        for (unsigned i = 0; statement->params != nullptr && i < statement->param_count; ++i)
            if (statement->params[i].long_data_used != 0) return false;
    }
    return true;
}

// Texts are compounds, "BEGIN NOT ATOMIC a;b;END", whose parts run in order until one fails.
constexpr std::string_view compound_begin = "BEGIN NOT ATOMIC ";
constexpr std::string_view compound_end = "END";
constexpr unsigned all = ~0u;  // parts, of those that were done for sure

struct Compounds {
    static constexpr bool whole = true;

    /// How many parts were done for sure.
    static unsigned run(MYSQL* db, std::string_view compound) noexcept {
        return mysql_real_query(db, compound.data(), compound.size()) == 0 ? all : 0;
    }
};

struct Statements {
    static constexpr bool whole = false;

    static unsigned run(MYSQL* db, std::string_view compound) noexcept {
        compound.remove_prefix(compound_begin.size());
        compound.remove_suffix(compound_end.size());
        for (unsigned done = 0; !compound.empty(); ++done) {
            const std::string_view part = compound.substr(0, compound.find(';'));
            if (mysql_real_query(db, part.data(), part.size()) != 0) return done;
            compound.remove_prefix(part.size() + 1);
        }
        return all;
    }
};

}  // namespace detail

/// The adapter, with the savepoint `txhooks_0` as its witness: it is set with BEGIN and released right before COMMIT,
/// which fails if the transaction is gone, even when another one was begun since. Nothing is committed then.
///
/// - `BackendAdapter<MYSQL*>`, the default, puts several statements into one compound: BEGIN, COMMIT, SAVEPOINT,
///   RELEASE, ROLLBACK and ROLLBACK TO with its RELEASE are one round trip each, the witness costs none.
/// - `Plain` sends them one by one: BEGIN, COMMIT, ROLLBACK and ROLLBACK TO are two round trips each. It sees the same.
/// - After a statement that failed, one more: the server says what became of the transaction only with an OK.
/// - One more as well when the client's last call has left it without the server's latest word: rows fetched one by one,
///   a loop over `mysql_next_result`, a prepared statement closed, `mysql_ping`. Then `Plain` takes one more for the
///   next verb, the default none; but either for the next `on_commit` or `usable()` outside of blocks.
/// - It cannot tell what became of a lost transaction (`TransactionLost` with `Outcome::unknown`).
/// - In doubt (`CommitUnknown`): a connection that breaks at COMMIT, and in a compound also KILL QUERY and
///   `max_statement_time`, which can strike after the COMMIT in it was done; with `Plain` these are a rollback.
/// - A reconnect (`MYSQL_OPT_RECONNECT`) in a block is a loss; better leave that option off.
template <class Style>
class SavepointWitness {
public:
    using begin_options = Begin;

    explicit SavepointWitness(MYSQL* db) noexcept : db_{db} {}

    void begin(const Begin& how) {
        foreign_ = true;
        refuse_unread();
        foreign_ = !has_latest_word();  // else it was seen to be idle
        const bool begun =
            how == Begin{} && !foreign_
                ? Style::run(db_, "BEGIN NOT ATOMIC START TRANSACTION;SAVEPOINT txhooks_0;END") == detail::all
                : begun_otherwise(how);
        if (!begun) [[unlikely]]
            failed_begin(how);
        foreign_ = false;
        if (!in_transaction()) [[unlikely]]
            throw TransactionLost{Outcome::rolled_back};  // of another session, or no answer to this
        ours_ = true;
        process_ = getpid();
        out_of_step_ = false;
        ending_ = Ending::unseen;
    }

    CommitResult commit() noexcept {
        constexpr std::string_view compound =
            "BEGIN NOT ATOMIC RELEASE SAVEPOINT txhooks_0;COMMIT AND NO CHAIN NO RELEASE;END";
        if (in_another_process() || !has_latest_word() || (db_->server_status & more_results) != 0) [[unlikely]]
            return commit_by(compound, Retry::can);
        return answered(Style::run(db_, compound), Retry::can);
    }

    /// For `Doubt`. In one round trip, with `Plain` one more. What does not commit is rolled back: the marker might be
    /// there already when COMMIT is tried again. What is read-only is committed without a marker, and not in doubt then:
    /// unanswered, it is lost (`TransactionLost`).
    CommitResult commit(const char* marker) noexcept {
        if ((db_->server_status & SERVER_STATUS_IN_TRANS_READONLY) != 0) return unmarked(commit());
        char sql[300];
        std::snprintf(sql, sizeof sql,
                      "BEGIN NOT ATOMIC RELEASE SAVEPOINT txhooks_0;"
                      "INSERT INTO txhooks_commit (id, committed) VALUES ('%s', TRUE);"
                      "COMMIT AND NO CHAIN NO RELEASE;END",
                      marker);
        return commit_by(sql, Retry::unmarked);
    }

    /// For an Outbox. What does not commit is rolled back; `marker` may be null.
    CommitResult commit(const char* ahead, const char* marker) noexcept {
        std::string compound;
        try {
            compound = std::string{"BEGIN NOT ATOMIC RELEASE SAVEPOINT txhooks_0;"} + ahead;
            if (marker != nullptr)
                compound += std::string{"INSERT INTO txhooks_commit (id, committed) VALUES ('"} + marker + "', TRUE);";
            compound += "COMMIT AND NO CHAIN NO RELEASE;END";
        } catch (...) {
            return {Outcome::still_open, std::current_exception()};
        }
        return commit_by(compound, Retry::never);
    }

    bool was_committed(const char* marker) {
        refuse_unread();
        char sql[400];
        std::snprintf(sql, sizeof sql, "INSERT IGNORE INTO txhooks_commit (id, committed) VALUES ('%s', FALSE)",
                      marker);
        if (!send(sql)) throw error(Outcome::unknown);
        std::snprintf(
            sql, sizeof sql,
            "SELECT committed, (SELECT transactions FROM information_schema.tables JOIN information_schema.engines "
            "USING (engine) WHERE table_schema = DATABASE() AND table_name = 'txhooks_commit') "
            "FROM txhooks_commit WHERE id = '%s'",
            marker);
        MYSQL_RES* const rows = send(sql) ? mysql_store_result(db_) : nullptr;
        if (rows == nullptr) throw error(Outcome::unknown);
        const MYSQL_ROW row = mysql_fetch_row(rows);
        const bool found = row != nullptr;
        const bool committed = found && row[0][0] == '1';
        const bool transactional = found && row[1] != nullptr && std::string_view{row[1]} == "YES";
        mysql_free_result(rows);
        if (!found) throw UsageError{txhooks::detail::marker_swallowed};
        if (!transactional)
            throw UsageError{
                "txhooks: the engine of txhooks_commit has no transactions, so its rows prove nothing; ALTER TABLE "
                "txhooks_commit ENGINE=InnoDB"};
        return committed;
    }

    void rollback() {
        refuse_another_process();
        if (foreign_) return;
        const bool was_ours = ours_;
        ours_ = false;
        read_what_nobody_reads();
        std::exception_ptr error;
        for (int attempt = 0; was_ours && attempt < 2; ++attempt) {  // twice: the first may be interrupted
            if (done("BEGIN NOT ATOMIC ROLLBACK TO SAVEPOINT txhooks_0;ROLLBACK AND NO CHAIN NO RELEASE;END")) return;
            const EngineError seen = this->error(Outcome::unknown);
            error = std::make_exception_ptr(seen);
            if (!ask_state()) throw EngineError{seen};
            if (!in_transaction() || seen.code() == detail::er_no_such_savepoint) break;
        }
        if (!was_ours || in_transaction())
            if (!insist("ROLLBACK AND NO CHAIN NO RELEASE")) fail();
        if (was_ours) throw TransactionLost{Outcome::unknown, error};  // or not proven to be ours
    }

    void savepoint(unsigned n) {
        refuse_obstacle();
        if (!run_numbered("SAVEPOINT", n)) fail();
        if (!in_transaction()) throw TransactionLost{Outcome::unknown};  // the savepoint of no transaction
    }

    void release(unsigned n) {
        refuse_obstacle();
        if (!run_numbered("RELEASE SAVEPOINT", n)) fail();
    }

    void rollback_to(unsigned n) {
        refuse_another_process();
        read_what_nobody_reads();
        char sql[120];
        std::snprintf(sql, sizeof sql,
                      "BEGIN NOT ATOMIC ROLLBACK TO SAVEPOINT txhooks_%u;RELEASE SAVEPOINT txhooks_%u;END", n, n);
        if (!done(std::string_view{sql})) fail();
    }

    /// What the client knows; where it cannot know, after an error, and before it is said that a transaction is lost or
    /// somebody else's, what the server says.
    [[gnu::always_inline]] inline ConnectionState state() const noexcept {
        if (!has_latest_word()) [[unlikely]]
            return state_unsure();
        if (ours_ ? !in_transaction() : !is_idle(more_results)) [[unlikely]]
            return unexpected_state();
        return ours_ ? ConnectionState::open : ConnectionState::idle;
    }

    /// As `state()`; where the client cannot know, `begin` asks with the compound that it sends.
    [[gnu::always_inline]] inline ConnectionState state_before_begin() const noexcept {
        if (Style::whole && !ours_ && !has_latest_word()) [[unlikely]]
            return ConnectionState::idle;
        return state();
    }

    bool in_another_process() const noexcept { return ours_ && getpid() != process_; }

    void reset() noexcept { ours_ = foreign_ = out_of_step_ = false; }

    /// For `retry`: the victim of a deadlock (1213), or a lock that was not given in time (1205).
    bool transient(const std::exception_ptr& error) const noexcept {
        return code(error) == detail::er_deadlock || code(error) == detail::er_lock_wait_timeout;
    }

    /// For `retry`, when the transaction is lost: `error` is that of a deadlock, and the server had not said before it
    /// that the transaction was over. (A raw `COMMIT; START TRANSACTION` is not noticed, nor a statement that commits
    /// and fails, when a deadlock follows in the same block.)
    bool rolled_back_by(const std::exception_ptr& error) const noexcept {
        return code(error) == detail::er_deadlock && ending_ != Ending::by_success;
    }

private:
    // What the server had answered when a transaction of ours was first seen to be over. An error does not say that.
    enum class Ending : unsigned char { unseen, by_success, by_error };

    static int code(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const EngineError& e) {
            return e.code();
        } catch (...) {
            return 0;
        }
    }

    static constexpr const char* begun_elsewhere =
        "txhooks: this block was begun by another process, before fork(), and only that can end it: nothing was sent; "
        "leave the child by _exit(), and open a connection of its own in it";

    static constexpr const char* results_unread =
        "txhooks: the connection still holds results of an earlier statement; read or free them first "
        "(mysql_store_result, mysql_free_result, and mysql_next_result until there is none, also after CALL)";

    static constexpr const char* name(Isolation level) noexcept {
        switch (level) {
            case Isolation::of_session:
                return "";
            case Isolation::read_uncommitted:
                return "READ UNCOMMITTED";
            case Isolation::read_committed:
                return "READ COMMITTED";
            case Isolation::repeatable_read:
                return "REPEATABLE READ";
            case Isolation::serializable:
                return "SERIALIZABLE";
        }
        return "";
    }

    // Three members that mysql.h declares: what mariadb_get_infov and mysql_affected_rows say of them would cost more
    // instructions than all the rest here.
    bool in_transaction() const noexcept { return (db_->server_status & SERVER_STATUS_IN_TRANS) != 0; }
    // With autocommit off every statement belongs to a transaction of the user's.
    bool is_idle(unsigned besides = 0) const noexcept {
        return (db_->server_status & (SERVER_STATUS_IN_TRANS | SERVER_STATUS_AUTOCOMMIT | besides)) ==
               SERVER_STATUS_AUTOCOMMIT;
    }
    static constexpr unsigned more_results = 8;  // each library has its name for it

    // Whether that is up to date, and nothing is to come. Every command sets this number to -1, and so does
    // mysql_next_result. An answer that tells the state of the transaction sets it again; an error, an answer that was
    // not read to its end, and one that tells nothing (mysql_ping, mysql_stmt_prepare) do not.
    bool has_latest_word() const noexcept {
        return db_->affected_rows != static_cast<decltype(db_->affected_rows)>(-1);
    }

    // In a block what the client knows is enough, as long as no error stands: the end asks for the witness.
    [[gnu::cold, gnu::noinline]] ConnectionState state_unsure() const noexcept {
        return ours_ && in_transaction() && mysql_errno(db_) == 0 ? ConnectionState::open : unexpected_state();
    }
    [[gnu::cold, gnu::noinline]] ConnectionState unexpected_state() const noexcept {
        note_ending(Ending::by_success);
        const bool busy = obstacle() != nullptr;
        const bool gone = !busy && !ask_state();
        note_ending(Ending::by_error);
        if (gone || (ours_ && !in_transaction())) return ConnectionState::lost;
        return busy || ours_ || !is_idle(more_results) ? ConnectionState::open : ConnectionState::idle;
    }

    // Who asks the server calls it with the one before, and with the other after.
    void note_ending(Ending seen) const noexcept {
        if (ours_ && ending_ == Ending::unseen && !in_transaction()) ending_ = seen;
    }

    // Why nothing can be sent now, or null.
    const char* obstacle() const noexcept {
        if (in_another_process()) [[unlikely]]
            return begun_elsewhere;
        return unread() ? results_unread : nullptr;
    }
    void refuse_obstacle() const {
        if (const char* const reason = obstacle()) [[unlikely]]
            throw UsageError{reason};
    }

    void refuse_another_process() const {
        if (in_another_process()) [[unlikely]]
            throw UsageError{begun_elsewhere};
    }

    // Sending anything now would lose the results, or take the answer to another statement for ours.
    bool unread() const noexcept {
        return ((db_->server_status & more_results) != 0 || !has_latest_word()) && something_unread();
    }
    [[gnu::cold, gnu::noinline]] bool something_unread() const noexcept {
        if (out_of_step_) return false;
        return (db_->server_status & more_results) != 0 || db_->status != MYSQL_STATUS_READY || query_is_out() ||
               answer_is_there();
    }
    bool query_is_out() const noexcept { return detail::query_is_out(*db_); }
    // That to a query which is not seen to be out. Else the server sends nothing on its own, but the end of the
    // connection.
    bool answer_is_there() const noexcept {
#ifdef POLLRDHUP
        constexpr short ended = POLLRDHUP;
#else
        constexpr short ended = 0;
#endif
        pollfd socket{static_cast<int>(mysql_get_socket(db_)), static_cast<short>(POLLIN | ended), 0};
        return poll(&socket, 1, 0) == 1 && socket.revents == POLLIN;
    }
    void refuse_unread() const {
        if (unread()) [[unlikely]]
            throw UsageError{results_unread};
    }

    // Before a rollback: results of statements that were sent and not looked at. Those that user code has begun to read
    // are its own to free.
    void read_what_nobody_reads() const {
        if (!has_latest_word() && db_->status == MYSQL_STATUS_READY && (query_is_out() || answer_is_there()))
            mysql_read_query_result(db_);
        do
            if (db_->status == MYSQL_STATUS_GET_RESULT) mysql_free_result(mysql_use_result(db_));
        while (db_->status == MYSQL_STATUS_READY && (db_->server_status & more_results) != 0 &&
               mysql_next_result(db_) == 0);
        refuse_unread();
    }

    // How many parts of `compound` were done for sure. Where a query may still be at work, it is made certain that the
    // answer is to ours: in a compound by its first part, which says so, else, or if it is long, by a question of its own.
    unsigned run(std::string_view compound) const noexcept {
        if (!has_latest_word()) [[unlikely]]
            return run_unsure(compound);
        return Style::run(db_, compound);
    }
    [[gnu::cold, gnu::noinline]] unsigned run_unsure(std::string_view compound) const noexcept {
        note_ending(Ending::by_success);
        unsigned done = 0;
        if (Style::whole && compound.size() < most_tagged) {
            if (tagged(detail::compound_begin, compound.substr(detail::compound_begin.size()))) done = detail::all;
            note_ending(Ending::by_error);
        } else if (ask_state()) {
            note_ending(Ending::by_error);
            done = Style::run(db_, compound);
        }
        return done;
    }

    // Sends `before`, a SELECT of a word that was not sent before, and `after`. An answer without the word is that to
    // another query: then nobody can tell any more which answer is whose, and the connection is closed.
    bool tagged(std::string_view before, std::string_view after) const noexcept {
        char tag[48];
        std::snprintf(tag, sizeof tag, "txhooks %p %u", static_cast<const void*>(this), ++tags_);
        char sql[most_tagged + 100];
        const int size =
            std::snprintf(sql, sizeof sql, "%.*sSELECT '%s'%s%.*s", static_cast<int>(before.size()), before.data(), tag,
                          after.empty() ? "" : ";", static_cast<int>(after.size()), after.data());
        if (!send({sql, static_cast<std::size_t>(size)})) return false;
        MYSQL_RES* const rows = mysql_store_result(db_);
        if (rows == nullptr && mysql_errno(db_) != 0) return false;
        const MYSQL_ROW row = rows != nullptr ? mysql_fetch_row(rows) : nullptr;
        const bool ours = row != nullptr && row[0] != nullptr && std::string_view{row[0]} == tag;
        mysql_free_result(rows);
        if (ours && is_idle()) foreign_ = false;
        if (ours) return after.empty() || mysql_next_result(db_) == 0;
        out_of_step_ = true;
        mariadb_cancel(db_);
        return false;
    }

    static constexpr std::size_t most_tagged = 500;

    bool done(std::string_view compound) const noexcept { return run(compound) == detail::all; }
    [[gnu::noinline]] bool begun_otherwise(const Begin& how) const {
        if (how.isolation > Isolation::serializable) throw UsageError{"txhooks: no such isolation level"};
        char sql[300];
        std::snprintf(sql, sizeof sql, "BEGIN NOT ATOMIC %s%s%s%sSTART TRANSACTION%s%s%s;SAVEPOINT txhooks_0;END",
                      foreign_ ? "IF @@in_transaction OR NOT @@autocommit THEN SIGNAL SQLSTATE '45000';END IF;" : "",
                      how.isolation == Isolation::of_session ? "" : "SET TRANSACTION ISOLATION LEVEL ",
                      name(how.isolation), how.isolation == Isolation::of_session ? "" : ";",
                      how.read_only ? " READ ONLY" : "", how.read_only && how.consistent_snapshot ? "," : "",
                      how.consistent_snapshot ? " WITH CONSISTENT SNAPSHOT" : "");
        return done(std::string_view{sql});
    }
    bool send(std::string_view sql) const noexcept { return mysql_real_query(db_, sql.data(), sql.size()) == 0; }
    bool run_numbered(const char* verb, unsigned n) const noexcept {
        char sql[80];
        std::snprintf(sql, sizeof sql, "BEGIN NOT ATOMIC %s txhooks_%u;END", verb, n);
        return has_latest_word() ? detail::Statements::run(db_, sql) == detail::all : done(std::string_view{sql});
    }

    // A statement that does no harm if it is done twice, and that KILL QUERY may hit.
    [[gnu::cold, gnu::noinline]] bool insist(std::string_view sql) const noexcept {
        for (int attempt = 0; attempt < 3; ++attempt)
            if (send(sql)) return true;
        return false;
    }

    // An error says nothing about the transaction, and leaves what the client knows of it as it was; rows do. False: the
    // connection is gone.
    bool ask_state() const noexcept {
        // KILL QUERY may hit it, and a driver that reconnects fails first.
        for (int attempt = 0, failed = 0; attempt < 10 && failed < 3; ++attempt) {
            if (tagged("", "")) return true;
            if (!detail::is_from_server(mysql_errno(db_))) ++failed;
        }
        return false;
    }

    EngineError error(Outcome outcome) const noexcept {
        if (out_of_step_)
            return {detail::cr_server_lost, "HY000",
                    "txhooks: what came was the answer to another query, so the connection was closed; after "
                    "mysql_send_query call mysql_read_query_result before a block begins or ends, or a hook is "
                    "registered",
                    outcome};
        return {static_cast<int>(mysql_errno(db_)), mysql_sqlstate(db_), mysql_error(db_), outcome};
    }

    // A verb on a nested block failed.
    [[noreturn, gnu::cold, gnu::noinline]] void fail() const {
        const EngineError seen = error(Outcome::unknown);
        if (seen.code() == detail::er_no_such_savepoint)
            throw TransactionLost{Outcome::unknown, std::make_exception_ptr(seen)};
        const Outcome outcome = !ask_state()       ? Outcome::unknown
                                : in_transaction() ? Outcome::still_open
                                                   : Outcome::rolled_back;
        throw EngineError{seen.code(), seen.sqlstate(), seen.what(), outcome};
    }

    [[noreturn, gnu::cold, gnu::noinline]] void failed_begin(const Begin& how) const {
        const EngineError seen = error(Outcome::rolled_back);
        if (foreign_) {
            if (seen.code() == detail::er_signal) throw UsageError{txhooks::detail::engine_in_transaction};
            throw EngineError{seen};
        }
        // A level that was set and not used would go to the next transaction; this one is rolled back.
        if (how.isolation != Isolation::of_session) insist("START TRANSACTION");
        if (Style::whole && seen.code() == detail::er_parse)
            throw UsageError{
                "txhooks: this server, or a proxy before it, does not know compound statements (BEGIN NOT ATOMIC); use "
                "HookedConnection<MYSQL*, txhooks::mariadb::Plain>"};
        throw EngineError{seen};
    }

    // Whether COMMIT can be sent again if it leaves the transaction open. If not, that is rolled back; or committed
    // without its marker, if the server lets nobody write: what the block itself wrote before is then refused as well.
    enum class Retry : unsigned char { never, can, unmarked };

    // `compound` begins with the release of the witness.
    [[gnu::cold, gnu::noinline]] CommitResult commit_by(std::string_view compound, Retry retry) noexcept {
        if (const char* const reason = obstacle())
            return {Outcome::still_open, std::make_exception_ptr(UsageError{reason})};
        return answered(run(compound), retry);
    }
    // COMMIT, of which so many parts were done for sure.
    CommitResult answered(unsigned done, Retry retry) noexcept {
        if (done != detail::all) [[unlikely]]
            return failed_commit(done > 0, retry);
        ours_ = false;
        return {in_transaction() ? Outcome::unknown : Outcome::committed};  // else it was no answer to COMMIT
    }

    [[gnu::cold, gnu::noinline]] CommitResult failed_commit(bool released, Retry retry) noexcept {
        const EngineError seen = error(Outcome::unknown);
        const auto code = static_cast<unsigned>(seen.code());
        // Not a procedure that a trigger calls and is not there, which has the same number.
        if (code == detail::er_no_such_savepoint && !released &&
            std::string_view{seen.what()}.find("txhooks_0") != std::string_view::npos)
            return {Outcome::unknown, std::make_exception_ptr(seen), true};
        const bool proves_nothing = !detail::is_from_server(code) || code == detail::er_connection_killed ||
                                    code == detail::er_error_during_commit;
        if (proves_nothing || !ask_state()) return ended(seen, Outcome::unknown);
        if (!in_transaction()) {
            // These come from COMMIT alone; others may have come after it, where we cannot tell.
            const bool from_commit = released || code == detail::er_lock_wait_timeout || code == detail::er_deadlock ||
                                     code == detail::er_option_prevents_statement;
            return ended(seen, from_commit ? Outcome::rolled_back : Outcome::unknown);
        }
        if (retry == Retry::unmarked && code == detail::er_option_prevents_statement)
            return unmarked(commit_by("BEGIN NOT ATOMIC COMMIT AND NO CHAIN NO RELEASE;END", Retry::never));
        if (retry != Retry::can)
            return ended(seen, insist("ROLLBACK AND NO CHAIN NO RELEASE") ? Outcome::rolled_back : Outcome::unknown);
        // Not committed. Without the witness the next attempt would look like a loss.
        if ((released || send("RELEASE SAVEPOINT txhooks_0")) && send("SAVEPOINT txhooks_0"))
            return {Outcome::still_open, with(seen, Outcome::still_open)};
        return {Outcome::unknown, std::make_exception_ptr(seen), true};
    }

    // No marker was sent, so a Doubt could not find out.
    static CommitResult unmarked(CommitResult result) noexcept {
        result.lost = result.lost || result.outcome == Outcome::unknown;
        return result;
    }

    CommitResult ended(const EngineError& seen, Outcome outcome) noexcept {
        ours_ = false;
        return {outcome, with(seen, outcome)};
    }

    static std::exception_ptr with(const EngineError& seen, Outcome outcome) noexcept {
        return std::make_exception_ptr(EngineError{seen.code(), seen.sqlstate(), seen.what(), outcome});
    }

    MYSQL* db_;
    bool ours_ = false;             // from BEGIN until we have seen the end
    mutable bool foreign_ = false;  // what BEGIN has found may not be idle, and was left alone
    pid_t process_ = 0;             // that of BEGIN
    mutable Ending ending_ = Ending::unseen;
    mutable bool out_of_step_ = false;  // an answer was not to what was asked
    mutable unsigned tags_ = 0;
};

/// The adapter to name in `HookedConnection<MYSQL*, mariadb::Plain>`; see `SavepointWitness`.
using Plain = SavepointWitness<detail::Statements>;

}  // namespace mariadb

template <>
class BackendAdapter<MYSQL*> : public mariadb::SavepointWitness<mariadb::detail::Compounds> {
    using SavepointWitness::SavepointWitness;
};

}  // namespace txhooks

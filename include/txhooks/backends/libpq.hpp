// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on a `PGconn*`:
///
///     txhooks::HookedConnection db{handle};
///     db.atomic({.begin = {.isolation = txhooks::postgres::Isolation::serializable}}, [&] { ... });
///
/// The handle is borrowed. It may be closed before this object or after it, but not while a block is open.
/// Errors of PostgreSQL are thrown as `EngineError` with its SQLSTATE (empty: the connection failed); `code()` is the
/// `ExecStatusType`.
///
/// BEGIN, COMMIT, ROLLBACK and both ends of a nested block are one round trip each. COMMIT is believed only when the
/// server answers `COMMIT`: it answers `ROLLBACK` where a statement had failed. Without an answer it is in doubt
/// (`CommitUnknown`). With `synchronous_commit = off` a crash of the server may lose what it has answered; so may a
/// failover if somebody has cancelled the wait for a standby.
///
/// While a COPY, a query whose results are unread, or pipeline mode is on, a block can be neither opened nor committed,
/// and outside of blocks `on_commit` is refused (`UsageError`; finish it and try again). Rolling back ends them: what is
/// not answered within a few milliseconds is cancelled, so that it cannot wait for a lock that this thread holds on
/// another connection. What cannot be ended (`COPY FROM` in a pipeline; no answer to cancels for half a minute) closes
/// the connection: it is broken until `PQreset` and `reset()`.
///
/// A block belongs to the process that began it. After `fork()` the guard of the other sends nothing, and says so
/// (`UsageError`, or the error sink); leave that process with `_exit` or `exec`, and neither use the handle in it nor
/// close it: libpq would end the session of both. A transaction that the other process has ended all the same is lost.
/// As libpq has it, threads may take turns on a handle and everything of txhooks on it, but only one at a time.
/// What wraps a `PGconn*` (a plugin) must stay loaded until that is closed, because libpq keeps the address of the
/// event procedure.

#include <txhooks/backends/detail/libpq_history.hpp>
#include <txhooks/backends/detail/postgres.hpp>
#include <txhooks/txhooks.hpp>

#include <libpq-fe.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace txhooks::postgres {

namespace detail {

// All that was answered to one string of statements.
class Reply {
public:
    Reply(PGconn* conn, const char* sql) noexcept : conn_{conn} {
        PQsendQuery(conn, sql);  // its failure shows in the lack of an answer
        while (PGresult* const result = PQgetResult(conn)) {
            const bool ok = PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK;
            std::unique_ptr<PGresult, Clear>& kept = ok ? last_ : error_;
            if (ok || !error_)
                kept.reset(result);
            else
                PQclear(result);
        }
    }

    std::string value() const { return PQntuples(last_.get()) == 0 ? "" : PQgetvalue(last_.get(), 0, 0); }
    std::string_view tag() const noexcept { return last_ ? PQcmdStatus(last_.get()) : ""; }
    /// Of the first error: empty if there was none, or the server did not report it.
    std::string_view sqlstate() const noexcept { return sqlstate_text(); }
    bool failed() const noexcept { return error_ != nullptr || !last_; }
    bool failed_at_once() const noexcept { return !last_; }

    EngineError error(Outcome outcome) const noexcept {
        const char* const text = error_ ? PQresultErrorMessage(error_.get()) : PQerrorMessage(conn_);
        return EngineError{PQresultStatus(error_.get()), sqlstate_text(), text, outcome};
    }

private:
    struct Clear {
        void operator()(PGresult* result) const noexcept { PQclear(result); }
    };

    const char* sqlstate_text() const noexcept {
        const char* const state = PQresultErrorField(error_.get(), PG_DIAG_SQLSTATE);
        return state != nullptr ? state : "";
    }

    PGconn* conn_;
    std::unique_ptr<PGresult, Clear> last_;
    std::unique_ptr<PGresult, Clear> error_;
};

inline constexpr std::string_view idle_for_too_long = "25P03";
inline constexpr std::string_view not_prepared = "26000";
inline constexpr std::string_view no_savepoint = "3B001";

// Reads, or ends, whatever was going on on a connection that gives it up.
class GiveUp {
public:
    explicit GiveUp(PGconn* conn) noexcept : conn_{conn} {
        if (in_pipeline()) sync();
        while (PQstatus(conn_) == CONNECTION_OK && !finished())
            if (!await_answer() || !read_answer()) PQresetStart(conn_);  // closes it: the server rolls back by itself
    }

private:
    bool in_pipeline() const noexcept {
#ifdef LIBPQ_HAS_PIPELINING
        return PQpipelineStatus(conn_) != PQ_PIPELINE_OFF;
#else
        return false;
#endif
    }

    void sync() const noexcept {
#ifdef LIBPQ_HAS_PIPELINING
        PQpipelineSync(conn_);
#endif
    }

    bool finished() const noexcept {
#ifdef LIBPQ_HAS_PIPELINING
        if (in_pipeline() && PQexitPipelineMode(conn_) == 0) return false;
#endif
        return PQtransactionStatus(conn_) != PQTRANS_ACTIVE;
    }

    // Answers that are under way are read as they are. What takes longer may wait for ever, for a lock that another
    // connection of this thread holds, so it is cancelled: again and again, since a cancel between two statements of a
    // pipeline is lost. False: there was no answer to that either.
    template <class Waiting>
    bool await(int pause, Waiting waiting) {
        for (; waiting(); pause = 2 * pause < longest_pause ? 2 * pause : longest_pause) {
            if (patience_ < pause) return false;
            patience_ -= pause;
            if (pause > first_pause) cancel();
            std::this_thread::sleep_for(std::chrono::milliseconds{pause});
        }
        return true;
    }

    bool await_answer() {
        return await(first_pause, [this] { return PQconsumeInput(conn_) == 1 && PQisBusy(conn_) == 1; });
    }

    void cancel() const noexcept {
#ifdef LIBPQ_HAS_ASYNC_CANCEL
        PGcancelConn* const request = PQcancelCreate(conn_);
        PQcancelBlocking(request);
        PQcancelFinish(request);
#else
        PGcancel* const request = PQgetCancel(conn_);
        char error[256];
        PQcancel(request, error, sizeof error);
        PQfreeCancel(request);
#endif
    }

    // False: a COPY that cannot be ended. In a pipeline nobody knows what it leaves unanswered.
    bool read_answer() {
        PGresult* const result = PQgetResult(conn_);
        const ExecStatusType status = result != nullptr ? PQresultStatus(result) : PGRES_EMPTY_QUERY;
        PQclear(result);
        if (status == PGRES_COPY_OUT) return read_copy();
        if (status == PGRES_COPY_IN) return !in_pipeline() && PQputCopyEnd(conn_, "given up") == 1;
        return status != PGRES_COPY_BOTH;
    }

    bool read_copy() {
        for (int length = 0;;) {
            const auto waiting = [&] {
                char* row = nullptr;
                length = PQconsumeInput(conn_) == 1 ? PQgetCopyData(conn_, &row, 1) : -2;
                PQfreemem(row);
                return length == 0;
            };
            if (!await(2 * first_pause, waiting)) return false;
            if (length < 0) return length == -1;
        }
    }

    static constexpr int first_pause = 4;  // milliseconds, as all of these
    static constexpr int longest_pause = 512;

    PGconn* conn_;
    int patience_ = 30'000;
};

// Hears, as long as it lives, whether the server warns that there is no transaction to commit, which it does besides
// success. The user's notice processor hears it too. A notice receiver of the user's cannot be called in its place,
// because libpq tells nobody with which argument: then it stays, and this one hears nothing.
class CommitWarning {
public:
    explicit CommitWarning(PGconn* conn) noexcept : conn_{conn}, before_{PQsetNoticeReceiver(conn, nullptr, nullptr)} {
        if (before_ == default_receiver())
            PQsetNoticeReceiver(conn_, &CommitWarning::hear, this);
        else
            before_ = nullptr;
    }
    CommitWarning(const CommitWarning&) = delete;
    CommitWarning& operator=(const CommitWarning&) = delete;
    ~CommitWarning() {
        if (before_ != nullptr && PQsetNoticeReceiver(conn_, nullptr, nullptr) == &CommitWarning::hear)
            PQsetNoticeReceiver(conn_, before_, nullptr);
    }

    bool listens() const noexcept { return before_ != nullptr; }
    bool heard() const noexcept { return heard_; }

private:
    // That of a connection on which nobody has set one. It ignores its argument.
    static PQnoticeReceiver default_receiver() noexcept {
        static const PQnoticeReceiver receiver = [] {
            PGconn* const none = PQconnectStart("?");  // no such option: it does nothing
            const PQnoticeReceiver its = PQsetNoticeReceiver(none, nullptr, nullptr);
            PQfinish(none);
            return its;
        }();
        return receiver;
    }

    static void hear(void* self, const PGresult* notice) {
        auto& warning = *static_cast<CommitWarning*>(self);
        const char* const state = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
        if (state != nullptr && state == no_transaction) warning.heard_ = true;
        warning.before_(nullptr, notice);
    }

    PGconn* conn_;
    PQnoticeReceiver before_;
    bool heard_ = false;
};

// What is sent with BEGIN and before COMMIT for the server to check that it is still the same transaction; `in_any`:
// that it is in any. `first` is that by itself.
struct NoCheck {
    static constexpr const char* begin = "BEGIN";
    static constexpr const char* first = "SAVEPOINT txhooks_0; RELEASE txhooks_0; ";
    static constexpr const char* commit = "COMMIT";
    static constexpr const char* commit_in_any = "SAVEPOINT txhooks_0; COMMIT";
    static bool says_lost(std::string_view) noexcept { return false; }
};
struct SettingCheck {
    static constexpr const char* begin = "BEGIN; SET LOCAL txhooks.block = 'ours'";
    static constexpr const char* first = "SELECT 1 / (pg_catalog.current_setting('txhooks.block') = 'ours')::int; ";
    static constexpr const char* commit =
        "SELECT 1 / (pg_catalog.current_setting('txhooks.block') = 'ours')::int; COMMIT";
    static constexpr const char* commit_in_any = commit;
    static bool says_lost(std::string_view sqlstate) noexcept {
        return sqlstate == "22012" || sqlstate == "42704";  // division by zero, or no such setting
    }
};
struct SavepointCheck {
    static constexpr const char* begin = "BEGIN; SAVEPOINT txhooks_0";
    static constexpr const char* first = "RELEASE txhooks_0; ";
    static constexpr const char* commit = "RELEASE txhooks_0; COMMIT";
    static constexpr const char* commit_in_any = commit;
    static bool says_lost(std::string_view sqlstate) noexcept { return sqlstate == no_savepoint; }
};

}  // namespace detail

/// The adapter. An event procedure of libpq sees what the server answers to everybody on the connection, so that user
/// code that ends the transaction is noticed at the next call of this library, and it is known what became of it.
///
/// - Cost: no round trip and no statement; with a notice receiver of yours a SAVEPOINT, in the same round trip as COMMIT.
///   Event procedures of yours are left alone; this one stays registered with the handle, and does nothing once no
///   adapter is there. Your notice processor or receiver stays, and hears all it would have heard.
/// - It sees raw COMMIT and ROLLBACK, with AND CHAIN or followed by BEGIN, PREPARE TRANSACTION, a COMMIT that failed,
///   and PQreset; also inside strings of several statements, asynchronous or in pipelines.
/// - It does not see a raw `ROLLBACK AND CHAIN`, nor in a failed transaction a raw `COMMIT AND CHAIN`, after more
///   `SAVEPOINT` than `RELEASE` of the user's (one RELEASE may end several): the server answers both like `ROLLBACK TO`.
///   Nor, with `client_min_messages = error`, that another process has ended the transaction. `postgres::SetLocal` and
///   `postgres::Sentinel` see these too. After `ROLLBACK TO` without a RELEASE it takes a raw `BEGIN` for a loss.
/// - A hook belongs to its block, not to a savepoint of yours: `ROLLBACK TO` undoes the row and not the hook. Open a
///   nested block instead. If one was rolled back in which a hook may have been registered, the error sink is told when
///   the block has committed.
/// - Unknown remains what became of a transaction that was prepared, or whose connection was lost without a word from
///   the server, or reset, or closed.
template <class Check>
class EventWitness {
public:
    using begin_options = Begin;

    explicit EventWitness(PGconn* conn) : watch_{conn} {}

    void begin(const Begin& options) {
        detail::begin(Check::begin, options, [this](const char* sql) { execute(sql); });
        watch_.history.restart();
        ours_ = true;
        process_ = detail::this_process();
    }

    CommitResult commit() noexcept {
        if (const std::optional<CommitResult> refused = refuse_commit()) return *refused;
        const detail::CommitWarning warning{conn()};
        const detail::Reply reply{conn(), warning.listens() ? Check::commit : Check::commit_in_any};
        return warning.heard() ? CommitResult{Outcome::unknown, nullptr, true} : proven(reply);
    }

    /// For `Doubt`. In one round trip, as without the marker; the first on a session takes another, which prepares the
    /// statement `txhooks_marker` there.
    CommitResult commit(const char* marker) noexcept {
        if (const std::optional<CommitResult> refused = refuse_commit()) return *refused;
        const detail::StraySavepoints::Ours ours{watch_.history.strays};
        char sql[300];
        std::snprintf(sql, sizeof sql, "%.*sSAVEPOINT txhooks_0; EXECUTE txhooks_marker('%s'); COMMIT",
                      static_cast<int>(std::strlen(Check::commit) - std::strlen("COMMIT")), Check::commit, marker);
        return marked(detail::Reply{conn(), sql}, marker);
    }

    /// For an Outbox. In one round trip, too; `marker` may be null.
    CommitResult commit(const char* ahead, const char* marker) noexcept {
        if (const std::optional<CommitResult> refused = refuse_commit()) return *refused;
        std::string sql;
        try {
            sql = std::string{Check::first} + ahead;
            if (marker != nullptr)
                sql += std::string{"SAVEPOINT txhooks_0; EXECUTE txhooks_marker('"} + marker + "'); ";
            sql += "COMMIT";
        } catch (...) {
            return {Outcome::still_open, std::current_exception()};
        }
        const detail::StraySavepoints::Ours ours{watch_.history.strays};
        detail::Reply reply{conn(), sql.c_str()};
        return marker == nullptr ? proven(reply) : marked(std::move(reply), marker);
    }

    bool was_committed(const char* marker) {
        return detail::was_committed(marker, [this](const char* sql) {
            const detail::Reply reply{conn(), sql};
            if (reply.failed()) throw reply.error(Outcome::unknown);
            return reply.value();
        });
    }

    void rollback() {
        if (in_another_process()) {
            elsewhere_ = true;
            throw UsageError{detail::after_fork};
        }
        finish_what_is_running();
        const bool lost = state() == ConnectionState::lost;
        const Outcome outcome = fate();
        const bool was_ours = ours_;
        ours_ = false;
        if (PQtransactionStatus(conn()) != PQTRANS_IDLE) execute("ROLLBACK");
        if (was_ours && lost) throw TransactionLost{outcome};
    }

    void savepoint(unsigned n) { numbered("SAVEPOINT", n); }
    void release(unsigned n) { numbered("RELEASE", n); }
    void rollback_to(unsigned n) {
        if (in_another_process()) throw UsageError{detail::after_fork};
        finish_what_is_running();
        if (state() == ConnectionState::lost) throw TransactionLost{fate()};
        const detail::StraySavepoints::Ours ours{watch_.history.strays};
        char sql[80];
        std::snprintf(sql, sizeof sql, "ROLLBACK TO txhooks_%u; RELEASE txhooks_%u", n, n);
        execute(sql);
    }

    ConnectionState state() const noexcept {
        const PGTransactionStatusType status = PQtransactionStatus(conn());
        watch_.history.asked(status == PQTRANS_ACTIVE);
        if (elsewhere_) return ConnectionState::lost;
        if (status == PQTRANS_UNKNOWN) return ConnectionState::lost;
        if (ours_ && (status == PQTRANS_IDLE || watch_.history.ended())) return ConnectionState::lost;
        if (status == PQTRANS_IDLE) return in_pipeline() ? ConnectionState::open : ConnectionState::idle;
        return status == PQTRANS_INTRANS || status == PQTRANS_ACTIVE ? ConnectionState::open : ConnectionState::failed;
    }

    Outcome fate() const noexcept { return watch_.history.fate(PQtransactionStatus(conn()) == PQTRANS_IDLE); }

    bool in_another_process() const noexcept { return ours_ && detail::this_process() != process_; }

    void reset() noexcept {
        if (elsewhere_ && PQtransactionStatus(conn()) != PQTRANS_IDLE) return;
        ours_ = false;
        elsewhere_ = false;
    }

    /// For `retry`: a serialization failure (40001), or the victim of a deadlock (40P01).
    bool transient(const std::exception_ptr& error) const noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const EngineError& e) {
            return detail::is_transient(e.sqlstate());
        } catch (...) {
            return false;
        }
    }

private:
    static constexpr const char* stray_savepoint =
        "txhooks: a savepoint that is no block was rolled back in it, and hooks that were registered there run all the "
        "same, without its rows; use a nested block instead";
    static constexpr const char* while_busy =
        "txhooks: a COPY, a query whose results are unread, or pipeline mode is on; finish it first";

    PGconn* conn() const noexcept { return watch_.conn(); }

    std::optional<CommitResult> refuse_commit() const noexcept {
        if (state() == ConnectionState::lost) return CommitResult{fate(), nullptr, true};
        if (in_another_process()) return refusal(detail::after_fork);
        if (busy()) return refusal(while_busy);
        return std::nullopt;
    }

    static CommitResult refusal(const char* why) noexcept {
        return {Outcome::still_open, std::make_exception_ptr(UsageError{why})};
    }

    // The transaction is still there, and COMMIT was not reached.
    bool only_failed_with(const detail::Reply& reply, std::string_view sqlstate) const noexcept {
        return reply.sqlstate() == sqlstate && PQtransactionStatus(conn()) == PQTRANS_INERROR;
    }

    // By the answer to a COMMIT with a marker.
    CommitResult marked(detail::Reply reply, const char* marker) noexcept {
        if (only_failed_with(reply, detail::not_prepared)) {
            detail::Reply prepared = detail::commit_marked(
                "ROLLBACK TO txhooks_0; PREPARE txhooks_marker(text) AS INSERT INTO txhooks_commit (id, committed) "
                "VALUES ($1, true); ",
                marker, "COMMIT", [this](const char* first) { return detail::Reply{conn(), first}; });
            // Else it was a statement ahead of the marker's that nobody has prepared.
            if (prepared.sqlstate() != detail::no_savepoint) reply = std::move(prepared);
        }
        if (only_failed_with(reply, detail::read_only)) {
            // There is nothing to mark if it wrote nothing before it became read-only.
            const detail::Reply unmarked{conn(), detail::commit_unmarked};
            if (PQtransactionStatus(conn()) != PQTRANS_INERROR) {
                CommitResult result = proven(unmarked);
                result.lost = result.outcome == Outcome::unknown;  // not in doubt: no marker was sent
                return result;
            }
        }
        return proven(reply);
    }

    // By the answer to COMMIT.
    CommitResult proven(const detail::Reply& reply) noexcept {
        if (reply.tag() == "COMMIT") {
            if (watch_.history.strays.undone() && !reply.failed()) [[unlikely]]
                return committed_without_savepoint();
            return ended(reply, Outcome::committed);
        }
        if (reply.tag() == "ROLLBACK" && !reply.failed()) return ended(reply, Outcome::rolled_back);
        const std::string_view state = reply.sqlstate();
        // The server says so only to who is idle: it has not read COMMIT.
        if (state == detail::idle_for_too_long) return ended(reply, Outcome::rolled_back);
        const PGTransactionStatusType status = PQtransactionStatus(conn());
        if (state.empty() || (status != PQTRANS_IDLE && status != PQTRANS_INERROR))
            return ended(reply, Outcome::unknown);
        if (reply.failed_at_once() && (state == detail::no_transaction || Check::says_lost(state)))
            return {Outcome::unknown, std::make_exception_ptr(reply.error(Outcome::unknown)), true};
        if (status == PQTRANS_IDLE) return ended(reply, Outcome::rolled_back);
        // COMMIT was not reached, and never will be. The first ROLLBACK may be cancelled.
        for (int attempt = 0; attempt < 2 && PQtransactionStatus(conn()) == PQTRANS_INERROR; ++attempt)
            detail::Reply{conn(), "ROLLBACK"};
        const bool open = PQtransactionStatus(conn()) == PQTRANS_INERROR;
        return ended(reply, open ? Outcome::unknown : Outcome::rolled_back);
    }

    [[gnu::cold, gnu::noinline]] CommitResult committed_without_savepoint() noexcept {
        ours_ = false;
        return {Outcome::committed, std::make_exception_ptr(UsageError{stray_savepoint})};
    }

    bool busy() const noexcept {
        const PGTransactionStatusType status = PQtransactionStatus(conn());
        return status == PQTRANS_ACTIVE || (status != PQTRANS_UNKNOWN && in_pipeline());
    }

    bool in_pipeline() const noexcept {
#ifdef LIBPQ_HAS_PIPELINING
        return PQpipelineStatus(conn()) != PQ_PIPELINE_OFF;
#else
        return false;
#endif
    }

    void finish_what_is_running() noexcept {
        if (busy()) detail::GiveUp{conn()};
    }

    void execute(const char* sql) {
        if (busy()) throw UsageError{while_busy};
        const detail::Reply reply{conn(), sql};
        if (!reply.failed()) return;
        const ConnectionState now = state();
        const bool open = now == ConnectionState::open || now == ConnectionState::failed;
        const EngineError error = reply.error(open ? Outcome::still_open : Outcome::rolled_back);
        if (ours_ && reply.sqlstate() == detail::no_savepoint)
            throw TransactionLost{Outcome::unknown, std::make_exception_ptr(error)};
        throw EngineError{error};
    }

    void numbered(const char* verb, unsigned n) {
        if (in_another_process()) throw UsageError{detail::after_fork};
        const detail::StraySavepoints::Ours ours{watch_.history.strays};
        char sql[40];
        std::snprintf(sql, sizeof sql, "%s txhooks_%u", verb, n);
        execute(sql);
    }

    CommitResult ended(const detail::Reply& reply, Outcome outcome) noexcept {
        ours_ = false;
        if (!reply.failed()) return {outcome};
        return {outcome, std::make_exception_ptr(reply.error(outcome))};
    }

    mutable detail::Watch watch_;
    bool ours_ = false;       // from BEGIN until we have seen the end
    bool elsewhere_ = false;  // it is the block of another process, and was given up in this one
    long process_ = 0;        // that of BEGIN
};

/// Asks the server as well whether it is still the same transaction, by a setting that only lasts as long:
///
///     txhooks::HookedConnection<PGconn*, txhooks::postgres::SetLocal> db{handle};
///
/// - Cost: one more statement with BEGIN and one with COMMIT, in the same round trips.
/// - It sees, at COMMIT, whatever ended the transaction. What became of it is known where the event procedure saw it.
/// - `RESET ALL` in a block looks like a loss: it is rolled back.
using SetLocal = EventWitness<detail::SettingCheck>;

/// The same by a savepoint, `txhooks_0`, set with BEGIN and released with COMMIT.
///
/// - Cost: as `SetLocal` or less, and a second transaction id for every block that writes, in one of the 64 slots for
///   subtransactions that a session shows to others.
/// - In a block `SET TRANSACTION` and `pg_export_snapshot()` fail, as PostgreSQL has it in a savepoint: give the
///   isolation level with `.begin`.
using Sentinel = EventWitness<detail::SavepointCheck>;

}  // namespace txhooks::postgres

namespace txhooks {

template <>
class BackendAdapter<PGconn*> : public postgres::EventWitness<postgres::detail::NoCheck> {
    using EventWitness::EventWitness;
};

}  // namespace txhooks

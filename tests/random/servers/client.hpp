// SPDX-License-Identifier: MIT
#pragma once

#include "ledger.hpp"
#include "random/dice.hpp"
#include "support/exceptions.hpp"
#include "support/tcp_proxy.hpp"
#include "tally.hpp"

#include <txhooks/doubt.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/txhooks.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace random_programs {

/// What a statement of user code failed with.
class StatementError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Whether a session waits for nothing long.
struct Haste {
    bool locks = false;
    bool statements = false;
};

/// Gives a variable its value back.
template <class T>
class Restore {
public:
    explicit Restore(T& what) : what_{what}, before_{what} {}
    Restore(const Restore&) = delete;
    Restore& operator=(const Restore&) = delete;
    ~Restore() { what_ = before_; }

private:
    T& what_;
    T before_;
};

/// One of several clients of a server: random blocks on a connection of its own. Each row has a hook, of any kind, and
/// each client its own rows; they meet in the tables `shared` and `taken`.
///
/// `Engine` is the server: its sessions, its SQL, and what can go wrong with it.
template <class Engine, class Adapter>
class Client {
public:
    Client(Engine& engine, std::uint64_t seed, unsigned number)
        : engine_{engine}, dice_{seed}, next_row_{1 + number * 100'000'000UL} {
        haste_.locks = dice_.one_in(3);
        haste_.statements = dice_.one_in(5);
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    void work(unsigned long blocks) {
        connect();
        while (tally_.blocks() < blocks) {
            first_of_round_ = transactions_.size();
            if (dice_.one_in(100))
                hook_outside();
            else
                outermost();
            recover();
        }
        db_.reset();
        session_.reset();
        resolver_.reset();
        killer_.reset();
    }

    const std::deque<Transaction>& transactions() const { return transactions_; }
    Tally& tally() { return tally_; }
    const std::string& violation() const { return violation_; }

private:
    using Handle = typename Engine::Handle;
    using Session = typename Engine::Session;
    using Db = txhooks::HookedConnection<Handle, txhooks::testing::FaultyAdapter<Adapter>>;
    using Options = typename Db::Options;
    using Verb = txhooks::testing::Verb;
    using When = txhooks::testing::When;

    static constexpr unsigned deepest = 4;

    struct Stop {};  // what user code throws
    struct Result {  // or returns
        bool good;
        bool of_hook;
        bool has_value() const { return good; }
        int error() const { return 1; }
    };

    enum class Trouble { none, raw, ddl, constraint, unread, kill, race };

    // A block that is open, and whether set_rollback(true) was asked of it.
    struct Frame {
        Frame* outer;
        bool joined;
        std::size_t first_hook;
        bool asked = false;
        bool committed = false;
        unsigned end = 0;             // begun, by this number
        std::size_t undone_from = 0;  // how many hooks there were when the first ran that waited for its undoing
    };

    // ---- Connections

    void connect() {
        db_.reset();
        session_.reset();
        proxied_ = dice_.one_in(2);
        if (proxied_ and not proxy_) proxy_.emplace(engine_.port());
        session_.emplace(engine_, proxied_ ? proxy_->port() : 0, haste_);
        session_hurt_ = false;
        db_.emplace(session_->get());
        db_->set_error_sink([](void* self, const char* what,
                               const std::exception_ptr& error) { static_cast<Client*>(self)->told(what, error); },
                            this);
    }

    Session& steady(std::optional<Session>& session) {
        if (not session) session.emplace(engine_, static_cast<unsigned short>(0), Haste{});
        return *session;
    }

    void told(const char* what, const std::exception_ptr& error) {
        if (current_ == nullptr) return;
        const std::string text = what;
        say("sink(" + text + (error ? ": " + words(error) : "") + ")");
        const bool hook_threw =
            text.ends_with("of on_rollback() threw") or text.ends_with("of unless_committed() threw");
        if (hook_threw) ++current_->told_to_sink;
        note(error);
    }

    void note(const std::exception_ptr& error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const txhooks::TransactionLost& lost) {
            current_->lost.push_back(lost.outcome());
        } catch (...) {}
    }

    // After a block: the connection works, or is known not to.
    void recover() {
        if (db_->pending_hooks() != 0 or db_->in_atomic_block()) violated("a block, or hooks, remain");
        if (db_->usable()) {
            session_hurt_ = session_hurt_ and not session_->alive();
            return;
        }
        try {
            db_->on_commit([] {});
        } catch (const txhooks::ConnectionBroken&) {
        } catch (...) {
            violated("it cannot be used, and is not broken: " + words(std::current_exception()));
        }
        if (dice_.one_in(2)) {
            bool idle = false;
            const bool commits = dice_.one_in(2);
            if (commits) {  // it may: nothing is proven
                ++tally_[Count::committed_by_hand];
                for (std::size_t i = first_of_round_; i != transactions_.size(); ++i) transactions_[i].raw = true;
            }
            for (unsigned attempt = 0; not idle and attempt != 3; ++attempt)
                idle = session_->attempt(commits ? "COMMIT" : "ROLLBACK").empty();
            try {
                if (not session_->alive() and session_->make_anew()) ++tally_[Count::reconnected];
                db_->reset();
                ++tally_[Count::recovered];
                return;
            } catch (const txhooks::UsageError&) {
                if (idle and session_->alive()) violated("reset() refuses a connection that is idle");
            }
        }
        ++tally_[Count::reconnected];
        connect();
    }

    void violated(const std::string& what) {
        const Transaction& t = current_ != nullptr ? *current_ : transactions_.back();
        if (violation_.empty()) violation_ = what + "\n  " + t.story;
    }

    // ---- Blocks

    void outermost() {
        Transaction& t = transactions_.emplace_back();
        Transaction* const outer = std::exchange(current_, &t);
        Frame* const outer_frame = std::exchange(frame_, nullptr);
        const bool in_hook = outer != nullptr;
        const Restore opened{opened_};
        if (not in_hook) {
            t.policy = static_cast<txhooks::HookFailure>(dice_.one_in(4) ? dice_.below(3) : 0);
            db_->set_on_hook_failure(t.policy);
        } else {
            t.policy = outer->policy;
        }
        trouble_ = in_hook ? Trouble::none : plan();
        const bool troubled = trouble_ != Trouble::none or verb_planned_ or cut_planned_;
        if (troubled) session_hurt_ = true;
        t.calm = not in_hook and not session_hurt_ and not haste_.statements;

        txhooks::Doubt doubt;
        txhooks::DetachedHooks detached;
        Options options = options_of(t);
        if (dice_.one_in(2))
            options.resolve = &doubt;
        else if (dice_.one_in(20))
            options.detach = &detached;
        say(options.resolve != nullptr ? "resolve" : options.detach != nullptr ? "detach" : "");

        opened_ = savepoints_ = false;
        std::exception_ptr error;
        try {
            t.told = block(options, 0) ? Count::committed : Count::rolled_back;
        } catch (const txhooks::HookError& e) {
            t.hook_error = e;
            t.told = Count::hook_error;
        } catch (...) {
            error = std::current_exception();
            t.told = told_by(error);
            note(error);
            say("-> " + words(error));
        }
        trouble_ = Trouble::none;
        left_open_.reset();
        if (not opened_ and t.lost.empty()) t.told = Count::refused;
        t.usable = db_->usable();
        if (t.told == Count::rolled_back and not t.usable) t.told = Count::broken;
        check_before(t, error);
        if (not in_hook) {
            stop_race();
            count_faults();
        }

        if (doubt.in_doubt()) {
            if (t.told != Count::unknown) violated("in doubt, and told otherwise");
            for (const Hook& hook : t.hooks)
                if (hook.kind == Kind::unless_committed and hook.ran != 1)
                    violated("in doubt, and the " + name(hook) + " did not run at once");
            if (rollback_hooks_ran(t, t.outermost)) violated("in doubt, and hooks of on_rollback ran");
            if (not dice_.one_in(10)) resolve(t, doubt);
        }
        if (options.detach != nullptr) run_detached(t, detached);
        if (t.told == Count::unknown or t.told == Count::resolved_rolled_back) doubt.discard();
        ++tally_[not t.lost.empty() ? loss(t.lost.back()) : t.told];
        current_ = outer;
        frame_ = outer_frame;
    }

    static bool rollback_hooks_ran(const Transaction& t, unsigned end) {
        return std::any_of(t.undone.begin(), t.undone.end(),
                           [&](const Hook* hook) { return hook->kind == Kind::on_rollback and hook->end == end; });
    }

    // What a hook before COMMIT threw, or returned, reached the caller.
    void check_before(const Transaction& t, const std::exception_ptr& error) {
        if (t.thrown and error != t.thrown) violated("what a hook before COMMIT threw did not reach the caller");
        if (t.failed and error and t.told != Count::aborted and not went_wrong(error))
            violated("a hook before COMMIT returned a failure, and " + words(error) + " was told");
        if (not t.left_open) return;
        try {
            if (error) std::rethrow_exception(error);
        } catch (const txhooks::UsageError&) {
            return;
        } catch (...) {}
        violated("a hook before COMMIT left a block open, and no UsageError was told");
    }

    // Told instead of the failure that a hook returned: its ROLLBACK failed, or found the transaction lost.
    bool went_wrong(const std::exception_ptr& error) const {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::TransactionLost&) {
            return true;
        } catch (...) {
            return not db_->usable();
        }
    }

    static Count told_by(const std::exception_ptr& error) {
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::CommitUnknown&) {
            return Count::unknown;
        } catch (const txhooks::TransactionAborted&) {
            return Count::aborted;
        } catch (...) {
            return Count::rolled_back;
        }
    }

    static std::string words(const std::exception_ptr& error) {
        try {
            return support::name_of(error);
        } catch (const Stop&) {
            return "Stop";
        }
    }

    static Count loss(txhooks::Outcome outcome) {
        return outcome == txhooks::Outcome::committed     ? Count::lost_committed
               : outcome == txhooks::Outcome::rolled_back ? Count::lost_rolled_back
                                                          : Count::lost_unknown;
    }

    Options options_of(Transaction& t) {
        Options options;
        options.durable = dice_.one_in(10);
        options.begin.isolation = dice_.one_in(3)
                                      ? dice_.template pick<decltype(options.begin.isolation)>(Engine::isolations)
                                      : decltype(options.begin.isolation){};
        options.begin.read_only = dice_.one_in(100);
        if (options.begin.read_only) t.story += "read-only ";
        return options;
    }

    // True if it was committed.
    template <class OptionsOfBlock>
    bool block(const OptionsOfBlock& options, unsigned depth) {
        Transaction& t = *current_;
        Frame frame{frame_, options.join and depth != 0, t.hooks.size()};
        struct Around {
            Client& self;
            const Frame& frame;
            ~Around() { self.check_end(frame); }
        };
        const Restore current{frame_};
        const Restore end_under_way{t.end};
        const Around around{*this, frame};
        frame.committed = block_of_any_form(options, depth, frame);
        return frame.committed;
    }

    // A savepoint that has ended: of the hooks that wait for its undoing all ran, or none.
    void check_end(const Frame& frame) {
        const Transaction& t = *current_;
        if (frame.end == 0 or frame.joined or frame.outer == nullptr) return;
        std::size_t ran = 0;
        std::size_t silent = 0;
        const std::size_t end = frame.undone_from != 0 ? frame.undone_from : t.hooks.size();
        for (std::size_t i = frame.first_hook; i < end; ++i) {
            const Hook& hook = t.hooks[i];
            if (not hook.after_undo()) continue;
            if (hook.ran == 0)
                ++silent;
            else if (hook.end == frame.end)
                ++ran;
        }
        if (ran != 0 and frame.committed) violated("a savepoint was released, and hooks ran that wait for its undoing");
        if (ran != 0 and silent != 0) violated("of the hooks of a savepoint that was undone not all ran");
    }

    template <class OptionsOfBlock>
    bool block_of_any_form(const OptionsOfBlock& options, unsigned depth, Frame& frame) {
        Transaction& t = *current_;
        const auto body = [&] {
            frame_ = &frame;
            opened_ = true;
            struct Ended {
                Transaction& t;
                Frame& frame;
                ~Ended() {
                    if (frame.joined) return;
                    frame.end = t.end = ++t.ends;
                    if (frame.outer == nullptr) t.outermost = frame.end;
                }
            };
            const Ended ended{t, frame};
            this->body(depth);
            if (depth == 0) before_end();
        };
        // 0: commit, 1: roll back or fail, 2: throw or abandon
        const unsigned how = dice_.below(12) < 9 ? 0 : dice_.below(3);
        txhooks::Connection& any = *db_;
        const txhooks::BlockOptions<> plain{options.durable, options.join, options.detach, options.resolve, {}};
        switch (dice_.below(6)) {
            default: {
                say("{");
                txhooks::Atomic tx{*db_, options};
                body();
                return end_guard(tx, frame, how, depth);
            }
            case 2: {
                say("{any ");
                txhooks::Atomic tx{any, plain};
                body();
                return end_guard(tx, frame, how, depth);
            }
            case 3:
                say("fn{");
                db_->atomic(options, [&] {
                    body();
                    if (how == 2) throw Stop{};
                });
                break;
            case 4: {
                say("result{");
                const Result result = db_->atomic(options, [&] {
                    body();
                    return Result{how == 0, false};
                });
                say("}");
                if (depth == 0 and t.failed != result.of_hook)
                    violated("the failure that a hook before COMMIT returned is not what was returned");
                return result.good and not frame.asked;
            }
            case 5:
                say("fn any{");
                any.atomic(plain, [&] {
                    body();
                    if (how == 2) throw Stop{};
                });
                break;
        }
        say("}");
        if (depth == 0 and t.failed) violated("nobody was told that a hook before COMMIT returned a failure");
        return not frame.asked;
    }

    template <class Tx>
    bool end_guard(Tx& tx, const Frame& frame, unsigned how, unsigned depth) {
        const Transaction& t = *current_;
        if (how == 1) {
            say("rollback}");
            tx.rollback();
            return false;
        }
        if (how == 2) {
            say("abandon}");
            return false;
        }
        for (unsigned attempt = 0;; ++attempt) {
            try {
                const bool committed = tx.commit() == txhooks::Outcome::committed;
                const bool failed = frame.asked or (depth == 0 and t.failed);
                if (committed == failed) violated("commit() returned what set_rollback(), or a hook, does not let it");
                say("commit}");
                return committed;
            } catch (...) {
                say("commit failed: " + words(std::current_exception()));
                if (depth == 0 and t.failed and not went_wrong(std::current_exception()))
                    violated("commit() threw for the failure that a hook before COMMIT returned");
                if (not tx.active()) throw;
                ++tally_[Count::still_open];
                session_->read_unread();
                if (attempt == 2) throw;
                if (depth == 0 and dice_.one_in(2)) later_pair();
            }
        }
    }

    void body(unsigned depth) {
        if (depth == 0 and not dice_.one_in(8)) {
            const unsigned long row = next_row_++;
            put(row);
            current_->mark = row;
            say("mark " + std::to_string(row));
        }
        for (unsigned n = dice_.below(depth == 0 ? 8 : 4); n != 0; --n) {
            const bool swallow = not dice_.one_in(4);
            try {
                step(depth);
            } catch (...) {
                note_inside(std::current_exception());
                if (not swallow) throw;
            }
        }
    }

    void note_inside(const std::exception_ptr& error) {
        say("!" + words(error));
        note(error);
    }

    void step(unsigned depth) {
        if (trouble_ != Trouble::none and dice_.one_in(3)) make_trouble();
        const unsigned choice = dice_.below(100);
        if (choice < 44) return pair();
        if (choice < 56) {
            if (depth == deepest) return pair();
            ++tally_[Count::nested];
            Options options;
            options.join = dice_.one_in(5);
            savepoints_ = true;
            block(options, depth + 1);
            return;
        }
        if (choice < 80) return collide();
        if (choice < 83) throw Stop{};
        if (choice < 86) return set_rollback(not dice_.one_in(4));
        if (choice < 88) return savepoint_of_the_users();
        if (choice < 90) return static_cast<void>(attempt(Engine::look));
        if constexpr (Engine::has_bulk) {
            if (choice < 95) return several();
        }
        pair();
    }

    // A row and its hook: the fate of one says that of the other.
    void pair() {
        const unsigned long row = next_row_++;
        put(row);
        hook(row);
    }

    void later_pair() {
        try {
            pair();
        } catch (...) {
            note_inside(std::current_exception());
        }
    }

    // Rows that are sent at once, and their hooks, which are registered before that has ended, or then.
    void several() {
        struct End {
            Session& session;
            ~End() { session.finish(); }
        };
        seen(session_->finish());  // a hook before COMMIT may find something unread
        const End end{*session_};
        const bool early = dice_.one_in(2);
        const std::vector<unsigned long> rows = start(early, false);
        const std::string code = session_->finish();
        seen(code);
        if (not code.empty()) throw StatementError{code};
        if (not early)
            for (const unsigned long row : rows) hook(row);
    }

    // Starts a COPY, or statements in a pipeline, which may fail, and leaves it so.
    std::vector<unsigned long> start(bool with_hooks, bool at_the_end) {
        std::vector<unsigned long> rows(1 + dice_.below(4));
        for (unsigned long& row : rows) row = next_row_++;
        if (dice_.one_in(2)) {
            ++tally_[at_the_end ? Count::copy_left : Count::copied];
            say("copy");
            std::vector<unsigned long> lines = rows;
            if (dice_.one_in(20)) lines.push_back(rows.front());
            session_->start_copy(lines);
        } else {
            ++tally_[at_the_end ? Count::pipeline_left : Count::pipelined];
            say("pipeline");
            std::vector<std::string> statements;
            for (const unsigned long row : rows) statements.push_back(insertion(row));
            if (dice_.one_in(10)) statements.push_back("UPDATE shared SET v = v + 1 WHERE k = 0");
            if (dice_.one_in(20)) statements.push_back(insertion(rows.front()));
            session_->start_pipeline(statements);
        }
        if (with_hooks)
            for (const unsigned long row : rows) hook(row);
        return rows;
    }

    void hook(unsigned long row) {
        static constexpr Kind kinds[] = {Kind::on_commit,        Kind::on_commit,       Kind::on_commit,
                                         Kind::before_commit,    Kind::on_rollback,     Kind::on_rollback,
                                         Kind::unless_committed, Kind::unless_committed};
        Transaction& t = *current_;
        Hook& hook = t.hooks.emplace_back(Hook{kinds[dice_.below(8)], row});
        hook.place = static_cast<unsigned>(t.hooks.size());
        hook.by_undone = t.undoing;
        hook.by_before = t.in_before and not t.undoing;
        hook.throws = dice_.one_in(40);
        hook.robust = dice_.one_in(6);
        try {
            register_inside(t, hook);
        } catch (...) {
            t.hooks.pop_back();
            throw;
        }
        static constexpr const char* signs[] = {"+", "+before ", "+undo ", "+unless "};
        say(signs[static_cast<std::size_t>(hook.kind)] + std::to_string(row));
    }

    void register_inside(Transaction& t, Hook& hook) {
        const auto committed = [this, &t, &hook] { run_committed(t, hook); };
        const auto undone = [this, &t, &hook] { run_undone(t, hook); };
        txhooks::Connection& any = *db_;
        switch (hook.kind) {
            case Kind::on_commit:
                if (hook.robust) return db_->on_commit(txhooks::robust, committed);
                return dice_.one_in(2) ? db_->on_commit(committed) : any.on_commit(committed);
            case Kind::before_commit:
                if (dice_.one_in(3))
                    return db_->before_commit([this, &t, &hook] { return run_before_with_result(t, hook); });
                return any.before_commit([this, &t, &hook] { run_before(t, hook); });
            case Kind::on_rollback:
                return dice_.one_in(2) ? db_->on_rollback(undone) : any.on_rollback(undone);
            case Kind::unless_committed:
                return dice_.one_in(2) ? db_->unless_committed(undone) : any.unless_committed(undone);
        }
    }

    void runs(const Transaction& t, Hook& hook) {
        ++hook.ran;
        if (&t != current_) violated("the " + name(hook) + " ran in another transaction");
        say("[" + std::to_string(hook.row) + "]");
    }

    void run_committed(Transaction& t, Hook& hook) {
        runs(t, hook);
        t.ran.push_back(&hook);
        outside_of_blocks();
        if (not hook.throws) return;
        hook.threw = true;
        throw std::runtime_error{"a hook"};
    }

    // What a hook does where no block is open.
    void outside_of_blocks() {
        if (in_hook_) return;
        const Restore in_hook{in_hook_};
        in_hook_ = true;
        if (dice_.one_in(40)) outermost();
        if (dice_.one_in(40)) hook_outside();
    }

    void run_undone(Transaction& t, Hook& hook) {
        runs(t, hook);
        t.undone.push_back(&hook);
        hook.end = t.end;
        const Restore undoing{t.undoing};
        t.undoing = true;
        if (frame_ != nullptr and frame_->undone_from == 0) frame_->undone_from = t.hooks.size();
        try {
            if (db_->in_atomic_block())
                around_undone();
            else
                outside_of_blocks();
            if (hook.throws) throw std::runtime_error{"a hook"};
        } catch (...) {
            hook.threw = true;
            note_inside(std::current_exception());
            throw;
        }
    }

    // What a hook does in the block around one that was rolled back.
    void around_undone() {
        if (not dice_.one_in(4)) return;
        const Restore undone{frame_};
        frame_ = frame_->outer;
        within_hook();
    }

    void within_hook() {
        try {
            step(deepest - 1);
        } catch (...) {
            note_inside(std::current_exception());
            if (dice_.one_in(4)) throw;
        }
    }

    void run_before(Transaction& t, Hook& hook) {
        runs(t, hook);
        t.before.push_back(&hook);
        if (t.over or frame_->asked or not t.lost.empty())
            violated("the " + name(hook) + " ran, though it was in vain");
        const Restore in_before{t.in_before};
        t.in_before = true;
        try {
            make_trouble();
            if (not dice_.one_in(3)) {
                const unsigned long row = next_row_++;
                put(row);
                hook.wrote = row;
                say("wrote " + std::to_string(row));
            }
            for (unsigned n = dice_.below(3); n != 0; --n) within_hook();
            if (dice_.one_in(60)) {
                left_open_.emplace(*db_);
                say("left open");
                t.left_open = t.over = true;
                return;
            }
            if (hook.throws) throw std::runtime_error{"a hook"};
        } catch (...) {
            t.over = true;
            t.thrown = std::current_exception();
            say("!" + words(t.thrown));
            hook.threw = true;
            throw;
        }
        if (frame_->asked) t.over = true;
    }

    Result run_before_with_result(Transaction& t, Hook& hook) {
        run_before(t, hook);
        if (t.over or not dice_.one_in(20)) return {true, true};
        say("failed");
        t.failed = t.over = true;
        return {false, true};
    }

    static std::string insertion(unsigned long row) { return "INSERT INTO kept VALUES (" + std::to_string(row) + ")"; }
    void put(unsigned long row) { must(insertion(row)); }

    void must(const std::string& sql) {
        const std::string code = attempt(sql);
        if (not code.empty()) throw StatementError{sql + ": " + code};
    }

    std::string attempt(const std::string& sql) {
        const std::string code = session_->attempt(sql);
        seen(code);
        return code;
    }

    void seen(const std::string& code) {
        if (code.empty()) return;
        if (current_ != nullptr) current_->calm = false;
        if (code == Engine::deadlock) ++tally_[Count::deadlock];
        if (code == Engine::serialization) ++tally_[Count::serialization];
        if (code == Engine::lock_timeout) ++tally_[Count::lock_timeout];
        if (code == Engine::statement_timeout) ++tally_[Count::statement_timeout];
        if (code == Engine::duplicate) ++tally_[Count::duplicate];
    }

    void try_to(const std::string& sql) {
        const std::string code = attempt(sql);
        if (code.empty()) return;
        say(sql + ": " + code);
        if (dice_.one_in(2)) throw StatementError{code};
    }

    // What other clients do as well, in another order.
    void collide() {
        const auto number = [this](unsigned n) { return std::to_string(dice_.below(n)); };
        switch (dice_.below(6)) {
            case 0:
                return try_to("INSERT INTO taken VALUES (" + number(40) + ")");
            case 1:
                return try_to("DELETE FROM taken WHERE k = " + number(40));
            case 2:
                return try_to(Engine::look);
            default:
                try_to("UPDATE shared SET v = v + 1 WHERE k = " + number(4));
                if (dice_.one_in(2)) return;
                std::this_thread::sleep_for(std::chrono::microseconds{dice_.below(1000)});
                return try_to("UPDATE shared SET v = v + 1 WHERE k = " + number(4));
        }
    }

    void set_rollback(bool roll_back) {
        say(roll_back ? "set_rollback" : "take back");
        db_->set_rollback(roll_back);
        Frame* frame = frame_;
        while (frame->joined) frame = frame->outer;
        frame->asked = roll_back;
    }

    void savepoint_of_the_users() {
        say("savepoint");
        savepoints_ = true;
        must("SAVEPOINT users");
        if (dice_.one_in(3)) return;
        put(next_row_++);
        must("ROLLBACK TO SAVEPOINT users");
        must("RELEASE SAVEPOINT users");
    }

    // A hook that has come to its end before the verb returns.
    void hook_outside() {
        Transaction& t = transactions_.emplace_back();
        const Restore current{current_};
        current_ = &t;
        try {
            const unsigned long row = next_row_++;
            put(row);
            Hook& hook = t.hooks.emplace_back(Hook{dice_.pick<Kind>(4), row});
            t.told = Count::rolled_back;
            const auto runs = [&t, &hook] {
                ++hook.ran;
                if (hook.kind == Kind::on_commit) t.ran.push_back(&hook);
            };
            switch (hook.kind) {
                case Kind::on_commit:
                    db_->on_commit(runs);
                    break;
                case Kind::before_commit:
                    db_->before_commit(runs);
                    break;
                case Kind::on_rollback:
                    db_->on_rollback(runs);
                    break;
                case Kind::unless_committed:
                    db_->unless_committed(runs);
                    break;
            }
            t.told = Count::committed;
            ++tally_[Count::at_once];
        } catch (...) {
            t.hooks.clear();
        }
    }

    // ---- The ends of a doubt, and of what was detached

    void resolve(Transaction& t, txhooks::Doubt& doubt) {
        t.end = t.resolved = ++t.ends;
        if (dice_.one_in(8)) {
            Session victim{engine_, 0, Haste{}};
            engine_.kill(steady(resolver_), victim.id());
            txhooks::HookedConnection db{victim.get()};
            resolve_on(db, t, doubt);
        }
        while (doubt.in_doubt()) {
            txhooks::HookedConnection fresh{steady(resolver_).get()};
            resolve_on(fresh, t, doubt);
            if (doubt.in_doubt()) resolver_.reset();
        }
    }

    template <class Fresh>
    void resolve_on(Fresh& fresh, Transaction& t, txhooks::Doubt& doubt) {
        try {
            const bool committed = doubt.resolve(fresh) == txhooks::Outcome::committed;
            t.told = committed ? Count::resolved_committed : Count::resolved_rolled_back;
        } catch (const txhooks::HookError& e) {
            t.hook_error = e;
            t.told = Count::resolved_committed;
        } catch (...) {
            say("resolve: " + words(std::current_exception()));
        }
        say(count_names[static_cast<std::size_t>(t.told)]);
    }

    void run_detached(Transaction& t, txhooks::DetachedHooks& hooks) {
        if (t.told != Count::committed) {
            if (hooks.size() != 0) violated("hooks were handed over, though it was not committed");
            return;
        }
        try {
            hooks.run();
        } catch (const txhooks::HookError& e) {
            t.hook_error = e;
            t.told = Count::hook_error;
        }
    }

    // ---- Trouble

    Trouble plan() {
        if (dice_.one_in(proxied_ ? 20 : 80)) {
            if (proxied_ and not dice_.one_in(4)) {
                plan_cut();
                return Trouble::none;
            }
            return dice_.one_in(2) ? Trouble::kill : Trouble::race;
        }
        switch (dice_.below(100)) {
            case 90:
            case 91:
            case 92:
                return Trouble::raw;
            case 93:
                return Engine::has_ddl ? Trouble::ddl : Trouble::raw;
            case 94:
                return Engine::has_deferred ? Trouble::constraint : Trouble::raw;
            case 95:
                return Trouble::unread;
            case 96:
            case 97:
            case 98:
            case 99:
                plan_verb();
                [[fallthrough]];
            default:
                return Trouble::none;
        }
    }

    void plan_cut() {
        static constexpr const char* texts[] = {"BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "INSERT"};
        const std::string text = dice_.one_in(3) ? texts[dice_.below(5)] : "COMMIT";
        cut_ = dice_.template pick<support::Cut>(4);
        proxy_->arm(text, cut_);
        cut_planned_ = true;
        say("proxy: " + text + ' ' + std::to_string(static_cast<int>(cut_)));
        if (cut_ == support::Cut::no_answer) end_of_patience();
    }

    void plan_verb() {
        auto& faults = db_->adapter().faults;
        verb_planned_ = true;
        const Verb verb = dice_.one_in(3)   ? Verb::commit
                          : dice_.one_in(4) ? Verb::rollback
                                            : dice_.template pick<Verb>(6);
        const When when = dice_.template pick<When>(2);
        say("verb " + std::to_string(static_cast<int>(verb)) + (when == When::before_effect ? " before" : " after"));
        if (dice_.one_in(10)) {
            say("loses");
            faults.lose = [this] {
                engine_.kill(steady(killer_), session_->id());
                ++tally_[Count::lost_at_verb];
            };
            return faults.lose_connection(verb, when, 1 + dice_.below(2));
        }
        faults.fail(verb, when, std::runtime_error{"injected"}, 1 + dice_.below(2));
    }

    void count_faults() {
        auto& faults = db_->adapter().faults;
        if (std::exchange(verb_planned_, false)) {
            if (faults.planned() == 0) ++tally_[Count::verb_failed];
            faults.clear();
        }
        if (not std::exchange(cut_planned_, false)) return;
        if (proxy_->has_cut())
            ++tally_[cut_ == support::Cut::request ? Count::request_dropped
                     : cut_ == support::Cut::reply ? Count::reply_dropped
                     : cut_ == support::Cut::after ? Count::cut
                                                   : Count::no_answer];
        else
            proxy_->arm("(nothing)", support::Cut::request);
    }

    void make_trouble() {
        switch (trouble_) {
            case Trouble::raw:
                trouble_ = Trouble::none;
                current_->raw = true;
                ++tally_[Count::raw_sql];
                return say("raw " + engine_.template end_by_hand<Adapter>(*session_, dice_, savepoints_));
            case Trouble::ddl:
                trouble_ = Trouble::none;
                current_->raw = true;
                ++tally_[Count::ddl];
                if constexpr (Engine::has_ddl) say("ddl " + engine_.define(*session_, dice_));
                return;
            case Trouble::kill:
                trouble_ = Trouble::none;
                ++tally_[Count::killed];
                say("killed");
                return engine_.kill(steady(killer_), session_->id());
            default:
                return;
        }
    }

    // The outermost block is about to end.
    void before_end() {
        const auto waits = [](const Hook& hook) { return hook.kind == Kind::before_commit and hook.ran == 0; };
        const std::deque<Hook>& hooks = current_->hooks;
        const bool later = trouble_ == Trouble::raw or trouble_ == Trouble::ddl or trouble_ == Trouble::kill;
        if (later and std::any_of(hooks.begin(), hooks.end(), waits) and dice_.one_in(2)) return;
        make_trouble();
        switch (std::exchange(trouble_, Trouble::none)) {
            case Trouble::constraint:
                if (attempt("INSERT INTO children VALUES (-1)").empty()) ++tally_[Count::constraint];
                return say("constraint");
            case Trouble::unread:
                say("unread");
                if constexpr (Engine::has_bulk) {
                    if (not dice_.one_in(3)) return static_cast<void>(start(true, true));
                }
                session_->leave_unread();
                ++tally_[Count::unread];
                return;
            case Trouble::race:
                return race();
            default:
                return;
        }
    }

    // The session is killed, or its statement interrupted, while the block ends.
    void race() {
        const bool kills = dice_.one_in(2);
        const std::chrono::microseconds delay{dice_.below(200)};
        const unsigned long id = session_->id();
        Session& by = steady(killer_);
        ++tally_[kills ? Count::killed_at_commit : Count::interrupted];
        say(kills ? "killed at the end" : "interrupted at the end");
        race_ = std::thread{[this, &by, kills, delay, id] {
            const auto end = std::chrono::steady_clock::now() + delay;
            while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
            kills ? engine_.kill(by, id) : engine_.interrupt(by, id);
        }};
    }

    // Closes the connections of a proxy that has gone silent.
    void end_of_patience() {
        block_over_ = false;
        race_ = std::thread{[this] {
            while (not proxy_->has_cut()) {
                if (block_over_) return;
                std::this_thread::sleep_for(std::chrono::microseconds{200});
            }
            std::this_thread::sleep_for(std::chrono::milliseconds{2});
            proxy_->close_all();
        }};
    }

    void stop_race() {
        block_over_ = true;
        if (race_.joinable()) race_.join();
    }

    void say(const std::string& what) {
        if (current_ == nullptr or what.empty()) return;
        current_->story += what;
        current_->story += ' ';
    }

    Engine& engine_;
    Dice dice_;
    unsigned long next_row_;
    std::size_t first_of_round_ = 0;  // of the transactions
    Haste haste_;
    bool proxied_ = false;
    bool session_hurt_ = false;  // perhaps
    bool in_hook_ = false;
    bool opened_ = false;
    bool savepoints_ = false;  // there were some in this transaction
    bool verb_planned_ = false;
    bool cut_planned_ = false;
    support::Cut cut_ = support::Cut::request;
    Trouble trouble_ = Trouble::none;
    Tally tally_;
    std::deque<Transaction> transactions_;
    Transaction* current_ = nullptr;
    Frame* frame_ = nullptr;
    std::optional<support::TcpProxy> proxy_;
    std::optional<Session> session_;
    std::optional<Session> resolver_;
    std::optional<Session> killer_;
    std::optional<Db> db_;
    std::optional<txhooks::Atomic<Db>> left_open_;
    std::thread race_;  // what happens meanwhile
    std::atomic<bool> block_over_ = false;
    std::string violation_;
};

}  // namespace random_programs

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

#include <atomic>
#include <chrono>
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

/// One of several clients of a server: random blocks on a connection of its own. Each row has a hook, and each client its
/// own rows; they meet in the tables `shared` and `taken`.
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
        bool has_value() const { return good; }
        int error() const { return 1; }
    };

    enum class Trouble { none, raw, ddl, constraint, unread, kill, race };

    // A block that is open, and whether set_rollback(true) was asked of it.
    struct Frame {
        Frame* outer;
        bool joined;
        bool asked = false;
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
        say(std::string{"sink("} + what + (error ? ": " + words(error) : "") + ")");
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
            for (unsigned attempt = 0; not idle and attempt != 3; ++attempt)
                idle = session_->attempt("ROLLBACK").empty();
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
        Transaction& t = transactions_.back();
        if (violation_.empty()) violation_ = what + "\n  " + t.story;
    }

    // ---- Blocks

    void outermost() {
        Transaction& t = transactions_.emplace_back();
        Transaction* const outer = std::exchange(current_, &t);
        Frame* const outer_frame = std::exchange(frame_, nullptr);
        const bool in_hook = outer != nullptr;
        if (not in_hook) {
            t.policy = static_cast<txhooks::HookFailure>(dice_.one_in(4) ? dice_.below(3) : 0);
            db_->set_on_hook_failure(t.policy);
        } else {
            t.policy = outer->policy;
        }
        if (not in_hook) trouble_ = plan();
        const bool troubled = trouble_ != Trouble::none or verb_planned_ or cut_planned_;
        if (troubled) session_hurt_ = true;
        t.calm = not in_hook and not session_hurt_ and not haste_.statements;

        txhooks::Doubt doubt;
        txhooks::DetachedHooks detached;
        Options options = options_of(t);
        if (dice_.below(5) < 2)
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
        if (not opened_ and t.lost.empty()) t.told = Count::refused;
        if (t.told == Count::rolled_back and error and not db_->usable()) t.told = Count::broken;
        if (not in_hook) {
            stop_race();
            count_faults();
        }

        if (doubt.in_doubt()) {
            if (t.told != Count::unknown) violated("in doubt, and told otherwise");
            if (not dice_.one_in(10)) resolve(t, doubt);
        }
        if (options.detach != nullptr) run_detached(t, detached);
        if (t.told == Count::unknown or t.told == Count::resolved_rolled_back) doubt.discard();
        ++tally_[not t.lost.empty() ? loss(t.lost.back()) : t.told];
        for (const Pair& pair : t.hooks) tally_[Count::hook_threw] += pair.throws and pair.ran != 0 ? 1 : 0;
        tally_[Count::registered] += t.hooks.size();
        tally_[Count::ran] += t.ran.size();
        current_ = outer;
        frame_ = outer_frame;
        opened_ = true;
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
        Frame frame{frame_, options.join and depth != 0};
        struct Around {
            Frame*& current;
            Frame* outer;
            ~Around() { current = outer; }
        };
        const Around around{frame_, frame_};
        const auto body = [&] {
            frame_ = &frame;
            opened_ = true;
            this->body(depth);
        };
        const auto end = [&] {
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
                    end();
                    if (how == 2) throw Stop{};
                });
                break;
            case 4: {
                say("result{");
                const Result result = db_->atomic(options, [&] {
                    body();
                    end();
                    return Result{how == 0};
                });
                say("}");
                return result.good and not frame.asked;
            }
            case 5:
                say("fn any{");
                any.atomic(plain, [&] {
                    body();
                    end();
                    if (how == 2) throw Stop{};
                });
                break;
        }
        say("}");
        return not frame.asked;
    }

    template <class Tx>
    bool end_guard(Tx& tx, const Frame& frame, unsigned how, unsigned depth) {
        if (depth == 0) before_end();
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
                if (committed == frame.asked) violated("commit() returned what set_rollback() does not let it");
                say("commit}");
                return committed;
            } catch (...) {
                say("commit failed: " + words(std::current_exception()));
                if (not tx.active()) throw;
                ++tally_[Count::still_open];
                session_->read_unread();
                if (attempt == 2) throw;
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

    // A row and its hook, which must share their fate.
    void pair() {
        const unsigned long row = next_row_++;
        put(row);
        hook(row);
    }

    // Rows that are sent at once, and their hooks, which are registered before that has ended, or then.
    void several() {
        struct End {
            Session& session;
            ~End() { session.finish(); }
        };
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
        Transaction& t = *current_;
        Pair& pair = t.hooks.emplace_back(Pair{row});
        pair.throws = dice_.one_in(40);
        pair.robust = dice_.one_in(6);
        const bool opens = dice_.one_in(40);
        const auto hook = [this, &t, &pair, opens] {
            ++pair.ran;
            t.ran.push_back(&pair);
            if (opens and not std::exchange(in_hook_, true)) {
                outermost();
                in_hook_ = false;
            }
            if (pair.throws) throw std::runtime_error{"a hook"};
        };
        try {
            if (pair.robust)
                db_->on_commit(txhooks::robust, hook);
            else
                db_->on_commit(hook);
        } catch (...) {
            t.hooks.pop_back();
            throw;
        }
        say("+" + std::to_string(row));
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

    void hook_outside() {
        Transaction& t = transactions_.emplace_back();
        current_ = &t;
        try {
            const unsigned long row = next_row_++;
            put(row);
            Pair& pair = t.hooks.emplace_back(Pair{row});
            t.told = Count::rolled_back;
            db_->on_commit([&] {
                ++pair.ran;
                t.ran.push_back(&pair);
            });
            t.told = Count::committed;
            ++tally_[Count::at_once];
        } catch (...) {
            t.hooks.clear();
        }
        current_ = nullptr;
    }

    // ---- The ends of a doubt, and of what was detached

    void resolve(Transaction& t, txhooks::Doubt& doubt) {
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
        const Verb verb = dice_.one_in(3) ? Verb::commit : dice_.template pick<Verb>(6);
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
    std::thread race_;  // what happens meanwhile
    std::atomic<bool> block_over_ = false;
    std::string violation_;
};

}  // namespace random_programs

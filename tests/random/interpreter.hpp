// SPDX-License-Identifier: MIT
#pragma once

#include "capture.hpp"
#include "checks.hpp"
#include "history.hpp"
#include "program.hpp"
#include "records.hpp"

#include <txhooks/doubt.hpp>
#include <txhooks/txhooks.hpp>

#include <cstddef>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace random_programs {

/// Executes a program on a connection and checks what was promised after every outermost block. Each hook has a row,
/// put right before it is registered: a commit hook must have run if and only if a second connection sees the row; one
/// that waits for a rollback only if it does not, and always where the rollback is proven; one of `unless_committed`
/// unless the block is proven committed. One before COMMIT puts another row, which must share the fate of the first.
///
/// `World` is a connection (`db()`), rows put through it (`put`), rows as a second connection sees them (`sees`), ways to
/// fail (`trouble`), and to be sound again: perhaps (`settle`, `after_step`) or for certain (`recover`).
template <class World>
class Interpreter : Checks<World> {
    using Db = typename World::Db;
    using Checks<World>::counts_;
    using Checks<World>::depth_;
    using Checks<World>::event;
    using Checks<World>::expect;
    using Checks<World>::program_;
    using Checks<World>::states_;
    using Checks<World>::trace;
    using Checks<World>::violation_;
    using Checks<World>::world_;

public:
    Interpreter(const Program& program, Counts& counts, bool traced) : Checks<World>{program, counts, traced} {}
    Interpreter(const Interpreter&) = delete;
    Interpreter& operator=(const Interpreter&) = delete;

    /// Returns what was violated, or nothing.
    std::string run() {
        {
            World world{program_.setting};
            world_ = &world;
            db().set_error_sink(&Interpreter::sink, this);
            for (const Step& step : program_.steps) {
                run(step);
                check_idle();
                world_->after_step();
            }
            world_->recover();
            check_at_the_end();
        }
        expect(live_ == 0, "captures are still alive after the connection has gone: ", live_);
        for (const Hook& hook : program_.hooks)
            expect(states_[hook.id].destroyed <= 1, "hook ", hook.id, " was destroyed twice");
        ++counts_.programs;
        if (not program_.trouble) this->compare_with_model();
        if (not violation_.empty()) ++counts_.violations;
        return violation_;
    }

private:
    // Where the hooks of an outermost block may go.
    struct Owners {
        txhooks::DetachedHooks after = {};
        std::optional<txhooks::Doubt> doubt = {};
    };

    // A guard that outlives its scope.
    struct Left {
        Frame frame;
        Owners owners = {};
        std::optional<txhooks::Atomic<Db>> guard = {};
    };

    struct Result {
        bool failed;
        bool has_value() const { return not failed; }
        int error() const { return 1; }
    };

    template <class, class, std::size_t, std::size_t>
    friend class Capture;

    Db& db() { return world_->db(); }
    txhooks::Connection& connection() { return db(); }

    // ---- Steps

    void run(const Steps& steps) {
        for (const Step& step : steps) run(step);
    }

    void run(const Step& step) {
        if (not step.swallow) return execute(step);
        try {
            execute(step);
        } catch (...) {
            trace("caught: ", std::current_exception());
        }
    }

    void execute(const Step& step) {
        expect(db().in_atomic_block() == (current() != nullptr), "in_atomic_block() is wrong");
        switch (step.kind) {
            case Step::Kind::hook:
                return add(*step.hook);
            case Step::Kind::block:
                return run(*step.block);
            case Step::Kind::throw_std:
                trace("throw a std::exception");
                throw Deliberate{};
            case Step::Kind::throw_int:
                trace("throw an int");
                throw 42;
            case Step::Kind::ask:
                return ask(true);
            case Step::Kind::take_back:
                return ask(false);
            case Step::Kind::out_of_order:
                return end_out_of_order();
            case Step::Kind::policy:
                trace("set_on_hook_failure(", step.number, ")");
                policy_ = static_cast<txhooks::HookFailure>(step.number);
                return db().set_on_hook_failure(policy_);
            case Step::Kind::foreign:
                return foreign_transaction();
            case Step::Kind::trouble:
                return make_trouble(step.number);
        }
    }

    void ask(bool roll_back) {
        trace("set_rollback(", roll_back ? "true" : "false", ")");
        Frame* frame = current();
        noting_loss(frame == nullptr ? nullptr : frame->transaction, [&] { db().set_rollback(roll_back); });
        while (frame->block->join and around(*frame) != nullptr) frame = around(*frame);
        frame->asked = roll_back;
    }

    // The enclosing block while another is open in it, or a hook is called, copied or destroyed in it; the block whose own
    // hooks are running.
    void end_out_of_order() {
        Frame* frame = current();
        if (frame != pinned_ or frame == nullptr) frame = frame != nullptr ? around(*frame) : innermost_;
        if (frame == nullptr or frame->end == nullptr) return;
        trace("end block ", frame->block->id, " out of order");
        for (const bool commit : {true, false}) {
            if (not commit and frame->ending) return;  // rollback() of an ended block does nothing
            try {
                frame->end(commit);
                expect(false, "block ", frame->block->id, " was ended out of order");
            } catch (const txhooks::UsageError&) {}
        }
    }

    void foreign_transaction() {
        if (not db().usable()) return;
        trace("raw BEGIN, outside blocks");
        if (not world_->foreign_begin()) return;
        expect_refused<txhooks::UsageError>("in a transaction that was not begun here");
        world_->foreign_end();
    }

    // A block, and hooks of each kind.
    template <class Error>
    void expect_refused(const char* when) {
        const auto refused = [&](const char* what, const auto& act) {
            try {
                act();
                expect(false, what, " was accepted ", when);
            } catch (const Error&) {}
        };
        const auto hook = [this, when] { expect(false, "a hook ran ", when); };
        refused("a block", [&] { const txhooks::Atomic tx{db()}; });
        refused("on_commit()", [&] { db().on_commit(hook); });
        refused("before_commit()", [&] { connection().before_commit(hook); });
        refused("on_rollback()", [&] { db().on_rollback(hook); });
        refused("unless_committed()", [&] { connection().unless_committed(hook); });
    }

    void make_trouble(std::uint32_t number) {
        const auto said = world_->trouble(number, current() != nullptr);
        trace("trouble: ", said.what, said.failed ? " (failed)" : "");
        if (said.raw) current()->transaction->ended_by_raw_sql = true;
        if (not said.harmless) this->losable_ = true;
        if (said.failed and number >> 31 != 0) throw Deliberate{};
    }

    // ---- Hooks

    void add(const Hook& hook) {
        HookState& state = states_[hook.id];
        trace("hook ", hook.id, " ", text(hook.kind), hook.robust ? " robust" : "");
        world_->put(this->row_of(hook));
        Frame* const frame = current();
        state.transaction = frame == nullptr ? nullptr : frame->transaction;
        state.registered = true;
        if (frame != nullptr) {
            frame->transaction->hooks.push_back(&hook);
            state.perhaps_elsewhere = frame->transaction->ended_by_raw_sql and not world_->notices_exchange();
        }
        struct Closes {  // a hook that runs at once
            bool& closes;
            bool before;
            ~Closes() { closes = before; }
        } const closes{closes_left_open_, closes_left_open_};
        if (frame == nullptr) closes_left_open_ = true;
        state.being_registered = frame != nullptr;
        try {
            noting_loss(state.transaction,
                        [&] { hook.through_connection ? hand_over(connection(), hook) : hand_over(db(), hook); });
        } catch (...) {
            trace("hook ", hook.id, ": ", std::current_exception());
            state.being_registered = false;
            if (frame == nullptr) throw;
            state.registered = false;
            std::erase(frame->transaction->hooks, &hook);
            throw;
        }
        state.being_registered = false;
        if (frame != nullptr) {
            ++counts_.hooks;
            expect(state.ran == 0, "hook ", hook.id, " ran inside its block");
            return;
        }
        ++counts_.at_once;
        const unsigned runs = hook.waits_for_undo() ? 0 : 1;
        expect(state.ran == runs, "hook ", hook.id, " outside a block ran ", state.ran, " times");
        if (hook.tracked())
            expect(state.destroyed == 1, "hook ", hook.id, " outside a block was not destroyed at once");
    }

    template <class Target>
    void hand_over(Target& target, const Hook& hook) {
        const auto on_commit = [&](auto&&... args) { target.on_commit(static_cast<decltype(args)&&>(args)...); };
        const auto robust = [&](auto&&... args) {
            target.on_commit(txhooks::robust, static_cast<decltype(args)&&>(args)...);
        };
        const auto before = [&](auto&&... args) { target.before_commit(static_cast<decltype(args)&&>(args)...); };
        const auto on_rollback = [&](auto&&... args) { target.on_rollback(static_cast<decltype(args)&&>(args)...); };
        const auto unless = [&](auto&&... args) { target.unless_committed(static_cast<decltype(args)&&>(args)...); };
        switch (hook.kind) {
            case Kind::commit:
                return hook.robust ? hand_over_sized<void>(robust, hook) : hand_over_sized<void>(on_commit, hook);
            case Kind::before_commit:
                return hook.judged ? hand_over_sized<Result>(before, hook) : hand_over_sized<void>(before, hook);
            case Kind::rollback:
                return hand_over_sized<void>(on_rollback, hook);
            case Kind::unless_committed:
                return hand_over_sized<void>(unless, hook);
        }
    }

    template <class Returned, class Verb>
    void hand_over_sized(const Verb& verb, const Hook& hook) {
        hook.large ? hand_over_as<Returned, Capture<Interpreter, Returned, 400, 64>>(verb, hook)
                   : hand_over_as<Returned, Capture<Interpreter, Returned, 0, 1>>(verb, hook);
    }

    template <class Returned, class Captured, class Verb>
    void hand_over_as(const Verb& verb, const Hook& hook) {
        switch (hook.way) {
            case Hook::Way::lambda:
                return verb([this, &hook] { return call<Returned>(hook); });
            case Hook::Way::moved:
                return verb(Captured{*this, hook, true});
            case Hook::Way::copied: {
                const Captured pattern{*this, hook, false};
                return verb(pattern);
            }
            case Hook::Way::argument:
                return verb([](const Captured& captured) { return captured(); }, Captured{*this, hook, true});
        }
    }

    // What a capture does and suffers.
    void captured() { ++live_; }

    void damaged(const Hook& hook) { expect(false, "the capture of hook ", hook.id, " is not intact"); }

    void copied(const Hook& hook) {
        const Pinned pinned{*this};
        Frame* const innermost = innermost_;
        try {
            run(hook.copying);
        } catch (...) {}
        if (not hook.copy_throws) return;
        const bool in_block = states_[hook.id].transaction != nullptr;  // where what the copying left open ends now
        for (Frame* f = innermost_; in_block and f != innermost; f = f->below) f->ending = true;
        throw Deliberate{};
    }

    // While it lives, the library calls, copies or destroys a hook in the current block, which cannot end meanwhile; but
    // one that another hook has left open can.
    struct Pinned {
        Interpreter& interpreter;
        Frame* before;
        explicit Pinned(Interpreter& i) : interpreter{i}, before{i.pinned_} {
            Frame* const frame = i.current();
            i.pinned_ = frame == nullptr or frame->left_open ? nullptr : frame;
        }
        Pinned(const Pinned&) = delete;
        Pinned& operator=(const Pinned&) = delete;
        ~Pinned() { interpreter.pinned_ = before; }
    };

    // The library has come back, and perhaps it has sent the COMMIT before which hooks were called.
    void look_if_passed() {
        if (passing_ == nullptr or db().in_atomic_block()) return;
        std::exchange(passing_, nullptr)->ending = true;
    }

    // What a hook before COMMIT does is part of the block that is about to end.
    void pass(Transaction& transaction) {
        Frame* const frame = transaction.frame;
        expect(frame != nullptr and frame->committing, "a hook ran before COMMIT, but there will be none");
        if (frame == nullptr) return;
        expect(not frame->asked, "a hook ran before COMMIT in a block that was asked to roll back");
        expect(passing_ == nullptr or passing_ == frame, "hooks ran before two COMMITs at once");
        expect(db().in_atomic_block(), "a hook before COMMIT ran behind it");
        passing_ = frame;
        frame->ending = false;
    }

    void note_run(const Hook& hook, Transaction& transaction) {
        if (hook.waits_for_undo()) return;
        const bool before = hook.kind == Kind::before_commit;
        std::vector<const Hook*>& ran = before ? transaction.ran_before : transaction.ran;
        if (not ran.empty() and ran.back()->tracked())
            expect(states_[ran.back()->id].destroyed == 1, "hook ", hook.id, " runs before the one before it, ",
                   ran.back()->id, ", was destroyed");
        ran.push_back(&hook);
        if (not before) return;
        expect(transaction.ran.empty(), "hook ", hook.id, " runs before COMMIT, but behind one that runs after it");
        pass(transaction);
        world_->put(this->row_by(hook));
    }

    template <class Returned>
    Returned call(const Hook& hook) {
        HookState& state = states_[hook.id];
        look_if_passed();
        trace("hook ", hook.id, " runs");
        event({Event::What::ran, hook.id});
        ++counts_.ran_of(hook.kind);
        ++state.ran;
        expect(state.ran == 1, "hook ", hook.id, " ran twice");
        try {
            if (state.transaction != nullptr) note_run(hook, *state.transaction);
            const Pinned pinned{*this};
            run(hook.steps);
            if (hook.throws == Throws::std_exception) throw Deliberate{};
            if (hook.throws == Throws::integer) throw 42;
            const bool failed = hook.throws == Throws::failed_result;
            if (failed and state.transaction != nullptr) state.transaction->failed_result = true;
            if constexpr (not std::is_void_v<Returned>) return {failed};
        } catch (...) {
            trace("hook ", hook.id, " throws");
            state.threw = true;
            ++counts_.threw;
            throw;
        }
    }

    void destroyed(const Hook& hook) noexcept {
        --live_;
        HookState& state = states_[hook.id];
        if (not state.registered) return;
        look_if_passed();
        trace("hook ", hook.id, " is destroyed");
        ++state.destroyed;
        if (state.ran == 0) ++counts_.discarded;
        event({Event::What::destroyed, hook.id});
        std::optional<Pinned> pinned;
        if (not state.being_registered) pinned.emplace(*this);
        try {
            run(hook.farewell);
        } catch (...) {}
    }

    // ---- Blocks

    void run(const Block& block) {
        Frame* const open = current();
        Frame* const below = innermost_;
        const bool outermost = open == nullptr;
        Transaction& transaction = outermost ? begin_record(block) : *open->transaction;
        trace(block.is_guard() ? "guard " : "function ", block.id, block.join ? " join" : "",
              block.durable ? " durable" : "", block.detach ? " detach" : "",
              World::has_markers and block.resolve ? " resolve" : "", " {");
        ++depth_;

        Frame local{below, &block, &transaction};
        Left* left = nullptr;
        if (block.is_guard() and block.end == Block::End::leave_open) {
            left = &left_.emplace_back();
            left->frame = local;
        }
        Frame& frame = left != nullptr ? left->frame : local;
        if (outermost) transaction.frame = &frame;
        Owners own;
        Owners& owners = left != nullptr ? left->owners : own;
        std::exception_ptr error;
        const bool closes = closes_left_open_;
        if (outermost) closes_left_open_ = true;
        try {
            if (left != nullptr)
                run_leaving(*left, not outermost or closes);
            else if (block.form == Block::Form::guard)
                run_guard(db(), frame, owners);
            else if (block.form == Block::Form::connection_guard)
                run_guard(connection(), frame, owners);
            else if (block.form == Block::Form::connection_function)
                run_function(connection(), frame, owners);
            else
                run_function(db(), frame, owners);
        } catch (...) {
            error = std::current_exception();
            frame.told = told_by(error);
        }
        closes_left_open_ = closes;
        if (passing_ == &frame) passing_ = nullptr;
        if (not frame.left_open) innermost_ = below;
        if (outermost and not frame.left_open) transaction.frame = nullptr;
        --depth_;
        this->count(frame, outermost);
        if (frame.left_open) return trace("} guard ", block.id, " left open");
        trace("} ", block.id, ": ", text(frame.told), error ? ": " : "", error);
        event({Event::What::ended, block.id, frame.told});
        if (outermost and frame.opened) check_ended(frame, error, owners);
        if (outermost and not frame.opened) check_idle();
        if (error) std::rethrow_exception(error);
    }

    Transaction& begin_record(const Block& block) {
        Transaction& transaction = transactions_.emplace_back();
        transaction.block = &block;
        transaction.policy = policy_;
        return transaction;
    }

    void enter(Frame& frame) {
        frame.opened = true;
        frame.recovered = counts_.recovered;
        innermost_ = &frame;
        expect(db().in_atomic_block(), "in_atomic_block() is false in a block");
        if (frame.block != frame.transaction->block or not frame.block->marked) return;
        try {
            world_->put(this->row_of(*frame.block));
            frame.transaction->marked = true;
        } catch (...) {
            trace("put: ", std::current_exception());
        }
    }

    // With `frame` end the frames that were left open in it.
    void set_ending(Frame& frame, bool ending) {
        for (Frame* f = innermost_; f != &frame; f = f->below) f->ending = ending;
        frame.ending = ending;
    }

    struct EndsHere {
        Interpreter& interpreter;
        Frame& frame;
        ~EndsHere() {
            if (not frame.ending) interpreter.set_ending(frame, true);
        }
    };

    // The innermost block that what is done now is part of.
    Frame* current() { return open_from(innermost_); }

    Frame* open_from(Frame* frame) {
        while (frame != nullptr and frame->ending) frame = frame->below;
        return frame;
    }

    // The block that an open block is in, or null.
    Frame* around(const Frame& frame) {
        Frame* const below = open_from(frame.below);
        return below != nullptr and below->transaction == frame.transaction ? below : nullptr;
    }

    template <class Target>
    auto options_for(Target&, const Frame& frame, Owners& owners) {
        typename txhooks::detail::options_of<Target> options;
        options.join = frame.block->join;
        options.durable = frame.block->durable;
        options.detach = frame.block->detach ? &owners.after : nullptr;
        if constexpr (World::has_markers)
            if (frame.block->resolve) options.resolve = &owners.doubt.emplace();
        if constexpr (World::has_begin_modes)
            if (frame.block->knows_begin_modes()) World::set_begin(options, frame.block->begin);
        return options;
    }

    template <class Target>
    void run_guard(Target& target, Frame& frame, Owners& owners) {
        const auto options = options_for(target, frame, owners);
        txhooks::Atomic<Target> tx =
            noting_loss(frame.transaction, [&] { return txhooks::Atomic<Target>{target, options}; });
        frame.end = [&tx](bool commit) { commit ? static_cast<void>(tx.commit()) : tx.rollback(); };
        enter(frame);
        const EndsHere ends_here{*this, frame};
        run(frame.block->steps);
        switch (frame.block->end) {
            case Block::End::commit:
                return commit(tx, frame);
            case Block::End::rollback:
                return roll_back(tx, frame);
            case Block::End::throw_std:
                throw Deliberate{};
            case Block::End::throw_int:
                throw 42;
            case Block::End::abandon:
            case Block::End::leave_open:
                return;
        }
    }

    template <class Guard>
    void commit(Guard& tx, Frame& frame) {
        for (unsigned attempt = 0;; ++attempt) {
            set_ending(frame, true);
            frame.committing = true;
            try {
                const txhooks::Outcome outcome = noting_loss(frame.transaction, [&] { return tx.commit(); });
                frame.told = outcome == txhooks::Outcome::committed ? Told::committed : Told::rolled_back;
                expect(frame.told == Told::committed or outcome == txhooks::Outcome::rolled_back, "commit() returned ",
                       text(outcome));
                return;
            } catch (...) {
                if (not tx.active() or innermost_ != &frame or attempt == frame.block->retries) throw;
                trace("commit() of block ", frame.block->id, ": ", std::current_exception());
            }
            frame.committing = false;
            passing_ = nullptr;
            set_ending(frame, false);
            expect(frame.transaction->ran.empty(), "a hook ran while the transaction is still open");
            world_->settle(frame.block->settle + attempt);
            ++counts_.retried;
        }
    }

    template <class Guard>
    void roll_back(Guard& tx, Frame& frame) {
        set_ending(frame, true);
        noting_loss(frame.transaction, [&] { tx.rollback(); });
        tx.rollback();  // of an ended block: nothing
        try {
            tx.commit();
            expect(false, "commit() on an ended block was accepted");
        } catch (const txhooks::UsageError&) {}
    }

    template <class Target>
    void run_function(Target& target, Frame& frame, Owners& owners) {
        const auto options = options_for(target, frame, owners);
        const auto body = [&]() -> Result {
            enter(frame);
            const EndsHere ends_here{*this, frame};
            run(frame.block->steps);
            switch (frame.block->end) {
                case Block::End::commit:
                    frame.committing = true;
                    return {false};
                case Block::End::rollback:
                    return {true};
                case Block::End::throw_int:
                    throw 42;
                default:
                    throw Deliberate{};
            }
        };
        const Result result = noting_loss(frame.transaction, [&] { return target.atomic(options, body); });
        const bool failed_before = frame.block == frame.transaction->block and frame.transaction->failed_result;
        expect(result.failed == (failed_before or frame.block->end == Block::End::rollback),
               "atomic() returned another result");
        frame.told = result.failed or frame.asked ? Told::rolled_back : Told::committed;
    }

    void run_leaving(Left& left, bool may_leave) {
        Frame& frame = left.frame;
        const auto options = options_for(db(), frame, left.owners);
        noting_loss(frame.transaction, [&] { left.guard.emplace(db(), options); });
        frame.end = [&left](bool commit) { commit ? static_cast<void>(left.guard->commit()) : left.guard->rollback(); };
        enter(frame);
        try {
            run(frame.block->steps);
        } catch (...) {
            set_ending(frame, true);
            left.guard.reset();
            throw;
        }
        frame.left_open = may_leave and innermost_ == &frame;
        if (frame.left_open) return;
        set_ending(frame, true);
        left.guard.reset();
    }

    // ---- What was told

    template <class Call>
    decltype(auto) noting_loss(Transaction* transaction, Call call) {
        try {
            return call();
        } catch (const txhooks::TransactionLost& lost) {
            if (transaction != nullptr) transaction->lost.push_back(lost.outcome());
            throw;
        }
    }

    // A destructor, or a function that throws already, tells of a loss here.
    static void sink(void* self, const char* what, const std::exception_ptr& error) {
        auto& interpreter = *static_cast<Interpreter*>(self);
        interpreter.trace("sink: ", what, error ? ": " : "", error);
        if (std::strcmp(what, "txhooks: a hook returned with an atomic block still open; it is rolled back") == 0)
            interpreter.end_left_open();
        if (error == nullptr or std::strcmp(what, "txhooks: while rolling back a block") != 0) return;
        try {
            std::rethrow_exception(error);
        } catch (const txhooks::TransactionLost& lost) {
            interpreter.note_loss_in_sink(lost.outcome());
        } catch (...) {}
    }

    // What hooks, or the destructors of captures, have left open is closed now.
    void end_left_open() {
        for (Frame* f = innermost_; f != nullptr and f->left_open and not f->ending; f = f->below) f->ending = true;
    }

    // It is the innermost block, or one that it left open while it was rolled back: both count as lost then.
    void note_loss_in_sink(txhooks::Outcome outcome) {
        Frame* frame = innermost_;
        while (frame != nullptr and frame->left_open and frame->ending) {
            frame->transaction->lost.push_back(txhooks::Outcome::unknown);
            frame = frame->below;
        }
        if (frame == nullptr or not frame->transaction->ran.empty()) return;
        frame->transaction->lost.push_back(frame == innermost_ ? outcome : txhooks::Outcome::unknown);
    }

    // ---- Checks

    // After an outermost block and, unless they were detached, its hooks.
    void check_ended(const Frame& frame, const std::exception_ptr& error, Owners& owners) {
        txhooks::DetachedHooks& after = owners.after;
        Transaction& transaction = *frame.transaction;
        const Block& block = *frame.block;
        const Told told = told_of_transaction(frame);
        if (told == Told::unknown and frame.recovered == counts_.recovered)
            expect(not db().usable(), "the connection is usable after CommitUnknown");
        if (told == Told::lost) expect(this->losable_, "block ", block.id, " was lost for no reason");
        if (told == Told::lost)
            expect(error != nullptr or frame.told == Told::rolled_back, "block ", block.id, " was lost and committed");
        check_idle();
        const bool was_broken = frame.recovered != counts_.recovered;

        const std::vector<const Hook*> expected = this->visible_hooks(transaction, Kind::commit);
        const bool detached = block.detach and told == Told::committed;
        const bool committed = told == Told::committed or told == Told::hook_error;
        expect(after.size() == (detached ? expected.size() : 0), "detached hooks: ", after.size());
        if (committed) {
            if (transaction.marked)
                expect(this->sees(block), "block ", block.id, " was committed, but its row is not there");
            if (not detached) this->check_runs(transaction, expected, error);
        } else {
            expect(transaction.ran.empty(), "hooks of block ", block.id, " ran: ", text(told));
        }
        // Raw SQL ended it, and then the ROLLBACK that would have found that out failed: nobody can know.
        const bool untold = transaction.ended_by_raw_sql and was_broken;
        if (told == Told::rolled_back and not untold) this->check_no_rows(transaction);
        if (told == Told::lost) this->check_loss(transaction);
        if (not transaction.ended_by_raw_sql and told != Told::lost) this->check_before_commit(transaction, committed);
        const bool undone = not committed and proves_undone(frame, told, was_broken);
        this->check_undone(transaction, committed ? txhooks::Outcome::committed
                                        : undone  ? txhooks::Outcome::rolled_back
                                                  : txhooks::Outcome::unknown);
        this->count_not_run(transaction, told, expected.size());
        if (owners.doubt and owners.doubt->in_doubt()) {
            expect(frame.told == Told::unknown, "block ", block.id, " is in doubt: ", text(frame.told));
            end_doubt(transaction, owners.doubt);
        }
        if (not detached) return this->check_destroyed(transaction);
        run_detached(transaction, expected, after);
    }

    // Of a savepoint that may have been released the sink hears that it is lost, and the transaction may be there still.
    static bool proves_undone(const Frame& frame, Told told, bool was_broken) {
        if (told == Told::rolled_back) return not was_broken;
        const bool lost = told == Told::lost and frame.transaction->lost.back() == txhooks::Outcome::rolled_back;
        return lost and frame.told != Told::unknown and (frame.told == Told::lost or not was_broken);
    }

    void run_detached(Transaction& transaction, const std::vector<const Hook*>& expected,
                      txhooks::DetachedHooks& after) {
        expect(transaction.ran.empty(), "detached hooks ran by themselves");
        const bool closes = std::exchange(closes_left_open_, false);
        std::exception_ptr error;
        trace("the detached hooks of block ", transaction.block->id);
        try {
            switch (transaction.block->afterwards) {
                case Block::Afterwards::run:
                    after.run();
                    break;
                case Block::Afterwards::discard:
                    after.discard();
                    break;
                case Block::Afterwards::destroy:
                    after = {};
            }
        } catch (...) {
            error = std::current_exception();
        }
        closes_left_open_ = closes;
        if (transaction.block->afterwards == Block::Afterwards::run)
            this->check_runs(transaction, expected, error);
        else
            expect(transaction.ran.empty(), "discarded hooks ran");
        expect(after.size() == 0, "detached hooks are left");
        this->check_destroyed(transaction);
        if (error) std::rethrow_exception(error);
    }

    // What raw SQL has committed has no marker.
    void end_doubt(Transaction& transaction, std::optional<txhooks::Doubt>& doubt) {
        const std::vector<const Hook*> expected = this->visible_hooks(transaction, Kind::commit);
        trace("the doubt of block ", transaction.block->id);
        if (transaction.block->afterwards == Block::Afterwards::destroy) return doubt.reset();
        if (transaction.block->afterwards == Block::Afterwards::discard or transaction.ended_by_raw_sql)
            return doubt->discard();
        const bool closes = std::exchange(closes_left_open_, true);
        bool committed = true;
        std::exception_ptr error;
        try {
            committed = doubt->resolve(db()) == txhooks::Outcome::committed;
        } catch (const txhooks::HookError&) {
            error = std::current_exception();
        }
        closes_left_open_ = closes;
        ++(committed ? counts_.resolved_committed : counts_.resolved_rolled_back);
        if (committed)
            this->check_runs(transaction, expected, error);
        else
            this->check_no_rows(transaction);
        if (committed and transaction.marked)
            expect(this->sees(*transaction.block), "resolved as committed, but the row of the block is not there");
        if (not committed) expect(transaction.ran.empty(), "resolved as rolled back, but hooks ran");
        this->check_before_commit(transaction, committed);
        this->check_undone(transaction, committed ? txhooks::Outcome::committed : txhooks::Outcome::rolled_back, true);
    }

    // Outside blocks the connection is as new, or can be made so.
    void check_idle() {
        expect(not db().in_atomic_block(), "in_atomic_block() is true outside blocks");
        expect(db().pending_hooks() == 0, "hooks are pending outside blocks: ", db().pending_hooks());
        if (db().usable()) return;
        expect(program_.trouble, "the connection is not usable, but nothing was made to fail");
        expect_refused<txhooks::Error>("on a connection that is not usable");
        trace("recover");
        ++counts_.recovered;
        recover();
    }

    void recover() {
        world_->recover();
        try {
            db().reset();
        } catch (...) {
            expect(false, "reset(): ", std::current_exception());
        }
        expect(db().usable(), "the connection is not usable after reset()");
    }

    void check_at_the_end() {
        for (const Left& left : left_) {
            if (not left.frame.left_open) continue;
            const Transaction& transaction = *left.frame.transaction;
            expect(not left.guard->active(), "guard ", left.frame.block->id, " is still active");
            if (transaction.block != left.frame.block) continue;
            expect(transaction.ran.empty(), "hooks of block ", left.frame.block->id, " ran, which was left open");
            if (transaction.lost.empty() and not transaction.ended_by_raw_sql) this->check_no_rows(transaction);
            this->check_undone(transaction,
                               program_.trouble ? txhooks::Outcome::unknown : txhooks::Outcome::rolled_back);
        }
    }

    txhooks::HookFailure policy_ = txhooks::HookFailure::stop;
    Frame* innermost_ = nullptr;
    Frame* passing_ = nullptr;       // hooks are called before its COMMIT
    Frame* pinned_ = nullptr;        // the block in which a hook is called, copied or destroyed by the library
    bool closes_left_open_ = false;  // hooks may be run or discarded, which will close what they leave open
    long live_ = 0;                  // captures
    std::deque<Transaction> transactions_;
    std::list<Left> left_;
};

}  // namespace random_programs

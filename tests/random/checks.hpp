// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"
#include "journal.hpp"
#include "model.hpp"
#include "program.hpp"
#include "records.hpp"

#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <vector>

namespace random_programs {

/// What must hold when the transaction of an outermost block has ended.
template <class World>
class Checks : protected Journal {
protected:
    Checks(const Program& program, Counts& counts, bool traced)
        : Journal{traced}, program_{program}, counts_{counts}, states_(program.hooks.size()) {}

    // Committed: of the hooks whose row is there, those ran that `error` does not tell of as not run, in order.
    void check_runs(const Transaction& transaction, const std::vector<const Hook*>& expected,
                    const std::exception_ptr& error) {
        const auto fails = [this](const Hook* hook) { return states_[hook->id].threw and not hook->robust; };
        const auto failed = static_cast<std::size_t>(std::count_if(expected.begin(), expected.end(), fails));
        const auto first =
            static_cast<std::size_t>(std::find_if(expected.begin(), expected.end(), fails) - expected.begin());
        std::size_t runs = expected.size();
        if (transaction.policy == txhooks::HookFailure::stop and failed != 0) runs = first + 1;
        expect(std::equal(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(runs),
                          transaction.ran.begin(), transaction.ran.end()),
               "committed: of the hooks with a visible row", ids(expected), ", ", runs,
               " must run, but these ran:", ids(transaction.ran));
        const bool tells = failed != 0 and transaction.policy != txhooks::HookFailure::report;
        if (not tells) return expect(error == nullptr, "no hook failed, but: ", error);
        try {
            if (error) std::rethrow_exception(error);
            expect(false, "a hook failed, but the caller was not told");
        } catch (const txhooks::HookError& e) {
            expect(
                e.position() == first and e.not_run() == expected.size() - runs and e.failed() == failed and e.cause(),
                "wrong: ", error);
        } catch (...) {
            expect(false, "a hook failed, but the caller was told: ", error);
        }
    }

    void check_no_rows(const Transaction& transaction) {
        if (transaction.marked)
            expect(not sees(*transaction.block), "block ", transaction.block->id,
                   " was rolled back, but its row is there");
        for (const Hook* hook : transaction.hooks)
            expect(not sees(*hook), "rolled back, but the row of hook ", hook->id, " is there");
    }

    // Those before COMMIT ran if they were to be committed, in order; what they wrote has the fate of their transaction.
    void check_before_commit(const Transaction& transaction, bool committed) {
        if (committed) {
            const std::vector<const Hook*> expected = visible_hooks(transaction, Kind::before_commit);
            expect(transaction.ran_before == expected, "committed: the hooks before COMMIT with a visible row are",
                   ids(expected), ", but these ran:", ids(transaction.ran_before));
        }
        for (const Hook* hook : transaction.ran_before)
            expect(world_->sees(row_by(*hook)) == sees(*hook), "hook ", hook->id,
                   " ran before COMMIT, but not in its transaction: its rows have not the same fate");
    }

    // Those that wait for what undoes them. `proven`: what the transaction is known to have come to; `resolved`: known
    // later than the caller was told that nothing is, which is as long as hooks of unless_committed() wait.
    void check_undone(const Transaction& transaction, txhooks::Outcome proven, bool resolved = false) {
        const bool committed = proven == txhooks::Outcome::committed;
        for (const Hook* hook : transaction.hooks) {
            if (not hook->waits_for_undo()) continue;
            const bool rollback = hook->kind == Kind::rollback;
            const bool ran = states_[hook->id].ran != 0;
            const bool there = sees(*hook);
            const bool must_not = there and (rollback or (committed and not resolved));
            const bool must = rollback ? proven == txhooks::Outcome::rolled_back or (committed and not there)
                                       : not committed or resolved or not there;
            if (not states_[hook->id].perhaps_elsewhere)
                expect(not(ran and must_not), "hook ", hook->id, " ran, which waits for ", text(hook->kind),
                       ", but its row is there");
            expect(ran or not must, "hook ", hook->id, " did not run, which waits for ", text(hook->kind));
        }
    }

    // What was told of the loss is true.
    void check_loss(const Transaction& transaction) {
        if (not transaction.marked) return;
        const bool there = sees(*transaction.block);
        for (const txhooks::Outcome outcome : transaction.lost)
            expect(outcome == txhooks::Outcome::unknown or (outcome == txhooks::Outcome::committed) == there, "block ",
                   transaction.block->id, " was told as lost and ", text(outcome), ", but its row is ",
                   there ? "there" : "not there");
    }

    void check_destroyed(const Transaction& transaction) {
        for (const Hook* hook : transaction.hooks)
            if (hook->tracked())
                expect(states_[hook->id].destroyed == 1, "hook ", hook->id, " was destroyed ",
                       states_[hook->id].destroyed, " times when its transaction had ended");
    }

    void compare_with_model() {
        ++counts_.modelled;
        const std::vector<Event> predicted = Model{World::has_begin_modes, World::has_markers}.history(program_);
        const auto [told, happened] = std::mismatch(predicted.begin(), predicted.end(), events_.begin(), events_.end());
        if (told == predicted.end() and happened == events_.end()) return;
        expect(false, "the model says: ", told == predicted.end() ? "nothing more" : text(*told),
               "; what happened: ", happened == events_.end() ? "nothing more" : text(*happened));
    }

    // Of the commit hooks, `visible` have a row that is there.
    void count_not_run(const Transaction& transaction, Told told, std::size_t visible) {
        const std::size_t ran = transaction.ran.size();
        if (told == Told::hook_error and ran < visible) counts_.dropped += visible - ran;
        const bool in_doubt = told == Told::unknown;
        if (not in_doubt and told != Told::lost) return;
        const auto waits = [](const Hook* hook) { return hook->kind == Kind::commit; };
        const auto waiting = std::count_if(transaction.hooks.begin(), transaction.hooks.end(), waits);
        (in_doubt ? counts_.in_doubt : counts_.were_lost) += static_cast<unsigned long>(waiting);
    }

    void count(const Frame& frame, bool outermost) {
        if (not frame.opened) {
            ++counts_.refused;
            return;
        }
        ++(outermost ? counts_.outermost : counts_.nested);
        if (not outermost or frame.left_open) return;
        switch (told_of_transaction(frame)) {
            case Told::committed:
                ++counts_.committed;
                break;
            case Told::hook_error:
                ++counts_.hook_error;
                break;
            case Told::unknown:
                ++counts_.unknown;
                break;
            case Told::lost: {
                const txhooks::Outcome outcome = frame.transaction->lost.back();
                ++(outcome == txhooks::Outcome::committed     ? counts_.lost_committed
                   : outcome == txhooks::Outcome::rolled_back ? counts_.lost_rolled_back
                                                              : counts_.lost_unknown);
                break;
            }
            default:
                ++(frame.told == Told::aborted ? counts_.aborted : counts_.rolled_back);
        }
    }

    std::vector<const Hook*> visible_hooks(const Transaction& transaction, Kind kind) {
        std::vector<const Hook*> hooks;
        for (const Hook* hook : transaction.hooks)
            if (hook->kind == kind and sees(*hook)) hooks.push_back(hook);
        return hooks;
    }

    bool sees(const Block& block) { return world_->sees(row_of(block)); }
    bool sees(const Hook& hook) { return world_->sees(row_of(hook)); }

    static unsigned row_of(const Hook& hook) { return 3 * hook.id; }
    static unsigned row_of(const Block& block) { return 3 * block.id + 1; }
    static unsigned row_by(const Hook& hook) { return 3 * hook.id + 2; }  // put when it runs, before COMMIT

    void event(const Event& event) {
        if (not program_.trouble) events_.push_back(event);
    }

    const Program& program_;
    Counts& counts_;
    World* world_ = nullptr;
    bool losable_ = false;           // there was something that could end a transaction behind a block's back
    std::vector<HookState> states_;  // by id
    std::vector<Event> events_;      // where the model can predict them
};

}  // namespace random_programs

// SPDX-License-Identifier: MIT
//
// The page on outcomes and doubt (outcomes.md), on the fake backend, which fails when it is told to.

#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "say.hpp"

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;
using txhooks::testing::Verb;
using txhooks::testing::When;

void send_mail(const std::string& name) {
    say("mail to ", name);
}

void sign_up(Db& db, const std::string& name) {
    db.atomic([&] {
        db.put(name);
        db.on_commit(send_mail, name);
    });
}

// ---- May I do it again?

enum class Next { nothing, do_it_again, look_first };

Next after(const std::exception& thrown) {
    const auto* error = dynamic_cast<const txhooks::Error*>(&thrown);
    if (error == nullptr) return Next::do_it_again;  // the engine's, or yours: rolled back
    switch (error->outcome()) {
        case txhooks::Outcome::committed:  // HookError: the data is there
            return Next::nothing;
        case txhooks::Outcome::rolled_back:
        case txhooks::Outcome::still_open:  // UsageError: the call did nothing
            return Next::do_it_again;
        default:  // CommitUnknown, some TransactionLost
            return Next::look_first;
    }
}

template <class Act>
Next what_next(const Act& act) {
    try {
        act();
    } catch (const std::exception& error) {
        return after(error);
    }
    return Next::nothing;
}

void outcomes() {
    Db refused, failed, unanswered, lost;
    refused.faults.fail(Verb::begin, When::before_effect, std::runtime_error{"too many clients"});
    check(what_next([&] { sign_up(refused, "Ann"); }) == Next::do_it_again);

    check(what_next([&] {
              failed.atomic([&] {
                  sign_up(failed, "Ann");
                  failed.fail_transaction();  // a statement failed, and nobody looked
              });
          }) == Next::do_it_again);

    unanswered.faults.lose_connection(Verb::commit, When::after_effect);
    check(what_next([&] { sign_up(unanswered, "Ann"); }) == Next::look_first);

    check(what_next([&] {
              lost.atomic([&] {
                  sign_up(lost, "Ann");
                  lost.execute("COMMIT");  // raw SQL, behind the block's back; the fake knows what became of it
              });
          }) == Next::nothing);
    check(said().empty());
}

// ---- Hooks that throw

void hooks_that_throw() {
    Db db;
    try {
        db.atomic([&] {
            db.put("Ann");
            db.on_commit([] { throw std::runtime_error{"the queue is full"}; });
            db.on_commit(send_mail, "Ann");
        });
    } catch (const txhooks::HookError& error) {
        say(error.what());  // committed all the same: never do it again
    }
    check(db.committed("Ann").has_value());
    check(said().find("hook number 1 threw (1 failed, 1 did not run): the queue is full") != std::string::npos);

    db.set_error_sink([](void*, const char* what, const std::exception_ptr&) { say(what); });
    db.atomic([&] {
        db.on_commit(txhooks::robust, [] { throw std::runtime_error{"the queue is full"}; });
        db.on_commit(send_mail, "Bob");  // runs
    });
    check(said().ends_with("mail to Bob;"));

    db.set_on_hook_failure(txhooks::HookFailure::report);  // as if all were robust
    db.atomic([&] { db.on_commit([] { throw std::runtime_error{"the queue is full"}; }); });
    said();
}

// ---- When the answer to COMMIT is lost

void doubt() {
    Db db;
    db.faults.lose_connection(Verb::commit, When::after_effect);  // it is committed, and the answer is lost
    const auto reconnect = [&]() -> Db& {
        db.reconnect();
        db.reset();
        return db;
    };

    txhooks::Doubt doubt;
    try {
        db.atomic({.resolve = &doubt}, [&] {
            db.put("Ann");
            db.on_commit(send_mail, "Ann");
        });
    } catch (const txhooks::CommitUnknown&) {
        Db& fresh = reconnect();
        if (doubt.in_doubt()) doubt.resolve(fresh);  // committed: the commit hooks run, once; else those of on_rollback
    }
    check(said() == "mail to Ann;");
    check(db.committed("Ann").has_value());
}

// ---- Again after a deadlock

struct Deadlock : std::runtime_error {
    Deadlock() : std::runtime_error{"deadlock"} {}
};

bool is_deadlock(const std::exception_ptr& error) noexcept {
    try {
        std::rethrow_exception(error);
    } catch (const Deadlock&) {
        return true;
    } catch (...) {
        return false;
    }
}

void again() {
    Db db;
    int attempts = 0;
    txhooks::retry(db, {.attempts = 8, .transient = is_deadlock}, [&] {  // a shipped adapter knows by itself
        db.put("Ann");
        db.on_commit(send_mail, "Ann");  // of the attempt that commits
        if (++attempts < 3) throw Deadlock{};
    });
    check(said() == "mail to Ann;" and attempts == 3);
}

}  // namespace

int main() {
    outcomes();
    hooks_that_throw();
    doubt();
    again();
    return verdict();
}

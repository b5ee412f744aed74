// SPDX-License-Identifier: MIT

// HookList without exceptions and without run-time type information: built with -fno-exceptions -fno-rtti.

#include <txhooks/hook_list.hpp>

#include <cstddef>
#include <cstdio>
#include <initializer_list>

#if defined(__cpp_exceptions) or defined(__cpp_rtti)
#error "build this with -fno-exceptions -fno-rtti"
#endif

namespace {

int failures = 0;

void check(bool holds, const char* what) {
    if (holds) return;
    ++failures;
    std::printf("failed: %s\n", what);
}

// Adds its digit to a number when it is called, and 9 when it is destroyed.
class Digit {
public:
    Digit(unsigned long& history, unsigned digit) : history_{&history}, digit_{digit} {}
    Digit(Digit&& other) noexcept : history_{other.history_}, digit_{other.digit_} { other.history_ = nullptr; }
    Digit& operator=(Digit&&) = delete;
    ~Digit() {
        if (history_ != nullptr) *history_ = *history_ * 10 + 9;
    }
    void operator()() { *history_ = *history_ * 10 + digit_; }

private:
    unsigned long* history_;
    unsigned digit_;
};

void runs_in_order_and_destroys_each_before_the_next() {
    unsigned long history = 0;
    txhooks::HookList hooks;
    const auto begin = hooks.mark();
    for (unsigned digit = 1; digit <= 3; ++digit) hooks.push(Digit{history, digit});
    check(hooks.size(begin) == 3, "three hooks are registered");
    txhooks::HookList::Run{hooks, begin}();
    check(history == 192939, "hooks run in order, each destroyed before the next");
    check(hooks.empty(begin), "nothing is left after the run");
}

void discards_from_a_savepoint() {
    unsigned long history = 0;
    txhooks::HookList hooks;
    hooks.push(Digit{history, 1});
    const auto savepoint = hooks.mark();
    hooks.push(Digit{history, 2});
    hooks.push(Digit{history, 3});
    hooks.discard(savepoint);
    check(history == 99, "the hooks since the savepoint are destroyed and do not run");
    hooks.push(Digit{history, 4});
    txhooks::HookList::Run{hooks, hooks.start()}();
    check(history == 991949, "the others run");
}

void keeps_what_hooks_push() {
    unsigned long history = 0;
    txhooks::HookList hooks;
    hooks.push([&] { hooks.push(Digit{history, 5}); });
    txhooks::HookList::Run{hooks, hooks.start()}();
    check(history == 0 and hooks.size(hooks.start()) == 1, "what a hook pushes waits");
    txhooks::HookList::Run{hooks, hooks.start()}();
    check(history == 59, "and runs later");
}

void runs_one_at_a_time() {
    unsigned long history = 0;
    txhooks::HookList hooks;
    for (unsigned digit = 1; digit <= 3; ++digit) hooks.push(Digit{history, digit});
    {
        txhooks::HookList::Run run{hooks, hooks.start()};
        check(run.next() and history == 19, "the first hook runs alone");
        check(run.next() and history == 1929, "and then the next");
        check(run.left() == 1, "one is left");
    }
    check(history == 19299, "which is destroyed with the Run");
}

void runs_hooks_before_the_commit() {
    unsigned long history = 0;
    txhooks::HookList hooks;
    const auto begin = hooks.mark();
    hooks.push(Digit{history, 1});
    hooks.push_before(Digit{history, 2});
    hooks.push_rollback(Digit{history, 3});
    hooks.push_before([&] {
        history = history * 10 + 4;
        hooks.push_before(Digit{history, 5});
        hooks.push(Digit{history, 6});
    });
    check(hooks.size(begin) == 1, "only commit hooks are counted");
    hooks.before(begin);
    check(history == 29459, "hooks before the commit run in order, what they push behind them");
    hooks.before(begin);
    check(history == 29459, "and never twice");
    history = 0;
    txhooks::HookList::Run{hooks, begin}();
    check(history == 19969, "after the commit the others run or are destroyed");
    check(hooks.empty(begin), "nothing is left after the run");
}

void runs_hooks_of_what_is_undone() {
    for (const bool proven : {false, true}) {
        unsigned long history = 0;
        txhooks::HookList hooks;
        hooks.push_rollback(Digit{history, 1});
        const auto savepoint = hooks.mark();
        hooks.push_rollback(Digit{history, 2});
        hooks.push_unless_committed(Digit{history, 3});
        hooks.push(Digit{history, 4});
        hooks.push_before(Digit{history, 5});
        hooks.push_rollback([&] { hooks.push(Digit{history, 6}); });
        proven ? hooks.roll_back(savepoint) : hooks.end_unproven(savepoint);
        check(history == (proven ? 329999ul : 39999ul), "the last runs first, then all are destroyed");
        check(hooks.size(savepoint) == (proven ? 1u : 0u), "what they push stays");
        history = 0;
        hooks.roll_back(hooks.start());
        check(history == (proven ? 199ul : 19ul), "hooks before the savepoint run when their turn comes");
        check(hooks.empty(hooks.start()), "nothing is left");
    }
}

void takes_many_of_every_kind() {
    std::size_t ran = 0;
    txhooks::HookList hooks;
    for (std::size_t i = 0; i < 5'000; ++i) {
        hooks.push([&ran] { ran += 1; });
        hooks.push_before([&ran] { ran += 100'000; });
        hooks.push_rollback([&ran, i] { ran += i < 5'000 ? 2 : 0; });
        hooks.push_unless_committed([&ran] { ran += 3; });
    }
    hooks.before(hooks.start());
    check(ran == 500'000'000, "every hook before the commit runs");
    hooks.roll_back(hooks.start());
    check(ran == 500'025'000, "every hook of what is undone runs, and no other");
}

void takes_many() {
    std::size_t next = 0;
    std::size_t wrong = 0;
    txhooks::HookList hooks;
    for (std::size_t i = 0; i < 10'000; ++i) hooks.push([&next, &wrong, i] { wrong += i != next++; });
    txhooks::HookList::Run{hooks, hooks.start()}();
    hooks.trim();
    check(next == 10'000 and wrong == 0, "ten thousand hooks run in order");
}

}  // namespace

int main() {
    runs_in_order_and_destroys_each_before_the_next();
    discards_from_a_savepoint();
    keeps_what_hooks_push();
    runs_one_at_a_time();
    takes_many();
    runs_hooks_before_the_commit();
    runs_hooks_of_what_is_undone();
    takes_many_of_every_kind();
    return failures == 0 ? 0 : 1;
}

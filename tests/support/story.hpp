// SPDX-License-Identifier: MIT
#pragma once

// Stories: what happens in blocks, as a trace that is played on a connection and on the rules, and must come out the same.

#include "support/exceptions.hpp"

#include <txhooks/txhooks.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

/// What happens, as a trace: `B{+a [S{+b !}] +c}`.
///
///     B{} S{} J{}   an outermost block, a savepoint, a joined block; the last sign in it may be
///                   ~ rollback(), ? set_rollback(true) and commit(); otherwise it commits
///     +a            registers hook a and writes row a
///     ^1 -A %1      registers hook 1 or A of before_commit(), on_rollback(), unless_committed(); -A is for row a
///     !             throws
///     try[...]      the caller swallows what comes out of there; `try` may be left out
///     (...)         registers a hook that does this; ^(...) -(...) %(...) one of the other kinds
struct Step {
    char what;  // + ! [ ( B S J
    char key = 0;
    char ending = '}';
    char kind = '+';  // of a hook: + ^ - %
    std::vector<Step> inside;
};

class Story {
public:
    Story(const char* text) : text_{text} {
        std::string_view rest{text};
        steps_ = parse(rest, '\0', nullptr);
    }

    const std::vector<Step>& steps() const noexcept { return steps_; }
    const std::string& text() const noexcept { return text_; }
    const std::string& keys() const noexcept { return keys_; }

private:
    std::vector<Step> parse(std::string_view& rest, char until, char* ending) {
        std::vector<Step> steps;
        while (not rest.empty()) {
            const char sign = rest.front();
            rest.remove_prefix(1);
            if (sign == until) break;
            if (std::string_view{" try"}.find(sign) != std::string_view::npos) continue;
            if (sign == '~' or sign == '?') {
                *ending = sign;
                continue;
            }
            Step step{sign, 0, '}', '+', {}};
            if (std::string_view{"^-%"}.find(sign) != std::string_view::npos) {
                step.kind = sign;
                step.what = rest.front() == '(' ? '(' : '+';
                if (step.what == '(') rest.remove_prefix(1);
            }
            if (step.what == '+') {
                step.key = rest.front();
                if (sign == '+') keys_ += step.key;
                rest.remove_prefix(1);
            }
            if (step.what == '[') step.inside = parse(rest, ']', nullptr);
            if (step.what == '(') step.inside = parse(rest, ')', nullptr);
            if (sign == 'B' or sign == 'S' or sign == 'J') {
                rest.remove_prefix(1);
                step.inside = parse(rest, '}', &step.ending);
            }
            steps.push_back(std::move(step));
        }
        return steps;
    }

    std::string text_;
    std::string keys_;
    std::vector<Step> steps_;
};

inline const std::vector<Story>& outermost_stories() {
    static const std::vector<Story> stories{"B{+a}", "B{+a !}", "B{+a ~}", "B{+a ?}", "J{+a}", "[B{+a}] B{+b}"};
    return stories;
}

inline const std::vector<Story>& savepoint_stories() {
    static const std::vector<Story> stories{
        "B{+a S{+b} +c}",
        "B{+a [S{+b}] +c}",
        "B{+a [S{+b !}] +c}",
        "B{+a [S{+b ~}] +c}",
        "B{+a S{+b ?} +c}",
        "B{+a S{+b} ~}",
        "B{+a [S{+b [S{+c}] +d}] +e}",
        "B{+a [S{+b [S{+c !}] +d}] [S{+e}] +f}",
        "B{[S{[S{+a}]}] [S{+b [S{+c ~}]}]}",
    };
    return stories;
}

inline const std::vector<Story>& joined_stories() {
    static const std::vector<Story> stories{
        "B{+a J{+b} +c}",
        "B{+a [J{+b !}] +c}",
        "B{+a [J{+b ~}] +c [S{+d}]}",
        "B{+a [S{+b [J{+c !}] +d}] +e}",
        "B{+a [S{+b J{+c [S{+d}] +e} ~}] +f}",
        "B{+a [J{+b [J{+c !}] +d}] +e}",
    };
    return stories;
}

inline const std::vector<Story>& hook_stories() {
    static const std::vector<Story> stories{
        "B{+a (B{+b}) +c}",
        "B{+a ([B{+b}]) +c}",
        "B{+a ([B{+b [S{+c !}] +d}]) +e}",
        "B{+a ([B{+b [J{+c !}] +d}]) ([B{+e}]) +f}",
        "B{+a [S{([B{+b ~}]) +c}] +d}",
        "B{([B{+a ([B{+b}]) +c}]) +d}",
    };
    return stories;
}

inline const std::vector<Story>& before_commit_stories() {
    static const std::vector<Story> stories{
        "B{^1 +a}",
        "B{^(+a) +b}",
        "B{^1 +a ^(!) ^2 -A}",
        "B{+a -A ^([S{+b -B !}] ^(+c -C) [S{+d}]) +e}",
        "B{+a -A ^([J{+b !}]) ^1 +c}",
        "B{S{^1 +a} [S{^2 +b ~}] ^3}",
        "B{^1 +a ?}",
        "B{(B{^(+a) +b}) +c}",
    };
    return stories;
}

inline const std::vector<Story>& undo_stories() {
    static const std::vector<Story> stories{
        "B{-A %1 +a}",
        "B{-A %1 +a !}",
        "B{-A %1 +a ?}",
        "B{-A +a [S{-B %1 +b !}] -C +c}",
        "B{-A +a [S{%1 -B +b}] ~}",
        "B{-A +a [S{-B %1 +b [J{-C +c !}] +d}] +e}",
        "B{-A +a -([B{-B %1 +b !}]) ~}",
        "B{[S{-A +a -([S{-B +b !}] -C +c) ~}] +d}",
        "B{-A +a -(!) %(!) %1 !}",
        "[B{-A +a %([B{-B +b}]) ^1 !}] B{-C +c ^2}",
        "B{([B{-A +a ^(-B +b) !}]) -C +c}",
    };
    return stories;
}

/// What came of a story.
struct History {
    std::vector<std::string> told;  // what each [...] swallowed, and last what left the story
    std::string ran;                // the hooks, in order
};

/// How `fn` ended. Why a block was doomed or a transaction lost is left out: a guard does not see that, a function does.
template <class Fn>
std::string told(Fn fn) {
    std::string text = ending(fn);
    for (const char* error : {"TransactionAborted", "TransactionLost"})
        if (const std::size_t at = text.find(error); at != std::string::npos)
            text = text.substr(0, text.find(" <- ", at));
    return text;
}

template <class Target, class Hook>
void add_hook(Target& target, char kind, Hook hook) {
    if (kind == '+') target.on_commit(std::move(hook));
    if (kind == '^') target.before_commit(std::move(hook));
    if (kind == '-') target.on_rollback(std::move(hook));
    if (kind == '%') target.unless_committed(std::move(hook));
}

template <class Target>
void play(Target& target, const std::vector<Step>& steps, History& history) {
    for (const Step& step : steps) {
        switch (step.what) {
            case '+':
                add_hook(target, step.kind, [&history, key = step.key] { history.ran += key; });
                if (step.kind == '+') target.put(step.key);
                break;
            case '!':
                throw Oops{};
            case '[':
                history.told.push_back(told([&] { play(target, step.inside, history); }));
                break;
            case '(':
                add_hook(target, step.kind, [&target, &step, &history] { play(target, step.inside, history); });
                break;
            default:
                target.block(step, [&] { play(target, step.inside, history); });
        }
    }
}

template <class Target>
History play(Target& target, const Story& story) {
    History history;
    history.told.push_back(told([&] { play(target, story.steps(), history); }));
    return history;
}

/// A connection to play on: through guards or, where the story allows it, functions.
template <class Db>
struct Player {
    Db& db;
    bool functions;
    std::function<void(char)> put;

    template <class Hook>
    void on_commit(Hook hook) {
        db.on_commit(std::move(hook));
    }
    template <class Hook>
    void before_commit(Hook hook) {
        db.before_commit(std::move(hook));
    }
    template <class Hook>
    void on_rollback(Hook hook) {
        db.on_rollback(std::move(hook));
    }
    template <class Hook>
    void unless_committed(Hook hook) {
        db.unless_committed(std::move(hook));
    }

    template <class Body>
    void block(const Step& step, Body body) {
        const bool join = step.what == 'J';
        if (functions and step.ending != '~')
            return db.atomic({.join = join}, [&] {
                body();
                if (step.ending == '?') db.set_rollback(true);
            });
        txhooks::Atomic tx{db, {.join = join}};
        body();
        if (step.ending == '~') return tx.rollback();
        if (step.ending == '?') db.set_rollback(true);
        tx.commit();
    }
};

}  // namespace support

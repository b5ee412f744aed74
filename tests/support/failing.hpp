// SPDX-License-Identifier: MIT
#pragma once

// What the tests of failures share: exceptions of every kind and their names, a sink that remembers, and stories, which
// are played on a connection and on the rules, and must come out the same.

#include "support/endings.hpp"

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/faults.hpp>
#include <txhooks/txhooks.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

using txhooks::testing::Verb;
using txhooks::testing::When;

// ---- Exceptions

/// Thrown by the stories themselves: the function given to `atomic` failed.
struct Deliberate {};

/// Not a std::exception.
struct Foreign {
    int number;
};

inline std::string name_of(const std::exception_ptr& error) {
    if (not error) return "nothing";
    try {
        std::rethrow_exception(error);
    } catch (const Deliberate&) {
        return "deliberate";
    } catch (const txhooks::HookError& e) {
        return "HookError(" + name_of(e.cause()) + ")";
    } catch (const txhooks::CommitUnknown& e) {
        return "CommitUnknown(" + name_of(e.cause()) + ")";
    } catch (const txhooks::TransactionLost& e) {
        return "TransactionLost(" + name(e.outcome()) + ")";
    } catch (const txhooks::TransactionAborted&) {
        return "TransactionAborted";
    } catch (const txhooks::ConnectionBroken&) {
        return "ConnectionBroken";
    } catch (const txhooks::UsageError&) {
        return "UsageError";
    } catch (const txhooks::testing::ConnectionLostError&) {
        return "connection lost";
    } catch (const std::bad_alloc&) {
        return "bad_alloc";
    } catch (const std::exception& e) {
        return e.what();
    } catch (int number) {
        return "failure " + std::to_string(number);
    } catch (const Foreign& foreign) {
        return "failure " + std::to_string(foreign.number);
    } catch (...) {
        return "something else";
    }
}

/// The name of what `fn()` throws: "nothing" if it returns.
template <class Fn>
std::string what_leaves(Fn&& fn) {
    try {
        fn();
    } catch (...) {
        return name_of(std::current_exception());
    }
    return "nothing";
}

/// An error sink that remembers the names of the exceptions: `Reports reports{db};`
class Reports {
public:
    template <class Db>
    explicit Reports(Db& db) {
        db.set_error_sink(&Reports::add, this);
    }
    Reports(const Reports&) = delete;
    Reports& operator=(const Reports&) = delete;

    const std::vector<std::string>& errors() const noexcept { return errors_; }
    void clear() noexcept { errors_.clear(); }

private:
    static void add(void* self, const char*, const std::exception_ptr& error) {
        static_cast<Reports*>(self)->errors_.push_back(name_of(error));
    }

    std::vector<std::string> errors_;
};

// ---- Faults

enum class Kind { own, an_int, foreign, loss };

/// One verb that fails.
struct Fault {
    Verb verb;
    When when;
    Kind kind;
    std::size_t nth;

    /// `number` is how the failure is called: "failure 1".
    void plan(txhooks::testing::Faults& faults, int number) const {
        switch (kind) {
            case Kind::own:
                return faults.fail(verb, when, txhooks::testing::FakeError{"failure " + std::to_string(number)}, nth);
            case Kind::an_int:
                return faults.fail(verb, when, number, nth);
            case Kind::foreign:
                return faults.fail(verb, when, Foreign{number}, nth);
            case Kind::loss:
                return faults.lose_connection(verb, when, nth);
        }
    }

    std::string name() const {
        static constexpr const char* verbs[] = {"begin", "commit", "rollback", "savepoint", "release", "rollback_to"};
        static constexpr const char* kinds[] = {"own exception", "int", "foreign exception", "loss"};
        return "(" + std::string{verbs[static_cast<int>(verb)]} + " " + std::to_string(nth) + ": " +
               kinds[static_cast<int>(kind)] + (when == When::before_effect ? " before" : " after") + " effect)";
    }
};

inline constexpr Verb all_verbs[] = {Verb::begin,     Verb::commit,  Verb::rollback,
                                     Verb::savepoint, Verb::release, Verb::rollback_to};

inline std::vector<Fault> all_faults(std::size_t nth, std::vector<Kind> kinds) {
    std::vector<Fault> faults;
    for (const Verb verb : all_verbs)
        for (const When when : {When::before_effect, When::after_effect})
            for (const Kind kind : kinds)
                for (std::size_t n = 1; n <= nth; ++n) faults.push_back({verb, when, kind, n});
    return faults;
}

// ---- Stories

/// What happens, as a trace: `B{+a [S{+b !}] +c}`.
///
///     B{} S{} J{}   an outermost block, a savepoint, a joined block; the last sign in it may be
///                   ~ rollback(), ? set_rollback(true) and commit(); otherwise it commits
///     +a            registers hook a and writes row a
///     !             throws
///     [...]         the caller swallows what comes out of there
///     (...)         registers a hook that does this
struct Step {
    char what;  // + ! [ ( B S J
    char key = 0;
    char ending = '}';
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
            if (sign == ' ') continue;
            if (sign == '~' or sign == '?') {
                *ending = sign;
                continue;
            }
            Step step{sign, 0, '}', {}};
            if (sign == '+') {
                step.key = rest.front();
                keys_ += step.key;
                rest.remove_prefix(1);
            }
            if (sign == '[') step.inside = parse(rest, ']', nullptr);
            if (sign == '(') step.inside = parse(rest, ')', nullptr);
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

/// What came of a story.
struct History {
    std::vector<std::string> told;  // what each [...] swallowed, and last what left the story
    std::string ran;                // the hooks, in order
};

template <class Target>
void play(Target& target, const std::vector<Step>& steps, History& history) {
    for (const Step& step : steps) {
        switch (step.what) {
            case '+':
                target.on_commit([&history, key = step.key] { history.ran += key; });
                target.put(step.key);
                break;
            case '!':
                throw Deliberate{};
            case '[':
                history.told.push_back(what_leaves([&] { play(target, step.inside, history); }));
                break;
            case '(':
                target.on_commit([&target, &step, &history] { play(target, step.inside, history); });
                break;
            default:
                target.block(step, [&] { play(target, step.inside, history); });
        }
    }
}

template <class Target>
History play(Target& target, const Story& story) {
    History history;
    std::string left = what_leaves([&] { play(target, story.steps(), history); });
    history.told.push_back(std::move(left));
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

/// The rules S34, S36, S40 and S44 to S51, put as plainly as they can be, on an engine of their own.
class Rules {
public:
    txhooks::testing::FakeBackend engine;

    void put(char key) { engine.put(std::string{key}); }

    void on_commit(std::function<void()> hook) {
        if (broken_) throw txhooks::ConnectionBroken{};
        if (levels_.empty()) return hook();
        if (is_lost()) throw txhooks::TransactionLost{*lost_};
        hooks_.push_back(std::move(hook));
    }

    template <class Body>
    void block(const Step& step, Body body) {
        open(step.what == 'J');
        const std::size_t depth = levels_.size();
        try {
            body();
            if (step.ending == '~') {
                if (const std::exception_ptr error = roll_back()) std::rethrow_exception(error);
                return;
            }
            commit(step.ending == '?');
        } catch (...) {
            if (levels_.size() == depth) roll_back();
            throw;
        }
    }

    bool broken() const noexcept { return broken_; }

    /// Everything that verbs threw.
    const std::vector<std::string>& failures() const noexcept { return failures_; }

private:
    struct Level {
        char kind;
        unsigned number;
        std::size_t hooks;
    };

    void open(bool join) {
        if (broken_) throw txhooks::ConnectionBroken{};
        if (levels_.empty()) {
            try {
                engine.begin();
            } catch (...) {
                note();
                clear_engine();
                throw;
            }
            levels_.push_back({'B', 0, 0});
            return;
        }
        if (is_lost()) throw txhooks::TransactionLost{*lost_};
        if (doomed_) throw txhooks::TransactionAborted{};
        if (join) return levels_.push_back({'J', 0, hooks_.size()});
        unsigned number = stray_;
        for (const Level& level : levels_) number = std::max(number, level.number);
        ++number;
        try {
            engine.savepoint(number);
        } catch (...) {
            note();
            stray_ = number;
            throw;
        }
        levels_.push_back({'S', number, hooks_.size()});
    }

    void commit(bool asked_to_roll_back) {
        const Level level = levels_.back();
        if (is_lost()) {
            const txhooks::TransactionLost error{*lost_};
            roll_back();
            throw error;
        }
        if (asked_to_roll_back) {
            if (const std::exception_ptr error = roll_back()) std::rethrow_exception(error);
            return;
        }
        if (doomed_) {
            roll_back();
            throw txhooks::TransactionAborted{};
        }
        if (level.kind == 'B') return commit_outermost();
        if (level.kind == 'S') {
            try {
                engine.release(level.number);
            } catch (...) {
                note();
                roll_back();
                throw;
            }
        }
        levels_.pop_back();
    }

    void commit_outermost() {
        const txhooks::CommitResult result = engine.commit();
        if (result.error) failures_.push_back(name_of(result.error));
        switch (result.outcome) {
            case txhooks::Outcome::still_open:
                std::rethrow_exception(result.error);
            case txhooks::Outcome::rolled_back:
                end();
                if (result.error) std::rethrow_exception(result.error);
                throw txhooks::TransactionAborted{};
            case txhooks::Outcome::unknown:
                end();
                broken_ = true;
                throw txhooks::CommitUnknown{result.error};
            case txhooks::Outcome::committed:
                break;
        }
        const std::vector<std::function<void()>> hooks = std::exchange(hooks_, {});
        end();
        for (std::size_t i = 0; i != hooks.size(); ++i) {
            try {
                hooks[i]();
            } catch (...) {
                throw txhooks::HookError{i, hooks.size() - i - 1, 1, std::current_exception()};
            }
        }
    }

    // Returns what an explicit rollback() throws.
    std::exception_ptr roll_back() {
        const Level level = levels_.back();
        const bool lost = is_lost();
        std::exception_ptr error;
        if (lost) error = std::make_exception_ptr(txhooks::TransactionLost{*lost_});
        levels_.pop_back();
        if (level.kind == 'B') {
            if (lost)
                clear_engine();
            else
                error = roll_back_engine();
            end();
        } else if (lost) {
            return error;
        } else if (level.kind == 'J') {
            doomed_ = true;
        } else {
            try {
                engine.rollback_to(level.number);
                hooks_.resize(level.hooks);
                doomed_ = false;
            } catch (...) {
                error = note();
                stray_ = std::max(stray_, level.number);
                doomed_ = true;
            }
        }
        return error;
    }

    std::exception_ptr roll_back_engine() {
        try {
            engine.rollback();
        } catch (...) {
            const std::exception_ptr error = note();
            if (engine.state() == txhooks::ConnectionState::idle) return nullptr;
            broken_ = true;
            return error;
        }
        return nullptr;
    }

    std::exception_ptr note() {
        failures_.push_back(name_of(std::current_exception()));
        return std::current_exception();
    }

    void clear_engine() {
        if (engine.state() != txhooks::ConnectionState::idle) roll_back_engine();
    }

    bool is_lost() {
        const txhooks::ConnectionState state = engine.state();
        if (not lost_ and (state == txhooks::ConnectionState::idle or state == txhooks::ConnectionState::lost))
            lost_ = engine.fate();
        return lost_.has_value();
    }

    void end() {
        levels_.clear();
        hooks_.clear();
        doomed_ = false;
        lost_.reset();
        stray_ = 0;
    }

    std::vector<Level> levels_;
    std::vector<std::function<void()>> hooks_;
    std::vector<std::string> failures_;
    std::optional<txhooks::Outcome> lost_;
    bool doomed_ = false;
    bool broken_ = false;
    unsigned stray_ = 0;  // the highest number that the engine may still know from a failed statement
};

}  // namespace support

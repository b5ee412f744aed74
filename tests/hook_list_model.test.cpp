// SPDX-License-Identifier: MIT

// Random programs of blocks and hooks, run on a HookList and on a naive model of it: both must tell the same history.
//
//     TXHOOKS_SEED=123      replays that one program
//     TXHOOKS_PROGRAMS=100  runs that many

#include <txhooks/hook_list.hpp>

#include "support/catch.hpp"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TXHOOKS_TEST_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) or defined(TXHOOKS_TEST_ASAN)
#include <sanitizer/common_interface_defs.h>

#include <cstdio>
#endif

using txhooks::HookList;

namespace {

// ---- Programs

struct Hook;

enum class Ending {
    release,
    leave_open,
    discard,
    drop_run,
    run_all,
    run_until_failure,
    run_one_by_one,
    before,  // and then release
    roll_back,
    end_unproven,
};

// What a hook waits for.
enum class Waits { for_commit, to_come_before, for_rollback, unless_committed };

// One step: what it means is Interpreter's to say.
struct Step {
    enum class Kind { push, push_many, block, end_left_open, tell_size, trim, fail };

    Kind kind{};
    std::unique_ptr<Hook> hook{};   // push
    std::vector<Step> steps{};      // block
    Ending ending{};                // block, end_left_open
    int count = 0;                  // push_many
    int first_id = 0;               // push_many
    Waits waits{};                  // push_many
    bool lets_failure_out = false;  // push
};
using Steps = std::vector<Step>;

enum class Shape { trivial, small, aligned_16, aligned_32, aligned_64, aligned_4096, move_only, big, bigger };

// What a hook does in each part of its life.
struct Hook {
    int id = 0;
    Waits waits{};
    Shape shape{};
    Steps on_copy{};
    Steps on_run{};
    Steps on_destroy{};
    bool copy_fails = false;
    bool run_fails = false;
};

struct Failure {
    int id = 0;  // of the hook that threw it
};

class Writer {
public:
    explicit Writer(std::uint64_t seed) : random_{seed} {}

    Steps program() {
        steps_left_ = one_of(400) + 5;
        return steps(0, 120);
    }

private:
    int one_of(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
    bool percent(int p) { return one_of(100) < p; }

    Steps steps(int depth, int most) {
        Steps written;
        for (int n = one_of(most) + 1; n > 0 and steps_left_-- > 0; --n) written.push_back(step(depth));
        return written;
    }

    Steps maybe_steps(int depth, int chance) {
        if (depth > 7 or not percent(chance)) return {};
        return steps(depth + 1, 4);
    }

    Step step(int depth) {
        Step written;
        const int choice = one_of(100);
        if (choice < 48) {
            written.kind = Step::Kind::push;
            written.hook = hook(depth);
            written.lets_failure_out = percent(20);
        } else if (choice < 72 and depth < 9) {
            written.kind = Step::Kind::block;
            written.steps = steps(depth + 1, 5);
            written.ending = ending();
        } else if (choice < 80) {
            written.kind = Step::Kind::end_left_open;
            written.ending = ending();
            if (written.ending == Ending::leave_open) written.ending = Ending::run_all;
        } else if (choice < 84) {
            written.kind = Step::Kind::push_many;
            written.count = one_of(40) + 1;
            written.first_id = next_id_;
            written.waits = waits();
            next_id_ += written.count;
        } else if (choice < 88) {
            written.kind = Step::Kind::trim;
        } else if (choice < 89) {
            written.kind = Step::Kind::fail;
        } else {
            written.kind = Step::Kind::tell_size;
        }
        return written;
    }

    Ending ending() {
        constexpr std::array likely{Ending::release,        Ending::leave_open,
                                    Ending::leave_open,     Ending::discard,
                                    Ending::discard,        Ending::drop_run,
                                    Ending::run_all,        Ending::run_all,
                                    Ending::run_all,        Ending::run_until_failure,
                                    Ending::run_one_by_one, Ending::run_one_by_one,
                                    Ending::before,         Ending::before,
                                    Ending::roll_back,      Ending::roll_back,
                                    Ending::end_unproven};
        return likely[static_cast<std::size_t>(one_of(static_cast<int>(likely.size())))];
    }

    Waits waits() {
        constexpr std::array likely{Waits::for_commit,     Waits::for_commit,   Waits::for_commit,
                                    Waits::to_come_before, Waits::for_rollback, Waits::unless_committed};
        return likely[static_cast<std::size_t>(one_of(static_cast<int>(likely.size())))];
    }

    std::unique_ptr<Hook> hook(int depth) {
        auto written = std::make_unique<Hook>();
        written->id = next_id_++;
        written->waits = waits();
        written->shape = static_cast<Shape>(one_of(static_cast<int>(Shape::bigger) + 1));
        if (written->shape == Shape::aligned_4096 and percent(70)) written->shape = Shape::small;
        written->on_run = maybe_steps(depth, 40);
        written->run_fails = percent(15);
        if (written->shape == Shape::trivial) return written;
        written->on_copy = maybe_steps(depth, 20);
        written->on_destroy = maybe_steps(depth, 25);
        written->copy_fails = percent(15);
        return written;
    }

    std::mt19937_64 random_;
    int steps_left_ = 0;
    int next_id_ = 0;
};

// ---- Running them

enum class Event { built, ran, failed, destroyed, refused, size, walk, left, leaked };
using History = std::vector<std::pair<Event, std::size_t>>;

// How often the programs got to what is rare.
struct Reached {
    std::size_t runs = 0;
    std::size_t failed_runs = 0;
    std::size_t runs_before = 0;
    std::size_t runs_of_undone = 0;
    std::size_t failed_undos = 0;
    std::size_t failed_copies = 0;
    std::size_t failed_copies_that_left_hooks = 0;
    std::size_t walks_that_left_hooks = 0;
    std::size_t left_open_ended = 0;
    std::size_t deepest_walk = 0;
};

// Runs a program on a List. A block that a hook left open may still be ended later, as long as a hook lies behind
// where the walk ended: else its mark is of no use any more.
template <class List>
class Interpreter {
public:
    History run(const Steps& program, Reached& counts) {
        reached_ = &counts;
        history_.clear();
        List list{*this};
        list_ = &list;
        for (const Step& each : program) {
            try {
                step(each);
            } catch (const Failure&) {
                tell(Event::failed, 0);
            }
        }
        left_open_.clear();
        const auto start = list.start();
        tell(Event::size, list.size(start));
        finish(start, Ending::run_all);
        tell(Event::left, list.size(start));
        while (not list.empty(start)) finish(start, Ending::discard);
        tell(Event::leaked, list.alive());
        return std::move(history_);
    }

    // ---- The life of a hook, as the list calls for it

    void building(const Hook& hook) {
        if (hook.shape == Shape::trivial) return;
        tell(Event::built, id(hook));
        const Frame frame{*this};
        steps(hook.on_copy);
        if (hook.copy_fails) throw Failure{};
    }

    void running(const Hook& hook) {
        ++reached_->runs;
        tell(Event::ran, id(hook));
        reached_->runs_before += hook.waits == Waits::to_come_before;
        reached_->runs_of_undone += hook.waits == Waits::for_rollback or hook.waits == Waits::unless_committed;
        steps_of_its_own(hook, hook.on_run);
        if (hook.run_fails) throw Failure{hook.id};
    }

    void destroying(const Hook& hook) noexcept {
        if (hook.shape == Shape::trivial) return;
        tell(Event::destroyed, id(hook));
        try {
            steps_of_its_own(hook, hook.on_destroy);
        } catch (const Failure&) {
            tell(Event::failed, id(hook));
        }
    }

    void running_one_of_many(int id) { tell(Event::ran, static_cast<std::size_t>(id)); }

private:
    using Mark = typename List::Mark;

    // While one lives only the blocks left open since it was made can be ended.
    struct Frame {
        explicit Frame(Interpreter& the) : interpreter{the}, floor{the.floor_} { the.floor_ = the.left_open_.size(); }
        Frame(const Frame&) = delete;
        Frame& operator=(const Frame&) = delete;
        ~Frame() { interpreter.floor_ = floor; }
        Interpreter& interpreter;
        std::size_t floor;
    };

    static std::size_t id(const Hook& hook) { return static_cast<std::size_t>(hook.id); }

    void tell(Event event, std::size_t what) { history_.emplace_back(event, what); }

    void steps(const Steps& program) {
        for (const Step& each : program) step(each);
    }

    // Of those before a commit the next one cannot end what this one has left open.
    void steps_of_its_own(const Hook& hook, const Steps& program) {
        if (hook.waits != Waits::to_come_before) return steps(program);
        const Frame frame{*this};
        steps(program);
    }

    void step(const Step& what) {
        switch (what.kind) {
            case Step::Kind::push:
                return push(*what.hook, what.lets_failure_out);
            case Step::Kind::push_many:
                for (int i = 0; i < what.count; ++i) list_->push_trivial(what.waits, what.first_id + i);
                return;
            case Step::Kind::block:
                return block(what);
            case Step::Kind::end_left_open: {
                if (left_open_.size() == floor_) return;
                ++reached_->left_open_ended;
                const Mark mark = left_open_.back();
                left_open_.pop_back();
                return end(mark, what.ending);
            }
            case Step::Kind::tell_size:
                if (left_open_.size() > floor_) tell(Event::size, list_->size(left_open_.back()));
                return;
            case Step::Kind::trim:
                return list_->trim();
            case Step::Kind::fail:
                throw Failure{};
        }
    }

    void push(const Hook& hook, bool lets_failure_out) {
        const Mark before = list_->mark();
        const std::size_t left_open = left_open_.size();
        try {
            list_->push(hook);
        } catch (const Failure&) {
            tell(Event::refused, id(hook));
            ++reached_->failed_copies;
            const std::size_t left = list_->size(before);
            tell(Event::size, left);
            if (left != 0) ++reached_->failed_copies_that_left_hooks;
            if (left == 0) left_open_.resize(left_open);
            if (lets_failure_out) throw;
        }
    }

    void block(const Step& what) {
        const Mark mark = list_->mark();
        const std::size_t left_open = left_open_.size();
        try {
            const Frame frame{*this};
            steps(what.steps);
        } catch (const Failure&) {
            left_open_.resize(left_open);
            end(mark, Ending::discard);
            throw;
        }
        tell(Event::size, list_->size(mark));
        if (what.ending == Ending::release) return;
        if (what.ending == Ending::leave_open) {
            left_open_.insert(left_open_.begin() + static_cast<std::ptrdiff_t>(left_open), mark);
            return;
        }
        left_open_.resize(left_open);
        end(mark, what.ending);
    }

    void end(Mark mark, Ending how) {
        const std::size_t left_open = left_open_.size();
        finish(mark, how);
        const std::size_t left = list_->size(mark);
        tell(Event::left, left);
        if (left == 0)
            left_open_.resize(left_open);
        else
            ++reached_->walks_that_left_hooks;
    }

    void finish(Mark mark, Ending how) {
        const Frame frame{*this};
        if (++walks_ > reached_->deepest_walk) reached_->deepest_walk = walks_;
        if (how == Ending::discard) {
            list_->discard(mark);
        } else if (how == Ending::before or how == Ending::roll_back or how == Ending::end_unproven) {
            try {
                if (how == Ending::before) list_->before(mark);
                if (how == Ending::roll_back) list_->roll_back(mark);
                if (how == Ending::end_unproven) list_->end_unproven(mark);
            } catch (const Failure& failure) {
                ++reached_->failed_undos;
                tell(Event::failed, static_cast<std::size_t>(failure.id));
            }
        } else if (how != Ending::release) {
            typename List::Run walk{list_->list(), mark};
            tell(walk);
            bool more = how != Ending::drop_run;
            while (more) {
                try {
                    more = how == Ending::run_one_by_one and walk.next();
                    if (how != Ending::run_one_by_one) walk();
                } catch (const Failure&) {
                    ++reached_->failed_runs;
                    more = how != Ending::run_until_failure;
                }
                tell(walk);
            }
        }
        --walks_;
    }

    void tell(const typename List::Run& walk) {
        tell(Event::walk, walk.done());
        tell(Event::walk, walk.left());
    }

    List* list_ = nullptr;
    Reached* reached_ = nullptr;
    History history_;
    std::vector<Mark> left_open_;
    std::size_t floor_ = 0;
    std::size_t walks_ = 0;
};

// ---- The naive model: a vector of numbered items. A walk takes its items out of it before it calls the first.

class Model {
public:
    using Mark = std::size_t;  // the number of the next item

    struct Item {
        std::size_t number;
        Waits waits;
        const Hook* hook;  // null: one of many
        int id;
        bool gone = false;  // it ran before the commit
    };

    class Run {
    public:
        Run(Model& model, Mark from) : model_{model} {
            auto& items = model.items_;
            while (not items.empty() and items.back().number >= from) {
                items_.insert(items_.begin(), items.back());
                items.pop_back();
            }
        }
        Run(const Run&) = delete;
        Run& operator=(const Run&) = delete;
        ~Run() { discard(); }

        void operator()() {
            while (next()) continue;
        }
        bool next() {
            while (done_ != items_.size()) {
                const Item item = items_[done_++];
                if (item.waits != Waits::for_commit) {
                    model_.destroy(item);
                    continue;
                }
                model_.call(item);
                return true;
            }
            return false;
        }
        void discard() {
            while (done_ < items_.size()) model_.destroy(items_[done_++]);
        }
        // Those that wait for something else than a commit, the last first.
        void undo(bool proven) {
            std::optional<Failure> first;
            for (std::size_t i = items_.size(); i != 0; --i) {
                const Item& item = items_[i - 1];
                if (item.waits != Waits::unless_committed and (not proven or item.waits != Waits::for_rollback))
                    continue;
                try {
                    model_.call_only(item);
                } catch (const Failure& failure) {
                    if (not first) first = failure;
                }
            }
            discard();
            if (first) throw Failure{*first};
        }
        std::size_t done() const { return commit_hooks(0, done_); }
        std::size_t left() const { return commit_hooks(done_, items_.size()); }

    private:
        std::size_t commit_hooks(std::size_t from, std::size_t to) const {
            std::size_t count = 0;
            for (; from != to; ++from) count += items_[from].waits == Waits::for_commit;
            return count;
        }

        Model& model_;
        std::vector<Item> items_;
        std::size_t done_ = 0;
    };

    explicit Model(Interpreter<Model>& interpreter) : interpreter_{interpreter} {}

    Model& list() { return *this; }
    Mark start() const { return 0; }
    Mark mark() const { return next_; }

    std::size_t size(Mark from) const {
        std::size_t count = 0;
        for (const Item& item : items_) count += item.number >= from and item.waits == Waits::for_commit;
        return count;
    }
    bool empty(Mark from) const { return items_.empty() or items_.back().number < from; }

    void push_trivial(Waits waits, int id) { items_.push_back({next_++, waits, nullptr, id}); }

    void push(const Hook& hook) {
        const std::size_t number = next_++;
        items_.push_back({number, hook.waits, &hook, hook.id});
        try {
            interpreter_.building(hook);
        } catch (const Failure&) {
            std::erase_if(items_, [&](const Item& item) { return item.number == number; });
            throw;
        }
    }

    void discard(Mark from) { Run{*this, from}.discard(); }
    void roll_back(Mark from) { Run{*this, from}.undo(true); }
    void end_unproven(Mark from) { Run{*this, from}.undo(false); }
    void before(Mark from) {
        for (std::size_t i = 0; i != items_.size(); ++i) {
            if (items_[i].number < from or items_[i].waits != Waits::to_come_before or items_[i].gone) continue;
            const Item item = items_[i];
            items_[i].gone = true;
            call(item);
        }
    }
    void trim() {}
    std::size_t alive() const { return 0; }

private:
    void call_only(const Item& item) {
        if (item.hook == nullptr)
            interpreter_.running_one_of_many(item.id);
        else
            interpreter_.running(*item.hook);
    }
    void destroy(const Item& item) {
        if (item.hook != nullptr and not item.gone) interpreter_.destroying(*item.hook);
    }
    void call(const Item& item) {
        try {
            call_only(item);
        } catch (const Failure&) {
            destroy(item);
            throw;
        }
        destroy(item);
    }

    Interpreter<Model>& interpreter_;
    std::vector<Item> items_;
    std::size_t next_ = 0;
};

// ---- The real list

class Real {
public:
    using Mark = HookList::Mark;
    using Run = HookList::Run;

    explicit Real(Interpreter<Real>& interpreter) : interpreter_{&interpreter} {}

    HookList& list() { return hooks_; }
    Mark start() { return hooks_.start(); }
    Mark mark() const { return hooks_.mark(); }
    std::size_t size(Mark from) const { return hooks_.size(from); }
    bool empty(Mark from) const { return hooks_.empty(from); }
    void discard(Mark from) { hooks_.discard(from); }
    void before(Mark from) { hooks_.before(from); }
    void roll_back(Mark from) { hooks_.roll_back(from); }
    void end_unproven(Mark from) { hooks_.end_unproven(from); }
    void trim() { hooks_.trim(); }
    std::size_t alive() const { return alive_; }

    void push_trivial(Waits waits, int id) {
        push_as(waits, [interpreter = interpreter_, id] { interpreter->running_one_of_many(id); });
    }

    void push(const Hook& hook) {
        switch (hook.shape) {
            case Shape::trivial:
                return push_as(hook.waits, [interpreter = interpreter_, &hook] { interpreter->running(hook); });
            case Shape::small:
                return push_as<1, 8, false>(hook);
            case Shape::aligned_16:
                return push_as<40, 16, false>(hook);
            case Shape::aligned_32:
                return push_as<1, 32, false>(hook);
            case Shape::aligned_64:
                return push_as<100, 64, true>(hook);
            case Shape::aligned_4096:
                return push_as<1, 4096, false>(hook);
            case Shape::move_only:
                return push_as<30, 8, true>(hook);
            case Shape::big:
                return push_as<500, 8, false>(hook);
            case Shape::bigger:
                return push_as<3000, 8, true>(hook);
        }
    }

private:
    // Its bytes hold its id for as long as it lives: who writes over it, moves it or calls it twice is found out.
    template <std::size_t Size, std::size_t Alignment, bool IsMoveOnly>
    class Capture {
    public:
        Capture(Real& real, const Hook& hook) : real_{&real}, hook_{&hook} {}
        Capture(const Capture& other)
            requires(not IsMoveOnly)
            : Capture{other, 0} {}
        Capture(Capture&& other) : Capture{std::as_const(other), 0} {}
        Capture& operator=(const Capture&) = delete;
        Capture& operator=(Capture&&) = delete;
        ~Capture() {
            if (not stored_) return;
            check_intact();
            --real_->alive_;
            real_->interpreter_->destroying(*hook_);
            check_intact();
            bytes_.fill(0xdd);
            self_ = nullptr;
        }

        void operator()() && {
            check_intact();
            real_->interpreter_->running(*hook_);
            check_intact();
        }

    private:
        Capture(const Capture& other, int) : real_{other.real_}, hook_{other.hook_}, stored_{true} {
            bytes_.fill(static_cast<unsigned char>(hook_->id));
            self_ = this;
            real_->interpreter_->building(*hook_);
            check_intact();
            ++real_->alive_;
        }

        void check_intact() const {
            bool intact = self_ == this and reinterpret_cast<std::uintptr_t>(this) % Alignment == 0;
            for (const unsigned char byte : bytes_) intact = intact and byte == static_cast<unsigned char>(hook_->id);
            if (not intact) FAIL("the capture of hook " << hook_->id << " was overwritten");
        }

        alignas(Alignment) Real* real_;
        const Hook* hook_;
        const void* self_ = nullptr;
        bool stored_ = false;
        std::array<unsigned char, Size> bytes_{};
    };

    template <std::size_t Size, std::size_t Alignment, bool IsMoveOnly>
    void push_as(const Hook& hook) {
        Capture<Size, Alignment, IsMoveOnly> capture{*this, hook};
        if constexpr (IsMoveOnly)
            push_as(hook.waits, std::move(capture));
        else
            push_as(hook.waits, capture);
    }

    template <class Any>
    void push_as(Waits waits, Any&& hook) {
        switch (waits) {
            case Waits::for_commit:
                return hooks_.push(std::forward<Any>(hook));
            case Waits::to_come_before:
                return hooks_.push_before(std::forward<Any>(hook));
            case Waits::for_rollback:
                return hooks_.push_rollback(std::forward<Any>(hook));
            case Waits::unless_committed:
                return hooks_.push_unless_committed(std::forward<Any>(hook));
        }
    }

    Interpreter<Real>* interpreter_;
    std::size_t alive_ = 0;
    HookList hooks_;
};

std::string written(const History& history) {
    constexpr std::array names{"built", "ran", "failed", "destroyed", "refused", "size", "walk", "left", "leaked"};
    std::string text;
    for (const auto& [event, what] : history)
        text += std::string{names[static_cast<std::size_t>(event)]} + ' ' + std::to_string(what) + '\n';
    return text;
}

std::uint64_t seed = 0;

// A sanitizer ends the process before Catch2 can tell the seed.
void tell_seed_when_a_sanitizer_stops() {
#if defined(__SANITIZE_ADDRESS__) or defined(TXHOOKS_TEST_ASAN)
    __sanitizer_set_death_callback([] {
        if (seed != 0) std::fprintf(stderr, "replay with TXHOOKS_SEED=%llu\n", static_cast<unsigned long long>(seed));
    });
#endif
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
    const char* const value = std::getenv(name);
    return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

}  // namespace

TEST_CASE("HookList: random programs tell the same history as a naive list",
          "[S7][S12][S14][S17][S18][S26][S27][S79]") {
    const std::uint64_t none = 0;
    const std::uint64_t replayed = setting("TXHOOKS_SEED", none);
    const std::uint64_t first = replayed == none ? 1 : replayed;
    const std::uint64_t programs = replayed == none ? setting("TXHOOKS_PROGRAMS", 20'000) : 1;
    Reached predicted;
    Reached reached;
    tell_seed_when_a_sanitizer_stops();
    for (seed = first; seed < first + programs; ++seed) {
        INFO("replay with TXHOOKS_SEED=" << seed);
        const Steps program = Writer{seed}.program();
        const History expected = Interpreter<Model>{}.run(program, predicted);
        const History history = Interpreter<Real>{}.run(program, reached);
        if (history == expected) continue;
        CHECK(written(history) == written(expected));
        FAIL("the history differs from the model's");
    }
    seed = 0;
    CHECK(reached.runs == predicted.runs);
    if (programs < 10'000) return;
    CHECK(reached.runs > programs);
    CHECK(reached.failed_runs > programs / 10);
    CHECK(reached.runs_before > programs / 10);
    CHECK(reached.runs_of_undone > programs / 10);
    CHECK(reached.failed_undos > programs / 20);
    CHECK(reached.failed_copies > programs / 10);
    CHECK(reached.failed_copies_that_left_hooks > programs / 100);
    CHECK(reached.walks_that_left_hooks > programs / 10);
    CHECK(reached.left_open_ended > programs / 20);
    CHECK(reached.deepest_walk >= 5);
}

// SPDX-License-Identifier: MIT

// Every piece of the user's code that the library calls, doing everything that such code can do to the library, in every
// shape of transaction. It goes on, or ends the program with a sentence of its own: it never faults.

#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/faults.hpp"
#include "support/on_copy.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csetjmp>
#include <csignal>
#include <cstdio>

using support::AtDestruction;
using support::Oops;
using support::Verb;
using support::When;
using txhooks::Atomic;
using txhooks::BlockOptions;
using txhooks::CommitResult;
using txhooks::Connection;
using txhooks::DetachedHooks;
using txhooks::Doubt;
using txhooks::HookedConnection;
using txhooks::HookFailure;
using txhooks::Outcome;
using txhooks::testing::CapturedHooks;
using txhooks::testing::FakeBackend;
using txhooks::testing::RolledBack;

namespace {

// ---- What is acted upon

// A fake whose planned answers can be forgotten, and that calls code of the user's where it looks for a marker.
class Engine : public FakeBackend {
public:
    CommitResult commit() noexcept { return commit(nullptr); }
    CommitResult commit(const char* marker) noexcept {
        if (answer) answer_commit(*std::exchange(answer, std::nullopt));
        return FakeBackend::commit(marker);
    }
    bool was_committed(const char* marker) {
        if (on_question) on_question();
        return FakeBackend::was_committed(marker);
    }
    void reset() {
        if (on_reset) on_reset();
    }

    std::optional<CommitAnswer> answer;
    std::function<void()> on_question;
    std::function<void()> on_reset;
};

struct EngineAdapter : txhooks::BackendAdapter<Engine> {
    explicit EngineAdapter(Engine& of) : BackendAdapter{of}, engine{of} {}
    void reset() const { engine.reset(); }
    Engine& engine;
};

using Db = HookedConnection<Engine&, EngineAdapter>;
using Options = BlockOptions<>;

// A guard that can be asked for anything, also while it is being destroyed.
class Guard {
public:
    template <class Any>
    void open(Any& db, const Options& options) {
        if (held_ == nullptr) held_ = new HeldBy<Any>{db, options};
    }
    void commit() const {
        if (held_ != nullptr) held_->commit();
    }
    void roll_back() const {
        if (held_ != nullptr) held_->roll_back();
    }
    void destroy() {
        if (held_ == nullptr or dying_) return;
        dying_ = true;
        delete held_;
        held_ = nullptr;
        dying_ = false;
    }
    bool is_there() const { return held_ != nullptr; }

private:
    struct Held {
        Held() = default;
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        virtual ~Held() = default;
        virtual void commit() = 0;
        virtual void roll_back() = 0;
    };
    template <class Any>
    struct HeldBy final : Held {
        HeldBy(Any& db, const Options& options) : tx{db, options} {}
        void commit() override { tx.commit(); }
        void roll_back() override { tx.rollback(); }
        Atomic<Any> tx;
    };

    Held* held_ = nullptr;
    bool dying_ = false;
};

struct Verdict {
    std::function<void()> when_asked;
};

// ---- The shapes of transaction

enum class Special { none, detach, resolve };
enum class Scope { none, rolled_back, captured, rolled_back_in_captured };
enum class Form { guard, any_connection, function };

struct Shape {
    const char* name;
    bool nested = false;  // in an outermost block
    bool join = false;
    Special special = Special::none;  // of the outermost
    Scope scope = Scope::none;
    Form form = Form::guard;
};

const std::vector<Shape> shapes = {
    {.name = "outermost"},
    {.name = "savepoint", .nested = true},
    {.name = "joined", .nested = true, .join = true},
    {.name = "detached", .special = Special::detach},
    {.name = "savepoint, detached", .nested = true, .special = Special::detach},
    {.name = "resolve", .special = Special::resolve},
    {.name = "joined, resolve", .nested = true, .join = true, .special = Special::resolve},
    {.name = "on RolledBack", .scope = Scope::rolled_back},
    {.name = "savepoint on RolledBack", .nested = true, .scope = Scope::rolled_back},
    {.name = "on CapturedHooks", .scope = Scope::captured},
    {.name = "savepoint on RolledBack in CapturedHooks", .nested = true, .scope = Scope::rolled_back_in_captured},
    {.name = "through Connection&", .nested = true, .form = Form::any_connection},
    {.name = "function", .form = Form::function},
    {.name = "function, savepoint, detached", .nested = true, .special = Special::detach, .form = Form::function},
};

enum class End { commit, roll_back, abandon };

struct World;
using Act = void (*)(World&);

// ---- One combination

struct World {
    Shape shape;
    Act act;
    int armed = 0;  // so many calls of the user's code will act
    bool reached = false;
    bool in_verb = false;  // rows cannot be written from inside a verb

    Engine engine;
    Engine other_engine;
    Db other{other_engine};
    Db* db = new Db{engine};
    bool db_dying = false;
    std::unique_ptr<DetachedHooks> after = std::make_unique<DetachedHooks>();
    std::unique_ptr<Doubt> doubt = std::make_unique<Doubt>();
    std::unique_ptr<CapturedHooks> captured;
    std::unique_ptr<RolledBack> rolled_back;
    Guard outer;
    Guard inner;
    Guard left;                     // open
    const char* watched = nullptr;  // the sentence at which the sink acts

    World(const Shape& in_shape, Act what, int times) : shape{in_shape}, act{what}, armed{times} {
        db->set_error_sink(&World::sink, this);
        other.set_error_sink(&World::sink, this);
        if (shape.scope == Scope::captured or shape.scope == Scope::rolled_back_in_captured)
            captured = std::make_unique<CapturedHooks>(*db);
        if (shape.scope == Scope::rolled_back or shape.scope == Scope::rolled_back_in_captured)
            rolled_back = std::make_unique<RolledBack>(*db);
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;
    ~World() = default;

    // The library has called code of the user's.
    void user_code() {
        if (armed == 0) return;
        --armed;
        reached = true;
        act(*this);
    }
    auto code() {
        return [this] { user_code(); };
    }

    static void sink(void* self, const char* what, const std::exception_ptr& error) {
        World& w = *static_cast<World*>(self);
        w.note(error);
        if (w.watched != nullptr and std::strstr(what, w.watched) != nullptr) w.user_code();
    }

    // Does `what()`, whatever it throws.
    template <class What>
    void attempt(const What& what) {
        try {
            what();
        } catch (...) {
            note(std::current_exception());
        }
    }

    // Blocks in the shape of this world; `body` is in the inner one.
    void block(End end, const std::function<void()>& body) {
        if (db == nullptr) return;
        Options first;
        if (shape.special == Special::detach) first.detach = after.get();
        if (shape.special == Special::resolve) first.resolve = doubt.get();
        if (shape.form == Form::function) return function(first, end, body);
        if (shape.nested) {
            attempt([&] { open(outer, first); });
            if (not outer.is_there()) return;
            hook();
            attempt([&] { open(inner, {.join = shape.join}); });
        } else {
            attempt([&] { open(inner, first); });
        }
        if (inner.is_there()) {
            attempt(body);
            attempt([&] { finish(inner, end); });
        }
        attempt([&] { outer.commit(); });
    }

    void function(const Options& first, End end, const std::function<void()>& body) {
        const auto all = [&] {
            body();
            if (end != End::commit) throw Oops{};
        };
        attempt([&] {
            if (not shape.nested) return db->atomic(first, all);
            db->atomic(first, [&] {
                hook();
                attempt([&] {
                    if (db != nullptr) db->atomic({.join = shape.join}, all);
                });
            });
        });
    }

    void open(Guard& guard, const Options& options) const {
        if (db == nullptr) return;
        if (shape.form == Form::any_connection)
            guard.open<Connection>(*db, options);
        else
            guard.open(*db, options);
    }

    static void finish(Guard& guard, End end) {
        if (end == End::commit) guard.commit();
        if (end == End::roll_back) guard.roll_back();
        if (end == End::abandon) guard.destroy();
    }

    template <class Hook>
    void on_commit(const Hook& hook) {
        attempt([&] {
            if (db != nullptr) db->on_commit(hook);
        });
    }
    template <class Hook>
    void on_commit(Hook&& hook) {
        attempt([&] {
            if (db != nullptr) db->on_commit(std::move(hook));
        });
    }

    // A hook for every outcome, with a row of their own, if a row can be written.
    void hook(bool robust = false) {
        if (db == nullptr) return;
        const std::size_t id = hooks.size();
        hooks.push_back({});
        attempt([&] {
            db->on_rollback(RowHook{*this, id, Waits::for_rollback});
            hooks[id].for_rollback.registered = true;
            db->unless_committed(RowHook{*this, id, Waits::for_doubt});
            hooks[id].for_doubt.registered = true;
            if (not in_verb) {
                engine.put(key(id));
                hooks[id].has_row = true;
            }
            if (robust)
                db->on_commit(txhooks::robust, RowHook{*this, id, Waits::for_commit});
            else
                db->on_commit(RowHook{*this, id, Waits::for_commit});
            hooks[id].for_commit.registered = true;
        });
    }

    // A hook before COMMIT that writes a row and registers hooks for it.
    void hook_before_commit() {
        if (db == nullptr) return;
        const std::size_t id = hooks.size();
        hooks.push_back({});
        attempt([&] { db->before_commit(RowHook{*this, id, Waits::to_write}); });
    }

    void destroy_connection() {
        if (db == nullptr or db_dying) return;
        db_dying = true;
        delete db;
        db = nullptr;
    }

    // Hooks of a connection of their own, in which code of the user's is destroyed.
    DetachedHooks of_another() {
        DetachedHooks hooks_of_other;
        other.atomic({.detach = &hooks_of_other}, [&] {
            other.on_commit([] {});
            if (watched == nullptr) other.on_commit(AtDestruction{code()});
            other.on_commit([] {});
        });
        return hooks_of_other;
    }

    // Takes everything away, and returns what is wrong.
    std::string conclude() {
        end_all();
        armed = 0;
        end_all();
        rolled_back.reset();
        captured.reset();
        engine.faults.clear();
        engine.answer.reset();
        std::string wrong = what_is_wrong_with_hooks() + what_is_wrong_with_connection();
        destroy_connection();
        after.reset();
        doubt.reset();
        if (alive != 0) wrong += std::to_string(alive) + " captures are left; ";
        return wrong;
    }

    bool excused = false;      // somebody has discarded hooks of what was committed, or has been told that they are
    bool rows_undone = false;  // behind a RolledBack's back
    bool unproven = false;     // a ROLLBACK fails
    int alive = 0;

private:
    // Ends the guards, and runs the hooks that wait somewhere.
    void end_all() {
        left.destroy();
        inner.destroy();
        outer.destroy();
        attempt([&] {
            if (captured) captured->run();
        });
        attempt([&] {
            if (after) after->run();
        });
        attempt([&] {
            if (not doubt or not doubt->in_doubt()) return;
            if (rolled_back) rows_undone = true;
            engine.reconnect();
            Db fresh{engine};
            doubt->resolve(fresh);
        });
    }

    struct Part {
        bool registered = false;
        int runs = 0;
    };
    struct Hook {
        bool has_row = false;
        bool too_early = false;
        Part for_commit;
        Part for_rollback;
        Part for_doubt;
        Part to_write;
    };
    enum class Waits : unsigned char { for_commit, for_rollback, for_doubt, to_write };

    class RowHook {
    public:
        RowHook(World& w, std::size_t id, Waits waits) : w_{&w}, id_{id}, waits_{waits} { ++w_->alive; }
        RowHook(const RowHook& from) : w_{from.w_}, id_{from.id_}, waits_{from.waits_} { ++w_->alive; }
        RowHook& operator=(const RowHook&) = delete;
        ~RowHook() { --w_->alive; }
        void operator()() const { w_->ran(id_, waits_); }

    private:
        World* w_;
        std::size_t id_;
        Waits waits_;
    };

    static std::string key(std::size_t id) { return "row " + std::to_string(id); }

    void ran(std::size_t id, Waits waits) {
        Hook& hook = hooks[id];
        const bool visible = engine.get(key(id)).has_value();
        switch (waits) {
            case Waits::for_commit:
                ++hook.for_commit.runs;
                if (hook.has_row and not engine.committed(key(id)) and not(rolled_back and visible) and not rows_undone)
                    hook.too_early = true;
                return;
            case Waits::for_rollback:
                ++hook.for_rollback.runs;
                if (hook.has_row and visible) hook.too_early = true;
                return;
            case Waits::for_doubt:
                ++hook.for_doubt.runs;
                return;
            case Waits::to_write:
                ++hook.to_write.runs;
                return this->hook();
        }
    }

    void note(const std::exception_ptr& error) {
        const std::string name = support::name_of(error);
        for (const char* told : {"HookError", "TransactionLost", "CommitUnknown"})
            if (name.starts_with(told)) excused = true;
    }

    std::string what_is_wrong_with_hooks() {
        std::string wrong;
        for (std::size_t id = 0; id != hooks.size(); ++id) {
            const Hook& hook = hooks[id];
            const std::string name = "hook " + std::to_string(id);
            if (hook.too_early) wrong += name + " ran although its row was, or was not, there; ";
            for (const Part& part : {hook.for_commit, hook.for_rollback, hook.for_doubt, hook.to_write})
                if (part.runs > 1) wrong += name + " ran twice; ";
            const bool committed = hook.for_commit.runs != 0;
            // Those of unless_committed have run when the doubt is told that a Doubt resolves to a commit.
            if (committed and (hook.for_rollback.runs != 0 or (hook.for_doubt.runs != 0 and not excused)))
                wrong += name + " ran for both outcomes; ";
            if (hook.for_rollback.runs != 0 and hook.for_doubt.registered and hook.for_doubt.runs == 0)
                wrong += name + " ran for a rollback and not for the doubt; ";
            if (not hook.has_row or committed) continue;
            const bool there = engine.committed(key(id)).has_value();
            if (there and not excused and hook.for_commit.registered) wrong += name + " did not run; ";
            // The end of a RolledBack takes away rows of blocks that are committed, whatever became of their hooks.
            const bool undone = not there and not rows_undone and not(excused and shape_is_rolled_back());
            if (undone and hook.for_doubt.registered and hook.for_doubt.runs == 0)
                wrong += name + " did not run, although nothing is committed; ";
            if (undone and not excused and not unproven and hook.for_rollback.registered and
                hook.for_rollback.runs == 0)
                wrong += name + " did not run, although it is rolled back; ";
        }
        return wrong;
    }

    bool shape_is_rolled_back() const {
        return shape.scope == Scope::rolled_back or shape.scope == Scope::rolled_back_in_captured;
    }

    std::string what_is_wrong_with_connection() {
        if (db == nullptr) return "";
        if (db->in_atomic_block()) return "a block is still open; ";
        if (not db->usable()) {
            engine.reconnect();
            attempt([&] { db->reset(); });
            if (not db->usable()) return "the connection cannot be used again; ";
        }
        std::string ran;
        const std::string ended = support::ending([&] {
            db->atomic([&] {
                engine.put("again");
                db->on_commit([&] { ran += engine.committed("again") ? "1" : "early"; });
                db->atomic([&] { db->on_commit([&] { ran += "2"; }); });
            });
        });
        return ended == "returned" and ran == "12" ? "" : "the connection does not work again: " + ended + ' ' + ran;
    }

    std::vector<Hook> hooks;
};

// ---- What the user's code does

struct NamedAct {
    const char* name;
    Act act;
    bool throws = false;
};

void open_here(World& w, const Options& options, End end) {
    w.attempt([&] {
        if (w.db == nullptr) return;
        Guard guard;
        guard.open(*w.db, options);
        w.attempt([&] { w.hook(); });
        w.attempt([&] { World::finish(guard, end); });
        guard.destroy();
    });
}

const std::vector<NamedAct> acts = {
    {"commits the inner guard", [](World& w) { w.attempt([&] { w.inner.commit(); }); }},
    {"rolls back the inner guard", [](World& w) { w.attempt([&] { w.inner.roll_back(); }); }},
    {"destroys the inner guard", [](World& w) { w.inner.destroy(); }},
    {"commits the outer guard", [](World& w) { w.attempt([&] { w.outer.commit(); }); }},
    {"rolls back the outer guard", [](World& w) { w.attempt([&] { w.outer.roll_back(); }); }},
    {"destroys the outer guard", [](World& w) { w.outer.destroy(); }},
    {"commits the guard left open", [](World& w) { w.attempt([&] { w.left.commit(); }); }},
    {"destroys the guard left open", [](World& w) { w.left.destroy(); }},
    {"destroys every guard, the outer first",
     [](World& w) {
         w.outer.destroy();
         w.inner.destroy();
         w.left.destroy();
     }},
    {"destroys the inner guard and opens another",
     [](World& w) {
         w.inner.destroy();
         w.attempt([&] { w.open(w.inner, {}); });
         w.hook();
     }},
    {"destroys the connection", [](World& w) { w.destroy_connection(); }},
    {"destroys the guards, then the connection",
     [](World& w) {
         w.left.destroy();
         w.inner.destroy();
         w.outer.destroy();
         w.destroy_connection();
     }},
    {"destroys the DetachedHooks",
     [](World& w) {
         w.excused = true;
         w.after.reset();
     }},
    {"runs the DetachedHooks",
     [](World& w) {
         w.attempt([&] {
             if (w.after) w.after->run();
         });
     }},
    {"discards the DetachedHooks",
     [](World& w) {
         w.excused = true;
         if (w.after) w.after->discard();
     }},
    {"fills the DetachedHooks with others",
     [](World& w) {
         w.excused = true;
         w.attempt([&] {
             if (w.after) *w.after = w.of_another();
         });
     }},
    {"opens a block with the same DetachedHooks",
     [](World& w) {
         if (w.after) open_here(w, {.detach = w.after.get()}, End::commit);
     }},
    {"destroys the Doubt",
     [](World& w) {
         w.excused = true;
         w.doubt.reset();
     }},
    {"resolves the Doubt",
     [](World& w) {
         w.attempt([&] {
             if (w.doubt and w.db != nullptr) w.doubt->resolve(*w.db);
         });
     }},
    {"resolves the Doubt on another connection",
     [](World& w) {
         w.excused = true;  // it is another database
         w.attempt([&] {
             if (w.doubt) w.doubt->resolve(w.other);
         });
     }},
    {"discards the Doubt",
     [](World& w) {
         w.excused = true;
         if (w.doubt) w.doubt->discard();
     }},
    {"opens a block with the same Doubt",
     [](World& w) {
         if (w.doubt) open_here(w, {.resolve = w.doubt.get()}, End::commit);
     }},
    {"ends the RolledBack",
     [](World& w) {
         w.rows_undone = true;
         w.attempt([&] {
             if (w.rolled_back) w.rolled_back->end();
         });
     }},
    {"destroys the RolledBack",
     [](World& w) {
         w.rows_undone = true;
         w.rolled_back.reset();
     }},
    {"destroys the CapturedHooks",
     [](World& w) {
         w.excused = true;
         w.captured.reset();
     }},
    {"runs the CapturedHooks",
     [](World& w) {
         w.attempt([&] {
             if (w.captured) w.captured->run();
         });
     }},
    {"discards the CapturedHooks",
     [](World& w) {
         w.excused = true;
         w.attempt([&] {
             if (w.captured) w.captured->discard();
         });
     }},
    {"registers a hook", [](World& w) { w.hook(); }},
    {"registers many robust hooks",
     [](World& w) {
         for (int i = 0; i != 20; ++i) w.hook(true);
     }},
    {"registers a hook before COMMIT", [](World& w) { w.hook_before_commit(); }},
    {"registers hooks of every kind whose destructors open blocks",
     [](World& w) {
         const auto opens = [&w] { open_here(w, {}, End::commit); };
         w.attempt([&] {
             if (w.db != nullptr) w.db->before_commit(AtDestruction{opens});
         });
         w.attempt([&] {
             if (w.db != nullptr) w.db->on_rollback(AtDestruction{opens});
         });
         w.attempt([&] {
             if (w.db != nullptr) w.db->unless_committed(AtDestruction{opens});
         });
     }},
    {"registers hooks of every kind that use the connection",
     [](World& w) {
         const auto uses = [&w] {
             w.hook();
             open_here(w, {}, End::roll_back);
             open_here(w, {}, End::commit);
         };
         w.attempt([&] {
             if (w.db != nullptr) w.db->before_commit(uses);
         });
         w.attempt([&] {
             if (w.db != nullptr) w.db->on_rollback(uses);
         });
         w.attempt([&] {
             if (w.db != nullptr) w.db->unless_committed(uses);
         });
     }},
    {"registers a hook whose copy throws",
     [](World& w) {
         bool armed = false;
         const support::OnCopy hook{[&armed] {
             if (armed) throw Oops{};
         }};
         armed = true;
         w.on_commit(hook);
     }},
    {"registers a hook whose copy and destructor open blocks",
     [](World& w) {
         const auto opens = [&w] { open_here(w, {}, End::commit); };
         int copies = 0;
         const support::OnCopy hook{[&copies, opens] {
             if (++copies == 1) opens();
         }};
         w.on_commit([hook] {});
         w.on_commit(AtDestruction{opens});
     }},
    {"opens a block and commits it", [](World& w) { open_here(w, {}, End::commit); }},
    {"opens a block and rolls it back", [](World& w) { open_here(w, {}, End::roll_back); }},
    {"opens a joined block and abandons it", [](World& w) { open_here(w, {.join = true}, End::abandon); }},
    {"opens a durable block and commits it", [](World& w) { open_here(w, {.durable = true}, End::commit); }},
    {"opens a block and leaves it open",
     [](World& w) {
         w.attempt([&] {
             if (w.db != nullptr) w.left.open(*w.db, {});
         });
         w.hook();
     }},
    {"opens a joined block and leaves it open",
     [](World& w) {
         w.attempt([&] {
             if (w.db != nullptr) w.left.open<Connection>(*w.db, {.join = true});
         });
     }},
    {"opens and closes scopes of txhooks::testing",
     [](World& w) {
         w.excused = true;
         w.attempt([&] {
             if (w.db == nullptr) return;
             CapturedHooks kept{*w.db};
             w.hook();
             open_here(w, {}, End::commit);
             kept.run();
         });
     }},
    {"asks for a rollback",
     [](World& w) {
         w.attempt([&] {
             if (w.db != nullptr) w.db->set_rollback(true);
         });
     }},
    {"asks for a rollback, and no longer",
     [](World& w) {
         w.attempt([&] {
             if (w.db == nullptr) return;
             w.db->set_rollback(true);
             w.db->set_rollback(false);
         });
     }},
    {"opens and ends a RolledBack",
     [](World& w) {
         w.attempt([&] {
             if (w.db == nullptr) return;
             RolledBack test{*w.db};
             w.rows_undone = true;
             open_here(w, {}, End::commit);
             test.end();
         });
     }},
    {"tries something often",
     [](World& w) {
         w.attempt([&] {
             if (w.db == nullptr) return;
             txhooks::RetryPolicy policy;
             policy.attempts = 2;
             policy.sleep = [](std::chrono::nanoseconds) {};
             policy.transient = [](const std::exception_ptr&) noexcept { return true; };
             txhooks::retry(*w.db, policy, [&w] {
                 w.hook();
                 w.hook_before_commit();
                 throw Oops{};
             });
         });
     }},
    {"resets the connection",
     [](World& w) {
         w.attempt([&] {
             if (w.db != nullptr) w.db->reset();
         });
     }},
    {"sets another sink and another policy",
     [](World& w) {
         if (w.db == nullptr) return;
         w.db->set_error_sink([](void*, const char*, const std::exception_ptr&) {});
         w.db->set_on_hook_failure(HookFailure::run_all);
     }},
    {"asks what there is to ask",
     [](World& w) {
         if (w.db == nullptr) return;
         static_cast<void>(w.db->usable());
         static_cast<void>(w.db->in_atomic_block());
         static_cast<void>(w.db->pending_hooks());
         if (w.after) static_cast<void>(w.after->size());
         if (w.doubt) static_cast<void>(w.doubt->size());
         if (w.captured) static_cast<void>(w.captured->size());
     }},
    {"ends the transaction by raw SQL",
     [](World& w) {
         w.rows_undone = w.excused = true;
         w.attempt([&] { w.engine.execute("ROLLBACK"); });
     }},
    {"loses the connection to the server",
     [](World& w) {
         w.rows_undone = w.excused = true;
         w.engine.lose_connection();
     }},
    {"throws", [](World&) { throw Oops{}; }, true},
};

}  // namespace

template <>
struct txhooks::result_traits<Verdict> {
    static bool failed(const Verdict& verdict) {
        verdict.when_asked();
        return true;
    }
};

namespace {

// ---- Where the library calls it

struct Place {
    const char* name;
    void (*scene)(World&);
    bool may_throw = true;
};

// Calls user code when it is moved.
struct OnMove {
    explicit OnMove(World& w) : world{&w} {}
    OnMove(OnMove&& other) : world{other.world} { world->user_code(); }
    OnMove& operator=(OnMove&&) = delete;
    ~OnMove() = default;
    void operator()() const {}
    World* world;
};

// Around `what()`: hooks that must run if it goes well.
template <class What>
void amid_hooks(World& w, const What& what) {
    w.hook();
    what();
    w.hook();
}

template <class Hook>
void hook_amid_hooks(World& w, Hook&& hook) {
    amid_hooks(w, [&] { w.on_commit(std::forward<Hook>(hook)); });
}

constexpr auto before_commit = [](World& w, auto&& hook) {
    w.attempt([&] {
        if (w.db != nullptr) w.db->before_commit(std::forward<decltype(hook)>(hook));
    });
};
constexpr auto on_rollback = [](World& w, auto&& hook) {
    w.attempt([&] {
        if (w.db != nullptr) w.db->on_rollback(std::forward<decltype(hook)>(hook));
    });
};
constexpr auto unless_committed = [](World& w, auto&& hook) {
    w.attempt([&] {
        if (w.db != nullptr) w.db->unless_committed(std::forward<decltype(hook)>(hook));
    });
};

template <auto* registers, class Hook>
void hook_amid_hooks(World& w, Hook&& hook) {
    amid_hooks(w, [&] { (*registers)(w, std::forward<Hook>(hook)); });
}

template <auto* registers>
void block_with(World& w, End end) {
    w.block(end, [&] { hook_amid_hooks<registers>(w, w.code()); });
}

// What is broken in a RolledBack can be used again only behind that.
void roll_back_base(World& w) {
    w.rows_undone = w.rows_undone or w.rolled_back != nullptr;
    w.rolled_back.reset();
}

void block_with_destructor(World& w, End end) {
    w.block(end, [&] { hook_amid_hooks(w, AtDestruction{w.code()}); });
}

void watch_verb(World& w, Verb verb, When when) {
    w.engine.faults.act(verb, when, [&w] {
        w.in_verb = true;
        struct Leave {
            bool& in_verb;
            ~Leave() { in_verb = false; }
        } leave{w.in_verb};
        w.user_code();
    });
}

template <Verb verb, When when>
void scene_of_verb(World& w) {
    watch_verb(w, verb, when);
    w.block(End::commit, [&] {
        amid_hooks(w, [&] {
            w.attempt([&] {
                if (w.db == nullptr) return;
                Atomic<Db> tx{*w.db};
                w.hook();
                tx.commit();
            });
            w.attempt([&] {
                if (w.db == nullptr) return;
                Atomic<Db> tx{*w.db};
                w.hook();
                tx.rollback();
            });
        });
    });
    w.block(End::roll_back, [&] { w.hook(); });
    if (w.db != nullptr and not w.shape.nested) w.block(End::abandon, [&] { w.hook(); });
    w.left.destroy();
    w.inner.destroy();
    w.outer.destroy();
    w.rows_undone = true;
    w.rolled_back.reset();  // that is a ROLLBACK
}

void fail(World& w, Verb verb, When when) {
    w.unproven = w.unproven or verb == Verb::rollback;
    w.engine.faults.fail(verb, when, Oops{});
}

void leave_open(World& w) {
    if (w.db == nullptr) return;
    w.attempt([&] { w.left.open(*w.db, {}); });
    w.hook();
}

// A transaction that is lost, and another that is open in its place.
void lose(World& w) {
    w.excused = w.rows_undone = true;
    w.attempt([&] { w.engine.execute("ROLLBACK; BEGIN"); });
}

// A COMMIT in doubt, with hooks waiting for what becomes of it.
template <class Hook>
void doubt_with(World& w, bool committed, Hook&& hook) {
    w.shape.special = Special::resolve;
    w.engine.answer = {{Outcome::unknown, std::make_exception_ptr(Oops{}), committed}};
    w.block(End::commit, [&] { hook_amid_hooks(w, std::forward<Hook>(hook)); });
    w.left.destroy();
    w.inner.destroy();
    w.outer.destroy();
}

void resolve(World& w) {
    if (w.rolled_back) w.rows_undone = true;
    w.attempt([&] {
        w.engine.reconnect();
        if (w.db == nullptr or not w.doubt) return;
        w.db->reset();
        w.doubt->resolve(*w.db);
    });
}

template <auto* registers, class Hook>
void doubt_with(World& w, bool committed, Hook&& hook) {
    w.shape.special = Special::resolve;
    w.engine.answer = {{Outcome::unknown, std::make_exception_ptr(Oops{}), committed}};
    w.block(End::commit, [&] { hook_amid_hooks<registers>(w, std::forward<Hook>(hook)); });
    w.left.destroy();
    w.inner.destroy();
    w.outer.destroy();
}

template <class Hook>
void detach_with(World& w, Hook&& hook) {
    w.shape.special = Special::detach;
    w.block(End::commit, [&] { hook_amid_hooks(w, std::forward<Hook>(hook)); });
    w.inner.destroy();
    w.outer.destroy();
}

txhooks::RetryPolicy policy() {
    txhooks::RetryPolicy policy;
    policy.attempts = 3;
    policy.transient = [](const std::exception_ptr&) noexcept { return true; };
    policy.sleep = [](std::chrono::nanoseconds) {};
    return policy;
}

void try_often(World& w, const txhooks::RetryPolicy& policy, const std::function<void()>& fn) {
    if (w.db == nullptr) return;
    w.attempt([&] { txhooks::retry(*w.db, policy, fn); });
}

World* asked_for_transient = nullptr;

constexpr const char* hook_left_open = "still open; it is rolled back";
constexpr const char* destroyed_with_block_open = "a connection was destroyed with an atomic block open";
constexpr const char* rollback_failed = "ROLLBACK failed";
constexpr const char* rolled_back_all_the_same = "ROLLBACK reported an error";
constexpr const char* commit_error = "COMMIT reported an error";
constexpr const char* abandoned = "an Atomic was destroyed without";
constexpr const char* while_rolling_back = "while rolling back a block";
constexpr const char* robust_hook_threw = "a robust hook threw";
constexpr const char* hook_threw = "a hook threw, after";
constexpr const char* rollback_hook_threw = "a hook of on_rollback() threw";
constexpr const char* doubt_hook_threw = "a hook of unless_committed() threw";
constexpr const char* detached_dropped = "detached hooks were destroyed";
constexpr const char* end_of_rolled_back = "at the end of a RolledBack";

const std::vector<Place> places = {
    // Hooks
    {"a hook", [](World& w) { w.block(End::commit, [&] { hook_amid_hooks(w, w.code()); }); }},
    {"a hook of a block that a hook opens",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks(w, [&w] {
                 if (w.db == nullptr) return;
                 Atomic<Db> tx{*w.db};
                 hook_amid_hooks(w, w.code());
                 tx.commit();
             });
         });
     }},
    {"a robust hook",
     [](World& w) {
         w.block(End::commit, [&] {
             amid_hooks(w, [&] {
                 w.attempt([&] {
                     if (w.db != nullptr) w.db->on_commit(txhooks::robust, w.code());
                 });
             });
         });
     }},
    {"a hook after one that threw",
     [](World& w) {
         w.db->set_on_hook_failure(HookFailure::report);
         w.block(End::commit, [&] {
             w.on_commit([] { throw Oops{}; });
             hook_amid_hooks(w, w.code());
         });
     }},
    {"a hook at once", [](World& w) { w.on_commit(w.code()); }},
    {"a robust hook at once", [](World& w) { w.attempt([&] { w.db->on_commit(txhooks::robust, w.code()); }); }},
    {"a hook of DetachedHooks::run",
     [](World& w) {
         detach_with(w, w.code());
         w.attempt([&] {
             if (w.after) w.after->run();
         });
     }},
    {"a hook of Doubt::resolve",
     [](World& w) {
         doubt_with(w, true, w.code());
         resolve(w);
     }},
    {"a hook of a Doubt whose COMMIT was answered",
     [](World& w) {
         w.shape.special = Special::resolve;
         w.block(End::commit, [&] { hook_amid_hooks(w, w.code()); });
     }},
    {"a hook of CapturedHooks::run",
     [](World& w) {
         if (not w.captured) w.captured = std::make_unique<CapturedHooks>(*w.db);
         w.block(End::commit, [&] { hook_amid_hooks(w, w.code()); });
         w.attempt([&] {
             if (w.captured) w.captured->run();
         });
     }},

    // Hooks before COMMIT
    {"a hook before COMMIT",
     [](World& w) { w.block(End::commit, [&] { hook_amid_hooks<&before_commit>(w, w.code()); }); }},
    {"a hook before COMMIT, between others",
     [](World& w) {
         w.block(End::commit, [&] {
             w.hook_before_commit();
             hook_amid_hooks<&before_commit>(w, w.code());
             w.hook_before_commit();
         });
     }},
    {"a hook before COMMIT that a hook before COMMIT registers",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&before_commit>(w, [&w] { hook_amid_hooks<&before_commit>(w, w.code()); });
         });
     }},
    {"a block that a hook before COMMIT opens",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&before_commit>(w, [&w] {
                 if (w.db == nullptr) return;
                 Atomic<Db> tx{*w.db};
                 amid_hooks(w, w.code());
                 tx.commit();
             });
         });
     }},
    {"a hook before COMMIT of a block that a hook opens",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks(w, [&w] {
                 if (w.db == nullptr) return;
                 Atomic<Db> tx{*w.db};
                 hook_amid_hooks<&before_commit>(w, w.code());
                 tx.commit();
             });
         });
     }},
    {"a hook before a COMMIT that is left in doubt",
     [](World& w) {
         w.engine.answer = {{Outcome::unknown, nullptr, true}};
         w.block(End::commit, [&] { hook_amid_hooks<&before_commit>(w, w.code()); });
     }},
    {"a hook before COMMIT at once", [](World& w) { before_commit(w, w.code()); }},
    {"a result of a hook before COMMIT",
     [](World& w) {
         w.block(End::commit, [&] { hook_amid_hooks<&before_commit>(w, [&w] { return Verdict{w.code()}; }); });
     }},
    {"retry: a hook before COMMIT",
     [](World& w) {
         try_often(w, policy(), [&] {
             hook_amid_hooks<&before_commit>(w, [&w] {
                 w.user_code();
                 throw Oops{};
             });
         });
     }},

    // Hooks of what is undone
    {"a rollback hook", [](World& w) { block_with<&on_rollback>(w, End::roll_back); }},
    {"a rollback hook of an abandoned block", [](World& w) { block_with<&on_rollback>(w, End::abandon); }},
    {"a rollback hook at a COMMIT that rolled back",
     [](World& w) {
         w.engine.answer = {{Outcome::rolled_back}};
         block_with<&on_rollback>(w, End::commit);
         roll_back_base(w);
     }},
    {"a rollback hook at a RELEASE that failed",
     [](World& w) {
         fail(w, Verb::release, When::before_effect);
         w.block(End::commit, [&] {
             w.attempt([&] {
                 if (w.db == nullptr) return;
                 Atomic<Db> tx{*w.db};
                 hook_amid_hooks<&on_rollback>(w, w.code());
                 tx.commit();
             });
         });
     }},
    {"a rollback hook in a doomed block",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&on_rollback>(w, w.code());
             open_here(w, {.join = true}, End::abandon);
         });
     }},
    {"a rollback hook at a loss",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&on_rollback>(w, w.code());
             lose(w);
         });
     }},
    {"a rollback hook when a hook before COMMIT throws",
     [](World& w) {
         w.block(End::commit, [&] {
             w.attempt([&] {
                 if (w.db != nullptr) w.db->before_commit([] { throw Oops{}; });
             });
             hook_amid_hooks<&on_rollback>(w, w.code());
         });
     }},
    {"a rollback hook when a hook before COMMIT asks for a rollback",
     [](World& w) {
         w.block(End::commit, [&] {
             w.attempt([&] {
                 if (w.db != nullptr) w.db->before_commit([&w] { w.db->set_rollback(true); });
             });
             hook_amid_hooks<&on_rollback>(w, w.code());
         });
     }},
    {"a rollback hook of a block that a rollback hook opens",
     [](World& w) {
         w.block(End::roll_back, [&] {
             hook_amid_hooks<&on_rollback>(w, [&w] {
                 if (w.db == nullptr) return;
                 Atomic<Db> tx{*w.db};
                 hook_amid_hooks<&on_rollback>(w, w.code());
                 tx.rollback();
             });
         });
     }},
    {"a rollback hook when the connection dies",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&on_rollback>(w, w.code());
             if (not w.rolled_back and not w.captured) w.destroy_connection();
         });
     }},
    {"a rollback hook when a doubt was a rollback",
     [](World& w) {
         doubt_with<&on_rollback>(w, false, w.code());
         resolve(w);
     }},
    {"a rollback hook when a RolledBack ends with a block open",
     [](World& w) {
         if (not w.rolled_back) w.rolled_back = std::make_unique<RolledBack>(*w.db);
         w.block(End::commit, [&] {
             hook_amid_hooks<&on_rollback>(w, w.code());
             w.attempt([&] {
                 if (w.rolled_back) w.rolled_back->end();
             });
             w.rows_undone = true;
         });
     }},
    {"retry: a rollback hook",
     [](World& w) {
         try_often(w, policy(), [&] {
             hook_amid_hooks<&on_rollback>(w, w.code());
             throw Oops{};
         });
     }},
    {"a hook of unless_committed", [](World& w) { block_with<&unless_committed>(w, End::roll_back); }},
    {"a hook of unless_committed at a COMMIT in doubt",
     [](World& w) {
         w.engine.answer = {{Outcome::unknown}};
         block_with<&unless_committed>(w, End::commit);
         roll_back_base(w);
     }},
    {"a hook of unless_committed at a COMMIT in doubt, with a Doubt",
     [](World& w) {
         doubt_with<&unless_committed>(w, true, w.code());
         roll_back_base(w);
     }},
    {"a hook of unless_committed at a loss",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&unless_committed>(w, w.code());
             w.excused = w.rows_undone = true;
             w.attempt([&] { w.engine.execute("COMMIT; BEGIN"); });
         });
     }},
    {"a hook of unless_committed when ROLLBACK failed",
     [](World& w) {
         fail(w, Verb::rollback, When::before_effect);
         block_with<&unless_committed>(w, End::abandon);
     }},

    // Copies and moves
    {"a copy",
     [](World& w) {
         const support::OnCopy hook{w.code()};
         w.block(End::commit, [&] { hook_amid_hooks(w, hook); });
     }},
    {"a copy in a lambda, of a robust hook",
     [](World& w) {
         const support::OnCopy part{w.code()};
         const int armed = std::exchange(w.armed, 0);
         const auto hook = [part] {};
         w.armed = armed;
         w.block(End::commit, [&] {
             amid_hooks(w, [&] {
                 w.attempt([&] {
                     if (w.db != nullptr) w.db->on_commit(txhooks::robust, hook);
                 });
             });
         });
     }},
    {"a copy of an argument, in a block that rolls back",
     [](World& w) {
         const support::OnCopy part{w.code()};
         w.block(End::roll_back, [&] {
             amid_hooks(w, [&] {
                 w.attempt([&] {
                     if (w.db != nullptr) w.db->on_commit([](const auto&) {}, part);
                 });
             });
         });
     }},
    {"a copy of a hook at once",
     [](World& w) {
         const support::OnCopy hook{w.code()};
         w.on_commit(hook);
     }},
    {"a move", [](World& w) { w.block(End::commit, [&] { hook_amid_hooks(w, OnMove{w}); }); }},
    {"a move of a hook at once", [](World& w) { w.on_commit(OnMove{w}); }},

    {"a copy of a hook before COMMIT",
     [](World& w) {
         const support::OnCopy hook{w.code()};
         w.block(End::commit, [&] { hook_amid_hooks<&before_commit>(w, hook); });
     }},
    {"a copy of a rollback hook",
     [](World& w) {
         const support::OnCopy hook{w.code()};
         w.block(End::roll_back, [&] { hook_amid_hooks<&on_rollback>(w, hook); });
     }},
    {"a copy of a hook of unless_committed, at once",
     [](World& w) {
         const support::OnCopy hook{w.code()};
         unless_committed(w, hook);
     }},

    // Destructors
    {"a destructor of a hook before COMMIT, after it ran",
     [](World& w) { w.block(End::commit, [&] { hook_amid_hooks<&before_commit>(w, AtDestruction{w.code()}); }); },
     false},
    {"a destructor of a hook before COMMIT, at a rollback",
     [](World& w) { w.block(End::roll_back, [&] { hook_amid_hooks<&before_commit>(w, AtDestruction{w.code()}); }); },
     false},
    {"a destructor of a hook before COMMIT that threw",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks<&before_commit>(w, [at_end = AtDestruction{w.code()}] { throw Oops{}; });
         });
     },
     false},
    {"a destructor of a rollback hook, after it ran",
     [](World& w) { w.block(End::roll_back, [&] { hook_amid_hooks<&on_rollback>(w, AtDestruction{w.code()}); }); },
     false},
    {"a destructor of a rollback hook, after a commit",
     [](World& w) { w.block(End::commit, [&] { hook_amid_hooks<&on_rollback>(w, AtDestruction{w.code()}); }); },
     false},
    {"a destructor of a rollback hook at once", [](World& w) { on_rollback(w, AtDestruction{w.code()}); }, false},
    {"a destructor of a rollback hook whose doubt was a commit",
     [](World& w) {
         doubt_with<&on_rollback>(w, true, AtDestruction{w.code()});
         resolve(w);
     },
     false},
    {"a destructor of a hook of unless_committed, with a Doubt",
     [](World& w) {
         doubt_with<&unless_committed>(w, true, AtDestruction{w.code()});
         roll_back_base(w);
     },
     false},
    {"a destructor of a hook of unless_committed, its neighbours detached",
     [](World& w) {
         w.shape.special = Special::detach;
         w.block(End::commit, [&] { hook_amid_hooks<&unless_committed>(w, AtDestruction{w.code()}); });
     },
     false},
    {"a destructor of a hook of unless_committed, its neighbours captured",
     [](World& w) {
         if (not w.captured) w.captured = std::make_unique<CapturedHooks>(*w.db);
         w.block(End::commit, [&] { hook_amid_hooks<&unless_committed>(w, AtDestruction{w.code()}); });
     },
     false},
    {"a destructor after the run", [](World& w) { block_with_destructor(w, End::commit); }, false},
    {"a destructor at a rollback", [](World& w) { block_with_destructor(w, End::roll_back); }, false},
    {"a destructor in an abandoned block", [](World& w) { block_with_destructor(w, End::abandon); }, false},
    {"a destructor after a hook at once", [](World& w) { w.on_commit(AtDestruction{w.code()}); }, false},
    {"a destructor after a hook threw",
     [](World& w) {
         w.block(End::commit, [&] {
             w.on_commit([] { throw Oops{}; });
             hook_amid_hooks(w, AtDestruction{w.code()});
         });
     },
     false},
    {"a destructor of the hook that threw",
     [](World& w) {
         w.db->set_on_hook_failure(HookFailure::run_all);
         w.block(End::commit, [&] { hook_amid_hooks(w, [at_end = AtDestruction{w.code()}] { throw Oops{}; }); });
     },
     false},
    {"a destructor at a COMMIT that rolled back",
     [](World& w) {
         w.engine.answer = {{Outcome::rolled_back}};
         block_with_destructor(w, End::commit);
     },
     false},
    {"a destructor at a COMMIT in doubt",
     [](World& w) {
         w.engine.answer = {{Outcome::unknown}};
         block_with_destructor(w, End::commit);
     },
     false},
    {"a destructor at a RELEASE that failed",
     [](World& w) {
         fail(w, Verb::release, When::before_effect);
         block_with_destructor(w, End::commit);
     },
     false},
    {"a destructor at a loss",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks(w, AtDestruction{w.code()});
             lose(w);
         });
     },
     false},
    {"a destructor in a doomed block",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks(w, AtDestruction{w.code()});
             open_here(w, {.join = true}, End::abandon);
         });
     },
     false},
    {"a destructor when the connection dies",
     [](World& w) {
         w.block(End::commit, [&] {
             hook_amid_hooks(w, AtDestruction{w.code()});
             if (not w.rolled_back and not w.captured) w.destroy_connection();
         });
     },
     false},
    {"a destructor when the DetachedHooks die",
     [](World& w) {
         detach_with(w, AtDestruction{w.code()});
         w.excused = true;
         w.after.reset();
     },
     false},
    {"a destructor at DetachedHooks::discard",
     [](World& w) {
         detach_with(w, AtDestruction{w.code()});
         w.excused = true;
         if (w.after) w.after->discard();
     },
     false},
    {"a destructor when DetachedHooks are moved over others",
     [](World& w) {
         detach_with(w, AtDestruction{w.code()});
         w.excused = true;
         if (w.after) *w.after = DetachedHooks{};
     },
     false},
    {"a destructor when others are handed over",
     [](World& w) {
         w.shape.special = Special::detach;
         w.block(End::commit, [&] {
             amid_hooks(w, [&] {
                 if (w.after) *w.after = w.of_another();
             });
         });
     },
     false},
    {"a destructor when the Doubt dies",
     [](World& w) {
         doubt_with(w, true, AtDestruction{w.code()});
         w.excused = true;
         w.doubt.reset();
     },
     false},
    {"a destructor when a doubt was a rollback",
     [](World& w) {
         doubt_with(w, false, AtDestruction{w.code()});
         resolve(w);
     },
     false},
    {"a destructor when CapturedHooks are discarded",
     [](World& w) {
         if (not w.captured) w.captured = std::make_unique<CapturedHooks>(*w.db);
         block_with_destructor(w, End::commit);
         w.excused = true;
         w.attempt([&] {
             if (w.captured) w.captured->discard();
         });
     },
     false},
    {"a destructor when CapturedHooks die",
     [](World& w) {
         w.rolled_back.reset();
         if (not w.captured) w.captured = std::make_unique<CapturedHooks>(*w.db);
         block_with_destructor(w, End::commit);
         w.excused = true;
         w.captured.reset();
     },
     false},
    {"a destructor when a RolledBack ends with a block open",
     [](World& w) {
         if (not w.rolled_back) w.rolled_back = std::make_unique<RolledBack>(*w.db);
         w.block(End::commit, [&] {
             hook_amid_hooks(w, AtDestruction{w.code()});
             w.attempt([&] {
                 if (w.rolled_back) w.rolled_back->end();
             });
             w.rows_undone = true;
         });
     },
     false},

    // Functions
    {"a block", [](World& w) { w.block(End::commit, [&] { amid_hooks(w, w.code()); }); }},
    {"result_traits",
     [](World& w) {
         if (w.shape.nested) w.attempt([&] { w.open(w.outer, {}); });
         Options options{.join = w.shape.nested and w.shape.join};
         if (not w.shape.nested and w.shape.special == Special::detach) options.detach = w.after.get();
         if (not w.shape.nested and w.shape.special == Special::resolve) options.resolve = w.doubt.get();
         w.attempt([&] {
             w.db->atomic(options, [&] {
                 w.hook();
                 return Verdict{w.code()};
             });
         });
         w.attempt([&] { w.outer.commit(); });
     }},
    {"retry: the block",
     [](World& w) {
         try_often(w, policy(), [&] {
             w.hook();
             w.user_code();
             throw Oops{};
         });
     }},
    {"retry: before_retry",
     [](World& w) {
         txhooks::RetryPolicy with = policy();
         with.before_retry = [&](unsigned, const std::exception_ptr&) { w.user_code(); };
         try_often(w, with, [&] {
             w.hook();
             throw Oops{};
         });
     }},
    {"retry: sleep",
     [](World& w) {
         txhooks::RetryPolicy with = policy();
         with.sleep = [&](std::chrono::nanoseconds) { w.user_code(); };
         try_often(w, with, [&] {
             w.hook();
             throw Oops{};
         });
     }},
    {"retry: transient",
     [](World& w) {
         asked_for_transient = &w;
         txhooks::RetryPolicy with = policy();
         with.transient = [](const std::exception_ptr&) noexcept {
             asked_for_transient->user_code();
             return true;
         };
         try_often(w, with, [&] {
             w.hook();
             throw Oops{};
         });
     },
     false},
    {"retry: transient, after COMMIT failed",
     [](World& w) {
         asked_for_transient = &w;
         txhooks::RetryPolicy with = policy();
         with.transient = [](const std::exception_ptr&) noexcept {
             asked_for_transient->user_code();
             return true;
         };
         w.engine.answer = {{Outcome::rolled_back, std::make_exception_ptr(Oops{})}};
         try_often(w, with, [&] { w.hook(); });
     },
     false},

    // Callbacks of the driver
    {"before BEGIN", &scene_of_verb<Verb::begin, When::before_effect>},
    {"after BEGIN", &scene_of_verb<Verb::begin, When::after_effect>},
    {"before COMMIT", &scene_of_verb<Verb::commit, When::before_effect>},
    {"after COMMIT", &scene_of_verb<Verb::commit, When::after_effect>},
    {"before ROLLBACK", &scene_of_verb<Verb::rollback, When::before_effect>},
    {"after ROLLBACK", &scene_of_verb<Verb::rollback, When::after_effect>},
    {"before SAVEPOINT", &scene_of_verb<Verb::savepoint, When::before_effect>},
    {"after SAVEPOINT", &scene_of_verb<Verb::savepoint, When::after_effect>},
    {"before RELEASE", &scene_of_verb<Verb::release, When::before_effect>},
    {"after RELEASE", &scene_of_verb<Verb::release, When::after_effect>},
    {"before ROLLBACK TO", &scene_of_verb<Verb::rollback_to, When::before_effect>},
    {"after ROLLBACK TO", &scene_of_verb<Verb::rollback_to, When::after_effect>},
    {"COMMIT that is left in doubt",
     [](World& w) {
         watch_verb(w, Verb::commit, When::after_effect);
         w.engine.answer = {{Outcome::unknown, nullptr, true}};
         w.block(End::commit, [&] { w.hook(); });
     }},
    {"ROLLBACK of what is open in place of a lost transaction",
     [](World& w) {
         watch_verb(w, Verb::rollback, When::before_effect);
         w.block(End::commit, [&] {
             w.hook();
             lose(w);
         });
     }},
    {"Doubt::resolve asks",
     [](World& w) {
         doubt_with(w, true, [] {});
         w.engine.on_question = [&w] {
             w.in_verb = true;
             struct Leave {
                 bool& in_verb;
                 ~Leave() { in_verb = false; }
             } leave{w.in_verb};
             w.user_code();
         };
         resolve(w);
     }},
    {"reset() of the adapter",
     [](World& w) {
         w.engine.on_reset = [&w] {
             w.in_verb = true;
             struct Leave {
                 bool& in_verb;
                 ~Leave() { in_verb = false; }
             } leave{w.in_verb};
             w.user_code();
         };
         w.rows_undone = true;
         w.rolled_back.reset();
         w.captured.reset();
         w.attempt([&] { w.db->reset(); });
         w.engine.on_reset = nullptr;
     }},

    // The sink
    {"sink: a hook left a guard open",
     [](World& w) {
         w.watched = hook_left_open;
         w.block(End::commit, [&] { hook_amid_hooks(w, [&w] { leave_open(w); }); });
     }},
    {"sink: a hook before COMMIT left a guard open",
     [](World& w) {
         w.watched = hook_left_open;
         w.block(End::commit, [&] { hook_amid_hooks<&before_commit>(w, [&w] { leave_open(w); }); });
     }},
    {"sink: a rollback hook left a guard open",
     [](World& w) {
         w.watched = hook_left_open;
         w.block(End::roll_back, [&] { hook_amid_hooks<&on_rollback>(w, [&w] { leave_open(w); }); });
     }},
    {"sink: a rollback hook threw",
     [](World& w) {
         w.watched = rollback_hook_threw;
         w.block(End::roll_back, [&] { hook_amid_hooks<&on_rollback>(w, [] { throw Oops{}; }); });
     }},
    {"sink: a rollback hook of a Doubt threw",
     [](World& w) {
         w.watched = rollback_hook_threw;
         doubt_with<&on_rollback>(w, false, [] { throw Oops{}; });
         resolve(w);
     }},
    {"sink: a hook of unless_committed left a guard open and threw",
     [](World& w) {
         w.watched = doubt_hook_threw;
         w.block(End::abandon, [&] {
             hook_amid_hooks<&unless_committed>(w, [&w] {
                 leave_open(w);
                 throw Oops{};
             });
         });
     }},
    {"sink: a hook left a guard open and threw",
     [](World& w) {
         w.watched = hook_left_open;
         w.block(End::commit, [&] {
             hook_amid_hooks(w, [&w] {
                 leave_open(w);
                 throw Oops{};
             });
         });
     }},
    {"sink: a hook at once left a guard open",
     [](World& w) {
         w.watched = hook_left_open;
         w.on_commit([&w] { leave_open(w); });
     }},
    {"sink: a copy left a guard open and threw",
     [](World& w) {
         w.watched = hook_left_open;
         const support::OnCopy hook{[&w] {
             leave_open(w);
             throw Oops{};
         }};
         w.block(End::commit, [&] { hook_amid_hooks(w, hook); });
     }},
    {"sink: a destructor left a guard open at a rollback",
     [](World& w) {
         w.watched = hook_left_open;
         w.block(End::roll_back, [&] { hook_amid_hooks(w, AtDestruction{[&w] { leave_open(w); }}); });
     }},
    {"sink: a destructor left a guard open at a loss",
     [](World& w) {
         w.watched = hook_left_open;
         w.block(End::commit, [&] {
             hook_amid_hooks(w, AtDestruction{[&w] { leave_open(w); }});
             lose(w);
         });
     }},
    {"sink: a hook of a Doubt left a guard open",
     [](World& w) {
         w.watched = hook_left_open;
         doubt_with(w, true, [&w] { leave_open(w); });
         resolve(w);
     }},
    {"sink: a hook of CapturedHooks left a guard open",
     [](World& w) {
         w.watched = hook_left_open;
         if (not w.captured) w.captured = std::make_unique<CapturedHooks>(*w.db);
         w.block(End::commit, [&] { hook_amid_hooks(w, [&w] { leave_open(w); }); });
         w.attempt([&] {
             if (w.captured) w.captured->run();
         });
     }},
    {"sink: a guard left open could not be rolled back",
     [](World& w) {
         w.watched = while_rolling_back;
         w.block(End::commit, [&] {
             hook_amid_hooks(w, [&w] {
                 leave_open(w);
                 fail(w, Verb::rollback, When::before_effect);
                 fail(w, Verb::rollback_to, When::before_effect);
             });
         });
     }},
    {"sink: a connection was destroyed with a block open",
     [](World& w) {
         w.watched = destroyed_with_block_open;
         w.block(End::commit, [&] {
             w.hook();
             if (not w.rolled_back and not w.captured) w.destroy_connection();
         });
     }},
    {"sink: a connection was destroyed with a block open, and ROLLBACK failed",
     [](World& w) {
         w.watched = while_rolling_back;
         fail(w, Verb::rollback, When::before_effect);
         w.block(End::commit, [&] {
             w.hook();
             if (not w.rolled_back and not w.captured) w.destroy_connection();
         });
     }},
    {"sink: ROLLBACK of what took the place of a lost transaction failed",
     [](World& w) {
         w.watched = rollback_failed;
         w.block(End::commit, [&] {
             w.hook();
             lose(w);
             fail(w, Verb::rollback, When::before_effect);
         });
     }},
    {"sink: ROLLBACK of what took the place of a lost transaction reported an error",
     [](World& w) {
         w.watched = rolled_back_all_the_same;
         w.block(End::roll_back, [&] {
             w.hook();
             lose(w);
             w.engine.faults.act(Verb::rollback, When::before_effect, [&w] {
                 w.engine.execute("ROLLBACK");
                 throw Oops{};
             });
         });
     }},
    {"sink: ROLLBACK reported an error, but rolled back",
     [](World& w) {
         w.watched = rolled_back_all_the_same;
         fail(w, Verb::rollback, When::after_effect);
         w.shape.nested = false;
         w.block(End::roll_back, [&] { w.hook(); });
     }},
    {"sink: ROLLBACK of an abandoned block reported an error, but rolled back",
     [](World& w) {
         w.watched = rolled_back_all_the_same;
         fail(w, Verb::rollback, When::after_effect);
         w.shape.nested = false;
         w.block(End::abandon, [&] { w.hook(); });
     }},
    {"sink: ROLLBACK failed",
     [](World& w) {
         w.watched = while_rolling_back;
         fail(w, Verb::rollback, When::before_effect);
         fail(w, Verb::rollback_to, When::before_effect);
         w.block(End::abandon, [&] { w.hook(); });
     }},
    {"sink: a lost block was abandoned",
     [](World& w) {
         w.watched = while_rolling_back;
         w.block(End::abandon, [&] {
             w.hook();
             lose(w);
         });
     }},
    {"sink: a doomed block was to be committed, and ROLLBACK failed",
     [](World& w) {
         w.watched = while_rolling_back;
         fail(w, Verb::rollback, When::before_effect);
         fail(w, Verb::rollback_to, When::before_effect);
         w.block(End::commit, [&] {
             w.hook();
             open_here(w, {.join = true}, End::abandon);
         });
     }},
    {"sink: RELEASE failed, and ROLLBACK TO",
     [](World& w) {
         w.watched = while_rolling_back;
         fail(w, Verb::release, When::before_effect);
         fail(w, Verb::rollback_to, When::before_effect);
         w.block(End::commit, [&] { amid_hooks(w, [&] { open_here(w, {}, End::commit); }); });
     }},
    {"sink: COMMIT reported an error, but committed",
     [](World& w) {
         w.watched = commit_error;
         w.engine.answer = {{Outcome::committed, std::make_exception_ptr(Oops{})}};
         if (w.rolled_back) {
             w.rows_undone = true;
             w.rolled_back.reset();
         }
         w.block(End::commit, [&] { w.hook(); });
     }},
    {"sink: BEGIN failed after its effect, and ROLLBACK",
     [](World& w) {
         w.watched = rollback_failed;
         fail(w, Verb::begin, When::after_effect);
         fail(w, Verb::rollback, When::before_effect);
         w.block(End::commit, [&] { w.hook(); });
     }},
    {"sink: BEGIN failed after its effect, and ROLLBACK reported an error",
     [](World& w) {
         w.watched = rolled_back_all_the_same;
         fail(w, Verb::begin, When::after_effect);
         fail(w, Verb::rollback, When::after_effect);
         w.block(End::commit, [&] { w.hook(); });
     }},
    {"sink: a guard was abandoned",
     [](World& w) {
         w.watched = abandoned;
         w.block(End::abandon, [&] { w.hook(); });
     }},
    {"sink: a robust hook threw",
     [](World& w) {
         w.watched = robust_hook_threw;
         w.block(End::commit, [&] {
             amid_hooks(w, [&] {
                 w.attempt([&] {
                     if (w.db != nullptr) w.db->on_commit(txhooks::robust, [] { throw Oops{}; });
                 });
             });
         });
     }},
    {"sink: a robust hook threw at once",
     [](World& w) {
         w.watched = robust_hook_threw;
         w.attempt([&] { w.db->on_commit(txhooks::robust, [] { throw Oops{}; }); });
     }},
    {"sink: a hook threw, policy report",
     [](World& w) {
         w.watched = hook_threw;
         w.db->set_on_hook_failure(HookFailure::report);
         w.block(End::commit, [&] { hook_amid_hooks(w, [] { throw Oops{}; }); });
     }},
    {"sink: a second hook threw, policy run_all",
     [](World& w) {
         w.watched = hook_threw;
         w.db->set_on_hook_failure(HookFailure::run_all);
         w.block(End::commit, [&] {
             w.on_commit([] { throw Oops{}; });
             hook_amid_hooks(w, [] { throw Oops{}; });
         });
     }},
    {"sink: DetachedHooks died with hooks",
     [](World& w) {
         w.watched = detached_dropped;
         detach_with(w, [] {});
         w.excused = true;
         w.after.reset();
     }},
    {"sink: a Doubt died with hooks",
     [](World& w) {
         w.watched = detached_dropped;
         doubt_with(w, true, [] {});
         w.excused = true;
         w.doubt.reset();
     }},
    {"sink: others were handed over",
     [](World& w) {
         w.watched = detached_dropped;
         w.shape.special = Special::detach;
         w.block(End::commit, [&] {
             amid_hooks(w, [&] {
                 if (w.after) *w.after = w.of_another();
             });
         });
     }},
    {"sink: a RolledBack was left with hooks waiting",
     [](World& w) {
         w.watched = end_of_rolled_back;
         if (not w.rolled_back) w.rolled_back = std::make_unique<RolledBack>(*w.db);
         w.block(End::commit, [&] {
             w.hook();
             w.rolled_back.reset();
         });
     }},
    {"sink: ROLLBACK at the end of a RolledBack failed",
     [](World& w) {
         w.watched = end_of_rolled_back;
         if (not w.rolled_back) w.rolled_back = std::make_unique<RolledBack>(*w.db);
         fail(w, Verb::rollback, When::before_effect);
         w.rows_undone = true;
         w.rolled_back.reset();
     }},
    {"sink: ROLLBACK at the end of a RolledBack reported an error",
     [](World& w) {
         w.watched = rolled_back_all_the_same;
         if (not w.rolled_back) w.rolled_back = std::make_unique<RolledBack>(*w.db);
         fail(w, Verb::rollback, When::after_effect);
         w.rows_undone = true;
         w.rolled_back.reset();
     }},
    {"sink: CapturedHooks died with a block open, and ROLLBACK failed",
     [](World& w) {
         w.watched = while_rolling_back;
         w.rows_undone = true;
         w.rolled_back.reset();
         if (not w.captured) w.captured = std::make_unique<CapturedHooks>(*w.db);
         fail(w, Verb::rollback, When::before_effect);
         w.block(End::commit, [&] {
             w.hook();
             w.excused = true;
             w.captured.reset();
         });
     }},
};

// ---- All of them

struct Combination {
    const Place& place;
    const NamedAct& act;
    const Shape& shape;
    int times;

    // What is wrong then, and whether the place was reached.
    std::pair<std::string, bool> run() const {
        World w{shape, act.act, times};
        w.attempt([&] { place.scene(w); });
        std::string wrong = w.conclude();
        return {std::move(wrong), w.reached};
    }

    std::string name() const {
        return std::string{place.name} + " / " + act.name + " / " + shape.name + " / " + std::to_string(times);
    }
};

std::vector<Combination> all_combinations() {
    std::vector<Combination> all;
    for (const Place& place : places) {
        for (const NamedAct& act : acts) {
            if (act.throws and not place.may_throw) continue;
            for (const Shape& shape : shapes) {
                all.push_back({place, act, shape, 1});
                if (&shape == &shapes[0] or &shape == &shapes[4]) all.push_back({place, act, shape, 3});
            }
        }
    }
    return all;
}

enum class Fate : unsigned char { not_reached, went_on, ended, wrong };

constexpr std::size_t longest_text = 2000;

// What this process and those in which the combinations run have in common.
struct Board {
    std::size_t at;
    char wrong[longest_text];
    Fate fates[1];  // and those of the others
};

// Runs all of them in a process of their own. One that ends its process would be there for nothing else: most leave it
// by a jump instead, out of the handler of std::terminate, and the next goes on in the same. What is left behind then
// is left alone.
class Runs {
public:
    explicit Runs(const std::vector<Combination>& all) : all_{all} {
        void* const shared = mmap(nullptr, room(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        said_ = std::tmpfile();
        if (shared == MAP_FAILED or said_ == nullptr) throw std::runtime_error{"no memory or no file"};
        board_ = ::new (shared) Board{};
    }
    Runs(const Runs&) = delete;
    Runs& operator=(const Runs&) = delete;
    ~Runs() {
        std::fclose(said_);
        munmap(board_, room());
    }

    // Calls `tell(name, what is wrong)` for each that is not as it should be.
    template <class Tell>
    void run(const Tell& tell) {
        for (std::size_t next = 0; next < all_.size(); next = board_->at + 1) {
            std::fflush(nullptr);
            const pid_t child = fork();
            if (child == -1) throw std::runtime_error{"fork failed"};
            if (child == 0) run_here(next);
            int status = 0;
            waitpid(child, &status, 0);
            const std::size_t at = board_->at;
            if (at == all_.size()) return;
            if (WIFEXITED(status) and WEXITSTATUS(status) == as_it_should) continue;
            fate(at) = Fate::wrong;
            const bool told = WIFEXITED(status) and WEXITSTATUS(status) == found_wrong;
            tell(all_[at].name(), told ? board_->wrong : "status " + std::to_string(status) + ": " + said());
        }
    }

    Fate& fate(std::size_t i) const { return board_->fates[i]; }

private:
    static constexpr int as_it_should = 66;
    static constexpr int found_wrong = 67;

    std::size_t room() const { return sizeof(Board) + all_.size(); }

    [[noreturn]] void run_here(std::size_t next) const {
        for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE}) std::signal(signal, SIG_DFL);
        dup2(fileno(said_), STDERR_FILENO);
        std::set_terminate([] { std::longjmp(end_of_one, 1); });
        for (; next != all_.size(); ++next) {
            board_->at = next;
            alarm(20);
            if (lseek(STDERR_FILENO, 0, SEEK_END) > 0 and
                (ftruncate(STDERR_FILENO, 0) != 0 or lseek(STDERR_FILENO, 0, SEEK_SET) != 0))
                _exit(1);
            std::string wrong = "ended without a sentence: ";
            fate(next) = run_one(all_[next], wrong);
            if (fate(next) == Fate::ended and not ended_with_sentence(said())) {
                wrong += said();
                fate(next) = Fate::wrong;
            }
            if (fate(next) == Fate::wrong) {
                std::snprintf(board_->wrong, sizeof board_->wrong, "%s", wrong.c_str());
                _exit(found_wrong);
            }
            if (std::uncaught_exceptions() != 0 or std::current_exception() != nullptr) _exit(as_it_should);
        }
        board_->at = next;
        _exit(0);
    }

    static Fate run_one(const Combination& combination, std::string& wrong) {
        if (setjmp(end_of_one) != 0) return Fate::ended;
        const auto [what, reached] = combination.run();
        if (what.empty()) return reached ? Fate::went_on : Fate::not_reached;
        wrong = what;
        return Fate::wrong;
    }

    static bool ended_with_sentence(const std::string& said) {
        const std::size_t before = said.size() < 2 ? std::string::npos : said.rfind('\n', said.size() - 2);
        return said.compare(before == std::string::npos ? 0 : before + 1, 9, "txhooks: ") == 0;
    }

    std::string said() const {
        std::string text(longest_text, '\0');
        const ssize_t n = pread(fileno(said_), text.data(), text.size(), 0);
        text.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
        return text;
    }

    static inline std::jmp_buf end_of_one;

    const std::vector<Combination>& all_;
    Board* board_ = nullptr;
    std::FILE* said_ = nullptr;
};

}  // namespace

TEST_CASE(
    "re-entry: code of the user's does anything anywhere, and the library goes on or says why not",
    "[S13][S14][S22][S27][S28][S39][S57][S58][S61][S62][S63][S65][S66][S67][S68][S69][S70][S71][S72][S73][S75][S76]") {
    const std::vector<Combination> all = all_combinations();
    Runs runs{all};
    std::size_t faults = 0;
    runs.run([&](const std::string& name, const std::string& wrong) {
        ++faults;
        if (faults <= 20) UNSCOPED_INFO(name << ": " << wrong);
    });

    std::size_t went_on = 0;
    std::size_t ended = 0;
    std::map<std::pair<const Place*, const NamedAct*>, bool> reached;
    for (std::size_t i = 0; i != all.size(); ++i) {
        went_on += runs.fate(i) == Fate::went_on;
        ended += runs.fate(i) == Fate::ended;
        reached[{&all[i].place, &all[i].act}] |= runs.fate(i) != Fate::not_reached;
    }
    std::string never;
    for (const auto& [where, was_reached] : reached)
        if (not was_reached) never += std::string{where.first->name} + " / " + where.second->name + '\n';
    INFO(went_on << " of " << all.size() << " went on, " << ended << " ended with a sentence");
    CHECK(faults == 0);  // first: the next assertion would clear what was told of them
    CHECK(never == "");
}

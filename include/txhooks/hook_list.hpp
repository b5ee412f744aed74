// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/die.hpp>
#include <txhooks/detail/hook_arena.hpp>
#include <txhooks/detail/hook_kind.hpp>

#include <cstddef>
#include <exception>
#include <type_traits>

namespace txhooks {

/// The hooks of one transaction: a stack of callables, each stored in place and never moved, that is run or
/// discarded from a mark on, in order of registration.
///
/// Savepoints are strictly nested, so one list and one mark per open block are enough: releasing a savepoint forgets
/// its mark; rolling it back discards from its mark; the commit of the outermost block runs from its mark.
///
/// It knows no database: with a driver that has no adapter (an asynchronous one, say) use it alone. Only you know then
/// when the transaction is proven committed.
///
///     txhooks::HookList hooks;
///     auto begin = hooks.mark();
///     hooks.push([] { std::puts("committed"); });
///     hooks.before(begin);                       // what is to be done before COMMIT
///     // COMMIT ... proven?
///     txhooks::HookList::Run{hooks, begin}();    // or hooks.roll_back(begin), or hooks.end_unproven(begin)
///
/// Everything may be called from hooks, and from constructors and destructors of captures, but for what `Mark` and `Run`
/// say. A list is used by one thread at a time. The memory of the largest recent transaction is kept for the next:
/// pushing then allocates nothing.
class HookList : private detail::HookArena {
    class Fence;

public:
    /// A place in the list: everything pushed later lies behind it.
    ///
    /// One taken in a hook, or in a constructor or destructor of a capture, is good until that returns. Until then, and
    /// while a `Run` lives, no other `Run` and no `discard` begins at an older one: that ends the program with a message.
    using HookArena::Mark;

    HookList() = default;
    HookList(const HookList&) = delete;
    HookList& operator=(const HookList&) = delete;

    /// Discards what was neither run nor discarded. While a hook is being copied, called or destroyed, and while a `Run`
    /// lives, it ends the program with a message.
    ~HookList() {
        while (!busy() && !empty(start())) discard(start());  // destructors may push
    }

    /// Registers `hook`, decay-copied. O(1); allocates only when the memory kept from earlier transactions is used up.
    ///
    /// Throws: `std::bad_alloc`, or what copying throws. After a throw: no hook has been added.
    template <class Hook>
    void push(Hook&& hook) {
        store<detail::HookKind::commit>(static_cast<Hook&&>(hook));
    }
    /// The same for a hook that `before` runs. A `Run` destroys it, as it does those of the next two.
    template <class Hook>
    void push_before(Hook&& hook) {
        store<detail::HookKind::before_commit>(static_cast<Hook&&>(hook));
    }
    /// The same for a hook that `roll_back` runs.
    template <class Hook>
    void push_rollback(Hook&& hook) {
        store<detail::HookKind::rollback>(static_cast<Hook&&>(hook));
    }
    /// The same for a hook that `roll_back` and `end_unproven` run.
    template <class Hook>
    void push_unless_committed(Hook&& hook) {
        store<detail::HookKind::unless_committed>(static_cast<Hook&&>(hook));
    }

    /// The place behind everything. O(1).
    using HookArena::mark;

    /// The place before everything. O(1).
    using HookArena::start;

    /// `empty(from)`: whether nothing lies behind `from`. O(1).
    using HookArena::empty;

    /// `size(from)`: how many hooks of `push` lie behind `from`. O(n).
    using HookArena::size;

    /// Runs the hooks of `push_before` behind `from`, in order, and those that are pushed meanwhile behind them. Each is
    /// destroyed right after it ran, and runs at most once: called again, this runs those pushed since. O(n).
    ///
    /// Throws what a hook throws: no further one has run then; `roll_back` what lies behind `from`.
    void before(Mark from) {
        HookArena::Before pass{*this, from};
        for (bool called = true; called;) {
            const Fence fence{*this, from};
            const Busy busy{*this};
            const std::size_t under_way = walks();
            called = pass.next();
            if (walks() != under_way)
                detail::die(
                    "txhooks: a hook of push_before left a HookList::Run that is not over; end it before the hook "
                    "returns");
        }
    }

    /// What lies behind `from` is undone, and that is proven: runs the hooks of `push_rollback` and
    /// `push_unless_committed`, the last first, and then destroys all, in order of registration. O(n).
    /// What they push stays, behind `from`.
    ///
    /// Throws the first exception that a hook throws, when all have run and are destroyed; the others are dropped.
    void roll_back(Mark from) { undo(from, true); }

    /// What lies behind `from` has ended, and nothing proves that it is committed: the same, but the hooks of
    /// `push_rollback` do not run.
    void end_unproven(Mark from) { undo(from, false); }

    /// Destroys the hooks behind `from`, in order of registration, without running them. O(n) of those.
    /// What their destructors push stays, behind `from`.
    [[gnu::always_inline]] void discard(Mark from) noexcept {
        if (busy()) [[unlikely]]
            return discard_fenced(from);
        fence_ = mark();
        HookArena::discard(from);
    }

    /// Gives the memory of one chunk back if the transactions since the last call did not need it. O(1).
    using HookArena::trim;

    class Run;

private:
    template <detail::HookKind kind, class Hook>
    void store(Hook&& hook) {
        using Stored = std::decay_t<Hook>;
        if constexpr (std::is_trivially_constructible_v<Stored, Hook>)
            emplace<false, kind>([&]() -> Stored { return static_cast<Hook&&>(hook); });
        else
            emplace<true, kind>([&]() -> Stored {
                const Fence fence{*this, mark()};
                const Busy busy{*this};
                return static_cast<Hook&&>(hook);
            });
    }

    void undo(Mark from, bool proven) {
        const Fence fence{*this, from};
        const HookArena::Run destroys_them{*this, from};
        HookArena::Undo hooks{*this, from, proven};
#ifdef __cpp_exceptions
        std::exception_ptr first;
        const auto call_all = [&] {
            while (!hooks.empty()) {
                try {
                    hooks.call_next();
                } catch (...) {
                    if (!first) first = std::current_exception();
                    if (!first) throw;  // of another language: only its handler can pass it on
                }
            }
        };
        try {
            call_all();
        } catch (...) {
            first = std::make_exception_ptr(0);  // no other is passed on
            call_all();
            throw;
        }
        if (first) std::rethrow_exception(first);
#else
        while (!hooks.empty()) hooks.call_next();
#endif
    }

    // While one lives, what lies before it is not to be touched: it is being built, run or discarded.
    class Fence {
    public:
        Fence(HookList& list, Mark from) noexcept
            : list_{list}, outer_{list.busy() ? list.behind_fence(from) : list.start()}, here_{list.mark()} {
            list.fence_ = here_;
        }
        Fence(const Fence&) = delete;
        Fence& operator=(const Fence&) = delete;
        // One that goes before a later one does (in a coroutine) leaves none: nothing is refused that is right.
        [[gnu::always_inline]] ~Fence() { list_.fence_ = list_.fence_ == here_ ? outer_ : list_.start(); }

    private:
        HookList& list_;
        Mark outer_;
        Mark here_;
    };

    // Where the fence is that `from` lies behind.
    [[gnu::noinline]] Mark behind_fence(Mark from) const noexcept {
        if (HookArena::before(from, fence_))
            detail::die(
                "txhooks: hooks were to be run or discarded from a mark older than the hook that is being copied, "
                "called or destroyed, or than a Run that is not over; until then end only what began since");
        return fence_;
    }

    [[gnu::noinline]] void discard_fenced(Mark from) noexcept {
        const Fence fence{*this, from};
        HookArena::discard(from);
    }

    Mark fence_ = start();  // of the innermost one, while busy
};

/// Runs the hooks that lay behind a mark when it was made. Each is destroyed right after it ran, before the next
/// runs. What hooks push meanwhile is not part of it and stays in the list. O(1) to make, O(n) to run or discard.
///
/// Destroyed, it discards what has not run; destroyed by one of its own hooks, it ends the program with a message.
/// One of its own hooks that calls or discards it changes nothing.
class HookList::Run {
public:
    Run(HookList& list, Mark from) noexcept : fence_{list, from}, run_{list, from} {}
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    [[gnu::always_inline]] ~Run() {
        if (calling_) detail::die("txhooks: a HookList::Run was destroyed by one of its own hooks");
    }

    /// Runs every hook that has not run.
    /// Throws what a hook throws; that hook is gone then, and calling this again runs the ones after it.
    [[gnu::always_inline]] void operator()() {
        const Calling calling{calling_};
        run_();
    }

    /// Runs the next hook that has not run, so that something can be waited for between two of them; false if none was
    /// left.
    /// Throws what the hook throws; it is gone then too.
    ///
    ///     while (run.next()) co_await what_it_started();
    bool next() {
        const Calling calling{calling_};
        return run_.next();
    }

    /// Destroys the hooks that have not run.
    void discard() noexcept {
        const Calling calling{calling_};
        run_.discard();
    }

    /// How many have run, the one that threw included. O(n).
    std::size_t done() const noexcept { return run_.done(); }
    /// How many have not run. O(n).
    std::size_t left() const noexcept { return run_.left(); }

private:
    struct Calling {
        explicit Calling(bool& is_calling) noexcept : calling{is_calling}, before{is_calling} { calling = true; }
        Calling(const Calling&) = delete;
        Calling& operator=(const Calling&) = delete;
        ~Calling() { calling = before; }
        bool& calling;
        bool before;
    };

    Fence fence_;
    HookArena::Run run_;
    bool calling_ = false;
};

}  // namespace txhooks

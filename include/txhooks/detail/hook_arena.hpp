// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/die.hpp>
#include <txhooks/detail/hook_kind.hpp>
#include <txhooks/detail/poison.hpp>

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

namespace txhooks::detail {

// Where hooks lie: a stack of callables, each stored in place and never moved, in chunks of memory that are kept.
// <txhooks/hook_list.hpp> says what the words mean; this is what is under it, and under the core.
//
// It does not look at what a mark is used for. Who uses it sees to it that nothing from a mark older than the end of a
// `Run` is run or discarded while that lives, and nothing older than a hook while that is being built.
class HookArena {
    enum class Action : unsigned char {
        run,      // calls it, if it is a commit hook, and destroys it
        destroy,  // destroys it
        skip,     // nothing; a commit hook does nothing for what follows either
        tell,     // a hook of another kind returns itself
        call,     // calls a hook of another kind, and destroys it if it is one before COMMIT
    };

public:
    // An entry is this header and then the capture. Its one function does what is asked for, and returns the next entry.
    struct Entry {
        using Op = Entry* (*)(Entry* at, Action action);
        Op op;
    };

private:
    // The header of an entry that is no commit hook.
    struct Other : Entry {
        HookKind kind;
        Other* earlier;  // in an Undo
    };

    // Where the next entry is not just behind: at the end of a chunk, or over a hole.
    struct Link : Entry {
        Entry* target;
    };

public:
    /// A place: everything stored later lies behind it.
    class Mark {
        friend class HookArena;
        friend bool operator==(Mark, Mark) = default;
        std::byte* at;
    };

    HookArena() noexcept {
        use(&first_, first_.begin);
        poison_unused();
    }
    HookArena(const HookArena&) = delete;
    HookArena& operator=(const HookArena&) = delete;

    /// Discards what was neither run nor discarded. While `busy()` it ends the program.
    ~HookArena() {
        if (busy())
            die("txhooks: a list of hooks was destroyed while one of them is being copied, called or destroyed, or "
                "while a Run of them is not over");
        while (!empty(start())) discard(start());  // destructors may push
        unpoison(first_.begin, first_.size());
        while (last_ != &first_) free_last_chunk();
    }

    /// Stores the hook that `make()` returns, built in place. O(1). `RunsUserCode`: whether building it can throw, or
    /// call anything that could come back to this arena.
    ///
    /// Throws: `std::bad_alloc`, or what `make()` throws. After a throw: it is not stored.
    template <bool RunsUserCode, HookKind kind = HookKind::commit, class Make>
    void emplace(Make make) {
        using Stored = slot_of<kind, decltype(make())>;
        if constexpr (kind != HookKind::commit) has_others_ = true;
        std::byte* at = top_;
        if (address(at) + Stored::room > address(limit_)) [[unlikely]]
            at = grow(Stored::room);
        unpoison(at, Stored::room);
        std::byte* const end = Stored::end(at);
        if constexpr (RunsUserCode) {
            // The copy constructor of a capture may push hooks of its own: take the place first, fill it then.
            Stored::reserve(at);
            top_ = end;
            struct Unbuilt {
                HookArena* arena;
                std::byte* at;
                std::byte* end;
                ~Unbuilt() {
                    if (arena != nullptr) arena->give_back(entry(at), entry(end));
                }
            } unbuilt{this, at, end};
            ::new (Stored::capture(at)) typename Stored::Hook(make());
            unbuilt.arena = nullptr;
            Stored::seal(at);
        } else {
            ::new (Stored::capture(at)) typename Stored::Hook(make());
            Stored::seal(at);
            top_ = end;
        }
    }

    /// Gives `run` the hook that `make()` returns, which is stored nowhere: for `run_once` or `destroy_once`.
    template <class Make, class Run>
    static void run_at_once(const Make& make, const Run& run) {
        using Stored = Slot<decltype(make())>;
        struct Room {
            alignas(typename Stored::Hook) alignas(Entry) std::byte bytes[Stored::room];
            ~Room() { unpoison(bytes, sizeof bytes); }
        } place;
        ::new (Stored::capture(place.bytes)) typename Stored::Hook(make());
        run(*::new (static_cast<void*>(place.bytes)) Entry{&Stored::op});
    }
    template <class Make>
    static void run_at_once(const Make& make) {
        run_at_once(make, &HookArena::run_once);
    }
    static void run_once(Entry& hook) { hook.op(&hook, Action::run); }
    static void destroy_once(Entry& hook) noexcept { hook.op(&hook, Action::destroy); }

    /// The place behind everything.
    Mark mark() const noexcept {
        Mark here;
        here.at = top_;
        return here;
    }

    /// The place before everything.
    Mark start() const noexcept {
        Mark here;
        here.at = first_.begin;
        return here;
    }

    /// Whether nothing lies behind `from`.
    bool empty(Mark from) const noexcept { return top_ == from.at; }

    /// Whether `a` lies before `b`. O(chunks that were begun since).
    bool before(Mark a, Mark b) const noexcept {
        const Chunk* chunk = chunk_;
        while (!chunk->holds(a.at) && !chunk->holds(b.at)) chunk = chunk->previous;
        return !chunk->holds(a.at) || (chunk->holds(b.at) && address(a.at) < address(b.at));
    }

    /// How many commit hooks lie behind `from`. O(n).
    std::size_t size(Mark from) const noexcept { return count(entry(from.at), entry(top_)); }

    /// Whether there ever was a hook that is no commit hook.
    bool has_others() const noexcept { return has_others_; }

    /// Whether a commit hook or a rollback hook lies behind `from`. O(n) if there ever was one of another kind.
    bool waits_for_outcome(Mark from) const noexcept {
        if (!has_others_) return !empty(from);
        const auto waits = [](HookKind kind) { return kind == HookKind::commit || kind == HookKind::rollback; };
        return count(entry(from.at), entry(top_), waits) != 0;
    }

    /// Destroys the hooks behind `from`, in order of registration, without running them. O(n) of those.
    /// What their destructors push stays, behind `from`.
    [[gnu::always_inline]] void discard(Mark from) noexcept {
        // What a Run would do, in the few steps that it takes to roll back a savepoint.
        std::byte* const end = top_;
        if (address(from.at) >= address(end)) [[unlikely]]  // nothing lies behind it, or it is in another chunk
            return discard_chunks(from);
        ++walks_;
        Entry* at = entry(from.at);
        do at = at->op(at, Action::destroy);
        while (at != entry(end));
        --walks_;
        if (top_ != end || address(from.at) < address(bottom_)) [[unlikely]]
            return give_back(entry(from.at), entry(end));
        rewind_within_chunk(from.at);
    }

    /// Whether a `Run`, a `discard` or a `Busy` is under way: code of the user's is being called.
    bool busy() const noexcept { return walks_ != 0; }
    /// How many of these.
    std::size_t walks() const noexcept { return walks_; }

    /// Makes it busy while it lives: around code of the user's that the arena does not call itself.
    class Busy {
    public:
        explicit Busy(HookArena& arena) noexcept : arena_{arena} { ++arena_.walks_; }
        Busy(const Busy&) = delete;
        Busy& operator=(const Busy&) = delete;
        ~Busy() { --arena_.walks_; }

    private:
        HookArena& arena_;
    };

    /// Gives the memory of one chunk back if the transactions since the last call did not need it. Not while busy. O(1).
    void trim() noexcept {
        if (first_.next != nullptr && walks_ == 0) [[unlikely]]
            trim_last_chunk();
    }

    class Run;

    /// The hooks of a `Run`, while that lives.
    class Walk {
    public:
        Walk(const Walk&) = delete;
        Walk& operator=(const Walk&) = delete;

        /// Runs every hook that has not run.
        /// Throws what a hook throws; that hook is gone then, and calling this again runs the ones after it.
        [[gnu::always_inline]] void operator()() {
            struct StepOver {
                Walk& walk;
                Entry* at;
                [[gnu::always_inline]] ~StepOver() {
                    if (at != walk.end_) walk.at_ = at->op(at, Action::skip);  // the one that threw
                }
            } step{*this, at_};
            Entry* const end = at_ = end_;  // for a hook that calls or discards this very object nothing is left
            if (step.at == end) return;
            do {
                step.at = step.at->op(step.at, Action::run);
            } while (step.at != end);
        }

        /// Runs the next hook; false if none was left. Those that are no commit hooks are destroyed on the way.
        /// Throws what the hook throws; it is gone then too.
        bool next() {
            for (bool called = false; !called;) {
                at_ = skip_links(at_, end_);
                if (at_ == end_) return false;
                struct StepOver {
                    Walk& walk;
                    Entry* next;
                    ~StepOver() { walk.at_ = next; }
                } step{*this, at_->op(at_, Action::skip)};
                Entry* const hook = at_;
                at_ = end_;  // for a hook that calls or discards this very object nothing is left
                called = as_other(hook) == nullptr;
                hook->op(hook, Action::run);
            }
            return true;
        }

        /// Destroys the hooks that have not run.
        [[gnu::always_inline]] void discard() noexcept {
            while (at_ != end_) at_ = at_->op(at_, Action::destroy);
        }

        /// How many have run, the one that threw included. O(n).
        std::size_t done() const noexcept { return count(from_, at_); }
        /// How many have not run. O(n).
        std::size_t left() const noexcept { return count(at_, end_); }

    private:
        friend class Run;
        Walk(Entry* from, Entry* at, Entry* end) noexcept : from_{from}, at_{at}, end_{end} {}

        Entry* from_;
        Entry* at_;
        Entry* end_;
    };

    /// Runs the hooks that lay behind a mark when it was made. Each is destroyed right after it ran, before the next
    /// runs. What hooks push meanwhile is not part of it and stays. O(1) to make, O(n) to run or discard.
    class Run : public Walk {
    public:
        Run(HookArena& arena, Mark from) noexcept
            : Walk{entry(from.at), entry(from.at), entry(arena.top_)}, arena_{arena} {
            ++arena_.walks_;
        }
        /// Discards what has not run, and gives the room of all of them back.
        [[gnu::always_inline]] ~Run() {
            discard();
            --arena_.walks_;
            arena_.give_back(from_, end_);
        }

        /// Gives up the hooks that have not run: the caller runs or discards them.
        [[nodiscard]] Walk release() noexcept {
            Entry* const at = at_;
            at_ = end_;
            return Walk{from_, at, end_};
        }

    private:
        HookArena& arena_;
    };

    /// The hooks behind a mark that wait for COMMIT, in order, and those that are pushed meanwhile.
    class Before {
    public:
        Before(HookArena& arena, Mark from) noexcept : arena_{arena}, at_{entry(from.at)} {}

        /// Runs and destroys the next one; false if none is left. Throws what it throws; it is gone then too.
        bool next() {
            while (at_ != entry(arena_.top_)) {
                Entry* const hook = at_;
                at_ = hook->op(hook, Action::skip);
                if (const Other* const other = as_other(hook);
                    other == nullptr || other->kind != HookKind::before_commit)
                    continue;
                hook->op(hook, Action::call);
                return true;
            }
            return false;
        }

    private:
        HookArena& arena_;
        Entry* at_;
    };

    /// The hooks behind a mark that wait for an end that is no commit, the last first; `proven`: rollback hooks are
    /// among them. They are not destroyed. Not while anything behind the mark may be run or discarded.
    class Undo {
    public:
        Undo(HookArena& arena, Mark from, bool proven) noexcept {
            Entry* const end = entry(arena.top_);
            for (Entry* at = entry(from.at); at != end; at = at->op(at, Action::skip)) {
                Other* const other = as_other(at);
                if (other == nullptr || other->kind < (proven ? HookKind::rollback : HookKind::unless_committed))
                    continue;
                other->earlier = next_;
                next_ = other;
            }
        }

        bool empty() const noexcept { return next_ == nullptr; }

        /// Calls the next one. Throws what it throws; it counts as called then too.
        void call_next() {
            Other* const hook = next_;
            next_ = hook->earlier;
            kind_ = hook->kind;
            hook->op(hook, Action::call);
        }

        /// Of the one that was called last.
        HookKind kind() const noexcept { return kind_; }

    private:
        Other* next_ = nullptr;
        HookKind kind_ = HookKind::gone;
    };

    /// Destroys those behind `from` that are no commit hooks, in order, but the rollback hooks if `keep_rollback`: they
    /// end with their block, while the others wait elsewhere. O(n).
    void discard_others(Mark from, bool keep_rollback) noexcept {
        Entry* const end = entry(top_);
        {
            const Busy busy{*this};
            for (Entry* at = entry(from.at); at != end;) {
                const Other* const other = as_other(at);
                const bool ends = other != nullptr && !(keep_rollback && other->kind == HookKind::rollback);
                at = at->op(at, ends ? Action::destroy : Action::skip);
            }
        }
        if (!waits_for_outcome(from)) give_back(entry(from.at), end);
    }

private:
    static constexpr std::size_t inline_bytes = 448 + sizeof(Link);
    static constexpr std::size_t first_chunk_bytes = 4 * 1024;
    static constexpr std::size_t largest_chunk_bytes = 512 * 1024;

    static constexpr std::size_t round_up(std::size_t size) noexcept {
        return (size + alignof(Entry) - 1) / alignof(Entry) * alignof(Entry);
    }

    static Entry* entry(std::byte* at) noexcept { return reinterpret_cast<Entry*>(at); }
    static std::uintptr_t address(const void* at) noexcept { return reinterpret_cast<std::uintptr_t>(at); }

    template <class H, class Header>
    struct Place {
        using Hook = H;
        static_assert(std::is_nothrow_destructible_v<Hook>, "txhooks: a hook's destructor must not throw");
        static constexpr std::size_t spare = alignof(Hook) > alignof(Entry) ? alignof(Hook) - alignof(Entry) : 0;
        static constexpr std::size_t room = sizeof(Header) + spare + round_up(sizeof(Hook));

        static void* capture(void* entry) noexcept {
            std::byte* at = static_cast<std::byte*>(entry) + sizeof(Header);
            if constexpr (spare != 0) {
                const auto misfit = address(at) % alignof(Hook);
                if (misfit != 0) at += alignof(Hook) - misfit;
            }
            return at;
        }

        static std::byte* end(void* entry) noexcept {
            return static_cast<std::byte*>(capture(entry)) + round_up(sizeof(Hook));
        }

        struct Destroy {
            Hook* hook;
            ~Destroy() {
                hook->~Hook();
                poison(hook, sizeof *hook);
            }
        };
    };

    // Of a commit hook.
    template <class H>
    struct Slot : Place<H, Entry> {
        using Self = Place<H, Entry>;

        [[gnu::noinline]] static Entry* op(Entry* at, Action action) {
            if (action < Action::skip) {
                auto* const hook = static_cast<H*>(Self::capture(at));
                const typename Self::Destroy destroy{hook};
                if (action == Action::run) static_cast<void>(static_cast<H&&>(*hook)());
            }
            return entry(Self::end(at));
        }

        static Entry* not_built(Entry* at, Action) { return entry(Self::end(at)); }

        static void reserve(void* at) noexcept { ::new (at) Entry{&not_built}; }
        static void seal(void* at) noexcept { ::new (at) Entry{&op}; }
    };

    // Of one of another kind.
    template <HookKind kind, class H>
    struct OtherSlot : Place<H, Other> {
        using Self = Place<H, Other>;

        [[gnu::noinline]] static Entry* op(Entry* at, Action action) {
            Other& other = *static_cast<Other*>(at);
            if (action == Action::tell) return at;
            if (action != Action::skip && other.kind != HookKind::gone) {
                auto* const hook = static_cast<H*>(Self::capture(at));
                if (kind != HookKind::before_commit && action == Action::call) {
                    static_cast<void>(static_cast<H&&>(*hook)());
                } else {
                    other.kind = HookKind::gone;
                    const typename Self::Destroy destroy{hook};
                    if (action == Action::call) static_cast<void>(static_cast<H&&>(*hook)());
                }
            }
            return entry(Self::end(at));
        }

        static void reserve(void* at) noexcept { ::new (at) Other{{&op}, HookKind::gone, nullptr}; }
        static void seal(void* at) noexcept { ::new (at) Other{{&op}, kind, nullptr}; }
    };

    template <HookKind kind, class H>
    using slot_of = std::conditional_t<kind == HookKind::commit, Slot<H>, OtherSlot<kind, H>>;

    static Other* as_other(Entry* at) noexcept {
        return at->op(at, Action::tell) == at ? static_cast<Other*>(at) : nullptr;
    }

    // A chunk is this header and then its bytes.
    struct Chunk {
        Chunk* previous;
        Chunk* next;
        std::byte* begin;
        std::byte* end;

        std::size_t size() const noexcept { return static_cast<std::size_t>(end - begin); }
        bool holds(const std::byte* at) const noexcept {
            return address(begin) <= address(at) && address(at) < address(end);
        }
    };

    struct FirstChunk : Chunk {
        FirstChunk() noexcept : Chunk{nullptr, nullptr, storage, storage + sizeof storage} {}
        alignas(Entry) std::byte storage[inline_bytes];
    };

    static Entry* follow(Entry* at, Action) { return static_cast<Link*>(at)->target; }

    static Entry* skip_links(Entry* at, const Entry* end) noexcept {
        while (at != end && at->op == &follow) at = static_cast<Link*>(at)->target;
        return at;
    }

    static bool is_commit_hook(HookKind kind) noexcept { return kind == HookKind::commit; }

    static std::size_t count(Entry* at, Entry* end, bool (*counts)(HookKind) = &is_commit_hook) noexcept {
        std::size_t n = 0;
        while ((at = skip_links(at, end)) != end) {
            Entry* next = at->op(at, Action::tell);  // of a commit hook already the next
            HookKind kind = HookKind::commit;
            if (next == at) {
                kind = static_cast<Other*>(at)->kind;
                next = at->op(at, Action::skip);
            }
            if (counts(kind)) ++n;
            at = next;
        }
        return n;
    }

    static void link(std::byte* at, std::byte* target) noexcept {
        unpoison(at, sizeof(Link));
        ::new (static_cast<void*>(at)) Link{{&follow}, entry(target)};
    }

    // Continues in `chunk` at `at`. Room for a link to the next chunk is always left.
    void use(Chunk* chunk, std::byte* at) noexcept {
        chunk_ = chunk;
        bottom_ = chunk->begin;
        top_ = at;
        limit_ = chunk->end - sizeof(Link);
    }

    void poison_unused() noexcept { poison(top_, static_cast<std::size_t>(chunk_->end - top_)); }

    [[gnu::noinline]] std::byte* grow(std::size_t room) {
        Chunk* next = chunk_->next;
        if (next == nullptr || next->size() < room + sizeof(Link)) next = add_chunk(room);
        link(top_, next->begin);
        if (furthest_ == chunk_) furthest_ = next;
        use(next, next->begin);
        return top_;
    }

    Chunk* add_chunk(std::size_t room) {
        std::size_t size = chunk_ == &first_ ? first_chunk_bytes : 2 * (sizeof(Chunk) + chunk_->size());
        if (size > largest_chunk_bytes) size = largest_chunk_bytes;
        if (size < sizeof(Chunk) + room + sizeof(Link)) size = sizeof(Chunk) + room + sizeof(Link);
        auto* const raw = static_cast<std::byte*>(::operator new(size));
        auto* const chunk = ::new (raw) Chunk{chunk_, chunk_->next, raw + sizeof(Chunk), raw + size};
        poison(chunk->begin, chunk->size());
        (chunk->next != nullptr ? chunk->next->previous : last_) = chunk;
        return chunk_->next = chunk;
    }

    [[gnu::noinline]] void trim_last_chunk() noexcept {
        if (last_ != furthest_) free_last_chunk();
        furthest_ = chunk_;
    }

    void free_last_chunk() noexcept {
        Chunk* const chunk = last_;
        last_ = chunk->previous;
        last_->next = nullptr;
        unpoison(chunk->begin, chunk->size());
        ::operator delete(chunk);
    }

    [[gnu::noinline]] void discard_chunks(Mark from) noexcept {
        if (!empty(from)) Run{*this, from}.discard();
    }

    void rewind_within_chunk(std::byte* at) noexcept {
        top_ = at;
        poison_unused();
    }

    [[gnu::noinline]] void rewind_chunks(std::byte* at) noexcept {
        Chunk* chunk = chunk_->previous;
        while (!chunk->holds(at)) chunk = chunk->previous;
        use(chunk, at);
        poison_unused();
    }

    // The entries of [from, end) are gone. What was pushed behind them meanwhile must stay: then they become a hole.
    void give_back(Entry* from, Entry* end) noexcept {
        if (from == end) return;
        auto* const at = reinterpret_cast<std::byte*>(from);
        auto* const behind = reinterpret_cast<std::byte*>(end);
        if (top_ != behind) [[unlikely]]
            link(at, behind);
        else if (address(bottom_) <= address(at) && address(at) < address(behind)) [[likely]]
            rewind_within_chunk(at);
        else
            rewind_chunks(at);
    }

    // Hooks end at `top_`. The chunk in use begins at `bottom_`, and is full at `limit_`.
    std::byte* top_;
    std::byte* limit_;
    std::byte* bottom_;
    Chunk* chunk_;
    Chunk* last_ = &first_;
    Chunk* furthest_ = &first_;
    std::size_t walks_ = 0;
    bool has_others_ = false;
    FirstChunk first_;
};

}  // namespace txhooks::detail

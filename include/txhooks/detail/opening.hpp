// SPDX-License-Identifier: MIT
#pragma once

// The beginning of a block: BEGIN, SAVEPOINT, or nothing for a joined one.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/detaching.hpp>
#include <txhooks/detail/standing.hpp>

#include <type_traits>

namespace txhooks::detail {

// A copy, for a call that is seldom made: no compiler writes the original to memory for it.
template <class Begin>
[[gnu::always_inline]] inline BlockOptions<Begin> memberwise(const BlockOptions<Begin>& options) {
    return {options.durable, options.join, options.detach, options.resolve, options.begin};
}

template <class Verbs, class Options>
[[gnu::always_inline]] inline void Blocks::open(Block& block, const Options& options) {
    refuse_contradiction(options);
    if (phase_ != Phase::idle || options.detach != nullptr || options.resolve != nullptr) [[unlikely]]
        return open_otherwise<Verbs>(block, memberwise(options));
    opening<Verbs>();
    try {
        begin<Verbs>(options);
    } catch (...) {
        not_opened();
        throw;
    }
    opened(block, Kind::outermost, own_.list.mark(), 0);
}

template <class Verbs>
[[gnu::always_inline]] inline void Blocks::opening() {
    if constexpr (Verbs::has_state) {
        if (verbs<Verbs>().verb_state_before_begin() != ConnectionState::idle) [[unlikely]]
            refuse_engine(verb_state());
    }
    phase_ = Phase::in_verb;
}

[[gnu::always_inline]] inline void Blocks::opened(Block& block, Kind kind, HookArena::Mark mark,
                                                  unsigned number) noexcept {
    block = {this, nullptr, mark, number, number, kind, false};
    current_ = &block;
    phase_ = Phase::in_block;
}

// A BEGIN that threw may have taken effect all the same.
[[gnu::cold, gnu::noinline]] inline void Blocks::not_opened() noexcept {
    phase_ = Phase::idle;
    phase_ = phase_at_rest();
    HookOwner& owner = take_owner();
    const bool lent = owner.lent_by != nullptr;
    if (stages_.verbs() == nullptr) report_cleared(clear_engine());
    if (lent) leave(owner);  // else the sink may have destroyed whose it is
}

inline void Blocks::report_cleared(const Failure& failure) noexcept {
    if (failure) report(phase_ == Phase::broken ? rollback_failed : rolled_back_all_the_same, failure);
}

template <class Verbs, class Options>
[[gnu::noinline]] void Blocks::open_otherwise(Block& block, Options options) {
    if (phase_ != Phase::in_block) [[unlikely]]
        refuse_unless_alive();
    if (current_ == nullptr) [[unlikely]]
        return open_special<Verbs>(block, options);
    opening_nested<Verbs>(options);
    if (options.join) return push_nested(block, Kind::joined);
    const unsigned number = current_->taken + 1;
    savepoint<Verbs>(number);
    push_nested(block, Kind::savepoint);
    block.number = block.taken = number;
}

// What refuses a nested block.
template <class Verbs, class Options>
[[gnu::always_inline]] inline void Blocks::opening_nested(const Options& options) {
    if (options.durable)
        throw UsageError{"txhooks: a durable block was opened inside another block; it must be the outermost"};
    if (!(options.begin == decltype(options.begin){}))
        throw UsageError{"txhooks: begin options on a nested block; only the outermost begins a transaction"};
    if (options.detach != nullptr)
        throw UsageError{"txhooks: detach on a nested block; only the outermost has hooks to run"};
    if (options.resolve != nullptr)
        throw UsageError{"txhooks: resolve on a nested block; only the outermost sends a COMMIT"};
    if (phase_ != Phase::in_block) [[unlikely]]
        throw TransactionAborted{doom_};
    if (const ConnectionState state = verbs<Verbs>().verb_state(); state != ConnectionState::open) [[unlikely]] {
        if (is_gone(state)) throw_lost();
        throw TransactionAborted{};
    }
    if (!options.join && !verbs<Verbs>().has_savepoints())
        throw UsageError{
            "txhooks: this backend has no savepoints, so a nested block must be part of the one around it: open it "
            "with {.join = true}"};
}

template <class Verbs>
void Blocks::savepoint(unsigned number) {
    phase_ = Phase::in_verb;
    try {
        verbs<Verbs>().verb_savepoint(number);
    } catch (const TransactionLost& lost) {
        phase_ = Phase::in_block;
        note_loss(lost.outcome());
        loss_told_ = true;
        throw;
    } catch (...) {
        phase_ = Phase::in_block;
        // It may have taken effect all the same: with its number never used again nothing can hit the stray one.
        keep_numbers_from(number);
        note_loss_if_gone();
        throw;
    }
    phase_ = Phase::in_block;
}

// An outermost block that is not run of the mill: with `detach` or `resolve`, or in a scope of txhooks::testing.
template <class Verbs, class Options>
[[gnu::cold, gnu::noinline]] void Blocks::open_special(Block& block, const Options& options) {
    const ConnectionState state = stages_.any() ? verb_state() : verb_state_before_begin();
    if (state == ConnectionState::failed) throw TransactionAborted{};
    if (state != engine_at_rest()) refuse_engine(state);
    if (options.resolve != nullptr) refuse_doubt(*options.resolve, options.detach);
    // A block that was begun read-only has nothing to resolve, and could not write a marker.
    constexpr bool can_be_read_only = requires { options.begin.read_only; };
    bool marked = options.resolve != nullptr && !stages_.any();
    if constexpr (can_be_read_only) marked = marked && !options.begin.read_only;
    if (marked)
        borrow(*options.resolve);
    else if (options.detach != nullptr)
        borrow(*options.detach, false);
    unsigned number = 0;
    try {
        const InVerb under_way{*this};
        if (OutermostVerbs* const instead = stages_.verbs())
            number = instead->begin();
        else
            begin<Verbs>(options);
    } catch (...) {
        not_opened();
        throw;
    }
    opened(block, Kind::special, owner_->list.mark(), number);
}

template <class Verbs, class Options>
[[gnu::always_inline]] inline void Blocks::begin([[maybe_unused]] const Options& options) {
    if constexpr (std::is_same_v<Verbs, Blocks> || std::is_empty_v<decltype(options.begin)>)
        verbs<Verbs>().verb_begin();
    else
        verbs<Verbs>().verb_begin(options.begin);
}

}  // namespace txhooks::detail

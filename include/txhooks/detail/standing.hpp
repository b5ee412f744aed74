// SPDX-License-Identifier: MIT
#pragma once

// How a connection stands: its phase, its chain of open blocks, and what the engine says.

#include <txhooks/detail/blocks.hpp>
#include <txhooks/detail/die.hpp>

namespace txhooks::detail {

// Around a verb. Whoever comes back from inside it is refused, or ends the program.
class Blocks::InVerb {
public:
    explicit InVerb(Blocks& db) noexcept : db_{db}, before_{db.phase_} { db.phase_ = Phase::in_verb; }
    InVerb(const InVerb&) = delete;
    InVerb& operator=(const InVerb&) = delete;
    ~InVerb() { db_.phase_ = before_; }

private:
    Blocks& db_;
    Phase before_;
};

// ---- What anybody may ask

inline std::size_t Blocks::pending_hooks() const noexcept {
    return current_ == nullptr ? 0 : owner_->list.size(outermost().mark);
}

inline bool Blocks::usable() const noexcept {
    const bool ready = phase_ == Phase::idle || phase_ == Phase::staged;
    return ready && verb_state() == engine_at_rest();
}

inline void Blocks::reset() {
    if (current_ != nullptr) throw UsageError{"txhooks: reset() in an atomic block; end the open blocks first"};
    if (stages_.verbs() != nullptr) throw UsageError{"txhooks: reset() in a RolledBack; end that first"};
    refuse_verb_under_way();
    {
        const InVerb under_way{*this};
        verb_reset();
    }
    if (verb_state() != ConnectionState::idle)
        throw UsageError{
            "txhooks: reset() while the engine is still in a transaction, or gone; end that transaction or reconnect "
            "first"};
    phase_ = Phase::idle;
    phase_ = phase_at_rest();
}

inline void Blocks::set_rollback(bool roll_back) {
    refuse_unless_alive();
    if (current_ == nullptr)
        throw UsageError{"txhooks: set_rollback() outside an atomic block; there is nothing to roll back"};
    Block* block = current_;
    while (block->kind == Kind::joined || block->kind == Kind::pinned) block = block->parent;
    block->roll_back = roll_back;
}

inline bool Blocks::is_active(const Block& block) noexcept {
    return block.db != nullptr && block.db->phase_ != Phase::lost;
}

inline void Blocks::refuse_unless_alive() {
    if (phase_ == Phase::broken) throw ConnectionBroken{};
    if (phase_ == Phase::lost) throw_lost();
    refuse_verb_under_way();
}

// ---- What the engine says

// As far as an adapter can tell.
template <class Verbs>
bool Blocks::engine_is(ConnectionState state) noexcept {
    if constexpr (Verbs::has_state)
        return verbs<Verbs>().verb_state() == state;
    else
        return true;
}

inline bool Blocks::is_gone(ConnectionState state) noexcept {
    return state == ConnectionState::idle || state == ConnectionState::lost;
}

inline constexpr const char* engine_in_transaction =
    "txhooks: the database is already in a transaction, begun by raw SQL, by another HookedConnection on the same "
    "database, or because autocommit is off; or the connection is busy; end that first, or turn autocommit on "
    "(MariaDB: SET autocommit = 1), and open transactions with Atomic or atomic(fn)";

[[noreturn, gnu::cold, gnu::noinline]] inline void Blocks::refuse_engine(ConnectionState state) {
    if (state == ConnectionState::lost) throw ConnectionBroken{};
    if (state == ConnectionState::idle && engine_at_rest() != state)
        throw TransactionLost{verb_fate()};  // a RolledBack's
    throw UsageError{engine_in_transaction};
}

// ---- While a verb is under way

inline void Blocks::refuse_verb_under_way() const {
    if (phase_ == Phase::in_verb)
        throw UsageError{
            "txhooks: this connection was used by code that its own BEGIN, SAVEPOINT, COMMIT or ROLLBACK has called (a "
            "notice or trace callback?); wait until that has returned"};
}

inline void Blocks::die_if_verb_under_way() const noexcept {
    if (phase_ == Phase::in_verb)
        die("txhooks: a block, or its connection, was destroyed by code that the connection's own BEGIN, SAVEPOINT, "
            "COMMIT or ROLLBACK has called (a notice or trace callback?)");
}

// ---- A loss

inline void Blocks::note_loss_if_gone() noexcept {
    if (phase_ != Phase::lost && is_gone(verb_state())) note_loss(verb_fate());
}

inline void Blocks::note_loss(Outcome outcome) noexcept {
    if (phase_ == Phase::lost) return;
    phase_ = Phase::lost;
    const bool known = outcome == Outcome::committed || outcome == Outcome::rolled_back;
    lost_outcome_ = known ? outcome : Outcome::unknown;
    loss_told_ = false;
    doom_ = nullptr;
}

inline Failure Blocks::tell_loss() const noexcept {
    return {true, true, std::make_exception_ptr(TransactionLost{lost_outcome_})};
}

[[noreturn, gnu::cold, gnu::noinline]] inline void Blocks::throw_lost() {
    note_loss_if_gone();
    loss_told_ = true;
    throw TransactionLost{lost_outcome_};
}

// ---- Phases and blocks

// When no block is open.
inline Blocks::Phase Blocks::phase_at_rest() const noexcept {
    if (phase_ == Phase::broken) return Phase::broken;
    return stages_.any() ? Phase::staged : Phase::idle;
}

// The block now current, or the one it is part of, can only roll back.
inline void Blocks::doom(const std::exception_ptr& cause) noexcept {
    if (phase_ == Phase::doomed) return;
    phase_ = Phase::doomed;
    doom_ = cause;
}

inline void Blocks::push_nested(Block& block, Kind kind) noexcept {
    block = {this, current_, owner_->list.mark(), 0, current_->taken, kind, false};
    current_ = &block;
}

inline void Blocks::pop() noexcept {
    Block& block = *current_;
    current_ = block.parent;
    block.db = nullptr;
}

// The transaction is over; hooks of another can be stored and run from here on.
inline void Blocks::end_outermost(Block& block, Phase phase) noexcept {
    block.db = nullptr;
    current_ = nullptr;
    phase_ = phase;
}

inline Block& Blocks::outermost() const noexcept {
    Block* block = current_;
    while (block->parent != nullptr) block = block->parent;
    return *block;
}

// Savepoints up to `number` may stay in the engine, whichever block goes on.
inline void Blocks::keep_numbers_from(unsigned number) noexcept {
    for (Block* block = current_; block != nullptr; block = block->parent) block->taken = number;
}

// Rolls back whatever transaction is open in the engine, be it ours or not. The connection is broken if that fails.
inline Failure Blocks::clear_engine() noexcept {
    if (verb_state() == ConnectionState::idle) return {};
    Failure failure;
    try {
        const InVerb under_way{*this};
        verb_rollback();
    } catch (const TransactionLost&) {
        return {};  // As it should be: it was not ours.
    } catch (...) {
        failure = Failure::current();
    }
    if (failure && verb_state() != ConnectionState::idle) phase_ = Phase::broken;
    return failure;
}

// ---- Telling the error sink

inline void Blocks::tell(const char* what, const Failure& failure) noexcept {
    const bool before = reporting_;
    reporting_ = true;
    if (failure)
        own_.report.failure(what, failure.error);
    else
        own_.report(what);
    reporting_ = before;
}

// The sink may end and open blocks. What it leaves open is rolled back.
[[gnu::cold, gnu::noinline]] inline void Blocks::report(const char* what, const Failure& failure) noexcept {
    const Block* const around = current_;
    tell(what, failure);
    close_left_open(around);
}

inline void Blocks::report(const char* what) noexcept {
    report(what, {});
}

// ---- A guard that was left open

// User code has returned, or thrown, with a guard open in the block `around`. If that is still open itself, what is in
// it must end before the list takes back the room its mark lies in.
inline void Blocks::close_left_open(const Block* around) noexcept {
    if (current_ != around) [[unlikely]]
        close_blocks_inside(around);
}

// Around user code that may also destroy the connection.
class Blocks::CloseLeftOpen {
public:
    [[gnu::noinline]] explicit CloseLeftOpen(Blocks& db) noexcept : around_{db.current_}, watch_{db} {}
    CloseLeftOpen(const CloseLeftOpen&) = delete;
    CloseLeftOpen& operator=(const CloseLeftOpen&) = delete;
    [[gnu::noinline]] ~CloseLeftOpen() { now(); }
    void now() const noexcept {
        if (Blocks* const db = watch_.alive()) db->close_left_open(around_);
    }

private:
    const Block* around_;
    Watch watch_;
};

[[gnu::cold, gnu::noinline]] inline void Blocks::close_blocks_inside(const Block* around) noexcept {
    const UsageError usage{"txhooks: end every block that a hook opens before the hook returns"};
    tell("txhooks: a hook returned with an atomic block still open; it is rolled back",
         {true, false, std::make_exception_ptr(usage)});
    while (current_ != around) {  // what the sink has ended is gone, and what it has left open is ended too, untold
        Block* block = current_;
        while (block != nullptr && block->parent != around) block = block->parent;
        if (block == nullptr) return;  // it is `around` that was ended
        roll_back_quietly(*block);
    }
}

}  // namespace txhooks::detail

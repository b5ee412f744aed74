// SPDX-License-Identifier: MIT
#pragma once

// The life of an atomic block, and what becomes of its hooks. The state is the connection's; the guard owns the Block.
// What every block pays for is a template over the connection's type, so that the verbs of a known adapter are called
// directly; the rest goes through Connection's virtual verbs.

#include <txhooks/connection.hpp>
#include <txhooks/detail/block.hpp>
#include <txhooks/detail/committing.hpp>
#include <txhooks/detail/opening.hpp>
#include <txhooks/detail/registering.hpp>
#include <txhooks/errors.hpp>

#include <cstddef>

namespace txhooks::detail {

// All of it is static: that they share a base does not matter.
struct Blocks : Registering, Opening, Committing {};

}  // namespace txhooks::detail

namespace txhooks {

template <class Hook, class... Args>
void Connection::on_commit(Hook&& hook, Args&&... args) {
    detail::Blocks::register_hook(*this, static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
}

template <class Hook, class... Args>
void Connection::on_commit(robust_t, Hook&& hook, Args&&... args) {
    detail::Blocks::register_robust_hook(*this, static_cast<Hook&&>(hook), static_cast<Args&&>(args)...);
}

inline void Connection::set_rollback(bool roll_back) {
    using Kind = detail::Block::Kind;
    detail::Blocks::refuse_unless_alive(*this);
    if (current_ == nullptr)
        throw UsageError{"txhooks: set_rollback() outside an atomic block; there is nothing to roll back"};
    detail::Block* block = current_;
    while (block->kind == Kind::joined || block->kind == Kind::pinned) block = block->parent;
    block->roll_back = roll_back;
}

inline std::size_t Connection::pending_hooks() const noexcept {
    return current_ == nullptr ? 0 : hooks_->size(detail::Blocks::outermost(*this).mark);
}

inline bool Connection::usable() const noexcept {
    const bool ready = phase_ == Phase::idle || phase_ == Phase::staged;
    return ready && verb_state() == detail::Blocks::between_blocks(*this);
}

inline void Connection::reset() {
    if (current_ != nullptr) throw UsageError{"txhooks: reset() in an atomic block; end the open blocks first"};
    if (detail::Blocks::is_based(*this)) throw UsageError{"txhooks: reset() in a RolledBack; end that first"};
    verb_reset();
    if (verb_state() != ConnectionState::idle)
        throw UsageError{
            "txhooks: reset() while the engine is still in a transaction, or gone; end that transaction or reconnect "
            "first"};
    phase_ = Phase::idle;
    phase_ = detail::Blocks::rest(*this);
}

}  // namespace txhooks

#include <txhooks/detail/run_atomic.hpp>  // Connection::atomic

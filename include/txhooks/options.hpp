// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/errors.hpp>

namespace txhooks {

class DetachedHooks;
namespace detail {
class DoubtState;
}

/// The begin options of a backend that has none.
struct NoBeginOptions {
    friend bool operator==(const NoBeginOptions&, const NoBeginOptions&) = default;
};

/// What an atomic block may be asked for: `db.atomic({.durable = true}, fn)`, `Atomic tx{db, {.join = true}}`.
template <class Begin = NoBeginOptions>
struct BlockOptions {
    /// The block must be the outermost: `UsageError` if another is open, before the database is touched.
    bool durable = false;
    /// If another block is open, be part of it instead of a savepoint: a failure here dooms that one. Not with
    /// `durable`.
    bool join = false;
    /// Outermost only: do not run the commit hooks at the commit but leave them here, to be run later. Must outlive the block.
    DetachedHooks* detach = nullptr;
    /// Outermost only, not with `detach`: what finds out how a COMMIT without an answer ended, a `txhooks::Doubt`. Must
    /// outlive the block.
    detail::DoubtState* resolve = nullptr;
    /// Outermost only: how the transaction begins, in the backend's own words.
    Begin begin = {};
};

namespace detail {

template <class Begin>
constexpr void refuse_contradiction(const BlockOptions<Begin>& options) {
    if (options.durable && options.join)
        throw UsageError{
            "txhooks: durable and join exclude each other: a durable block is the outermost, a joined one is part of "
            "another"};
}

}  // namespace detail
}  // namespace txhooks

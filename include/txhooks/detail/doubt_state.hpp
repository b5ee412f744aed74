// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detached_hooks.hpp>

namespace txhooks::detail {

class Blocks;

// What an adapter throws that finds no row after it has written one.
constexpr const char* marker_swallowed =
    "txhooks: txhooks_commit has no row for the marker of this COMMIT, not even the one just written; look for a "
    "trigger, a rule or a policy on that table";

// What a block needs of a txhooks::Doubt.
class DoubtState {
protected:
    DoubtState() = default;
    DoubtState(const DoubtState&) = delete;
    DoubtState& operator=(const DoubtState&) = delete;
    ~DoubtState() = default;

    // A marker is a number that nobody else draws, and how many blocks were marked with it.
    static constexpr unsigned drawn_digits = 24;
    static constexpr unsigned digits = 32;

    DetachedHooks hooks_;
    char marker_[digits + 1] = "";
    bool in_doubt_ = false;

private:
    friend class Blocks;

    void next_marker() noexcept {
        ++blocks_;
        for (unsigned i = digits, left = blocks_; i != drawn_digits; left >>= 4)
            marker_[--i] = "0123456789abcdef"[left & 0xf];
    }

    unsigned blocks_ = 0;
    bool marked_ = false;  // the COMMIT of the last one: a callback of that may have registered the first hook
};

}  // namespace txhooks::detail

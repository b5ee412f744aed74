// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detached_hooks.hpp>

namespace txhooks::detail {

struct Committing;

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

    static constexpr unsigned digits = 32;

    DetachedHooks hooks_;
    char marker_[digits + 1] = "";
    bool in_doubt_ = false;

private:
    friend struct Detaching;
    friend struct Committing;

    virtual void renew_marker() = 0;
};

}  // namespace txhooks::detail

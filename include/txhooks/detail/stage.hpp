// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/outcome.hpp>

namespace txhooks::detail {

struct HookOwner;

// Who begins and ends outermost blocks in place of the engine: in a RolledBack they are savepoints.
class OutermostVerbs {
public:
    virtual unsigned begin() = 0;  // returns the number of the savepoint
    virtual CommitResult commit() noexcept = 0;
    virtual void rollback() = 0;

protected:
    ~OutermostVerbs() = default;
};

// A scope of txhooks::testing. What it does not change is that of the scopes around it.
struct Stage {
    OutermostVerbs* verbs = nullptr;
    HookOwner* captured = nullptr;  // where the hooks of committed blocks stay
    Stage* outer = nullptr;
};

// The scopes of a connection, the innermost first.
class Stages {
public:
    bool any() const noexcept { return top_ != nullptr; }
    bool is_top(const Stage& stage) const noexcept { return top_ == &stage; }
    void push(Stage& stage) noexcept {
        stage.outer = top_;
        top_ = &stage;
    }
    void pop() noexcept { top_ = top_->outer; }

    OutermostVerbs* verbs() const noexcept { return nearest(&Stage::verbs); }
    HookOwner* captured() const noexcept { return nearest(&Stage::captured); }

private:
    template <class T>
    T* nearest(T* Stage::* what) const noexcept {
        const Stage* stage = top_;
        while (stage != nullptr && stage->*what == nullptr) stage = stage->outer;
        return stage == nullptr ? nullptr : stage->*what;
    }

    Stage* top_ = nullptr;
};

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// What people write instead, with the least code that gives the same order of hooks. None knows a database.

#include <cstddef>
#include <functional>
#include <iterator>
#include <set>
#include <utility>
#include <vector>
#include <version>

namespace benchmarks {

/// One flat list that is run by hand after the commit: taken out first, because a hook may register another. A savepoint
/// that rolls back takes the tail off. `keeps_memory`: the same vector serves every transaction, and no hook may register.
template <class Function, bool keeps_memory = false>
class FlatVector {
public:
    using Mark = std::size_t;
    std::size_t open_blocks = 0;

    Mark open() { return hooks_.size(); }
    template <class Hook>
    void on_commit(Hook&& hook) {
        hooks_.push_back(std::forward<Hook>(hook));
    }
    void release(Mark) {}
    void roll_back(Mark mark) { hooks_.erase(hooks_.begin() + static_cast<std::ptrdiff_t>(mark), hooks_.end()); }
    void run() {
        if constexpr (keeps_memory) {
            for (Function& hook : hooks_) hook();
            hooks_.clear();
        } else {
            std::vector<Function> hooks = std::exchange(hooks_, {});
            for (Function& hook : hooks) hook();
        }
    }

private:
    std::vector<Function> hooks_;
};

using VectorOfFunctions = FlatVector<std::function<void()>>;
using KeptVectorOfFunctions = FlatVector<std::function<void()>, true>;
#if defined(__cpp_lib_move_only_function)
using VectorOfMoveOnlyFunctions = FlatVector<std::move_only_function<void()>>;
#endif

/// One list for each open savepoint; RELEASE moves it to the end of the one around it.
class VectorPerSavepoint {
public:
    using Mark = std::size_t;
    std::size_t open_blocks = 0;

    Mark open() {
        levels_.emplace_back();
        return levels_.size();
    }
    template <class Hook>
    void on_commit(Hook&& hook) {
        levels_.back().push_back(std::forward<Hook>(hook));
    }
    void release(Mark) {
        Level inner = std::move(levels_.back());
        levels_.pop_back();
        Level& outer = levels_.back();
        outer.insert(outer.end(), std::move_iterator{inner.begin()}, std::move_iterator{inner.end()});
    }
    void roll_back(Mark) { levels_.pop_back(); }
    void run() {
        const Level hooks = std::move(levels_.back());
        levels_.pop_back();
        for (const auto& hook : hooks) hook();
    }

private:
    using Level = std::vector<std::function<void()>>;
    std::vector<Level> levels_;
};

/// Django's way: each hook remembers the set of savepoints it was registered in, and a savepoint that rolls back takes
/// those out of the list that have its id.
class DjangoWay {
public:
    using Mark = unsigned;
    std::size_t open_blocks = 0;

    Mark open() {
        savepoints_.push_back(next_);
        return next_++;
    }
    template <class Hook>
    void on_commit(Hook&& hook) {
        hooks_.emplace_back(std::set<unsigned>(savepoints_.begin(), savepoints_.end()), std::forward<Hook>(hook));
    }
    void release(Mark) { savepoints_.pop_back(); }
    void roll_back(Mark mark) {
        savepoints_.pop_back();
        std::erase_if(hooks_, [mark](const Entry& entry) { return entry.first.contains(mark); });
    }
    void run() {
        savepoints_.clear();
        const std::vector<Entry> hooks = std::exchange(hooks_, {});
        for (const Entry& entry : hooks) entry.second();
    }

private:
    using Entry = std::pair<std::set<unsigned>, std::function<void()>>;
    std::vector<unsigned> savepoints_;
    std::vector<Entry> hooks_;
    unsigned next_ = 1;
};

/// A guard for these.
template <class Peer>
class PeerBlock {
public:
    explicit PeerBlock(Peer& db) : db_{db}, mark_{db.open()}, outermost_{db.open_blocks++ == 0} {}
    PeerBlock(const PeerBlock&) = delete;
    PeerBlock& operator=(const PeerBlock&) = delete;

    void commit() {
        --db_.open_blocks;
        if (outermost_)
            db_.run();
        else
            db_.release(mark_);
    }
    void rollback() {
        --db_.open_blocks;
        db_.roll_back(mark_);
    }

private:
    Peer& db_;
    typename Peer::Mark mark_;
    bool outermost_;
};

}  // namespace benchmarks

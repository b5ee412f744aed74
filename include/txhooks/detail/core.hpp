// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

namespace txhooks::detail {

// What a HookedConnection keeps: the Connection of one adapter. Final, so that its verbs are called directly where the
// type is known.
template <class Adapter>
class Core final : public Connection, CheckedAdapter<Adapter> {
public:
    using begin_options = begin_options_of<Adapter>;

    template <class Backend>
    explicit Core(Backend&& backend) : adapter{backend} {}
    ~Core() override { close(); }

    Adapter adapter;

    Blocks& blocks() noexcept { return *this; }

    void verb_begin() override { verb_begin(begin_options{}); }
    void verb_begin(const begin_options& options) {
        noting_failure([&] { begin_with(adapter, options); });
    }
    CommitResult verb_commit() noexcept override {
        CommitResult result = adapter.commit();
        note_doubt(result);
        return result;
    }
    void verb_rollback() override {
        noting_failure([&] { adapter.rollback(); });
        if constexpr (!has_state) may_be_open_ = false;
    }

    bool has_savepoints() const noexcept override { return HasSavepoints<Adapter>; }
    void verb_savepoint([[maybe_unused]] unsigned n) override {
        if constexpr (HasSavepoints<Adapter>) adapter.savepoint(n);
    }
    void verb_release([[maybe_unused]] unsigned n) override {
        if constexpr (HasSavepoints<Adapter>) adapter.release(n);
    }
    void verb_rollback_to([[maybe_unused]] unsigned n) override {
        if constexpr (HasSavepoints<Adapter>) adapter.rollback_to(n);
    }

    static constexpr bool has_state = HasState<Adapter>;
    ConnectionState verb_state() const noexcept override {
        if constexpr (has_state)
            return adapter.state();
        else
            return in_atomic_block() ? ConnectionState::open
                   : may_be_open_    ? ConnectionState::failed
                                     : engine_at_rest();
    }
    ConnectionState verb_state_before_begin() const noexcept override {
        if constexpr (HasStateBeforeBegin<Adapter>)
            return adapter.state_before_begin();
        else
            return verb_state();
    }
    Outcome verb_fate() noexcept override {
        if constexpr (HasFate<Adapter>)
            return adapter.fate();
        else
            return Outcome::unknown;
    }
    bool verb_in_another_process() const noexcept override {
        if constexpr (HasInAnotherProcess<Adapter>)
            return adapter.in_another_process();
        else
            return false;
    }
    void verb_reset() override {
        if constexpr (HasReset<Adapter>) adapter.reset();
        if (may_be_open_) prove_idle();
    }

    bool has_markers() const noexcept override { return HasMarkers<Adapter>; }
    CommitResult verb_commit_marked([[maybe_unused]] const char* marker) noexcept override {
        CommitResult result;
        if constexpr (HasMarkers<Adapter>) {
            result = adapter.commit(marker);
            note_doubt(result);
        }
        return result;
    }
    CommitResult verb_commit_behind([[maybe_unused]] const char* ahead,
                                    [[maybe_unused]] const char* marker) noexcept override {
        CommitResult result;
        if constexpr (HasCommitBehind<Adapter>) {
            result = adapter.commit(ahead, marker);
            note_doubt(result);
        }
        return result;
    }
    bool verb_was_committed([[maybe_unused]] const char* marker) override {
        if constexpr (HasMarkers<Adapter>)
            return adapter.was_committed(marker);
        else
            return false;
    }

private:
    // Without state() a transaction may be open after a verb that failed.

    template <class Verb>
    void noting_failure(const Verb& verb) {
        if constexpr (has_state) {
            verb();
        } else {
            try {
                verb();
            } catch (const TransactionLost&) {  // by ROLLBACK, which has done what it should
                may_be_open_ = false;
                throw;
            } catch (...) {
                may_be_open_ = true;
                throw;
            }
        }
    }

    // A COMMIT in doubt must not leave a transaction with its locks.
    void note_doubt(const CommitResult& result) noexcept {
        if constexpr (!has_state) {
            const bool proven = result.outcome == Outcome::committed || result.outcome == Outcome::rolled_back ||
                                result.outcome == Outcome::still_open;
            if (!proven && !result.lost) [[unlikely]]
                attempt([this] { verb_rollback(); });
        }
    }

    void prove_idle() {
        attempt([this] { adapter.rollback(); });
        begin_with(adapter, begin_options{});
        adapter.rollback();
        may_be_open_ = false;
    }

    bool may_be_open_ = false;
};

}  // namespace txhooks::detail

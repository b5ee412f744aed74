// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backend_adapter.hpp>
#include <txhooks/connection.hpp>
#include <txhooks/outcome.hpp>

#include <concepts>

namespace txhooks::detail {

// What a HookedConnection keeps: the Connection of one adapter. Final, so that its verbs are called directly where the
// type is known.
template <class Adapter>
class Core final : public Connection {
public:
    using begin_options = begin_options_of<Adapter>;

    static_assert(HasBegin<Adapter>,
                  "txhooks: this adapter has no begin(): write void begin() or void begin(const begin_options&)");
    static_assert(
        requires(Adapter& a) {
            { a.commit() } noexcept -> std::same_as<CommitResult>;
        }, "txhooks: this adapter has no commit(): write CommitResult commit() noexcept, which says what is proven");
    static_assert(requires(Adapter& a) { a.rollback(); }, "txhooks: this adapter has no rollback()");
    static_assert(
        HasSavepoints<Adapter> || !HasAnySavepointVerb<Adapter>,
        "txhooks: this adapter has only some of savepoint(unsigned), release(unsigned), rollback_to(unsigned): "
        "write all three, or none");
    static_assert(std::equality_comparable<begin_options> && std::default_initializable<begin_options>,
                  "txhooks: begin_options must have a default and be comparable with ==");

    template <class Backend>
    explicit Core(Backend&& backend) : adapter{backend} {}
    ~Core() override { close(); }

    Adapter adapter;

    Blocks& blocks() noexcept { return *this; }

    void verb_begin() override { verb_begin(begin_options{}); }
    void verb_begin(const begin_options& options) { begin_with(adapter, options); }
    CommitResult verb_commit() noexcept override { return adapter.commit(); }
    void verb_rollback() override { adapter.rollback(); }

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
            return in_atomic_block() ? ConnectionState::open : engine_at_rest();
    }
    Outcome verb_fate() noexcept override {
        if constexpr (requires { adapter.fate(); })
            return adapter.fate();
        else
            return Outcome::unknown;
    }
    void verb_reset() override {
        if constexpr (requires { adapter.reset(); }) adapter.reset();
    }

    bool has_markers() const noexcept override { return HasMarkers<Adapter>; }
    CommitResult verb_commit_marked([[maybe_unused]] const char* marker) noexcept override {
        if constexpr (HasMarkers<Adapter>)
            return adapter.commit(marker);
        else
            return {};
    }
    bool verb_was_committed([[maybe_unused]] const char* marker) override {
        if constexpr (HasMarkers<Adapter>)
            return adapter.was_committed(marker);
        else
            return false;
    }
};

}  // namespace txhooks::detail

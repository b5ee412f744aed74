// SPDX-License-Identifier: MIT
#pragma once

// A connection as an outbox uses it: its store, in a block of its own or in the one that is open.

#include <txhooks/detail/access.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outbox/job_store.hpp>

#include <exception>
#include <type_traits>
#include <utility>

namespace txhooks::detail {

template <class Db>
using backend_of = std::remove_cvref_t<decltype(std::declval<Db&>().backend())>;

// What HookedConnection::atomic gives a function that takes an argument.
template <class Db>
decltype(auto) session_of(Db& db) {
    if constexpr (HasSession<std::remove_reference_t<decltype(db.adapter())>>)
        return db.adapter().session();
    else
        return db.backend();
}

template <class Db>
class JobBlocks {
public:
    using Store = JobStore<backend_of<Db>>;
    using Options = options_of<Db>;
    static_assert(sizeof(CheckedStore<Store, decltype(std::declval<Db&>().backend()),
                                      decltype(session_of(std::declval<Db&>()))>) != 0);

    explicit JobBlocks(Db& db) noexcept : db_{db} {}

    void refuse_in_block(const char* text) const {
        if (db_.in_atomic_block()) throw UsageError{text};
    }

    static Options claiming() {
        Options options;
        if constexpr (requires { options.begin = Store::begin_claim(); }) options.begin = Store::begin_claim();
        return options;
    }

    static Options looking() {
        Options options;
        if constexpr (requires { options.begin = Store::begin_look(); }) options.begin = Store::begin_look();
        return options;
    }

    template <class Act>
    auto in_block(const Options& options, const Act& act) const {
        return db_.atomic(options, [&] { return with_store_here(act); });
    }
    // In the block that is open.
    template <class Act>
    auto with_store_here(const Act& act) const {
        Store store{session_of(db_)};
        return act(store);
    }

    struct NotLazily {
        template <class Backend>
        explicit NotLazily(Backend&&) noexcept {}
    };
    template <class S>
    struct LazilyOf {
        using type = NotLazily;
    };
    template <class S>
        requires requires { typename S::Lazily; }
    struct LazilyOf<S> {
        using type = typename S::Lazily;
    };
    using Lazily = typename LazilyOf<Store>::type;

    bool is_transient(const std::exception_ptr& error) const noexcept {
        if (!error) return false;
        if constexpr (requires { db_.adapter().transient(error); })
            return db_.adapter().transient(error) && db_.usable();
        return false;
    }

private:
    Db& db_;
};

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// A connection as an outbox uses it: its store, in a block of its own or in the one that is open. One for each Outbox.

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

// What a store keeps between its blocks, if it does.
struct KeepsNothing {
    void close() noexcept {}
};
template <class Store>
struct KeptBy {
    using type = KeepsNothing;
};
template <KeepsBetweenBlocks Store>
struct KeptBy<Store> {
    using type = typename Store::Kept;
};

template <class Db>
class JobBlocks {
public:
    using Store = JobStore<backend_of<Db>>;
    using Options = options_of<Db>;
    static_assert(sizeof(CheckedStore<Store, decltype(std::declval<Db&>().backend()),
                                      decltype(session_of(std::declval<Db&>()))>) != 0);

    explicit JobBlocks(Db& db) : db_{db} {}
    JobBlocks(const JobBlocks&) = delete;
    JobBlocks& operator=(const JobBlocks&) = delete;

    // The Outbox is gone.
    void close() noexcept { kept_.close(); }

    void refuse_in_block(const char* text) const {
        if (db_.in_atomic_block()) throw UsageError{text};
    }

    static Options claiming() {
        Options options;
        if constexpr (requires { options.begin = Store::begin_claim(); }) options.begin = Store::begin_claim();
        return options;
    }

    static Options settling() {
        Options options = claiming();
        if constexpr (requires { options.begin = Store::begin_settle(); }) options.begin = Store::begin_settle();
        return options;
    }

    static Options looking() {
        Options options;
        if constexpr (requires { options.begin = Store::begin_look(); }) options.begin = Store::begin_look();
        return options;
    }

    template <class Act>
    auto in_block(const Options& options, const Act& act) {
        return db_.atomic(options, [&] { return with_store_here(act); });
    }
    // In the block that is open.
    template <class Act>
    auto with_store_here(const Act& act) {
        if constexpr (KeepsBetweenBlocks<Store>) {
            Store store{session_of(db_), kept_};
            return act(store);
        } else {
            Store store{session_of(db_)};
            return act(store);
        }
    }

    // Around the block of a settlement that need not survive a crash.
    auto lazily() {
        if constexpr (requires { typename Store::Lazily; }) {
            if constexpr (KeepsBetweenBlocks<Store>)
                return typename Store::Lazily{db_.backend(), kept_};
            else
                return typename Store::Lazily{db_.backend()};
        } else {
            return NotLazily{};
        }
    }

    bool is_transient(const std::exception_ptr& error) const noexcept {
        if (!error) return false;
        if constexpr (requires { db_.adapter().transient(error); })
            return db_.adapter().transient(error) && db_.usable();
        return false;
    }

private:
    struct NotLazily {};

    Db& db_;
    typename KeptBy<Store>::type kept_;
};

}  // namespace txhooks::detail

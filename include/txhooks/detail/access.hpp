// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/options.hpp>

#include <concepts>

namespace txhooks::detail {

// What Connection and HookedConnection show of their inside.
struct Access {
    static Blocks& blocks(Connection& db) noexcept { return db; }
};

template <class Db>
concept Hooked = std::convertible_to<Db&, Connection&>;
template <class Db>
concept HookedHere = requires { typename Db::txhooks_core; };

template <class Db>
struct InsideOf {
    static_assert(Hooked<Db>,
                  "txhooks: this is not a hooked connection; wrap it first: txhooks::HookedConnection db{connection}");
    using Verbs = Blocks;
    using Options = BlockOptions<>;
};
template <HookedHere Db>
struct InsideOf<Db> {
    using Verbs = typename Db::txhooks_core;
    using Options = BlockOptions<typename Verbs::begin_options>;
};

// Who has the verbs of a connection, by its static type: Blocks, or the Core of a known adapter.
template <class Db>
using verbs_of = typename InsideOf<Db>::Verbs;
template <class Db>
using options_of = typename InsideOf<Db>::Options;

template <class Db>
Connection& connection(Db& db) noexcept {
    static_assert(Hooked<Db>,
                  "txhooks: this is not a hooked connection; wrap it first: txhooks::HookedConnection db{connection}");
    return db;
}
template <class Db>
Blocks& blocks(Db& db) noexcept {
    return Access::blocks(connection(db));
}

}  // namespace txhooks::detail

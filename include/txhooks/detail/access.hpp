// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/options.hpp>

#include <concepts>
#include <type_traits>

namespace txhooks::detail {

// What HookedConnection shows of its inside.
struct Access {
    template <class Db>
    static auto& core(Db& db) noexcept {
        return db.txhooks_;
    }
};

template <class Db>
concept Hooked = std::convertible_to<Db&, Connection&>;

template <class Db>
struct CoreOf {
    static_assert(Hooked<Db>,
                  "txhooks: this is not a hooked connection; wrap it first: txhooks::HookedConnection db{connection}");
    using type = Connection;
};
template <>
struct CoreOf<Connection> {
    using type = Connection;
};
template <class Db>
    requires requires { typename Db::txhooks_core; }
struct CoreOf<Db> {
    using type = typename Db::txhooks_core;
};

// The connection behind `Db`, by its static type: Connection, or the Core of a known adapter.
template <class Db>
using core_of = typename CoreOf<Db>::type;
template <class Db>
using options_of = BlockOptions<typename core_of<Db>::begin_options>;

template <class Db>
core_of<Db>& core(Db& db) noexcept {
    if constexpr (std::same_as<Db, Connection>)
        return db;
    else if constexpr (requires { typename Db::txhooks_core; })
        return Access::core(db);
    else
        return static_cast<Connection&>(db);
}

}  // namespace txhooks::detail

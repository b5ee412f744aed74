// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/connection.hpp>
#include <txhooks/errors.hpp>

#include <concepts>
#include <type_traits>

namespace txhooks::detail {

// Borrows a connection.
template <class Backend>
class Borrowed {
    static_assert(!std::convertible_to<Backend&, Connection&>,
                  "txhooks: this connection is hooked already; use it as it is, or pass it on as txhooks::Connection&");

public:
    explicit Borrowed(Backend& backend) noexcept : txhooks_borrowed{&backend} {}
    Borrowed(const Borrowed&) = delete;
    Borrowed& operator=(const Borrowed&) = delete;

    Backend* txhooks_borrowed;
};

// Borrows a C handle.
template <class Handle>
class BorrowedHandle {
public:
    explicit BorrowedHandle(Handle* handle) : txhooks_borrowed{handle} {
        if (handle == nullptr)
            throw UsageError{"txhooks: HookedConnection was given a null handle; open the connection first"};
    }
    BorrowedHandle(const BorrowedHandle&) = delete;
    BorrowedHandle& operator=(const BorrowedHandle&) = delete;

    Handle* txhooks_borrowed;
};

template <class Backend>
struct FinalBackend {
    static_assert(!std::is_final_v<Backend>,
                  "txhooks: this backend is final and cannot be a base class; keep it beside and use "
                  "HookedConnection<Backend&> db{backend}");
};

template <class Backend>
struct HolderOf {
    static_assert(std::is_class_v<Backend>,
                  "txhooks: HookedConnection wraps a connection class, a reference to one, or a pointer to a C handle");
    static_assert(!std::is_const_v<Backend>, "txhooks: HookedConnection needs a connection that is not const");
    static_assert(!std::convertible_to<Backend&, Connection&>, "txhooks: this connection type is hooked already");
    using type = std::conditional_t<std::is_final_v<Backend>, FinalBackend<Backend>, Backend>;
};
template <class Backend>
struct HolderOf<Backend&> {
    static_assert(!std::is_const_v<Backend>, "txhooks: HookedConnection needs a connection that is not const");
    using type = Borrowed<Backend>;
};
template <class Handle>
struct HolderOf<Handle*> {
    using type = BorrowedHandle<Handle>;
};

// The base of HookedConnection<Backend>: the backend, or what borrows it.
template <class Backend>
using holder_of = typename HolderOf<Backend>::type;

template <class Backend>
decltype(auto) held(holder_of<Backend>& holder) noexcept {
    if constexpr (std::is_reference_v<Backend>)
        return *holder.txhooks_borrowed;
    else if constexpr (std::is_pointer_v<Backend>)
        return static_cast<Backend>(holder.txhooks_borrowed);
    else
        return static_cast<Backend&>(holder);
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

namespace support {

/// Calls `act` when it is copied, with the copy's members already in place.
template <class Act>
struct OnCopy {
    explicit OnCopy(Act what) : act{std::move(what)} {}
    OnCopy(const OnCopy& other) : act{other.act} { act(); }
    OnCopy& operator=(const OnCopy&) = delete;
    ~OnCopy() = default;
    void operator()() const {}

    Act act;
};

}  // namespace support

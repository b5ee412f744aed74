// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

// Watches the global operator new, which support/allocations.cpp replaces for the whole executable. Only the calling
// thread counts. Under valgrind pass --soname-synonyms=somalloc=nouserintercepts, or it replaces ours by its own.

namespace support {

/// How often this thread has asked operator new for memory, and given it back, since this object was made.
/// Assertions allocate: read the numbers first, then check them.
class CountAllocations {
public:
    CountAllocations() noexcept;
    std::size_t made() const noexcept;
    std::size_t freed() const noexcept;

private:
    std::size_t made_before_;
    std::size_t freed_before_;
};

/// While it lives, the `nth` allocation of this thread, counted from 0 and from here, throws `std::bad_alloc`.
/// To fail each in turn: count up until `happened()` is false.
class FailAllocation {
public:
    explicit FailAllocation(std::size_t nth) noexcept;
    FailAllocation(const FailAllocation&) = delete;
    FailAllocation& operator=(const FailAllocation&) = delete;
    ~FailAllocation();

    bool happened() const noexcept;
};

}  // namespace support

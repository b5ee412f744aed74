// SPDX-License-Identifier: MIT
#include "support/allocations.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

struct Watch {
    std::size_t made = 0;
    std::size_t freed = 0;
    bool armed = false;
    bool failed = false;
    std::size_t before_failure = 0;
};
constinit thread_local Watch watch;

bool refuse() noexcept {
    if (not watch.armed) return false;
    if (watch.before_failure-- != 0) return false;
    watch.armed = false;
    watch.failed = true;
    return true;
}

void* allocate(std::size_t size, std::size_t alignment) noexcept {
    if (refuse()) return nullptr;
    if (size == 0) size = 1;
#ifdef _WIN32
    void* const memory = _aligned_malloc(size, std::max<std::size_t>(alignment, __STDCPP_DEFAULT_NEW_ALIGNMENT__));
#else
    void* const memory = alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
                             ? std::malloc(size)
                             : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
#endif
    if (memory != nullptr) ++watch.made;
    return memory;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
    void* const memory = allocate(size, alignment);
    if (memory == nullptr) throw std::bad_alloc{};
    return memory;
}

void release(void* memory) noexcept {
    if (memory == nullptr) return;
    ++watch.freed;
#ifdef _WIN32
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

constexpr std::size_t plain = 1;

std::size_t number(std::align_val_t alignment) noexcept {
    return static_cast<std::size_t>(alignment);
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate_or_throw(size, plain);
}
void* operator new[](std::size_t size) {
    return allocate_or_throw(size, plain);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, plain);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, plain);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, number(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return allocate_or_throw(size, number(alignment));
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, number(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, number(alignment));
}
void operator delete(void* memory) noexcept {
    release(memory);
}
void operator delete[](void* memory) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
    release(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
    release(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
    release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
    release(memory);
}

namespace support {

CountAllocations::CountAllocations() noexcept : made_before_{watch.made}, freed_before_{watch.freed} {}

std::size_t CountAllocations::made() const noexcept {
    return watch.made - made_before_;
}

std::size_t CountAllocations::freed() const noexcept {
    return watch.freed - freed_before_;
}

FailAllocation::FailAllocation(std::size_t nth) noexcept {
    watch.failed = false;
    watch.before_failure = nth;
    watch.armed = true;
}

FailAllocation::~FailAllocation() {
    watch.armed = false;
}

bool FailAllocation::happened() const noexcept {
    return watch.failed;
}

}  // namespace support

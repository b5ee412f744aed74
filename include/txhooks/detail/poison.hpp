// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define TXHOOKS_DETAIL_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TXHOOKS_DETAIL_ASAN
#endif
#endif

#ifdef TXHOOKS_DETAIL_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace txhooks::detail {

// Under AddressSanitizer, memory of the arena that holds no hook must not be touched; elsewhere these are nothing.
inline void poison([[maybe_unused]] const void* from, [[maybe_unused]] std::size_t size) noexcept {
#ifdef TXHOOKS_DETAIL_ASAN
#ifdef __GNUC__
    asm("" : "+r"(from));  // GCC takes the call for a read of what is not initialised yet
#endif
    __asan_poison_memory_region(from, size);
#endif
}

inline void unpoison([[maybe_unused]] const void* from, [[maybe_unused]] std::size_t size) noexcept {
#ifdef TXHOOKS_DETAIL_ASAN
    __asan_unpoison_memory_region(from, size);
#endif
}

}  // namespace txhooks::detail

#undef TXHOOKS_DETAIL_ASAN

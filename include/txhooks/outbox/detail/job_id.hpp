// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <string_view>

#ifdef _WIN32
#include <process.h>
#else
#include <unistd.h>
#endif
#ifdef __APPLE__
#include <sys/random.h>
#endif

namespace txhooks::detail {

// Milliseconds since 1970 in 48 bits, a counter in 12: no two of a process are the same, and each is more than the last.
inline std::uint64_t next_job_number() noexcept {
    static std::atomic<std::uint64_t> last{0};
    const auto since = std::chrono::system_clock::now().time_since_epoch();
    const auto clock = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since).count())
                       << 12;
    std::uint64_t before = last.load(std::memory_order_relaxed);
    std::uint64_t next = 0;
    do next = before < clock ? clock : before + 1;
    while (!last.compare_exchange_weak(before, next, std::memory_order_relaxed));
    return next;
}

// The system's, so that a process and its child do not make the same ones.
inline std::uint64_t random_bits() {
#ifndef _WIN32
    std::uint64_t bits = 0;  // std::random_device takes twenty times as long where RDRAND is slow
    if (getentropy(&bits, sizeof bits) == 0) return bits;
#endif
    std::random_device random;
    return static_cast<std::uint64_t>(random()) << 32 | random();
}

// A UUIDv7 (RFC 9562).
inline std::string make_job_id() {
    const std::uint64_t number = next_job_number();
    const std::uint64_t bits = random_bits();
    const auto high = static_cast<std::uint32_t>(bits >> 32), low = static_cast<std::uint32_t>(bits);
    char text[37];
    std::snprintf(text, sizeof text, "%08x-%04x-7%03x-%04x-%04x%08x", static_cast<unsigned>(number >> 28),
                  static_cast<unsigned>(number >> 12 & 0xffff), static_cast<unsigned>(number & 0xfff),
                  static_cast<unsigned>(0x8000 | (high >> 16 & 0x3fff)), static_cast<unsigned>(high & 0xffff),
                  static_cast<unsigned>(low));
    return text;
}

// Who has a job: host and process.
inline std::string job_holder() {
    char host[65] = "localhost";
#ifdef _WIN32
    const int process = _getpid();
#else
    static_cast<void>(gethostname(host, sizeof host - 1));
    const int process = static_cast<int>(getpid());
#endif
    std::string holder;
    for (const char c : std::string_view{host}) holder += (c > ' ' && c < '\x7f' && c != '\'' && c != '\\') ? c : '_';
    return holder + ':' + std::to_string(process);
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef _WIN32
#include <process.h>
#include <random>
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
#ifdef _WIN32
    std::random_device random;
    return static_cast<std::uint64_t>(random()) << 32 | random();
#else
    std::uint64_t bits = 0;  // std::random_device takes twenty times as long where RDRAND is slow
    if (getentropy(&bits, sizeof bits) != 0)
        throw std::runtime_error{"txhooks: the system gives no random bits (getentropy) for the id of a job"};
    return bits;
#endif
}

// A UUIDv7 (RFC 9562).
inline std::string make_job_id() {
    const std::uint64_t number = next_job_number();
    const std::uint64_t high = number >> 12 << 16 | 0x7000 | (number & 0xfff);
    const std::uint64_t low = std::uint64_t{2} << 62 | random_bits() >> 2;
    std::string id(36, '-');
    std::size_t at = 0;
    for (unsigned digit = 0; digit != 32; ++digit) {
        if (digit == 8 || digit == 12 || digit == 16 || digit == 20) ++at;
        const std::uint64_t half = digit < 16 ? high : low;
        id[at++] = "0123456789abcdef"[half >> (60 - digit % 16 * 4) & 15];
    }
    return id;
}

struct HostName {
    HostName() noexcept {
#ifndef _WIN32
        static_cast<void>(gethostname(text, sizeof text - 1));
#endif
        for (char* c = text; *c != '\0'; ++c)
            if (*c <= ' ' || *c >= '\x7f' || *c == '\'' || *c == '\\') *c = '_';
    }
    char text[65] = "localhost";
};

// Who has a job: host and process, which is another one after fork().
inline std::string job_holder() {
    static const HostName host;
#ifdef _WIN32
    const int process = _getpid();
#else
    const int process = static_cast<int>(getpid());
#endif
    return std::string{host.text} + ':' + std::to_string(process);
}

}  // namespace txhooks::detail

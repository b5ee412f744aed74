// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace random_programs {

/// Where every decision about a program comes from: a seeded generator, or the bytes of a fuzzer. Bytes that have run
/// out are zeros, and 0 is always the plainest choice.
class Dice {
public:
    explicit Dice(std::uint64_t seed) : engine_{seed} {}
    Dice(const std::uint8_t* bytes, std::size_t size) : bytes_{bytes}, end_{bytes + size} {}

    /// A number from 0 to n - 1.
    unsigned below(unsigned n) {
        std::uint64_t number = bytes_ == nullptr ? engine_() >> 16 : byte();
        if (bytes_ != nullptr and n > 256) number = number << 24 | byte() << 16 | byte() << 8 | byte();
        return static_cast<unsigned>(number % n);
    }

    bool one_in(unsigned n) { return below(n) == n - 1; }

    template <class Enum>
    Enum pick(unsigned n) {
        return static_cast<Enum>(below(n));
    }

private:
    std::uint64_t byte() { return bytes_ == end_ ? 0 : *bytes_++; }

    std::mt19937_64 engine_;
    const std::uint8_t* bytes_ = nullptr;
    const std::uint8_t* end_ = nullptr;
};

}  // namespace random_programs

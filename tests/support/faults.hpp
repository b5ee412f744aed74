// SPDX-License-Identifier: MIT
#pragma once

// Every verb that fails, before or after its effect, with an exception of every kind.

#include "support/exceptions.hpp"

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/faults.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace support {

using txhooks::testing::Verb;
using txhooks::testing::When;

enum class Kind { own, an_int, odd, loss };

/// One verb that fails.
struct Fault {
    Verb verb;
    When when;
    Kind kind;
    std::size_t nth;

    /// `number` is part of what the failure is called: "failure 1", "1", "odd 1".
    void plan(txhooks::testing::Faults& faults, int number) const {
        switch (kind) {
            case Kind::own:
                return faults.fail(verb, when, txhooks::testing::FakeError{"failure " + std::to_string(number)}, nth);
            case Kind::an_int:
                return faults.fail(verb, when, number, nth);
            case Kind::odd:
                return faults.fail(verb, when, Odd{number}, nth);
            case Kind::loss:
                return faults.lose_connection(verb, when, nth);
        }
    }

    std::string name() const {
        static constexpr const char* verbs[] = {"begin", "commit", "rollback", "savepoint", "release", "rollback_to"};
        static constexpr const char* kinds[] = {"own exception", "int", "odd exception", "loss"};
        return "(" + std::string{verbs[static_cast<int>(verb)]} + " " + std::to_string(nth) + ": " +
               kinds[static_cast<int>(kind)] + (when == When::before_effect ? " before" : " after") + " effect)";
    }
};

inline constexpr Verb all_verbs[] = {Verb::begin,     Verb::commit,  Verb::rollback,
                                     Verb::savepoint, Verb::release, Verb::rollback_to};

inline std::vector<Fault> all_faults(std::size_t nth, std::vector<Kind> kinds) {
    std::vector<Fault> faults;
    for (const Verb verb : all_verbs)
        for (const When when : {When::before_effect, When::after_effect})
            for (const Kind kind : kinds)
                for (std::size_t n = 1; n <= nth; ++n) faults.push_back({verb, when, kind, n});
    return faults;
}

}  // namespace support

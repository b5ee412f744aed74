// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"

#include <txhooks/testing/faults.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace random_programs {

/// What trouble was made, and whether user code was told of a failure.
struct Said {
    std::string what;
    bool failed = false;
    bool raw = false;       // it was SQL that ends the transaction
    bool harmless = false;  // it cannot be the reason for a loss
};

/// Small numbers out of a large one.
class Numbers {
public:
    explicit Numbers(std::uint32_t number) : number_{number} {}
    unsigned below(unsigned n) {
        const unsigned digit = number_ % n;
        number_ /= n;
        return digit;
    }
    template <class Enum>
    Enum pick(unsigned n) {
        return static_cast<Enum>(below(n));
    }

private:
    std::uint32_t number_;
};

/// What user code may do behind the block's back.
inline constexpr const char* raw_statements[] = {"ROLLBACK", "COMMIT", "ROLLBACK; BEGIN", "COMMIT; BEGIN",
                                                 "ROLLBACK; BEGIN; COMMIT"};

inline const char* text(txhooks::testing::Verb verb) {
    constexpr const char* texts[] = {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "ROLLBACK TO"};
    return texts[static_cast<std::size_t>(verb)];
}
inline const char* text(txhooks::testing::When when) {
    return when == txhooks::testing::When::before_effect ? "before effect" : "after effect";
}

/// Plans the failure of a verb; returns what it is.
inline std::string plan_fault(txhooks::testing::Faults& faults, Numbers& numbers) {
    const auto verb = numbers.pick<txhooks::testing::Verb>(6);
    const auto when = numbers.pick<txhooks::testing::When>(2);
    const std::size_t nth = 1 + numbers.below(2);
    const std::string what = std::string{text(verb)} + " will fail " + text(when);
    switch (numbers.below(4)) {
        case 0:
            faults.fail(verb, when, 42, nth);
            return what + " with an int";
        case 1:
            faults.lose_connection(verb, when, nth);
            return what + " and lose the connection";
        default:
            faults.fail(verb, when, Deliberate{}, nth);
            return what;
    }
}

/// One failure, or two that meet.
inline Said plan_faults(txhooks::testing::Faults& faults, Numbers& numbers) {
    using namespace txhooks::testing;
    switch (numbers.below(6)) {
        case 0: {
            const std::string first = plan_fault(faults, numbers);
            return {first + ", and " + plan_fault(faults, numbers)};
        }
        case 1:
            faults.fail(Verb::savepoint, When::after_effect, Deliberate{});
            faults.fail(Verb::release, When::after_effect, Deliberate{}, 1 + numbers.below(2));
            return {"SAVEPOINT will leave a stray one, and RELEASE will fail after effect"};
        default:
            return {plan_fault(faults, numbers)};
    }
}

}  // namespace random_programs

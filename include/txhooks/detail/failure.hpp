// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/forced_unwind.hpp>
#include <txhooks/errors.hpp>

#include <exception>

namespace txhooks::detail {

// How a call failed, if it did. That is never told by `error` alone: an exception of another language leaves it null.
struct Failure {
    bool failed = false;
    bool lost = false;  // `error` is a TransactionLost
    std::exception_ptr error = nullptr;

    explicit operator bool() const noexcept { return failed; }

    // What is being handled.
    static Failure current() noexcept { return {true, false, std::current_exception()}; }

    // Throws it again. One of another language is gone since its handler was left: another stands in, with `outcome`.
    [[noreturn, gnu::cold]] void rethrow(Outcome outcome = Outcome::unknown) const {
        if (error) std::rethrow_exception(error);
        throw EngineError{0, "", "txhooks: the database connection threw an exception of another language", outcome};
    }
};

// Does `act`, which may be code of the user's. Its failure is looked at outside of any handler: in one, an exception of
// another language could not be caught.
template <class Act>
Failure attempt(const Act& act) {
    Failure failure;
    try {
        act();
    } catch (const ForcedUnwind&) {
        throw;
    } catch (...) {
        failure = Failure::current();
    }
    return failure;
}

}  // namespace txhooks::detail

// SPDX-License-Identifier: MIT
#pragma once

// What the tests throw, and how every exception that they meet is called.

#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace support {

/// What a user's function throws when it fails.
struct Oops : std::runtime_error {
    Oops() : std::runtime_error{"oops"} {}
};

/// Not a std::exception.
struct Odd {
    int number;
};

inline std::string name(txhooks::Outcome outcome) {
    switch (outcome) {
        case txhooks::Outcome::committed:
            return "committed";
        case txhooks::Outcome::rolled_back:
            return "rolled_back";
        case txhooks::Outcome::still_open:
            return "still_open";
        case txhooks::Outcome::unknown:
            return "unknown";
    }
    return "?";
}

/// What an error of the engine is called: by its number (MariaDB's, from 1000 on) or its SQLSTATE (PostgreSQL's). The scene
/// of another engine may know better.
inline std::string (*engine_error_name)(const txhooks::EngineError&) = [](const txhooks::EngineError& e) {
    if (e.code() >= 1000) return std::to_string(e.code());
    return std::string{*e.sqlstate() != '\0' ? e.sqlstate() : "without SQLSTATE"};
};

/// What an exception that is not ours is called: by its text. The scene of a driver that throws may know better.
inline std::string (*driver_error_name)(const std::exception&) = [](const std::exception& e) {
    return std::string{e.what()};
};

/// An exception in a few words, "none" for null. One of ours: its type, what became of the transaction, and what led to it
/// ("CommitUnknown unknown <- oops"). Another's: its text, or its number.
inline std::string name_of(const std::exception_ptr& error) {
    if (not error) return "none";
    const auto ours = [](const std::string& type, const txhooks::Error& e) {
        std::string text = type + ' ' + name(e.outcome());
        if (e.cause()) text += " <- " + name_of(e.cause());
        return text;
    };
    try {
        std::rethrow_exception(error);
    } catch (const txhooks::EngineError& e) {
        return ours("EngineError " + engine_error_name(e), e);
    } catch (const txhooks::TransactionLost& e) {
        return ours("TransactionLost", e);
    } catch (const txhooks::TransactionAborted& e) {
        return ours("TransactionAborted", e);
    } catch (const txhooks::CommitUnknown& e) {
        return ours("CommitUnknown", e);
    } catch (const txhooks::HookError& e) {
        return ours("HookError", e);
    } catch (const txhooks::ConnectionBroken&) {
        return "ConnectionBroken";
    } catch (const txhooks::UsageError&) {
        return "UsageError";
    } catch (const std::exception& e) {
        return driver_error_name(e);
    } catch (int number) {
        return std::to_string(number);
    } catch (const Odd& odd) {
        return "odd " + std::to_string(odd.number);
    } catch (...) {
        return "?";
    }
}

/// How a call ended: what it returned, or the name of what it threw ("foreign" for what is no C++ exception).
template <class Fn>
std::string ending(Fn&& fn) {
    try {
        if constexpr (std::is_same_v<decltype(fn()), txhooks::Outcome>) {
            return name(fn());
        } else {
            fn();
            return "returned";
        }
    } catch (...) {
        const std::exception_ptr error = std::current_exception();
        return error ? name_of(error) : "foreign";
    }
}

/// `text` up to the cause.
inline std::string without_cause(const std::string& text) {
    return text.substr(0, text.find(" <- "));
}

/// The `Error` that `act()` throws. Another exception passes through, none is an exception too: both fail the test.
template <class Error, class Act>
Error thrown_by(Act act) {
    try {
        act();
    } catch (const Error& error) {
        return error;
    }
    throw std::logic_error{"nothing was thrown"};
}

}  // namespace support

// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>

#include <exception>
#include <string>
#include <type_traits>

namespace support {

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

/// An exception in a few words: its type, what became of the transaction, and what led to it.
inline std::string describe(const std::exception_ptr& error) {
    const auto ours = [](const std::string& type, const txhooks::Error& e) {
        std::string text = type + ' ' + name(e.outcome());
        if (e.cause()) text += " <- " + describe(e.cause());
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
        return e.what();
    }
}

/// How a call ended: what it returned, or the exception in a few words.
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
        return describe(std::current_exception());
    }
}

/// `text` up to the cause.
inline std::string without_cause(const std::string& text) {
    return text.substr(0, text.find(" <- "));
}

}  // namespace support

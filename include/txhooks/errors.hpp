// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/outcome.hpp>

#include <cstddef>
#include <cstdio>
#include <exception>

namespace txhooks {

/// The root of everything this library throws of its own. `outcome()` answers "may I retry?":
/// not after `Outcome::committed`, and not after `Outcome::unknown` before the doubt is resolved.
class Error : public std::exception {
public:
    const char* what() const noexcept override { return text_; }

    /// What became of the transaction the failed call was about; `still_open`: the call changed nothing.
    Outcome outcome() const noexcept { return outcome_; }

    /// The exception that led to this one, or null.
    const std::exception_ptr& cause() const noexcept { return cause_; }

protected:
    Error(Outcome outcome, const char* literal, std::exception_ptr cause = nullptr) noexcept
        : text_{literal}, cause_{static_cast<std::exception_ptr&&>(cause)}, outcome_{outcome} {}

private:
    const char* text_;
    std::exception_ptr cause_;
    Outcome outcome_;
};

// Family 1: not committed.

/// The library was used in a way that has no meaning; the text says what to do instead. The call did nothing.
class UsageError final : public Error {
public:
    /// `literal` must outlive the exception: a string literal.
    explicit UsageError(const char* literal) noexcept : Error{Outcome::still_open, literal} {}
};

/// The transaction, or the nested block, could only roll back, and did.
class TransactionAborted final : public Error {
public:
    explicit TransactionAborted(std::exception_ptr cause = nullptr) noexcept
        : Error{Outcome::rolled_back,
                "txhooks: the block was rolled back instead of committed, because something in it failed; cause() has "
                "the first failure where it was seen",
                static_cast<std::exception_ptr&&>(cause)} {}
};

/// The connection is gone, or a ROLLBACK failed or a COMMIT was left in doubt on it earlier. The call did nothing.
class ConnectionBroken final : public Error {
public:
    ConnectionBroken() noexcept
        : Error{Outcome::rolled_back,
                "txhooks: this connection is broken: it is gone, or a ROLLBACK failed on it, or a COMMIT was left in "
                "doubt; end or reconnect the engine's session, then call reset(), or use a new connection"} {}
};

/// What an engine without exceptions of its own (a C handle) reported.
class EngineError final : public Error {
public:
    /// `code` is the engine's own, `sqlstate` five characters or empty; both texts are copied (`text` up to 400 bytes).
    EngineError(int code, const char* sqlstate, const char* text, Outcome outcome = Outcome::rolled_back) noexcept
        : Error{outcome, ""}, code_{code} {
        std::snprintf(sqlstate_, sizeof sqlstate_, "%s", sqlstate);
        std::snprintf(text_, sizeof text_, "%s", text);
    }

    const char* what() const noexcept override { return text_; }
    int code() const noexcept { return code_; }
    const char* sqlstate() const noexcept { return sqlstate_; }

private:
    int code_;
    char sqlstate_[6];
    char text_[400];
};

// Family 2: may have committed.

/// COMMIT was sent and nothing proves how it ended. No hook has run; the connection is broken.
/// Find out from a fresh connection; the library never retries.
class CommitUnknown final : public Error {
public:
    explicit CommitUnknown(std::exception_ptr cause) noexcept
        : Error{Outcome::unknown,
                "txhooks: nothing proves how the COMMIT ended: the data may or may not be there and no hook was run; "
                "look with a fresh connection before doing the work again",
                static_cast<std::exception_ptr&&>(cause)} {}
};

/// The transaction ended behind the block's back: raw COMMIT or ROLLBACK, a conflict clause, a reconnect.
/// None of its hooks has run or will. `outcome()` says what became of it: `rolled_back`, `committed` or `unknown`.
class TransactionLost final : public Error {
public:
    explicit TransactionLost(Outcome outcome, std::exception_ptr cause = nullptr) noexcept
        : Error{outcome, text(outcome), static_cast<std::exception_ptr&&>(cause)} {}

private:
    static const char* text(Outcome outcome) noexcept {
        switch (outcome) {
            case Outcome::committed:
                return "txhooks: the transaction was committed behind the block's back (raw COMMIT?); its hooks are "
                       "discarded";
            case Outcome::rolled_back:
                return "txhooks: the transaction was rolled back behind the block's back (raw ROLLBACK, a conflict "
                       "clause, the engine itself?); its hooks are discarded";
            default:
                return "txhooks: the transaction ended behind the block's back (raw COMMIT or ROLLBACK, a conflict "
                       "clause, a reconnect?) and may have been committed; its hooks are discarded";
        }
    }
};

// Family 3: committed.

/// A hook threw. The transaction is committed all the same: never do its work again.
class HookError final : public Error {
public:
    /// `position` counts from 0 in order of registration.
    HookError(std::size_t position, std::size_t not_run, std::size_t failed, std::exception_ptr cause) noexcept
        : Error{Outcome::committed, "", static_cast<std::exception_ptr&&>(cause)},
          position_{position},
          not_run_{not_run},
          failed_{failed} {
        std::snprintf(text_, sizeof text_,
                      "txhooks: the transaction is committed, but hook number %zu threw (cause() has the exception); "
                      "%zu failed, %zu did not run",
                      position + 1, failed, not_run);
    }

    const char* what() const noexcept override { return text_; }
    /// The place of the first hook that failed, from 0, in the order of registration.
    std::size_t position() const noexcept { return position_; }
    /// How many hooks of the transaction were discarded without running.
    std::size_t not_run() const noexcept { return not_run_; }
    /// How many hooks failed.
    std::size_t failed() const noexcept { return failed_; }

private:
    std::size_t position_;
    std::size_t not_run_;
    std::size_t failed_;
    char text_[200];
};

}  // namespace txhooks

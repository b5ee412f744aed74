// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/exception_text.hpp>
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

    /// The exception that led to this one. Null: there was none, or it was one of another language, which no
    /// `exception_ptr` can hold.
    const std::exception_ptr& cause() const noexcept { return cause_; }

protected:
    Error(Outcome outcome, const char* literal, std::exception_ptr cause = nullptr) noexcept
        : text_{literal}, cause_{static_cast<std::exception_ptr&&>(cause)}, outcome_{outcome} {}

private:
    const char* text_;
    std::exception_ptr cause_;
    Outcome outcome_;
};

namespace detail {

// An error whose text ends with that of its cause.
class CausedError : public Error {
public:
    const char* what() const noexcept override { return text_; }

protected:
    CausedError(Outcome outcome, std::exception_ptr cause) noexcept
        : Error{outcome, "", static_cast<std::exception_ptr&&>(cause)} {}

    // The text is `sentence` and, of what the cause says, up to 399 bytes.
    void say(const char* sentence) noexcept {
        char* const end = text_ + copy_text(text_, sizeof text_ - longest_cause - 2, sentence);
        if (!cause()) return;
        with_text_of(cause(), [end](const char* text) {
            end[0] = ':';
            end[1] = ' ';
            copy_text(end + 2, longest_cause, text);
        });
    }

private:
    static constexpr std::size_t longest_cause = 400;
    char text_[longest_cause + 240];
};

}  // namespace detail

// Family 1: not committed.

/// The library was used in a way that has no meaning; the text says what to do instead. The call did nothing;
/// but where a hook before COMMIT left a guard open, all is rolled back.
class UsageError final : public Error {
public:
    /// `literal` must outlive the exception: a string literal.
    explicit UsageError(const char* literal, Outcome outcome = Outcome::still_open) noexcept
        : Error{outcome, literal} {}
};

/// The transaction, or the nested block, could only roll back, and did.
/// The text ends with that of the first failure, where it was seen.
class TransactionAborted final : public detail::CausedError {
public:
    explicit TransactionAborted(std::exception_ptr cause = nullptr) noexcept
        : CausedError{Outcome::rolled_back, static_cast<std::exception_ptr&&>(cause)} {
        say("txhooks: the block was rolled back instead of committed, because something in it failed");
    }
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
    /// `code` is the engine's own, `sqlstate` five characters or empty; both texts are copied (`text` up to 399 bytes).
    EngineError(int code, const char* sqlstate, const char* text, Outcome outcome = Outcome::rolled_back) noexcept
        : Error{outcome, ""}, code_{code} {
        std::snprintf(sqlstate_, sizeof sqlstate_, "%s", sqlstate);
        detail::copy_text(text_, sizeof text_, text);
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

/// COMMIT was sent and nothing proves how it ended. No commit hook has run; the connection is broken.
/// Find out from a fresh connection; the library never retries.
class CommitUnknown final : public detail::CausedError {
public:
    explicit CommitUnknown(std::exception_ptr cause) noexcept
        : CausedError{Outcome::unknown, static_cast<std::exception_ptr&&>(cause)} {
        say("txhooks: nothing proves how the COMMIT ended: the data may or may not be there and no hook was run; look "
            "with a fresh connection before doing the work again");
    }
};

/// The transaction ended behind the block's back: raw COMMIT or ROLLBACK, a conflict clause, a reconnect.
/// None of its commit hooks has run or will. `outcome()` says what became of it: `rolled_back`, `committed` or `unknown`.
class TransactionLost final : public detail::CausedError {
public:
    explicit TransactionLost(Outcome outcome, std::exception_ptr cause = nullptr) noexcept
        : CausedError{known(outcome), static_cast<std::exception_ptr&&>(cause)} {
        say(sentence(outcome));
    }

private:
    // Whatever is neither proves nothing.
    static Outcome known(Outcome outcome) noexcept {
        return outcome == Outcome::committed || outcome == Outcome::rolled_back ? outcome : Outcome::unknown;
    }

    static const char* sentence(Outcome outcome) noexcept {
        if (outcome == Outcome::committed)
            return "txhooks: the transaction was committed behind the block's back (raw COMMIT?); its hooks are "
                   "discarded";
        if (outcome == Outcome::rolled_back)
            return "txhooks: the transaction was rolled back behind the block's back (raw ROLLBACK, a conflict clause, "
                   "the engine itself?); its hooks are discarded";
        return "txhooks: the transaction ended behind the block's back (raw COMMIT or ROLLBACK, a conflict clause, a "
               "reconnect?) and may have been committed; its hooks are discarded";
    }
};

// Family 3: committed.

/// A hook threw. The transaction is committed all the same: never do its work again.
class HookError final : public detail::CausedError {
public:
    /// `position` counts from 0 in order of registration. A null `cause`: an exception of another language.
    HookError(std::size_t position, std::size_t not_run, std::size_t failed, std::exception_ptr cause) noexcept
        : CausedError{Outcome::committed, static_cast<std::exception_ptr&&>(cause)},
          position_{position},
          not_run_{not_run},
          failed_{failed} {
        char sentence[200];
        std::snprintf(
            sentence, sizeof sentence,
            "txhooks: the transaction is committed, but hook number %zu threw%s (%zu failed, %zu did not run)",
            position + 1, this->cause() ? "" : " an exception of another language", failed, not_run);
        say(sentence);
    }

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
};

}  // namespace txhooks

// SPDX-License-Identifier: MIT
#pragma once

#include "program.hpp"

#include <txhooks/errors.hpp>

#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace random_programs {

/// What the programs throw.
class Deliberate : public std::runtime_error {
public:
    Deliberate() : std::runtime_error{"thrown on purpose"} {}
};

/// How a block ended, as its caller was told.
enum class Told : unsigned char {
    committed,
    rolled_back,
    hook_error,
    aborted,
    misuse,
    unknown,
    lost,
    broken,
    std_exception,
    integer,
};

inline const char* text(Told told) {
    constexpr const char* texts[] = {
        "committed",     "rolled back",     "committed, HookError", "TransactionAborted", "UsageError",
        "CommitUnknown", "TransactionLost", "ConnectionBroken",     "std::exception",     "int"};
    return texts[static_cast<std::size_t>(told)];
}

inline const char* text(Kind kind) {
    constexpr const char* texts[] = {"on_commit", "before_commit", "on_rollback", "unless_committed"};
    return texts[static_cast<std::size_t>(kind)];
}

inline const char* text(txhooks::Outcome outcome) {
    constexpr const char* texts[] = {"committed", "rolled back", "still open", "unknown"};
    return texts[static_cast<std::size_t>(outcome)];
}

inline Told told_by(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const txhooks::HookError&) {
        return Told::hook_error;
    } catch (const txhooks::TransactionAborted&) {
        return Told::aborted;
    } catch (const txhooks::UsageError&) {
        return Told::misuse;
    } catch (const txhooks::CommitUnknown&) {
        return Told::unknown;
    } catch (const txhooks::TransactionLost&) {
        return Told::lost;
    } catch (const txhooks::ConnectionBroken&) {
        return Told::broken;
    } catch (const std::exception&) {
        return Told::std_exception;
    } catch (...) {
        return Told::integer;
    }
}

/// What is compared with the reference model, in order.
struct Event {
    enum class What : unsigned char { ran, destroyed, ended };
    What what;
    unsigned id;
    Told told = Told::committed;

    friend bool operator==(const Event&, const Event&) = default;
};

inline std::string text(const Event& event) {
    const std::string id = std::to_string(event.id);
    if (event.what == Event::What::ran) return "hook " + id + " ran";
    if (event.what == Event::What::destroyed) return "hook " + id + " was destroyed";
    return "block " + id + " ended: " + text(event.told);
}

/// What happened, added up.
struct Counts {
    unsigned long programs, modelled;
    unsigned long outermost, nested, refused;
    unsigned long committed, hook_error, rolled_back, aborted, retried, unknown;
    unsigned long lost_rolled_back, lost_committed, lost_unknown;
    unsigned long resolved_committed, resolved_rolled_back;
    unsigned long recovered;
    unsigned long hooks, at_once, threw, discarded;
    unsigned long ran[kinds];                    // hooks of each kind, in blocks or outside
    unsigned long dropped, in_doubt, were_lost;  // commit hooks: another failed before them, the transaction is ...
    unsigned long violations;

    unsigned long blocks() const { return outermost + nested; }
    unsigned long& ran_of(Kind kind) { return ran[static_cast<std::size_t>(kind)]; }
};

}  // namespace random_programs

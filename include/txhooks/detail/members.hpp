// SPDX-License-Identifier: MIT
#pragma once

// What a class has of the members that an adapter can have. One of a known name that does not fit is refused.

#include <txhooks/options.hpp>
#include <txhooks/outcome.hpp>

#include <concepts>
#include <exception>
#include <type_traits>

namespace txhooks::detail {

template <class T>
struct BeginOptionsOf {
    using type = NoBeginOptions;
};
template <class T>
    requires requires { typename T::begin_options; }
struct BeginOptionsOf<T> {
    using type = typename T::begin_options;
};
template <class T>
using begin_options_of = typename BeginOptionsOf<T>::type;

// BEGIN, with options if it takes any.
template <class T, class Options>
void begin_with(T& target, const Options& options) {
    if constexpr (requires { target.begin(options); })
        target.begin(options);
    else
        target.begin();
}

// ---- As it has to be

template <class T>
concept TakesBeginOptions = requires(T& t, const begin_options_of<T>& options) {
    { t.begin(options) } -> std::same_as<void>;
};
template <class T>
concept HasBegin = TakesBeginOptions<T> || (std::same_as<begin_options_of<T>, NoBeginOptions> && requires(T& t) {
                       { t.begin() } -> std::same_as<void>;
                   });
template <class T>
concept HasProof = requires(T& t) {
    { t.commit() } noexcept -> std::same_as<CommitResult>;
};
template <class T>
concept HasRollback = requires(T& t) {
    { t.rollback() } -> std::same_as<void>;
};
template <class T>
concept HasSavepoints = requires(T& t, unsigned n) {
    { t.savepoint(n) } -> std::same_as<void>;
    { t.release(n) } -> std::same_as<void>;
    { t.rollback_to(n) } -> std::same_as<void>;
};
template <class T>
concept HasState = requires(const T& t) {
    { t.state() } noexcept -> std::same_as<ConnectionState>;
};
template <class T>
concept HasStateBeforeBegin = HasState<T> && requires(const T& t) {
    { t.state_before_begin() } noexcept -> std::same_as<ConnectionState>;
};
template <class T>
concept HasFate = requires(T& t) {
    { t.fate() } noexcept -> std::same_as<Outcome>;
};
template <class T>
concept HasInAnotherProcess = requires(const T& t) {
    { t.in_another_process() } noexcept -> std::same_as<bool>;
};
template <class T>
concept HasMarkers = requires(T& t, const char* marker) {
    { t.commit(marker) } noexcept -> std::same_as<CommitResult>;
    { t.was_committed(marker) } -> std::same_as<bool>;
};
template <class T>
concept HasCommitBehind = requires(T& t, const char* text) {
    { t.commit(text, text) } noexcept -> std::same_as<CommitResult>;
};
template <class T>
concept HasTransient = requires(const T& t, const std::exception_ptr& error) {
    { t.transient(error) } noexcept -> std::same_as<bool>;
};
template <class T>
concept HasRolledBackBy = requires(const T& t, const std::exception_ptr& error) {
    { t.rolled_back_by(error) } noexcept -> std::same_as<bool>;
};
template <class T>
concept HasReset = requires(T& t) {
    { t.reset() } -> std::same_as<void>;
};
template <class T>
concept HasSession = requires(T& t) { requires !std::is_void_v<decltype(t.session())>; };
template <class T>
concept HasReadOnly = requires(const T& options) {
    { options.read_only } -> std::same_as<const bool&>;
};

// ---- By name, however it is declared

// Each is a class with a member of that name, and a function that takes the address of another class's.
struct SavepointName {
    int savepoint;
    template <class T>
    static auto in() -> decltype(&T::savepoint);
};
struct ReleaseName {
    int release;
    template <class T>
    static auto in() -> decltype(&T::release);
};
struct RollbackToName {
    int rollback_to;
    template <class T>
    static auto in() -> decltype(&T::rollback_to);
};
struct StateName {
    int state;
    template <class T>
    static auto in() -> decltype(&T::state);
};
struct StateBeforeBeginName {
    int state_before_begin;
    template <class T>
    static auto in() -> decltype(&T::state_before_begin);
};
struct FateName {
    int fate;
    template <class T>
    static auto in() -> decltype(&T::fate);
};
struct InAnotherProcessName {
    int in_another_process;
    template <class T>
    static auto in() -> decltype(&T::in_another_process);
};
struct WasCommittedName {
    int was_committed;
    template <class T>
    static auto in() -> decltype(&T::was_committed);
};
struct TransientName {
    int transient;
    template <class T>
    static auto in() -> decltype(&T::transient);
};
struct RolledBackByName {
    int rolled_back_by;
    template <class T>
    static auto in() -> decltype(&T::rolled_back_by);
};
struct ResetName {
    int reset;
    template <class T>
    static auto in() -> decltype(&T::reset);
};
struct SessionName {
    int session;
    template <class T>
    static auto in() -> decltype(&T::session);
};
struct ReadOnlyName {
    int read_only;
    template <class T>
    static auto in() -> decltype(&T::read_only);
};

// What both have is ambiguous in here, so that its address cannot be taken; that of an overloaded or a private member
// of `T` alone could not be taken either.
template <class T, class Name>
struct Beside : T, Name {
protected:
    ~Beside() = default;
};
// Where that cannot be tried, or a `requires` may have put the member aside, it counts if its address can be taken.
template <class T>
concept CanBeBeside = std::is_class_v<T> && !std::is_final_v<T> && !requires { typename T::conditional_members; };

template <class T, class Name>
concept Names = (CanBeBeside<T> && !requires { Name::template in<Beside<T, Name>>(); }) ||
                (!CanBeBeside<T> && requires { Name::template in<T>(); });

// ---- Refused in a sentence, never ignored

// What a backend as it stands and an adapter can both have.
template <class T>
struct CheckedVerbs {
    static_assert(HasBegin<T>,
                  "txhooks: this adapter has no begin(): write void begin() or, if it has a nested type begin_options, "
                  "void begin(const begin_options&), which throws when it fails: a result would be ignored");
    static_assert(
        HasRollback<T>,
        "txhooks: this adapter has no rollback(): write void rollback(), which throws when it fails: a result "
        "would be ignored");
    static_assert(
        HasSavepoints<T> || !(Names<T, SavepointName> || Names<T, ReleaseName> || Names<T, RollbackToName>),
        "txhooks: this adapter has only some of savepoint(unsigned), release(unsigned), rollback_to(unsigned), "
        "or they do not fit: write all three, or none, public, void and throwing when they fail");
    static_assert(
        HasState<T> || !Names<T, StateName>,
        "txhooks: state() of this adapter does not fit: write ConnectionState state() const noexcept, public");
    static_assert(HasStateBeforeBegin<T> || !Names<T, StateBeforeBeginName>,
                  "txhooks: state_before_begin() of this adapter does not fit: write ConnectionState "
                  "state_before_begin() const noexcept, public, beside state()");
    static_assert(HasFate<T> || !Names<T, FateName>,
                  "txhooks: fate() of this adapter does not fit: write Outcome fate() noexcept, public");
    static_assert(HasInAnotherProcess<T> || !Names<T, InAnotherProcessName>,
                  "txhooks: in_another_process() of this adapter does not fit: write bool in_another_process() const "
                  "noexcept, public");
    static_assert(HasMarkers<T> || !(Names<T, WasCommittedName> || requires(T& t, const char* m) { t.commit(m); }),
                  "txhooks: this adapter has only one of commit(marker) and was_committed(marker), or they do not fit: "
                  "write CommitResult commit(const char*) noexcept and bool was_committed(const char*), public");
    static_assert(
        HasCommitBehind<T> || !requires(T& t, const char* text) { t.commit(text, text); },
        "txhooks: commit(ahead, marker) of this adapter does not fit: write CommitResult commit(const char*, "
        "const char*) noexcept, public");
    static_assert(HasTransient<T> || !Names<T, TransientName>,
                  "txhooks: transient() of this adapter does not fit: write bool transient(const std::exception_ptr&) "
                  "const noexcept, public");
    static_assert(HasRolledBackBy<T> || !Names<T, RolledBackByName>,
                  "txhooks: rolled_back_by() of this adapter does not fit: write bool rolled_back_by(const "
                  "std::exception_ptr&) const noexcept, public");

    using begin_options = begin_options_of<T>;
    static_assert(std::equality_comparable<begin_options> && std::default_initializable<begin_options>,
                  "txhooks: begin_options must have a default and be comparable with ==");
    static_assert(HasReadOnly<begin_options> || !Names<begin_options, ReadOnlyName>,
                  "txhooks: read_only of these begin_options does not fit: write bool read_only, public");
};

template <class T>
struct CheckedAdapter : CheckedVerbs<T> {
    static_assert(HasProof<T>,
                  "txhooks: this adapter has no commit(): write CommitResult commit() noexcept, which says what is "
                  "proven");
    static_assert(HasReset<T> || !Names<T, ResetName>,
                  "txhooks: reset() of this adapter does not fit: write void reset(), public");
    static_assert(HasSession<T> || !Names<T, SessionName>,
                  "txhooks: session() of this adapter does not fit: it returns what runs SQL, is public and has no "
                  "parameters");
};

// By name and number of parameters, whatever their results.
template <class T>
concept LooksLikeAConnection = (requires(T& t) { t.begin(); } ||
                                requires(T& t, const begin_options_of<T>& options) { t.begin(options); }) &&
                               requires(T& t) {
                                   t.commit();
                                   t.rollback();
                               };

// What tells a failure, and by a savepoint whether COMMIT still means the transaction that was begun.
template <class T>
concept HasWitness = HasState<T> && HasSavepoints<T> && requires(T& t, unsigned n) {
    { t.commit() } -> std::same_as<void>;
    requires !noexcept(t.commit());
    requires !noexcept(t.release(n));
};

template <class T>
struct CheckedConnection {
    static_assert(
        LooksLikeAConnection<T>,
        "txhooks: this type is no database connection that txhooks knows: include its adapter "
        "(<txhooks/backends/...>) or specialise txhooks::BackendAdapter, with two functions if you derive from "
        "txhooks::SqlAdapter; a lease, a pointer or a file name is not a connection: pass what it points to, "
        "or open it");
    static_assert(!LooksLikeAConnection<T> || HasProof<T> || HasWitness<T>,
                  "txhooks: begin(), commit() and rollback() of this class prove nothing: give it an adapter of two "
                  "functions with txhooks::SqlAdapter; or let commit() say what is proven, as CommitResult commit() "
                  "noexcept; or let commit() be void and throw when it fails, and add ConnectionState state() const "
                  "noexcept and void savepoint(unsigned), release(unsigned), rollback_to(unsigned), which throw too");
};

// A class that is a backend as it stands.
template <class T>
struct CheckedBackend : CheckedConnection<T>, CheckedVerbs<T> {
    static_assert(HasProof<T> || !HasMarkers<T>,
                  "txhooks: commit(marker) needs a commit() beside it that says what is proven too: write CommitResult "
                  "commit() noexcept");
};

}  // namespace txhooks::detail

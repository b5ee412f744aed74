// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/members.hpp>
#include <txhooks/detail/witness.hpp>
#include <txhooks/outcome.hpp>

#include <exception>

namespace txhooks {

/// The customization point: how txhooks speaks to a connection of type `Backend` (a class, or a handle `T*`).
///
/// What speaks SQL derives its specialisation from `SqlAdapter` and writes two functions. For all else: a class that is
/// constructed from `Backend&` (or the handle) and lives in the connection, so that it may remember things. This is
/// every member that it can have; one of these names that does not fit is refused by the compiler, never ignored:
///
///     void begin();                                            // this one, or both of the next. A nested type of
///     using begin_options = ...; void begin(const begin_options&);  // yours; its bool read_only: no marker is needed
///     CommitResult commit() noexcept;                          // says what is proven
///     void rollback();
///
///     void savepoint(unsigned n);  void release(unsigned n);   // all three or none; without them nested blocks
///     void rollback_to(unsigned n);                            //   must be {.join = true}; rollback_to also releases
///     ConnectionState state() const noexcept;                  // client-side: no round trip
///     ConnectionState state_before_begin() const noexcept;     // state() where it would take a round trip: see below
///     Outcome fate() noexcept;                                 // what became of a lost transaction: more than `unknown`
///                                                              //   only where state() sees the loss at the next call
///     bool in_another_process() const noexcept;                // it was begun before fork(): no hook runs here
///     CommitResult commit(const char* marker) noexcept;        // both or none: for txhooks::Doubt. COMMIT that writes
///     bool was_committed(const char* marker);                  //   the marker's row; whether that row was there
///     CommitResult commit(const char* ahead, const char* marker) noexcept;  // for an Outbox: SQL sent ahead of COMMIT,
///                                                              //   in its round trip, each statement ended by ';'; if
///                                                              //   it fails, all is rolled back; the marker or null
///     bool transient(const std::exception_ptr&) const noexcept;       // for txhooks::retry: worth another attempt;
///     bool rolled_back_by(const std::exception_ptr&) const noexcept;  //   has this error ended the transaction
///     S& session();                                            // what a function given to atomic runs SQL through
///     void reset();                                            // forgets what it knows of the old session
///
/// An adapter derived from another one with a `commit()` of its own hides the others; with `using` they are called for blocks
/// that have a marker or a job, in place of `commit()`.
///
/// A template whose members depend on what it wraps, by `requires`, says `using conditional_members = void;`.
///
/// Verbs throw when they fail; a result that tells of a failure would be ignored, so they have none. One that finds the
/// transaction gone may throw `TransactionLost`. Without `state()` a raw BEGIN or ROLLBACK of the user's is not seen, a
/// BEGIN that fails and a COMMIT in doubt are followed by `rollback()`, and `Connection::reset()` begins a transaction
/// and rolls it back before it says that all is well.
///
/// Where the client does not know the state, `state()` may ask the server, and `state_before_begin()`, which is called
/// instead of it right before BEGIN, may say `idle` all the same: then `begin` asks with what it sends anyway, throws
/// `UsageError` if a transaction is open that is not its own, and the `rollback()` that follows leaves that alone.
///
/// A class is a backend as it stands, without a specialisation, with these members of its own (`session` and `reset`
/// are left alone), in one of two ways:
/// - it proves: `CommitResult commit() noexcept`;
/// - it throws: `void commit()`, with `state()` and the three savepoint verbs, of which `commit` and `release` are not
///   `noexcept`. Then savepoint 0 is set with BEGIN and released right before COMMIT, as `SqlAdapter` does it.
///
/// Verbs may throw exceptions of another language, but for one thrown while another exception is being handled (by the
/// ROLLBACK after a BEGIN or RELEASE that threw, say): libstdc++ ends the program then. Where `noexcept` is written
/// above, and in every `commit()`, `rollback()` and `rollback_to()`, to end the thread (pthread_exit, pthread_cancel)
/// ends the program.
template <class Backend>
class BackendAdapter : detail::CheckedBackend<Backend> {
public:
    using begin_options = detail::begin_options_of<Backend>;
    using conditional_members = void;

    explicit BackendAdapter(Backend& backend) noexcept : backend_{&backend} {}

    void begin(const begin_options& options) {
        detail::begin_with(*backend_, options);
        if constexpr (!detail::HasProof<Backend>) backend_->savepoint(0);
    }
    CommitResult commit() noexcept {
        if constexpr (detail::HasProof<Backend>)
            return backend_->commit();
        else
            return detail::commit_with_witness(*backend_, [this] { backend_->commit(); });
    }
    void rollback() {
        if constexpr (detail::HasProof<Backend>)
            backend_->rollback();
        else
            detail::rollback_with_witness(*backend_, [this] { backend_->rollback(); });
    }

    void savepoint(unsigned n)
        requires detail::HasSavepoints<Backend>
    {
        backend_->savepoint(n);
    }
    void release(unsigned n)
        requires detail::HasSavepoints<Backend>
    {
        backend_->release(n);
    }
    void rollback_to(unsigned n)
        requires detail::HasSavepoints<Backend>
    {
        backend_->rollback_to(n);
    }

    ConnectionState state() const noexcept
        requires detail::HasState<Backend>
    {
        return backend_->state();
    }
    ConnectionState state_before_begin() const noexcept
        requires detail::HasStateBeforeBegin<Backend>
    {
        return backend_->state_before_begin();
    }
    Outcome fate() noexcept
        requires detail::HasFate<Backend>
    {
        return backend_->fate();
    }
    bool in_another_process() const noexcept
        requires detail::HasInAnotherProcess<Backend>
    {
        return backend_->in_another_process();
    }
    CommitResult commit(const char* marker) noexcept
        requires detail::HasMarkers<Backend>
    {
        return backend_->commit(marker);
    }
    bool was_committed(const char* marker)
        requires detail::HasMarkers<Backend>
    {
        return backend_->was_committed(marker);
    }
    bool transient(const std::exception_ptr& error) const noexcept
        requires detail::HasTransient<Backend>
    {
        return backend_->transient(error);
    }
    bool rolled_back_by(const std::exception_ptr& error) const noexcept
        requires detail::HasRolledBackBy<Backend>
    {
        return backend_->rolled_back_by(error);
    }

private:
    Backend* backend_;
};

}  // namespace txhooks

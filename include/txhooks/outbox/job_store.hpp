// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/cxx20.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace txhooks {

// ---- What is told of a table of jobs

/// A row of `txhooks_job`.
struct JobRow {
    std::string id = {};
    std::string name = {};
    std::string payload = {};
    std::int64_t due =
        0;  ///< microseconds since 1970; while a process holds it: the end of the lease; dead: `never_due`
    std::int64_t claim = 0;     ///< rises with every claim and never falls: the fencing token
    std::int64_t attempts = 0;  ///< that have begun since the job was added, or revived
    std::string holder = {};    ///< host and process id, while a process has it
    std::string key = {};
    std::string error = {};    ///< of the last attempt that failed
    std::int64_t created = 0;  ///< microseconds since 1970

    static constexpr std::int64_t never_due = INT64_MAX;
    bool dead() const noexcept { return due == never_due; }
};

/// How the jobs of one name stand.
struct JobStats {
    std::string name = {};
    std::size_t due = 0;      ///< may run now; also those whose lease ran out without a word
    std::size_t later = 0;    ///< wait for their time
    std::size_t running = 0;  ///< somebody has them
    std::size_t dead = 0;
    std::chrono::microseconds oldest{0};  ///< how long the one of `due` that waits longest has been due
    bool handled_here = false;            ///< this program has a handler
};

/// Which rows `Outbox::list` returns, the oldest first.
struct JobFilter {
    std::string_view name = {};  ///< empty: every name
    bool dead = false;           ///< only those that are dead; else all
    std::size_t limit = 1000;
};

// ---- What a store is asked for

/// A job to insert.
struct NewJob {
    std::string_view id = {};
    std::string_view name = {};
    std::string_view payload = {};
    std::string_view key = {};           ///< empty: NULL
    std::chrono::microseconds delay{0};  ///< due so long after now
    std::chrono::microseconds lease{
        0};  ///< not zero: it is born leased, for so long: claim 1, attempts 1, with a holder
};

/// The jobs of one name, as `JobStore::look` is asked for them.
struct JobsNamed {
    std::string_view name = {};
    bool in_order = false;
    std::int64_t from = 0;  ///< look no further back than this `due`
};

/// The first job of a name.
struct FirstJob {
    std::string_view name = {};
    std::int64_t due = JobRow::never_due;  ///< never: there is none
    bool lapsed = false;                   ///< has a holder: once due, its lease ran out without a word
};

/// Which jobs to claim.
struct JobClaim {
    std::string_view name = {};
    std::string_view holder = {};
    std::chrono::microseconds lease{0};
    std::size_t limit = 1;
    std::int64_t from = 0;
    bool lapsed = false;  ///< those with a holder, instead of those without
    bool in_order =
        false;  ///< the one with the lowest id of all that are not dead; none while another of the name is held
};

/// How an attempt ended.
struct JobEnd {
    enum class To : unsigned char { done, wait, dead };

    std::string_view id = {};
    std::int64_t claim = 0;
    To to = To::done;                    ///< done: the row is deleted
    std::chrono::microseconds delay{0};  ///< wait: due so long after now
    std::int64_t attempts = 0;           ///< what the column shall be (not for done)
    std::string_view error = {};         ///< what the column shall be (not for done); empty: NULL
};

/// The customization point: how an outbox speaks to its table over a connection of type `Backend` (a class, or `T*`).
///
/// A specialisation is made for one block, of what runs SQL there: what `HookedConnection::atomic` gives a function that
/// takes an argument. It has every one of these functions; one that does not fit is refused by the compiler. They throw
/// what the driver throws. But for the two that are static they run in a block; times are those of the database's clock when
/// the statement runs. `testing/store_check.hpp` tries a store.
///
///     static std::string schema();             // DDL, each statement IF NOT EXISTS, ended by ';'
///     static void create_table(Backend&);      // runs it, outside of blocks
///     explicit JobStore(S session);
///     // Inserts, in this order. A key that waits already (name, key, claim = 0): its payload and due are renewed instead.
///     void insert(std::span<const NewJob> jobs, std::string_view holder);
///     // The clock, and for each name the first job by (due, id) with due >= from; in_order: by id. Dead ones are none.
///     std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first);
///     // Locks without waiting and without gaps; then due = now + lease, holder, claim + 1, attempts + 1. The rows as they
///     // are then, by (due, id) as they were. Never two at once have a row, never one that is not due.
///     std::vector<JobRow> claim(const JobClaim&);
///     // Whether each was still that claim's; what is not is left alone. `lazily`: it need not survive a crash.
///     std::vector<bool> settle(std::span<const JobEnd>, bool lazily);
///     bool extend(std::string_view id, std::int64_t claim, std::chrono::microseconds lease);  // due = now + lease
///     std::vector<JobRow> list(const JobFilter&);       // by id
///     std::vector<JobStats> stats();                    // by name
///     bool revive(std::string_view id);                 // dead: due now, attempts 0, no error
///     bool cancel(std::string_view id);                 // deletes it if nobody has it now
///     bool cancel(std::string_view name, std::string_view key);  // deletes the one that has not begun
///
/// Optional: `static B begin_claim()` and `static B begin_look()`, the begin options of the blocks that claim and settle, and
/// of those that only look (READ COMMITTED, whatever the session has; the write lock at once); `static B begin_settle()`,
/// where those of a claim take more than a settlement needs; `class Lazily`, made of `Backend&` before a block that settles
/// lazily begins, and destroyed after it. `class Kept`, what a store keeps from block to block (prepared statements): each
/// Outbox has one, default-constructed, and the store and `Lazily` are made of `(S session, Kept&)` and `(Backend&, Kept&)`;
/// it has `void close() noexcept`: the Outbox is gone, and from then on nothing of it stays in the connection. Where they
/// save round trips:
///
///     // insert() as text, one statement that ends in ';': goes out with COMMIT if the adapter can do that. And its insert().
///     static std::string insertion(std::span<const NewJob> jobs, std::string_view holder);
///     void insert(const std::string& insertion);
///     // The same as settle() lazily, outside of blocks; empty: it has done nothing, that takes a block.
///     static std::vector<bool> settle_alone(Backend&, std::span<const JobEnd>);
template <class Backend>
class JobStore {
    static_assert(sizeof(Backend*) == 0,
                  "txhooks: there is no JobStore for this connection; include <txhooks/outbox/...> for its driver, or "
                  "specialise JobStore");
};

namespace detail {

template <class Store>
concept KeepsBetweenBlocks = requires { typename Store::Kept; };

template <class Store, class Session>
inline constexpr bool is_made_of = std::constructible_from<Store, Session>;
template <KeepsBetweenBlocks Store, class Session>
inline constexpr bool is_made_of<Store, Session> =
    std::default_initializable<typename Store::Kept> && requires(typename Store::Kept& kept) {
        requires std::constructible_from<Store, Session, typename Store::Kept&>;
        { kept.close() } noexcept -> std::same_as<void>;
    };

template <class Store>
concept InsertsAsText = requires(Store& store, std::span<const NewJob> jobs) {
    { Store::insertion(jobs, "") } -> std::same_as<std::string>;
    { store.insert(Store::insertion(jobs, "")) } -> std::same_as<void>;
};
template <class Store, class Backend>
concept SettlesAlone = requires(Backend backend, std::span<const JobEnd> ends) {
    { Store::settle_alone(backend, ends) } -> std::same_as<std::vector<bool>>;
};

template <class Store, class Backend, class Session>
struct CheckedStore {
    static_assert(is_made_of<Store, Session> || KeepsBetweenBlocks<Store>,
                  "txhooks: a JobStore is made of what runs SQL in a block: explicit JobStore(S session)");
    static_assert(is_made_of<Store, Session> || !KeepsBetweenBlocks<Store>,
                  "txhooks: a JobStore that has a class Kept is made of what runs SQL in a block, and of that: "
                  "JobStore(S session, Kept&); Kept is default-constructed, and has void close() noexcept");
    static_assert(
        InsertsAsText<Store> || !requires { &Store::insertion; },
        "txhooks: insertion() of this JobStore does not fit: write static std::string insertion(std::span<const "
        "NewJob> jobs, std::string_view holder), and void insert(const std::string& insertion)");
    static_assert(
        SettlesAlone<Store, Backend> || !requires { &Store::settle_alone; },
        "txhooks: settle_alone() of this JobStore does not fit: write static std::vector<bool> "
        "settle_alone(Backend&, std::span<const JobEnd> ends)");
    static_assert(
        requires {
            { Store::schema() } -> std::same_as<std::string>;
        }, "txhooks: a JobStore has static std::string schema()");
    static_assert(
        requires(Backend backend) {
            { Store::create_table(backend) } -> std::same_as<void>;
        }, "txhooks: a JobStore has static void create_table(Backend&)");
    static_assert(
        requires(Store& store, std::span<const NewJob> jobs, std::string_view holder) {
            { store.insert(jobs, holder) } -> std::same_as<void>;
        }, "txhooks: a JobStore has void insert(std::span<const NewJob> jobs, std::string_view holder)");
    static_assert(
        requires(Store& store, std::span<const JobsNamed> names, std::vector<FirstJob>& first) {
            { store.look(names, first) } -> std::same_as<std::int64_t>;
        }, "txhooks: a JobStore has std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first)");
    static_assert(
        requires(Store& store, const JobClaim& claim) {
            { store.claim(claim) } -> std::same_as<std::vector<JobRow>>;
        }, "txhooks: a JobStore has std::vector<JobRow> claim(const JobClaim&)");
    static_assert(
        requires(Store& store, std::span<const JobEnd> ends) {
            { store.settle(ends, true) } -> std::same_as<std::vector<bool>>;
        }, "txhooks: a JobStore has std::vector<bool> settle(std::span<const JobEnd> ends, bool lazily)");
    static_assert(
        requires(Store& store, std::string_view id, std::int64_t claim, std::chrono::microseconds lease) {
            { store.extend(id, claim, lease) } -> std::same_as<bool>;
        },
        "txhooks: a JobStore has bool extend(std::string_view id, std::int64_t claim, std::chrono::microseconds "
        "lease)");
    static_assert(
        requires(Store& store, const JobFilter& filter) {
            { store.list(filter) } -> std::same_as<std::vector<JobRow>>;
        }, "txhooks: a JobStore has std::vector<JobRow> list(const JobFilter&)");
    static_assert(
        requires(Store& store) {
            { store.stats() } -> std::same_as<std::vector<JobStats>>;
        }, "txhooks: a JobStore has std::vector<JobStats> stats()");
    static_assert(
        requires(Store& store, std::string_view id) {
            { store.revive(id) } -> std::same_as<bool>;
            { store.cancel(id) } -> std::same_as<bool>;
            { store.cancel(id, id) } -> std::same_as<bool>;
        },
        "txhooks: a JobStore has bool revive(std::string_view id), bool cancel(std::string_view id) and bool "
        "cancel(std::string_view name, std::string_view key)");
};

}  // namespace detail
}  // namespace txhooks

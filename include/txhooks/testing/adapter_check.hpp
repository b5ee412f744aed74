// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backend_adapter.hpp>
#include <txhooks/connection.hpp>
#include <txhooks/detail/members.hpp>
#include <txhooks/hooked_connection.hpp>
#include <txhooks/testing/adapter_report.hpp>
#include <txhooks/testing/detail/adapter_stories.hpp>
#include <txhooks/testing/faults.hpp>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace txhooks::testing {
namespace adapter_stories {

template <class Session>
struct SessionAdapter {
    using type = BackendAdapter<std::remove_reference_t<decltype(std::declval<Session&>().backend())>>;
};
template <class Session>
    requires requires { typename Session::Adapter; }
struct SessionAdapter<Session> {
    using type = typename Session::Adapter;
};

template <class Session>
concept CanKill = requires(Session& session) { session.kill(); };
template <class Session>
concept CanMakeBusy = requires(Session& session) { session.make_busy(true); };
template <class Session>
concept CanRefuseCommit = requires(Session& session) { session.refuse_commit(true); };
template <class Session>
concept CanLoseReply = requires(Session& session) { session.lose_reply(); };
template <class Session>
concept CanReconnect = requires(Session& session) { session.reconnect(); };

// All of a Trial that depends on the type of the session.
template <class Open>
class TrialOf final : public Trial {
    using Session = std::invoke_result_t<Open&>;
    static_assert(!std::is_reference_v<Session>,
                  "txhooks: adapter_check needs a session of its own for each story: return it by value");
    static_assert(
        requires(Session& session) { session.backend(); },
        "txhooks: adapter_check needs of a session: backend(), which returns what is hooked, by reference or "
        "as a handle T*");
    static_assert(
        requires(Session& session, const std::string& query) { static_cast<long>(session.look(query)); },
        "txhooks: adapter_check needs of a session: long look(const std::string& query), which asks another "
        "connection and returns the one number that the query does");
    using Backend = decltype(std::declval<Session&>().backend());
    static_assert(std::is_lvalue_reference_v<Backend> || std::is_pointer_v<Backend>,
                  "txhooks: the backend() of an adapter_check's session must return a reference, or a handle T*");

public:
    using Adapter = typename SessionAdapter<Session>::type;

    explicit TrialOf(Open& open) : session_{open()} {
        db_.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
    }

    Connection& db() noexcept override { return db_; }
    Faults& faults() noexcept override { return db_.adapter().faults; }
    void execute(const std::string& sql) override {
        static_assert(
            requires { session_.execute(db_, sql); },
            "txhooks: adapter_check needs of a session: template <class Db> void execute(Db& db, const "
            "std::string& sql), which runs SQL on the connection that is hooked, and throws if it fails");
        session_.execute(db_, sql);
    }
    long look(const std::string& query) override { return static_cast<long>(session_.look(query)); }
    void kill() override {
        if constexpr (CanKill<Session>) session_.kill();
    }
    void make_busy([[maybe_unused]] bool busy) override {
        if constexpr (CanMakeBusy<Session>) session_.make_busy(busy);
    }
    void refuse_commit([[maybe_unused]] bool refuse) override {
        if constexpr (CanRefuseCommit<Session>) session_.refuse_commit(refuse);
    }
    void lose_reply() override {
        if constexpr (CanLoseReply<Session>) session_.lose_reply();
    }
    bool can_reconnect() const noexcept override { return CanReconnect<Session>; }
    // What a user would do with a connection that is broken.
    void reconnect() override {
        if constexpr (CanReconnect<Session>)
            session_.reconnect();
        else
            ending_of([&] { execute("ROLLBACK"); });
    }

private:
    Session session_;
    HookedConnection<Backend, FaultyAdapter<Adapter>> db_{session_.backend()};
};

template <class Open>
Engine engine(Open& open) {
    using Session = std::invoke_result_t<Open&>;
    using Adapter = typename TrialOf<Open>::Adapter;
    Engine engine;
    engine.open = [&open] { return std::make_unique<TrialOf<Open>>(open); };
    engine.has_state = detail::HasState<Adapter>;
    if (!detail::HasSavepoints<Adapter>) engine.no_savepoints = "the adapter has no savepoints";
    if (!CanKill<Session>) engine.no_kill = "the session has no kill()";
    if (!CanMakeBusy<Session>) engine.no_busy = "the session has no make_busy(bool)";
    if (!CanRefuseCommit<Session>) engine.no_refusal = "the session has no refuse_commit(bool)";
    if (!CanLoseReply<Session>) engine.no_lost_reply = "the session has no lose_reply()";
    return engine;
}

}  // namespace adapter_stories

/// Tries what an adapter keeps of the promise on its real engine, and prints a table of it to `out`, if that is not null:
///
///     struct Session {                                    // an open connection of its own
///         MyConnection& backend();                        // what is hooked: a reference, or a handle T*
///         template <class Db>                             // runs SQL on it, and throws if that fails; `db` is the
///         void execute(Db& db, const std::string& sql);   //   HookedConnection, for who needs its adapter's session()
///         long look(const std::string& query);            // the one number that it returns, by ANOTHER connection
///
///         // Where there is such a thing:
///         using Adapter = MyAdapter;   // what is tried; else BackendAdapter
///         void kill();                 // the server ends this session (pg_terminate_backend, KILL); returns when that is
///                                      //   so; by a connection of its own, because another thread calls it, too
///         void make_busy(bool busy);   // COMMIT is refused from now on, or no longer: a reader of the SQLite file
///         void refuse_commit(bool);    // COMMIT fails from now on, and the transaction is gone: sqlite3_commit_hook
///         void lose_reply();           // what is sent next arrives, and no reply to it: shutdown(socket, SHUT_RD)
///         void reconnect();            // ends a transaction that a ROLLBACK did not, before reset(); else SQL does.
///     };                               //   What backend() returned must stay the same object or handle
///
///     TEST_CASE("my adapter keeps the promise") {
///         CHECK(txhooks::testing::adapter_check("mine", [] { return Session{"test"}; }, {"busy COMMIT"}).passed());
///     }
///
/// Each row of the table is a story of database rows with hooks, on a session of its own: blocks that commit, roll back
/// and nest; a statement that fails; ROLLBACK, COMMIT and BEGIN by SQL; a deferred constraint; a COMMIT that finds the
/// database busy, or is refused, or is never answered; a session that is killed; each verb failing before and after its
/// effect. What is true is asked through the other connection, in hooks too. After each the connection must go on, after `reset()` if it is in doubt.
///
/// `cannot` names the rows that this adapter cannot keep. A row that is not kept, or cannot be tried, and is not among
/// them has failed; so has one that is among them and is kept. Never excused: a hook of a block that ran for lost data,
/// or twice, or not at all for data that is there, unless `CommitUnknown`, or a `TransactionLost` that is not *rolled
/// back*, said that this may be; and a transaction that is left open. Not tried: begin options, the markers of `Doubt`,
/// `transient`, `rolled_back_by`.
///
/// A `Session` stands in a namespace: a local class can have no template. `execute` gets SQL of every engine, and BEGIN,
/// which it may say in the engine's words. The tables `txhooks_check` and `txhooks_check_late` are dropped, made and
/// left there: take a database for tests, one check at a time. Threads are started, for `kill()`.
///
/// Throws: `std::bad_alloc`; what a session throws stands in the table.
template <class Open>
AdapterReport adapter_check(std::string_view name, Open open, std::vector<std::string_view> cannot = {},
                            std::FILE* out = stdout) {
    const AdapterReport report{name, adapter_stories::play(adapter_stories::engine(open), std::move(cannot))};
    if (out != nullptr) std::fputs(report.table().c_str(), out);
    return report;
}

}  // namespace txhooks::testing

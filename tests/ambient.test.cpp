// SPDX-License-Identifier: MIT
#include <txhooks/ambient.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/task.hpp"
#include "support/trace.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using support::elsewhere;
using support::Log;
using support::Sink;
using support::Task;
using support::Trace;
using txhooks::AmbientConnection;
using txhooks::Atomic;
using txhooks::call_after_commit;
using txhooks::Connection;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;

namespace {

using Fake = HookedConnection<FakeBackend>;

// Code without a connection at hand.
void deep_below(Trace& ran, const std::string& name) {
    call_after_commit(ran.hook(name));
}

// Which of some connections, each in a block, a hook goes to: its place, or "none".
template <class Connections>
std::string where_hooks_go(Connections& connections) {
    std::vector<std::size_t> before;
    for (auto& db : connections) before.push_back(db->pending_hooks());
    call_after_commit([] {});
    for (std::size_t i = 0; i != before.size(); ++i)
        if (connections[i]->pending_hooks() != before[i]) return std::to_string(i);
    return "none";
}

}  // namespace

// ---- None bound

TEST_CASE("call_after_commit: runs at once when no connection is bound, and what the hook throws reaches the caller",
          "[S1]") {
    Fake db;
    Trace ran;
    Atomic tx{db};
    deep_below(ran, "1");
    CHECK(ran.text() == "1");
    CHECK(db.pending_hooks() == 0);
    CHECK_THROWS_AS(call_after_commit([] { throw 42; }), int);
    CHECK_THROWS_AS(call_after_commit(std::function<void()>{}), txhooks::UsageError);
    tx.rollback();
    CHECK(ran.text() == "1");
}

TEST_CASE("call_after_commit: reports what a robust hook throws when no connection is bound", "[ambient][S21][S22]") {
    const std::string said = support::stderr_of(
        [] { call_after_commit(txhooks::robust, [] { throw std::runtime_error{"mail is down"}; }); });
    CHECK(said == "txhooks: a robust hook threw: mail is down\n");
}

// ---- One bound

TEST_CASE("call_after_commit: registers on the bound connection, in one order with its own hooks",
          "[ambient][S2][S11][S12]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    db.atomic([&] {
        db.on_commit(ran.hook("1"));
        deep_below(ran, "2");
        db.atomic([&] { deep_below(ran, "3"); });
        db.on_commit(ran.hook("4"));
        CHECK(ran.text() == "");
    });
    CHECK(ran.text() == "1,2,3,4");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "RELEASE txhooks_1", "COMMIT"});
}

TEST_CASE("call_after_commit: runs at once when the bound connection is in no block", "[ambient][S1]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    deep_below(ran, "1");
    CHECK(ran.text() == "1");
    CHECK_THROWS_AS(call_after_commit([] { throw 42; }), int);
    db.atomic([&] { deep_below(ran, "2"); });
    deep_below(ran, "3");
    CHECK(ran.text() == "1,2,3");
}

TEST_CASE("call_after_commit: goes with the savepoint it was called in", "[ambient][S25][S26]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    db.atomic([&] {
        deep_below(ran, "1");
        {
            Atomic inner{db};
            deep_below(ran, "2");
            inner.rollback();
        }
        deep_below(ran, "3");
    });
    CHECK(ran.text() == "1,3");
    {
        Atomic tx{db};
        deep_below(ran, "4");
        tx.rollback();
    }
    CHECK(ran.text() == "1,3");
}

TEST_CASE("call_after_commit: copies its arguments at the call", "[ambient][S3]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{static_cast<Connection&>(db)};
    db.atomic([&] {
        for (std::string name = "a"; name.size() != 4; name += 'a') call_after_commit(&Trace::note, &ran, name);
    });
    CHECK(ran.text() == "a,aa,aaa");
}

TEST_CASE("call_after_commit: gives a robust hook's failure to the sink of the bound connection", "[ambient][S21]") {
    Fake db;
    Sink sink{db};
    Trace ran;
    const AmbientConnection here{db};
    db.atomic([&] {
        call_after_commit(txhooks::robust, ran.throwing("1", 42));
        deep_below(ran, "2");
    });
    CHECK(ran.text() == "1,2");
    CHECK(sink.text() == "42");
}

TEST_CASE("call_after_commit: refuses what on_commit of the bound connection refuses", "[ambient][S4][S8][S9]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    CHECK_THROWS_AS(call_after_commit(std::function<void()>{}), txhooks::UsageError);
    db.execute("BEGIN");
    CHECK_THROWS_AS(deep_below(ran, "1"), txhooks::UsageError);
    db.execute("ROLLBACK");
    {
        Atomic tx{db};
        db.execute("ROLLBACK; BEGIN");
        CHECK_THROWS_AS(deep_below(ran, "2"), txhooks::TransactionLost);
        CHECK_THROWS_AS(tx.rollback(), txhooks::TransactionLost);
    }
    db.lose_connection();
    CHECK_THROWS_AS(deep_below(ran, "3"), txhooks::ConnectionBroken);
    CHECK(ran.text() == "");
}

TEST_CASE("call_after_commit: a hook outlives the scope it was registered in", "[ambient][S2]") {
    Fake db;
    Trace ran;
    Atomic tx{db};
    {
        const AmbientConnection here{db};
        deep_below(ran, "1");
    }
    deep_below(ran, "2");
    CHECK(ran.text() == "2");
    tx.commit();
    CHECK(ran.text() == "2,1");
}

// ---- Several bound

TEST_CASE("call_after_commit: the nearest scope counts, also when only the outer one's connection is in a block",
          "[S10]") {
    Fake db;
    Fake other;
    Trace ran;
    const AmbientConnection outer{db};
    Atomic tx{db};
    deep_below(ran, "1");
    {
        const AmbientConnection inner{other};
        deep_below(ran, "2");
        CHECK(ran.text() == "2");
        other.atomic([&] { deep_below(ran, "3"); });
        CHECK(ran.text() == "2,3");
    }
    deep_below(ran, "4");
    CHECK(ran.text() == "2,3");
    tx.commit();
    CHECK(ran.text() == "2,3,1,4");
}

TEST_CASE("ambient: a call that names its connection never guesses", "[ambient][S10]") {
    Fake db;
    Fake other;
    Trace ran;
    const AmbientConnection here{other};
    Atomic tx{db};
    Atomic tx_of_other{other};
    db.on_commit(ran.hook("1"));
    static_cast<Connection&>(db).on_commit(&Trace::note, &ran, "2");
    db.on_commit(txhooks::robust, &Trace::note, &ran, "3");
    call_after_commit(ran.hook("4"));
    tx.commit();
    CHECK(ran.text() == "1,2,3");
    db.on_commit(ran.hook("5"));
    CHECK(ran.text() == "1,2,3,5");
    tx_of_other.commit();
    CHECK(ran.text() == "1,2,3,5,4");
}

TEST_CASE("ambient: a scope that ends by an exception takes its binding with it", "[ambient][S28]") {
    Fake db;
    Trace ran;
    CHECK_THROWS_AS(db.atomic([&] {
        const AmbientConnection here{db};
        deep_below(ran, "1");
        throw support::Oops{};
    }),
                    support::Oops);
    Atomic tx{db};
    deep_below(ran, "2");
    CHECK(ran.text() == "2");
    tx.rollback();
}

TEST_CASE("ambient: scopes may end in any order, and the nearest of those left counts", "[ambient][ambient]") {
    std::array<int, 4> order{0, 1, 2, 3};
    do {
        std::array<std::optional<Fake>, 3> db;
        for (auto& each : db) each.emplace();
        Atomic tx_0{*db[0]}, tx_1{*db[1]}, tx_2{*db[2]};
        std::array<std::optional<AmbientConnection>, 4> scopes;
        const std::array<int, 4> binds{0, 1, 2, 1};  // one connection is bound twice
        for (std::size_t i = 0; i != 4; ++i) scopes[i].emplace(*db[static_cast<std::size_t>(binds[i])]);
        std::string expected, found;
        for (const int ended : order) {
            scopes[static_cast<std::size_t>(ended)].reset();
            std::string nearest = "none";
            for (std::size_t i = 0; i != 4; ++i)
                if (scopes[i]) nearest = std::to_string(binds[i]);
            expected += nearest + " ";
            found += where_hooks_go(db) + " ";
        }
        CHECK(found == expected);
        tx_0.rollback(), tx_1.rollback(), tx_2.rollback();
    } while (std::next_permutation(order.begin(), order.end()));
}

// ---- Hooks that call it

TEST_CASE("call_after_commit: in a hook it runs at once, before the hook's siblings", "[ambient][S15]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    db.atomic([&] {
        call_after_commit([&] {
            ran.note("1");
            deep_below(ran, "1.1");
        });
        deep_below(ran, "2");
    });
    CHECK(ran.text() == "1,1.1,2");
}

TEST_CASE("call_after_commit: in a block that a hook opens it waits for that block", "[ambient][S16]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    db.atomic([&] {
        call_after_commit([&] {
            db.atomic([&] {
                deep_below(ran, "1.1");
                ran.note("1");
            });
        });
        deep_below(ran, "2");
    });
    CHECK(ran.text() == "1,1.1,2");
}

TEST_CASE("call_after_commit: a hook sees what is bound where it runs, and may bind another connection",
          "[ambient][S13]") {
    Fake db;
    Fake other;
    Trace ran;
    Atomic tx_of_other{other};
    {
        Atomic tx{db};
        {
            const AmbientConnection here{db};
            call_after_commit(deep_below, std::ref(ran), "1");
            call_after_commit([&] {
                const AmbientConnection inside{other};
                deep_below(ran, "2");
            });
            call_after_commit(deep_below, std::ref(ran), "3");
        }
        const AmbientConnection here{other};
        tx.commit();
    }
    CHECK(ran.text() == "");
    tx_of_other.commit();
    CHECK(ran.text() == "1,2,3");
}

TEST_CASE("call_after_commit: in a detached hook nothing is bound but what its runner has bound", "[ambient][S60]") {
    Fake db;
    Trace ran;
    DetachedHooks after;
    {
        const AmbientConnection here{db};
        db.atomic({.detach = &after}, [&] { call_after_commit(deep_below, std::ref(ran), "1"); });
    }
    Atomic tx{db};
    after.run();
    CHECK(ran.text() == "1");
    tx.rollback();
}

TEST_CASE("call_after_commit: the destructor of a discarded hook's capture registers on the enclosing block",
          "[ambient][S27]") {
    Fake db;
    Trace ran;
    const AmbientConnection here{db};
    db.atomic([&] {
        Atomic inner{db};
        call_after_commit(support::AtDestruction{[&] { deep_below(ran, "1"); }});
        inner.rollback();
        CHECK(ran.text() == "");
    });
    CHECK(ran.text() == "1");
}

// ---- A connection that dies while it is bound

TEST_CASE("ambient: a bound connection that dies is not used, nor is another instead", "[ambient][S57]") {
    Fake outer;
    Trace ran;
    const AmbientConnection around{outer};
    Atomic tx{outer};
    std::optional<Fake> db{std::in_place};
    std::optional<AmbientConnection> here{*db};
    db.reset();
    CHECK_THROWS_AS(deep_below(ran, "1"), txhooks::ConnectionBroken);
    db.emplace();  // in the same place
    CHECK_THROWS_AS(deep_below(ran, "2"), txhooks::ConnectionBroken);
    {
        const AmbientConnection anew{*db};
        deep_below(ran, "3");
    }
    here.reset();
    deep_below(ran, "4");
    CHECK(ran.text() == "3");
    tx.commit();
    CHECK(ran.text() == "3,4");
}

TEST_CASE("ambient: a connection that dies with a block open is still bound while it discards", "[ambient][S27][S57]") {
    std::optional<Fake> db{std::in_place};
    Sink sink{*db};
    Trace ran;
    const AmbientConnection here{*db};
    const Atomic tx{*db};
    call_after_commit(support::AtDestruction{[&] { deep_below(ran, "1"); }});
    db.reset();
    CHECK(ran.text() == "1");
    CHECK_THROWS_AS(deep_below(ran, "2"), txhooks::ConnectionBroken);
}

TEST_CASE("ambient: scopes and connections may end in any order", "[ambient][ambient]") {
    std::array<std::size_t, 6> order{0, 1, 2, 3, 4, 5};
    do {
        Fake outermost;
        const AmbientConnection around{outermost};
        std::array<std::optional<Fake>, 2> db;
        for (auto& each : db) each.emplace();
        std::array<std::optional<AmbientConnection>, 4> scopes;
        for (std::size_t i = 0; i != 4; ++i) scopes[i].emplace(*db[i % 2]);
        std::string expected, found;
        for (const std::size_t ended : order) {
            if (ended < 4)
                scopes[ended].reset();
            else
                db[ended - 4].reset();
            std::string nearest = "ran";
            for (std::size_t i = 0; i != 4; ++i)
                if (scopes[i]) nearest = db[i % 2] ? "ran" : "broken";
            expected += nearest + " ";
            try {
                std::string result = "did not run";
                call_after_commit([&] { result = "ran"; });
                found += result + " ";
            } catch (const txhooks::ConnectionBroken&) {
                found += "broken ";
            }
        }
        if (found != expected) CHECK(found == expected);
        Trace ran;
        outermost.atomic([&] {
            deep_below(ran, "1");
            if (not ran.text().empty()) CHECK(ran.text() == "");
        });
        if (ran.text() != "1") CHECK(ran.text() == "1");
    } while (std::next_permutation(order.begin(), order.end()));
    SUCCEED("720 orders");
}

// ---- Threads

TEST_CASE("ambient: another thread has no part in the binding", "[ambient][S56]") {
    Fake db;
    std::string ran;
    const AmbientConnection here{db};
    Atomic tx{db};
    std::thread{[&] {
        call_after_commit([&] { ran += "a"; });
        ran += "b";
        Fake own;
        const AmbientConnection there{own};
        own.atomic([&] {
            call_after_commit([&] { ran += "d"; });
            ran += "c";
        });
    }}.join();
    CHECK(ran == "abcd");
    CHECK(db.pending_hooks() == 0);
    call_after_commit([&] { ran += "e"; });
    CHECK(db.pending_hooks() == 1);
    tx.commit();
    CHECK(ran == "abcde");
}

TEST_CASE("ambient: threads bind at the same time and each registers on its own", "[ambient][S56]") {
    constexpr int rounds = 200;
    std::vector<std::string> ran(8);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i != ran.size(); ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round != rounds; ++round) {
                Fake db;
                const AmbientConnection here{db};
                try {
                    db.atomic([&] {
                        call_after_commit([&, on = std::this_thread::get_id()] {
                            ran[i] += on == std::this_thread::get_id() ? '+' : '?';
                        });
                        std::this_thread::yield();
                        if (round % 2 == 0) throw support::Oops{};
                    });
                } catch (const support::Oops&) {
                    ran[i] += '-';
                }
            }
        });
    for (std::thread& thread : threads) thread.join();
    std::string expected;
    for (int round = 0; round != rounds / 2; ++round) expected += "-+";
    for (const std::string& each : ran) CHECK(each == expected);
}

namespace {

// A few threads that do one job after the other.
class Pool {
public:
    explicit Pool(std::size_t size) {
        for (std::size_t i = 0; i != size; ++i) threads_.emplace_back([this] { work(); });
    }
    ~Pool() {
        post(nullptr);
        for (std::thread& thread : threads_) thread.join();
    }
    void post(std::function<void()> job) {
        const std::scoped_lock lock{mutex_};
        jobs_.push_back(std::move(job));
        changed_.notify_all();
    }

private:
    void work() {
        for (;;) {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [this] { return not jobs_.empty(); });
            if (not jobs_.front()) return;
            const std::function<void()> job = std::move(jobs_.front());
            jobs_.pop_front();
            lock.unlock();
            job();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> jobs_;
    std::vector<std::thread> threads_;
};

}  // namespace

TEST_CASE("ambient: a thread of a pool brings nothing from one job to the next", "[ambient][S28][S56]") {
    constexpr int jobs = 500;
    std::mutex mutex;
    std::vector<std::string> ran;
    Fake poster;
    {
        const AmbientConnection here{poster};
        Atomic tx{poster};
        Pool pool{2};
        for (int job = 0; job != jobs; ++job)
            pool.post([&, job] {
                std::string history;
                const auto note = [&](const char* what) { history += what; };
                call_after_commit(note, "unbound,");
                Fake db;
                const auto in_a_block = [&] {
                    const AmbientConnection there{db};
                    db.atomic([&] {
                        call_after_commit(note, "committed");
                        note("block,");
                        if (job % 3 == 0) throw support::Oops{};
                    });
                };
                try {
                    in_a_block();
                } catch (const support::Oops&) {
                    note("failed");
                }
                const std::scoped_lock lock{mutex};
                ran.push_back(history);
            });
        CHECK(poster.pending_hooks() == 0);
        tx.rollback();
    }
    CHECK(ran.size() == jobs);
    CHECK(std::count(ran.begin(), ran.end(), "unbound,block,committed") == jobs - (jobs + 2) / 3);
    CHECK(std::count(ran.begin(), ran.end(), "unbound,block,failed") == (jobs + 2) / 3);
}

// ---- Coroutines

TEST_CASE("ambient: a coroutine carries the connection itself, and names it", "[ambient][S56]") {
    Fake db;
    Fake of_the_resumer;
    std::string ran;
    const auto story = [](Fake& on, std::string& to) -> Task {
        Atomic tx{on};
        on.on_commit([&to] { to += 'a'; });
        co_await elsewhere;
        on.on_commit([&to] { to += 'b'; });
        co_await elsewhere;
        tx.commit();
    };
    Task task = story(db, ran);
    const AmbientConnection here{of_the_resumer};
    Atomic tx{of_the_resumer};
    task.resume();
    task.resume_on_another_thread();
    CHECK(db.pending_hooks() == 2);
    CHECK(of_the_resumer.pending_hooks() == 0);
    task.resume();
    CHECK(ran == "ab");
    CHECK(task.done());
    tx.rollback();
}

TEST_CASE("ambient: a coroutine binds anew after it was resumed", "[ambient][S56]") {
    Fake db;
    Trace ran;
    const auto story = [](Fake& on, Trace& to) -> Task {
        Atomic tx{on};
        for (const char* name : {"1", "2", "3"}) {
            {
                const AmbientConnection here{on};
                deep_below(to, name);
            }
            co_await elsewhere;
        }
        tx.commit();
    };
    Task task = story(db, ran);
    for (const std::size_t hooks : {1u, 2u, 3u}) {
        task.resume_on_another_thread();
        deep_below(ran, "0");  // nothing stays bound here or there
        CHECK(db.pending_hooks() == hooks);
    }
    CHECK(ran.text() == "0,0,0");
    task.resume();
    CHECK(ran.text() == "0,0,0,1,2,3");
    CHECK(task.error() == "none");
}

TEST_CASE("ambient: a scope that ends on another thread than it began on ends the program", "[ambient][S56]") {
    const auto story = [](Fake& on) -> Task {
        const AmbientConnection here{on};
        co_await elsewhere;
    };
    const auto end = support::end_of_process([&] {
        Fake db;
        Task task = story(db);
        task.resume();
        task.resume_on_another_thread();
    });
    CHECK(end.terminated);
    CHECK(end.said ==
          "txhooks: an AmbientConnection was destroyed on another thread than it was made on; a coroutine must not "
          "suspend while it holds one\n");
}

// ---- The other kinds of hooks

TEST_CASE("ambient: the nearest connection takes hooks of every kind", "[ambient][S68]") {
    Fake outer;
    Fake inner;
    Trace ran;
    CHECK(AmbientConnection::nearest() == nullptr);
    const AmbientConnection here{outer};
    CHECK(AmbientConnection::nearest() == &static_cast<Connection&>(outer));
    {
        const AmbientConnection nearer{inner};
        CHECK(AmbientConnection::nearest() == &static_cast<Connection&>(inner));
        inner.atomic([&] {
            AmbientConnection::nearest()->before_commit(ran.hook("before"));
            AmbientConnection::nearest()->unless_committed(ran.hook("not committed"));
            AmbientConnection::nearest()->on_rollback(ran.hook("undone"));
            AmbientConnection::nearest()->before_commit([&] { inner.set_rollback(true); });
        });
    }
    CHECK(AmbientConnection::nearest() == &static_cast<Connection&>(outer));
    CHECK(ran.text() == "before,undone,not committed");
}

TEST_CASE("ambient: where the nearest connection is gone no other is given", "[ambient]") {
    Fake outer;
    const AmbientConnection here{outer};
    std::optional<Fake> inner{std::in_place};
    const AmbientConnection nearer{*inner};
    inner.reset();
    CHECK_THROWS_AS(AmbientConnection::nearest(), txhooks::ConnectionBroken);
}

// ---- Cost

TEST_CASE("ambient: binding and registering allocate nothing", "[ambient][ambient]") {
    Fake db;
    db.keep_log(false);
    int ran = 0;
    db.atomic([&] { db.on_commit([&ran] { ++ran; }); });
    const support::CountAllocations allocations;
    for (int i = 0; i != 100; ++i) {
        const AmbientConnection outer{db};
        const AmbientConnection inner{db};
        call_after_commit([&ran] { ++ran; });
        db.atomic([&] { call_after_commit([&ran] { ++ran; }); });
    }
    call_after_commit([&ran] { ++ran; });
    const std::size_t made = allocations.made();
    CHECK(made == 0);
    CHECK(ran == 202);
}

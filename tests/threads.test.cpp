// SPDX-License-Identifier: MIT
#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/sqlite_database.hpp"
#include "support/trace.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using txhooks::Atomic;
using txhooks::Connection;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;

namespace {

using Fake = HookedConnection<FakeBackend>;

// Runs `work(0)` to `work(n - 1)`, each on its own thread, all let go at once.
void on_threads(std::size_t n, const std::function<void(std::size_t)>& work) {
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i != n; ++i)
        threads.emplace_back([&, i] {
            while (not go.load()) std::this_thread::yield();
            work(i);
        });
    go.store(true);
    for (std::thread& thread : threads) thread.join();
}

// What one thread did on its own connection, and what it should have.
struct Count {
    long hooks_ran = 0;
    long hooks_due = 0;
    long discarded_ran = 0;
    long undone_ran = 0;
    long before_ran = 0;
    long hook_errors = 0;
    long hook_errors_due = 0;
    long reported = 0;
    long elsewhere = 0;  // hooks that ran on another thread
};

void hammer(Count& count, int rounds) {
    const std::thread::id here = std::this_thread::get_id();
    const auto ran = [&count, here] {
        ++count.hooks_ran;
        if (std::this_thread::get_id() != here) ++count.elsewhere;
    };
    Fake db;
    db.keep_log(false);
    db.set_error_sink([](void* self, const char*, const std::exception_ptr&) { ++static_cast<Count*>(self)->reported; },
                      &count);
    for (int round = 0; round != rounds; ++round) {
        const auto fill = [&] {
            db.put("a");
            db.on_commit(ran);
            for (int depth = 0; depth != 4; ++depth) {
                Atomic tx{db};
                db.put("b");
                db.on_commit([&count] { ++count.discarded_ran; });
                db.before_commit([&count] { ++count.discarded_ran; });
                db.on_rollback(
                    [&count, here] { ++(std::this_thread::get_id() == here ? count.undone_ran : count.elsewhere); });
                if (depth % 2 == 0)
                    tx.rollback();
                else
                    db.set_rollback(true), tx.commit();
            }
            db.atomic([&] {
                db.on_commit(txhooks::robust, [&] {
                    ran();
                    throw 1;
                });
                db.on_commit([&, text = std::string(200, 'x')] {
                    if (text.size() == 200) ran();
                    db.atomic([&] { db.on_commit(ran); });
                });
            });
            db.before_commit([&] {
                ++count.before_ran;
                db.put("c");
            });
            db.unless_committed([&count] { ++count.discarded_ran; });
            if (round % 3 == 0) db.on_commit([] { throw 2; });
        };
        try {
            if (round % 2 == 0) {
                db.atomic(fill);
            } else {
                Atomic tx{static_cast<Connection&>(db)};
                fill();
                tx.commit();
            }
        } catch (const txhooks::HookError&) {
            ++count.hook_errors;
        }
        count.hooks_due += 4;
        if (round % 3 == 0) ++count.hook_errors_due;
    }
}

}  // namespace

TEST_CASE("threads: connections on different threads share nothing", "[S10][S13][S56][S61][S68]") {
    constexpr int rounds = 300;
    std::vector<Count> counts(8);
    on_threads(counts.size(), [&](std::size_t i) { hammer(counts[i], rounds); });
    for (const Count& count : counts) {
        CHECK(count.hooks_ran == count.hooks_due);
        CHECK(count.hooks_due == 4 * rounds);
        CHECK(count.discarded_ran == 0);
        CHECK(count.undone_ran == 4 * rounds);
        CHECK(count.before_ran == rounds);
        CHECK(count.hook_errors == count.hook_errors_due);
        CHECK(count.reported == rounds);  // the robust hooks
        CHECK(count.elsewhere == 0);
    }
}

TEST_CASE("threads: a connection goes from thread to thread, in the middle of a block too", "[S13][S56]") {
    Fake db;
    support::Sink sink{db};
    std::string ran;
    std::vector<std::thread::id> ran_on;
    std::optional<Atomic<Fake>> tx;
    const auto add = [&](const char* key) {
        db.put(key);
        db.on_commit([&ran, &ran_on, key] {
            ran += key;
            ran_on.push_back(std::this_thread::get_id());
        });
    };
    std::thread{[&] {
        tx.emplace(db);
        add("a");
    }}.join();
    std::thread{[&] {
        Atomic inner{db};
        add("b");
        inner.commit();
    }}.join();
    std::thread{[&] {
        Atomic inner{db};
        add("c");
        inner.rollback();
    }}.join();
    std::thread::id committed_on;
    std::thread{[&] {
        committed_on = std::this_thread::get_id();
        tx->commit();
    }}.join();
    CHECK(ran == "ab");
    CHECK(ran_on == std::vector<std::thread::id>(2, committed_on));
    CHECK(db.committed("b"));
    CHECK_FALSE(db.committed("c"));
}

TEST_CASE("threads: detached hooks run on another thread while their connection works on", "[S60]") {
    constexpr int rounds = 200;
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<DetachedHooks> queue;
    bool closed = false;
    std::vector<int> ran;
    std::thread runner{[&] {
        for (;;) {
            std::vector<DetachedHooks> taken;
            {
                std::unique_lock lock{mutex};
                changed.wait(lock, [&] { return closed or not queue.empty(); });
                if (queue.empty()) return;
                taken.swap(queue);
            }
            for (DetachedHooks& hooks : taken) hooks.run();
        }
    }};
    {
        Fake db;
        db.keep_log(false);
        for (int round = 0; round != rounds; ++round) {
            DetachedHooks after;
            db.atomic({.detach = &after}, [&] {
                db.put("a");
                db.on_commit([&ran, round, text = std::string(600, 'x')] {
                    if (text.size() == 600) ran.push_back(2 * round);
                });
                db.atomic([&] { db.on_commit([&ran, round] { ran.push_back(2 * round + 1); }); });
            });
            const std::scoped_lock lock{mutex};
            queue.push_back(std::move(after));
            changed.notify_one();
        }
    }
    {
        const std::scoped_lock lock{mutex};
        closed = true;
    }
    changed.notify_one();
    runner.join();
    std::vector<int> expected;
    for (int i = 0; i != 2 * rounds; ++i) expected.push_back(i);
    CHECK(ran == expected);
}

TEST_CASE("threads: writers to one SQLite file run the hooks of what they committed, and no others",
          "[S44][S46][S56]") {
    constexpr int rounds = 40;
    constexpr std::size_t writers = 4;
    const support::DatabaseFile file;
    {
        const support::Handle handle{file.path()};
        support::run(handle, "PRAGMA journal_mode = WAL; CREATE TABLE t(k TEXT)");
    }
    std::vector<std::string> ran(writers);
    std::vector<int> refused(writers);
    std::vector<std::string> unexpected(writers);
    std::vector<std::unique_ptr<support::Handle>> handles;  // made here: closing them is an assertion
    for (std::size_t i = 0; i != writers; ++i) handles.push_back(std::make_unique<support::Handle>(file.path()));
    on_threads(writers, [&](std::size_t i) {
        sqlite3* const handle = handles[i]->get();
        sqlite3_busy_timeout(handle, i % 2 == 0 ? 0 : 50);
        sqlite3_exec(handle, "PRAGMA synchronous = OFF", nullptr, nullptr, nullptr);
        HookedConnection db{handle};
        const auto put = [&](const std::string& key) { support::run(handle, "INSERT INTO t VALUES('" + key + "')"); };
        for (int round = 0; round != rounds; ++round) {
            const std::string key = std::to_string(i) + "." + std::to_string(round);
            try {
                const bool immediate = round % 2 == 0;
                db.atomic({.begin = immediate ? txhooks::sqlite::Begin::immediate : txhooks::sqlite::Begin::deferred},
                          [&] {
                              put(key);
                              db.on_commit([&, key] { ran[i] += key + ","; });
                              try {
                                  db.atomic([&] {
                                      put(key + "!");
                                      db.on_commit([&, key] { ran[i] += key + "!,"; });
                                      throw support::Oops{};
                                  });
                              } catch (const support::Oops&) {
                                  return;
                              }
                          });
            } catch (const std::exception&) {
                ++refused[i];
            } catch (...) {
                unexpected[i] += support::name_of(std::current_exception());
            }
        }
    });
    const support::Handle fresh{file.path()};
    CHECK(support::values(fresh, "SELECT count(*) > 0 FROM t") == "1");
    for (std::size_t i = 0; i != writers; ++i) {
        CHECK(unexpected[i] == "");
        std::string rows =
            support::values(fresh, "SELECT k FROM t WHERE k LIKE '" + std::to_string(i) + ".%' ORDER BY rowid");
        if (not rows.empty()) rows += ",";
        CHECK(ran[i] == rows);
        CHECK(std::count(ran[i].begin(), ran[i].end(), ',') == rounds - refused[i]);
    }
}

// SPDX-License-Identifier: MIT
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/task.hpp"
#include "support/trace.hpp"

#include <string>
#include <thread>
#include <vector>

using support::elsewhere;
using support::Sink;
using support::Task;
using txhooks::Atomic;
using txhooks::Connection;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;

namespace {

using Log = std::vector<std::string>;
using Fake = HookedConnection<FakeBackend>;

// Writes row a; in a savepoint row b; suspended before, between and after.
Task sign_up(Fake& db, std::string& ran, std::vector<std::thread::id>& ran_on) {
    const auto hook = [&ran, &ran_on](const char* key) {
        ran += key;
        ran_on.push_back(std::this_thread::get_id());
    };
    Atomic tx{db};
    db.put("a");
    db.on_commit(hook, "a");
    co_await elsewhere;
    {
        Atomic inner{static_cast<Connection&>(db)};
        db.put("b");
        db.on_commit(hook, "b");
        co_await elsewhere;
        inner.commit();
    }
    co_await elsewhere;
    tx.commit();
}

}  // namespace

TEST_CASE("coroutine: a block is suspended, and committed on the thread that resumes it", "[S13][S56]") {
    Fake db;
    std::string ran;
    std::vector<std::thread::id> ran_on;
    Task task = sign_up(db, ran, ran_on);
    while (not task.done()) {
        CHECK(ran == "");
        task.resume_on_another_thread();
    }
    CHECK(task.error() == "none");
    CHECK(ran == "ab");
    REQUIRE(ran_on.size() == 2);
    CHECK(ran_on[0] == ran_on[1]);
    CHECK(ran_on[0] != std::this_thread::get_id());
    CHECK(db.log() == Log{"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "RELEASE txhooks_1", "COMMIT"});
}

TEST_CASE("coroutine: one destroyed while it is suspended in a block rolls it back", "[S25][S31][S56]") {
    const std::vector<Log> logs{
        {},
        {"BEGIN", "INSERT a", "ROLLBACK"},
        {"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "ROLLBACK TO txhooks_1", "ROLLBACK"},
        {"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "RELEASE txhooks_1", "ROLLBACK"},
    };
    for (std::size_t resumed = 0; resumed != logs.size(); ++resumed) {
        Fake db;
        Sink sink{db};
        std::string ran;
        std::vector<std::thread::id> ran_on;
        {
            Task task = sign_up(db, ran, ran_on);
            for (std::size_t i = 0; i != resumed; ++i) task.resume();
        }
        CHECK(db.log() == logs[resumed]);
        CHECK(ran == "");
        CHECK(db.usable());
        CHECK(sink.errors() == std::vector<std::string>(resumed == 2 ? 2 : resumed == 0 ? 0 : 1, "none"));
        db.atomic([&] { db.on_commit([&] { ran += 'z'; }); });
        CHECK(ran == "z");
    }
}

TEST_CASE("coroutine: an exception in one rolls back the blocks it leaves", "[S26][S28][S56]") {
    Fake db;
    std::string ran;
    const auto story = [](Fake& on, std::string& to) -> Task {
        Atomic tx{on};
        on.put("a");
        on.on_commit([&to] { to += 'a'; });
        try {
            Atomic inner{on};
            on.put("b");
            on.on_commit([&to] { to += 'b'; });
            co_await elsewhere;
            throw support::Oops{};
        } catch (const support::Oops&) {
            on.put("c");
        }
        co_await elsewhere;
        tx.commit();
        Atomic second{on};
        on.put("d");
        on.on_commit([&to] { to += 'd'; });
        co_await elsewhere;
        throw 7;
    };
    Task task = story(db, ran);
    while (not task.done()) task.resume_on_another_thread();
    CHECK(task.error() == "7");
    CHECK(ran == "a");
    CHECK(db.log() == Log{"BEGIN", "INSERT a", "SAVEPOINT txhooks_1", "INSERT b", "ROLLBACK TO txhooks_1", "INSERT c",
                          "COMMIT", "BEGIN", "INSERT d", "ROLLBACK"});
    CHECK(db.usable());
}

TEST_CASE("coroutine: a hook's failure comes out of the commit in it", "[S19][S20]") {
    Fake db;
    const auto story = [](Fake& on) -> Task {
        Atomic tx{on};
        on.put("a");
        co_await elsewhere;
        on.on_commit([] { throw 7; });
        tx.commit();
    };
    Task task = story(db);
    task.resume();
    task.resume_on_another_thread();
    CHECK(task.error() == "HookError committed <- 7");
    CHECK(db.committed("a"));
    CHECK(db.usable());
}

TEST_CASE("coroutine: whether an exception is on its way where it is resumed decides nothing", "[S31][S56]") {
    struct ResumeWhileUnwinding {
        Task& task;
        ~ResumeWhileUnwinding() { task.resume(); }
    };
    // Which of the four resumptions happen while the stack of the resumer unwinds.
    for (unsigned unwinding = 0; unwinding != 16; ++unwinding) {
        Fake db;
        std::string ran;
        std::vector<std::thread::id> ran_on;
        Task task = sign_up(db, ran, ran_on);
        for (unsigned i = 0; i != 4; ++i) {
            if ((unwinding >> i) % 2 == 0) {
                task.resume();
                continue;
            }
            try {
                const ResumeWhileUnwinding resume{task};
                throw support::Oops{};
            } catch (const support::Oops&) {
                static_cast<void>(0);
            }
        }
        CHECK(task.done());
        CHECK(task.error() == "none");
        CHECK(ran == "ab");
        CHECK(db.committed("b"));
    }
}

TEST_CASE("coroutine: several take turns, each with its own connection", "[S10][S56]") {
    struct One {
        Fake db;
        std::string ran;
        std::vector<std::thread::id> ran_on;
        Task task = sign_up(db, ran, ran_on);
    };
    One one, two, three;
    for (int i = 0; i != 3; ++i)
        for (One* each : {&one, &two, &three}) each->task.resume();
    two.db.set_rollback(true);
    for (One* each : {&three, &two, &one}) each->task.resume_on_another_thread();
    CHECK(one.ran == "ab");
    CHECK(two.ran == "");
    CHECK(three.ran == "ab");
    CHECK_FALSE(two.db.committed("a"));
    CHECK(two.db.log().back() == "ROLLBACK");
}

TEST_CASE("coroutine: hooks of every kind wait over suspensions, and run where the block ends",
          "[S13][S56][S61][S68]") {
    for (const bool commits : {false, true}) {
        Fake db;
        Sink sink{db};
        std::string ran;
        std::vector<std::thread::id> ran_on;
        const auto story = [](Fake& on, std::string& to, std::vector<std::thread::id>& threads,
                              bool ends_well) -> Task {
            const auto hook = [&to, &threads](char key) {
                to += key;
                threads.push_back(std::this_thread::get_id());
            };
            Atomic tx{on};
            on.on_rollback(hook, 'r');
            on.before_commit(hook, 'b');
            co_await elsewhere;
            on.put("a");
            on.unless_committed(hook, 'u');
            on.on_commit(hook, 'c');
            co_await elsewhere;
            if (ends_well)
                tx.commit();
            else
                tx.rollback();
        };
        Task task = story(db, ran, ran_on, commits);
        while (not task.done()) {
            CHECK(ran == "");
            task.resume_on_another_thread();
        }
        CHECK(task.error() == "none");
        CHECK(ran == (commits ? "bc" : "ur"));
        for (const std::thread::id id : ran_on) CHECK(id == ran_on.front());
        CHECK(ran_on.front() != std::this_thread::get_id());
        CHECK(db.committed("a").has_value() == commits);
        CHECK(sink.errors().empty());
    }
}

TEST_CASE("coroutine: one destroyed while it is suspended runs its rollback hooks", "[S31][S56][S68]") {
    Fake db;
    Sink sink{db};
    std::string ran;
    const auto story = [](Fake& on, std::string& to) -> Task {
        Atomic tx{on};
        on.on_rollback([&to] { to += 'a'; });
        on.before_commit([&to] { to += '-'; });
        Atomic inner{on};
        on.on_rollback([&to] { to += 'b'; });
        on.put("a");
        co_await elsewhere;
        inner.commit();
        tx.commit();
    };
    {
        Task task = story(db, ran);
        task.resume();
    }
    CHECK(ran == "ba");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "INSERT a", "ROLLBACK TO txhooks_1", "ROLLBACK"});
    CHECK(db.usable());
}

// SPDX-License-Identifier: MIT
#pragma once

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include <exception>
#include <stdexcept>
#include <string>

namespace support {

/// The rows that it means to keep.
inline constexpr const char* rows_kept = "1,2,3,6,7,9,11,12";

/// A service as users write them, over a table `t (n INTEGER PRIMARY KEY)`, and what it tells the world.
template <class Db, class RunSql>
class SampleService {
public:
    SampleService(Db& db, RunSql run) : db_{db}, run_{run} {}

    /// Everything it can do, once.
    void live() {
        add(1);
        db_.on_commit(world.hook("at once"));
        db_.atomic([&] {
            add(2);
            try_to("add two", [&] {
                db_.atomic([&] {
                    add(3);
                    throw std::runtime_error{"changed my mind"};
                });
            });
            add(3);
            world.note("not yet");
        });
        try_to("fail", [&] {
            db_.atomic([&] {
                add(4);
                throw std::runtime_error{"no"};
            });
        });
        try_to("join and fail", [&] {
            db_.atomic([&] {
                try_to("part", [&] { db_.atomic({.join = true}, [&] { fail_after(5); }); });
                add(5);
            });
        });
        try_to("add one twice", [&] { add(1); });
        db_.atomic({.durable = true}, [&] { add(6); });
        try_to("nest durable", [&] { db_.atomic([&] { db_.atomic({.durable = true}, [] {}); }); });
        db_.atomic([&] {
            run("INSERT INTO t VALUES (7)");
            db_.on_commit([&] {
                world.note("7");
                db_.atomic([&] { add(9); });
                db_.on_commit(world.hook("from a hook"));
                try_to("fail in a hook", [&] { db_.atomic([&] { fail_after(8); }); });
            });
            db_.on_commit(world.hook("after 7"));
        });
        db_.atomic([&] {
            add(10);
            db_.set_rollback(true);
        });
        try_to("throw from a hook", [&] {
            db_.atomic([&] {
                add(11);
                db_.on_commit(txhooks::robust, world.throwing("robust", std::runtime_error{"robust"}));
                db_.on_commit(world.throwing("bad", std::runtime_error{"bad"}));
                db_.on_commit(world.hook("never"));
            });
        });
        txhooks::DetachedHooks later;
        db_.atomic({.detach = &later}, [&] { add(12); });
        world.note(std::to_string(later.size()) + " detached");
        later.run();
        world.note(db_.usable() ? "usable" : "not usable");
    }

    Trace world;

private:
    void run(const std::string& sql) { run_(sql.c_str()); }

    void add(int n) {
        db_.atomic([&] {
            run("INSERT INTO t VALUES (" + std::to_string(n) + ")");
            db_.on_commit(world.hook(std::to_string(n)));
        });
    }

    void fail_after(int n) {
        add(n);
        throw std::runtime_error{"failed"};
    }

    template <class Fn>
    void try_to(const char* what, Fn fn) {
        try {
            fn();
        } catch (const std::exception& error) {
            world.note(std::string{what} + ": " + error.what());
        }
    }

    Db& db_;
    RunSql run_;
};

template <class Db, class RunSql>
SampleService(Db&, RunSql) -> SampleService<Db, RunSql>;

/// Everything that `Scene` lets it do, and what the world was told.
template <class Scene>
std::string live(Scene& s) {
    SampleService service{s.db, [&](const char* sql) { run(s.handle, sql); }};
    service.live();
    return service.world.text();
}

/// With real commits, and in a RolledBack: the same story, but the rows are gone.
template <class Scene>
void check_rolled_back() {
    std::string real;
    {
        Scene s;
        real = live(s);
        CHECK(s.truth() == rows_kept);
    }
    CHECK(real.find("9,from a hook") != std::string::npos);
    Scene s;
    {
        txhooks::testing::RolledBack test{s.db};
        CHECK(live(s) == real);
        CHECK(s.truth() == "");
        test.end();
    }
    CHECK(s.truth() == "");
    CHECK(s.goes_on());
}

}  // namespace support

// SPDX-License-Identifier: MIT

#include <txhooks/batch.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace txhooks;
using support::ending;
using support::Log;
using support::Oops;
using support::Sink;
using support::Trace;
using testing::FakeBackend;
using testing::FakeError;

namespace {

using Db = HookedConnection<FakeBackend>;
using Tx = Atomic<Db>;

std::string text(const std::vector<int>& values) {
    std::vector<std::string> parts;
    for (const int value : values) parts.push_back(std::to_string(value));
    return "[" + support::join(parts) + "]";
}

// Notes what it is given.
auto noting(Trace& ran) {
    return [&ran](Db& db, const std::vector<int>& values) {
        CHECK((not db.in_atomic_block() or db.usable() == false));
        ran.note(text(values));
    };
}

}  // namespace

static_assert(not std::is_copy_constructible_v<Batch<int>> and not std::is_move_constructible_v<Batch<int>>);

TEST_CASE("Batch: hands over once, before COMMIT, in order of the first add, equal values once", "[S80]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{noting(ran)};
    db.atomic([&] {
        for (const int value : {3, 1, 3, 2, 1}) batch.add(db, value);
        CHECK(ran.text().empty());
        db.on_commit(ran.hook("committed"));
    });
    CHECK(ran.text() == "[3,1,2],committed");
    db.atomic([] {});
    db.atomic([&] { batch.add(db, 1); });
    CHECK(ran.text() == "[3,1,2],committed,[1]");
}

TEST_CASE("Batch: what a savepoint took back is not among it", "[S80]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{noting(ran)};
    db.atomic([&] {
        {
            Tx inner{db};
            batch.add(db, 1);
            batch.add(db, 2);
            inner.rollback();
        }
        batch.add(db, 3);
        db.atomic([&] { batch.add(db, 1); });
    });
    CHECK(ran.text() == "[3,1]");
}

TEST_CASE("Batch: of a transaction that rolls back nothing is handed over, nor with the next one", "[S80]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{noting(ran)};
    SECTION("in the block") {
        db.atomic([&] {
            batch.add(db, 1);
            db.set_rollback(true);
        });
    }
    SECTION("in the pass, when it was collected") {
        CHECK_THROWS_AS(db.atomic([&] {
            batch.add(db, 1);
            db.before_commit([] { throw Oops{}; });
        }),
                        Oops);
    }
    CHECK(ran.text().empty());
    db.atomic([&] { batch.add(db, 2); });
    CHECK(ran.text() == "[2]");
}

TEST_CASE("Batch: what is added later in the pass is handed over again", "[S80]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{noting(ran)};
    db.atomic([&] {
        batch.add(db, 1);
        db.before_commit([&] { batch.add(db, 2); });
        db.before_commit([&] { db.before_commit([&] { db.before_commit([&] { batch.add(db, 1); }); }); });
    });
    CHECK(ran.text() == "[1],[2],[1]");
}

TEST_CASE("Batch: its function may add to it, and it ends when nothing is added", "[S80]") {
    Db db;
    Trace ran;
    std::optional<Batch<int, Db>> batch;
    batch.emplace([&](Db& on, const std::vector<int>& values) {
        ran.note(text(values));
        if (values.front() < 3) batch->add(on, values.front() + 1);
    });
    db.atomic([&] { batch->add(db, 1); });
    CHECK(ran.text() == "[1],[2],[3]");
}

TEST_CASE("Batch: what is added between two tries to COMMIT is handed over again", "[S80][S65]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{noting(ran)};
    Tx tx{db};
    batch.add(db, 1);
    db.answer_commit({Outcome::still_open, std::make_exception_ptr(FakeError{"busy"})});
    CHECK_THROWS_AS(tx.commit(), FakeError);
    batch.add(db, 1);
    batch.add(db, 2);
    CHECK(tx.commit() == Outcome::committed);
    CHECK(ran.text() == "[1],[1,2]");
}

TEST_CASE("Batch: serves several connections at the same time", "[S80]") {
    Db one;
    Db other;
    Trace ran;
    Batch<int, Db> batch{
        [&](Db& db, const std::vector<int>& values) { ran.note((&db == &one ? "one " : "other ") + text(values)); }};
    Tx outer{one};
    batch.add(one, 1);
    other.atomic([&] {
        batch.add(other, 2);
        batch.add(one, 3);
    });
    CHECK(ran.text() == "other [2]");
    one.before_commit([&] { other.atomic([&] { batch.add(other, 4); }); });
    outer.commit();
    CHECK(ran.text() == "other [2],other [4],one [1,3]");
}

TEST_CASE("Batch: any Connection will do", "[S80][S54]") {
    Db db;
    Trace ran;
    Batch<std::string> batch{
        [&](Connection&, std::vector<std::string> values) { ran.note(support::join(values, "+")); }};
    db.atomic([&] {
        batch.add(db, "a");
        batch.add(db, "b");
        batch.add(db, "a");
    });
    CHECK(ran.text() == "a+b");
}

TEST_CASE("Batch: values need no hash, and may be move-only", "[S80]") {
    struct Order {
        std::unique_ptr<int> number;
        bool operator==(const Order& other) const { return *number == *other.number; }
    };
    Db db;
    Trace ran;
    Batch<Order, Db> batch{[&](Db&, std::vector<Order> orders) {
        for (const Order& order : orders) ran.note(std::to_string(*order.number));
    }};
    db.atomic([&] {
        for (const int number : {2, 1, 2}) batch.add(db, Order{std::make_unique<int>(number)});
    });
    CHECK(ran.text() == "2,1");
}

TEST_CASE("Batch: what its function throws rolls the transaction back", "[S80][S62]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{[](Db&, const std::vector<int>&) { throw Oops{}; }};
    CHECK_THROWS_AS(db.atomic([&] {
        db.put("row");
        batch.add(db, 1);
        db.on_rollback(ran.hook("undone"));
    }),
                    Oops);
    CHECK(ran.text() == "undone");
    CHECK_FALSE(db.committed("row"));
}

TEST_CASE("Batch: its function writes in the transaction, and may register one commit hook for all", "[S80]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{[&](Db& on, const std::vector<int>& values) {
        on.put("total " + text(values));
        on.on_commit(ran.hook("changed " + text(values)));
    }};
    db.atomic([&] {
        batch.add(db, 1);
        batch.add(db, 2);
    });
    CHECK(ran.text() == "changed [1,2]");
    CHECK(db.committed("total [1,2]"));
}

TEST_CASE("Batch: outside a block it hands over at once", "[S80]") {
    Db db;
    Trace ran;
    Batch<int, Db> batch{noting(ran)};
    batch.add(db, 1);
    batch.add(db, 1);
    CHECK(ran.text() == "[1],[1]");
}

TEST_CASE("Batch: one that dies before its transaction ends hands nothing over, and that is reported", "[S80]") {
    Db db;
    Sink sink{db};
    Trace ran;
    std::optional<Batch<int, Db>> batch{std::in_place, noting(ran)};
    db.atomic([&] {
        batch->add(db, 1);
        batch->add(db, 2);
        batch.reset();
        db.put("row");
    });
    CHECK(ran.text().empty());
    CHECK(db.committed("row"));
    CHECK(sink.lines() ==
          Log{"txhooks: a Batch was destroyed before the transaction ended in which something was added "
              "to it; that is not handed over"});
}

TEST_CASE("Batch: its function may destroy it", "[S80]") {
    Db db;
    Sink sink{db};
    Trace ran;
    std::optional<Batch<int, Db>> batch;
    batch.emplace([&, probe = std::make_shared<int>(7)](Db&, const std::vector<int>& values) {
        batch.reset();
        ran.note(text(values) + std::to_string(*probe));
    });
    db.atomic([&] { batch->add(db, 1); });
    CHECK(ran.text() == "[1]7");
    CHECK(sink.lines() == Log{});
}

TEST_CASE("Batch: an empty function is refused", "[S80][S4]") {
    const std::function<void(Db&, std::vector<int>)> empty;
    CHECK(ending([&] { const Batch<int, Db> batch{empty}; }) == "UsageError");
}

TEST_CASE("Batch: many values take no time that grows with their square", "[S80]") {
    Db db;
    std::size_t handed_over = 0;
    Batch<int, Db> batch{[&](Db&, const std::vector<int>& values) { handed_over = values.size(); }};
    db.atomic([&] {
        for (int i = 0; i != 20000; ++i) batch.add(db, i);
        for (int i = 0; i != 20000; ++i) batch.add(db, i);
    });
    CHECK(handed_over == 20000);
}

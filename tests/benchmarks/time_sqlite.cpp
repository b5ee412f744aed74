// SPDX-License-Identifier: MIT

// Times of transactions of SQLite: as SQLiteCpp has them, without hooks, and as txhooks has them, with one.

#include "measured.hpp"
#include "sqlite.hpp"

#include <benchmark/benchmark.h>

#include <cstdio>
#include <string>

namespace {

using namespace benchmarks;
using benchmark::State;
using txhooks::Atomic;
using txhooks::sqlite::Begin;

constexpr int rows = 10'000;

struct Plain {
    template <class Work>
    static void transaction(SQLite::Database& db, Work work) {
        SQLite::Transaction tx{db};
        work();
        tx.commit();
    }
};

template <class Connection, Begin mode = Begin::deferred>
struct Hooked {
    template <class Work>
    static void transaction(Connection& db, Work work) {
        static Counter counter = 0;
        Atomic tx{db, {.begin = mode}};
        work();
        db.on_commit(Hook24<struct Here>::with(counter, 1));
        tx.commit();
    }
};

template <class Db, class How>
void empty(State& state) {
    Db db{":memory:", create};
    for (auto _ : state) How::transaction(db, [&] { keep(&db); });
}

template <class Db, class How>
void insert(State& state) {
    Db db{":memory:", create};
    db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)");
    SQLite::Statement statement{db, "INSERT OR REPLACE INTO t VALUES (?, 1)"};
    std::int64_t id = 0;
    for (auto _ : state)
        How::transaction(db, [&] {
            statement.bind(1, ++id % rows);
            statement.exec();
            statement.reset();
        });
}

/// A file of its own, gone with this.
class File {
public:
    explicit File(const std::string& name) : name_{name} { remove(); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() { remove(); }
    const std::string& name() const { return name_; }

private:
    void remove() const {
        for (const char* suffix : {"", "-wal", "-shm"}) std::remove((name_ + suffix).c_str());
    }
    std::string name_;
};

template <class Db, class How>
void bulk_wal(State& state) {
    const File file{"time_sqlite.db"};
    Db db{file.name(), create};
    db.exec(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, pad TEXT)");
    db.exec(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
        "INSERT INTO t SELECT i, 0, hex(zeroblob(50)) FROM n");
    SQLite::Statement statement{db, "UPDATE t SET v = v + 1"};
    for (auto _ : state)
        How::transaction(db, [&] {
            statement.exec();
            statement.reset();
        });
}

void savepoint_sqlitecpp(State& state) {
    SQLite::Database db{":memory:", create};
    SQLite::Transaction tx{db};
    for (auto _ : state) {
        SQLite::Savepoint savepoint{db, "inner"};
        keep(&db);
        savepoint.release();
    }
}

void savepoint_txhooks(State& state) {
    ShippedConnection db{":memory:", create};
    Counter counter = 0;
    while (state.KeepRunningBatch(1000)) {
        Atomic tx{db};
        for (int i = 0; i != 1000; ++i) {
            Atomic inner{db};
            db.on_commit(Hook24<struct Here>::with(counter, 1));
            inner.commit();
        }
        tx.commit();
    }
}

using Shipped = Hooked<ShippedConnection>;
using ShippedImmediate = Hooked<ShippedConnection, Begin::immediate>;
using Counting = Hooked<CountingConnection>;

}  // namespace

BENCHMARK(empty<SQLite::Database, Plain>)->Name("empty/sqlitecpp");
BENCHMARK(empty<ShippedConnection, Shipped>)->Name("empty/txhooks");
BENCHMARK(empty<CountingConnection, Counting>)->Name("empty/txhooks_counting");
BENCHMARK(insert<SQLite::Database, Plain>)->Name("insert/sqlitecpp");
BENCHMARK(insert<ShippedConnection, Shipped>)->Name("insert/txhooks");
BENCHMARK(insert<CountingConnection, Counting>)->Name("insert/txhooks_counting");
BENCHMARK(bulk_wal<SQLite::Database, Plain>)->Name("bulk_wal/sqlitecpp");
BENCHMARK(bulk_wal<ShippedConnection, Shipped>)->Name("bulk_wal/txhooks");
BENCHMARK(bulk_wal<ShippedConnection, ShippedImmediate>)->Name("bulk_wal/txhooks_immediate");
BENCHMARK(bulk_wal<CountingConnection, Counting>)->Name("bulk_wal/txhooks_counting");
BENCHMARK(savepoint_sqlitecpp)->Name("savepoint/sqlitecpp");
BENCHMARK(savepoint_txhooks)->Name("savepoint/txhooks");

BENCHMARK_MAIN();

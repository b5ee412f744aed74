// SPDX-License-Identifier: MIT

// As instructions_sqlite.cpp: the same block on a connection that has an Outbox, to which no job is added, and on one that
// has none.

#include "cases.hpp"
#include "measured.hpp"
#include "sqlite.hpp"

#include <txhooks/outbox/sqlitecpp.hpp>

namespace {

using namespace benchmarks;
using Db = ShippedConnection;

[[gnu::noinline]] void blocks(Db& db, std::size_t transactions) {
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        txhooks::Atomic tx{db};
        db.on_commit(Hook24<struct Here>::with(counter, transactions));
        keep(&db);
        tx.commit();
        keep(&db);
    }
}

void without(std::size_t transactions) {
    Db db{":memory:", create};
    blocks(db, transactions);
}

void with(std::size_t transactions) {
    Db db{":memory:", create};
    txhooks::JobTypes<Db> types;
    const txhooks::Outbox<Db> outbox{db, types};
    blocks(db, transactions);
}

}  // namespace

int main(int argc, char** argv) {
    return run_case(argc, argv, {{"without", without}, {"with", with}});
}

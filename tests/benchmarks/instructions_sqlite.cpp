// SPDX-License-Identifier: MIT

// As instructions.cpp, with transactions of SQLite in memory.

#include "cases.hpp"
#include "measured.hpp"
#include "sqlite.hpp"

namespace {

using namespace benchmarks;
using txhooks::Atomic;

void transaction(std::size_t transactions) {
    SQLite::Database db{":memory:", create};
    for (; transactions != 0; --transactions) {
        SQLite::Transaction tx{db};
        keep(&db);
        tx.commit();
        keep(&db);
    }
}

template <class Db>
void block(std::size_t transactions) {
    Db db{":memory:", create};
    for (; transactions != 0; --transactions) {
        Atomic tx{db};
        keep(&db);
        tx.commit();
        keep(&db);
    }
}

template <class Db>
void block_hook(std::size_t transactions) {
    Db db{":memory:", create};
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        Atomic tx{db};
        db.on_commit(Hook24<struct Here>::with(counter, transactions));
        keep(&db);
        tx.commit();
        keep(&db);
    }
}

}  // namespace

int main(int argc, char** argv) {
    return run_case(argc, argv,
                    {
                        {"transaction", transaction},
                        {"text_block", block<TextConnection>},
                        {"text_block_hook/24", block_hook<TextConnection>},
                        {"shipped_block", block<ShippedConnection>},
                        {"shipped_block_hook/24", block_hook<ShippedConnection>},
                        {"counting_block_hook/24", block_hook<CountingConnection>},
                    });
}

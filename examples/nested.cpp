// SPDX-License-Identifier: MIT
//
// Nested blocks are savepoints: hooks belong to the innermost block that is open when they are registered, wait for the
// outermost commit, and are discarded with the savepoint that is rolled back.

#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/txhooks.hpp>

#include <sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <string>

int main() {
    sqlite3* handle = nullptr;
    if (sqlite3_open(":memory:", &handle) != SQLITE_OK) return EXIT_FAILURE;

    std::string ran;
    {
        txhooks::HookedConnection db{handle};
        const auto hook = [&](char name) {
            std::printf("  hook %c\n", name);
            ran += name;
        };

        txhooks::Atomic tx{db};  // BEGIN
        db.on_commit(hook, 'a');
        {
            txhooks::Atomic inner{db};  // SAVEPOINT
            db.on_commit(hook, 'b');
            {
                txhooks::Atomic innermost{db};
                db.on_commit(hook, 'c');
                innermost.commit();
            }
            inner.rollback();  // b goes, and c with it, although its own block ended well
            std::printf("inner block rolled back, %zu hook left\n", db.pending_hooks());
        }
        {
            txhooks::Atomic joined{db, {.join = true}};  // no savepoint: part of the block around it
            db.on_commit(hook, 'd');
            joined.commit();
        }
        db.on_commit(hook, 'e');
        std::printf("nothing has run yet, %zu hooks wait; commit:\n", db.pending_hooks());
        tx.commit();

        std::printf("outside any block a hook runs at once:\n");
        db.on_commit(hook, 'f');
    }
    sqlite3_close(handle);

    if (ran != "adef") {
        std::printf("WRONG: expected adef, ran %s\n", ran.c_str());
        return EXIT_FAILURE;
    }
}

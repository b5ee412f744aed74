// SPDX-License-Identifier: MIT
//
// Hooks on a connection that somebody else owns, and a service that does not care what kind it is.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

std::string cache = "stale";

// No template: hooks and blocks need only a txhooks::Connection&.
void forget_cached_user(txhooks::Connection& db) {
    db.on_commit([] { cache.clear(); });
}

}  // namespace

int main() {
    SQLite::Database existing{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    existing.exec("CREATE TABLE user (name)");
    {
        txhooks::HookedConnection db{existing};  // borrows: must be gone before `existing` is

        {
            txhooks::Atomic tx{db};
            existing.exec("INSERT INTO user VALUES ('Ann')");
            forget_cached_user(db);
            tx.rollback();
        }
        std::printf("after the rollback the cache is \"%s\"\n", cache.c_str());
        if (cache != "stale") return EXIT_FAILURE;

        db.atomic([&] {
            db.backend().exec("INSERT INTO user VALUES ('Bob')");
            forget_cached_user(db);
        });
        std::printf("after the commit the cache is \"%s\"\n", cache.c_str());
    }
    return cache.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

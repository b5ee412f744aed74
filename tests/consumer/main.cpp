// SPDX-License-Identifier: MIT
#include <txhooks/txhooks.hpp>

#include <cstdio>

namespace {

struct Database {
    int commits = 0;
    void begin() {}
    txhooks::CommitResult commit() noexcept {
        ++commits;
        return {txhooks::Outcome::committed};
    }
    void rollback() {}
};

}  // namespace

int main() {
    txhooks::HookedConnection<Database> db;
    int commits_seen_by_hook = 0;
    db.atomic([&] { db.on_commit([&] { commits_seen_by_hook = db.commits; }); });
    if (commits_seen_by_hook != 1) return 1;
    std::printf("txhooks %d.%d.%d: the hook ran after the commit\n", TXHOOKS_VERSION_MAJOR, TXHOOKS_VERSION_MINOR,
                TXHOOKS_VERSION_PATCH);
    return 0;  // called by another main() in a unity build
}

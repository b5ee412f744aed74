// SPDX-License-Identifier: MIT
//
// A slow hook would keep a pooled connection busy. A detached block commits, gives its hooks to the caller, and the
// connection goes back to the pool before they run.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

class Pool {
public:
    explicit Pool(std::size_t size) {
        for (std::size_t i = 0; i != size; ++i)
            free_.push_back(std::make_unique<Database>(":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE));
    }

    auto lease() {
        const auto give_back = [this](Database* db) { free_.emplace_back(db); };
        std::unique_ptr<Database, decltype(give_back)> db{free_.back().release(), give_back};
        free_.pop_back();
        return db;
    }

    std::size_t free() const noexcept { return free_.size(); }

private:
    std::vector<std::unique_ptr<Database>> free_;
};

}  // namespace

int main() {
    Pool pool{1};
    std::size_t free_when_hook_ran = 0;

    txhooks::DetachedHooks after;
    {
        const auto db = pool.lease();
        db->atomic({.detach = &after}, [&] {
            db->exec("CREATE TABLE report (id)");
            db->on_commit([&] {
                free_when_hook_ran = pool.free();
                std::printf("slow hook runs; connections free: %zu\n", pool.free());
            });
        });
        std::printf("committed; connections free: %zu, hooks waiting: %zu\n", pool.free(), after.size());
    }
    after.run();

    return free_when_hook_ran == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}

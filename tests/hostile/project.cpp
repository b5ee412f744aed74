// SPDX-License-Identifier: MIT

// Somebody else's program, in which every public header is included and used: with their macros, without `and`, `or`
// and `not`, with their warnings as errors (see ../CMakeLists.txt). Compiled, not run. libpqxx itself says `not`, and is
// included by libpqxx.cpp, without that flag.

// First what is not ours, which those macros would break.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <random>
#include <semaphore>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <sqlite3.h>
#ifdef WITH_SQLITECPP
#include <SQLiteCpp/Database.h>
#include <SQLiteCpp/Exception.h>
#endif
#ifdef WITH_LIBPQ
#include <libpq-events.h>
#include <libpq-fe.h>
#endif
#ifdef WITH_MARIADB
#include <mysql.h>
#endif

#include "macros.hpp"

#include "every_header.hpp"
#include "use.hpp"

namespace {

struct Plain {
    void begin() {}
    txhooks::CommitResult commit() noexcept { return {txhooks::Outcome::committed}; }
    void rollback() {}
};

}  // namespace

int use_all();
int use_all() {
    txhooks::HookedConnection<Plain> plain;
    txhooks::HookedConnection<txhooks::testing::FakeBackend> fake;
    txhooks::HookedConnection sqlite{static_cast<sqlite3*>(nullptr)};
    txhooks::HookedConnection<sqlite3*, txhooks::sqlite::Counting<sqlite3*>> counting{nullptr};
    txhooks::Connection& any = fake;
    int sum = use(plain) + use(fake) + use(any);
    sum += use(sqlite, txhooks::sqlite::Begin::immediate) + use(counting, txhooks::sqlite::Begin::immediate);
#ifdef WITH_SQLITECPP
    txhooks::HookedConnection<SQLite::Database> sqlitecpp{"app.db"};
    sum += use(sqlitecpp, txhooks::sqlite::Begin::exclusive);
#endif
#ifdef WITH_LIBPQ
    txhooks::HookedConnection libpq{static_cast<PGconn*>(nullptr)};
    sum += use(libpq, txhooks::postgres::Begin{});
#endif
#ifdef WITH_MARIADB
    txhooks::HookedConnection mariadb{static_cast<MYSQL*>(nullptr)};
    sum += use(mariadb, txhooks::mariadb::Begin{});
#endif
    return sum;
}

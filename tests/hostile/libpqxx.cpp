// SPDX-License-Identifier: MIT

// As project.cpp.

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <pqxx/connection>
#include <pqxx/except>
#include <pqxx/nontransaction>
#include <pqxx/version>

#include "macros.hpp"

#include <txhooks/backends/libpqxx.hpp>

#include "use.hpp"

int use_libpqxx();
int use_libpqxx() {
    txhooks::HookedConnection<pqxx::connection> db{"dbname=app"};
    return use(db, txhooks::postgres::Begin{});
}

// SPDX-License-Identifier: MIT

#include <txhooks/detail/forced_unwind.hpp>

#include "support/catch.hpp"
#include "support/foreign.hpp"

#include <thread>

#include <pthread.h>

using support::raise_foreign;
using txhooks::detail::ForcedUnwind;

#if defined __GLIBC__ && defined __GLIBCXX__
TEST_CASE("ForcedUnwind: is what unwinds a thread that ends itself, and lets it end") {
    int let_on = 0;
    int swallowed = 0;
    std::thread{[&] {
        try {
            pthread_exit(nullptr);
        } catch (const ForcedUnwind&) {
            ++let_on;
            throw;
        } catch (...) {
            ++swallowed;
        }
    }}.join();
    CHECK(let_on == 1);
    CHECK(swallowed == 0);
}
#endif

TEST_CASE("ForcedUnwind: an exception of another language is none") {
    bool swallowed = false;
    try {
        raise_foreign();
    } catch (const ForcedUnwind&) {
        throw;
    } catch (...) {
        swallowed = true;
    }
    CHECK(swallowed);
}

// SPDX-License-Identifier: MIT
//
// Whether a connection bound here is bound in a shared library too, when both are built with hidden visibility.

#include "library.hpp"

#include <txhooks/ambient.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include <cstdio>
#include <cstdlib>

namespace {

int ran = 0;

}  // namespace

int main() {
    txhooks::HookedConnection<txhooks::testing::FakeBackend> db;
    const txhooks::AmbientConnection here{db};
    int ran_in_the_block = 0;
    db.atomic([&] {
        call_after_commit_in_the_library([] { ++ran; });
        ran_in_the_block = ran;
    });
    std::printf("ran %d times before COMMIT, %d after\n", ran_in_the_block, ran - ran_in_the_block);
    return ran_in_the_block == 0 and ran == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}

// SPDX-License-Identifier: MIT
#include "library.hpp"

#include <txhooks/ambient.hpp>

void call_after_commit_in_the_library(void (*hook)()) {
    txhooks::call_after_commit(hook);
}

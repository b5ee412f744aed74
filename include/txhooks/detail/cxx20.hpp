// SPDX-License-Identifier: MIT
#pragma once

// Included first by every header that includes no other one of ours, so that an older language is told in one sentence
// and not in hundreds. What is included here does not exist, and that ends the compilation.

#if defined(_MSVC_LANG) ? _MSVC_LANG < 202002L : __cplusplus < 202002L
#error "txhooks needs C++20: compile with -std=c++20, with GCC 11, Clang 14 or newer"
#include <txhooks/needs-c++20>
#endif

// SPDX-License-Identifier: MIT
#pragma once

/// The version, for `#if TXHOOKS_VERSION >= 200`: 10000 times the major one, 100 times the minor one, and the patch.

#include <txhooks/detail/cxx20.hpp>

#define TXHOOKS_VERSION_MAJOR 0
#define TXHOOKS_VERSION_MINOR 2
#define TXHOOKS_VERSION_PATCH 0
#define TXHOOKS_VERSION (TXHOOKS_VERSION_MAJOR * 10000 + TXHOOKS_VERSION_MINOR * 100 + TXHOOKS_VERSION_PATCH)

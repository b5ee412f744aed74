// SPDX-License-Identifier: MIT
//
// The page on installing (install.md): which version is this?

#include <txhooks/version.hpp>

#include <iostream>

static_assert(TXHOOKS_VERSION >= 200);  // 10000 major + 100 minor + patch; also TXHOOKS_VERSION_MAJOR and so on

int main() {
    std::cout << "txhooks " << TXHOOKS_VERSION_MAJOR << '.' << TXHOOKS_VERSION_MINOR << '.' << TXHOOKS_VERSION_PATCH
              << '\n';
}

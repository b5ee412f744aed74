// SPDX-License-Identifier: MIT
#pragma once

// What a coroutine returns, as far as it can be seen from outside.
struct Task {
    struct promise_type;
};

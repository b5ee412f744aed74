// error: txhooks: a handler returns a coroutine, a future, or a result that can mean failure
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

#include <future>

std::future<void> send(const Welcome&);

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.handle<Welcome>(send);
#else
    types.handle<Welcome>([](const Welcome& job) { static_cast<void>(send(job)); });
#endif
}

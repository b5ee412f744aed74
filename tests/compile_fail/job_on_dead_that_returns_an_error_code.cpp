// error: txhooks: the function of on_dead returns a coroutine, a future, or a result that can mean failure
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

#include <system_error>

std::error_code refund(Db&, const Welcome&, std::string_view);

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.on_dead<Welcome>(refund);
#else
    types.on_dead<Welcome>(
        [](Db& db, const Welcome& job, std::string_view) { static_cast<void>(refund(db, job, {})); });
#endif
}

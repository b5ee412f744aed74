// error: txhooks: on_dead calls its function, as const, with \(Db&, const Job&, std::string_view error\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

void fill(txhooks::JobTypes<Db>& types) {
#ifndef CONTROL
    types.on_dead<Welcome>([](const Welcome&) {});
#else
    types.on_dead<Welcome>([](Db&, const Welcome&, std::string_view) {});
#endif
}

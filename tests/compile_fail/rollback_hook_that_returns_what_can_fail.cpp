// error: the block has ended already
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <system_error>

std::error_code remove_file();

void upload(txhooks::Connection& db) {
#ifndef CONTROL
    db.on_rollback(remove_file);
#else
    db.on_rollback([] { static_cast<void>(remove_file()); });
#endif
}

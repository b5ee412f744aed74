// error: txhooks: this type is no database connection that txhooks knows
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <string>

#ifndef CONTROL
void sign_up(std::string& database) {
#else
void sign_up(Database& database) {
#endif
    txhooks::HookedConnection db{database};
    db.atomic([] {});
}

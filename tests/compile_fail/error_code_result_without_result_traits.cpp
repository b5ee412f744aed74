// error: txhooks: this result looks like an error code; specialise txhooks::result_traits
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <system_error>

#ifdef CONTROL
template <>
struct txhooks::result_traits<std::error_code> {
    static bool failed(const std::error_code& e) { return static_cast<bool>(e); }
};
#endif

std::error_code insert_user();

std::error_code sign_up(Hooked& db) {
    return db.atomic(insert_user);
}

// error: txhooks: this result looks like an error code
// SPDX-License-Identifier: MIT
#include "backend.hpp"

#include <system_error>

std::error_code check_total();

#ifdef CONTROL
template <>
struct txhooks::result_traits<std::error_code> {
    static bool failed(const std::error_code& e) { return static_cast<bool>(e); }
};
#endif

void add_line(txhooks::Connection& db) {
    db.before_commit(check_total);
}

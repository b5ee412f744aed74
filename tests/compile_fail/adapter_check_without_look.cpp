// error: txhooks: adapter_check needs of a session: long look\(const std::string& query\)
// SPDX-License-Identifier: MIT

#include "adapter_check_session.hpp"

struct Mine : Session {
#ifndef CONTROL
    void look(const std::string& query);
#endif
};

bool check() {
    return txhooks::testing::adapter_check("mine", [] { return Mine(); }).passed();
}

// error: txhooks: adapter_check needs of a session: backend\(\)
// SPDX-License-Identifier: MIT

#include "adapter_check_session.hpp"

struct Mine : Session {
#ifndef CONTROL
    void backend() = delete;
#endif
};

bool check() {
    return txhooks::testing::adapter_check("mine", [] { return Mine(); }).passed();
}

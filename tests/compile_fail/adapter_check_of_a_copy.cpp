// error: txhooks: the backend\(\) of an adapter_check.s session must return a reference
// SPDX-License-Identifier: MIT

#include "adapter_check_session.hpp"

struct Mine : Session {
#ifndef CONTROL
    Database backend();
#endif
};

bool check() {
    return txhooks::testing::adapter_check("mine", [] { return Mine(); }).passed();
}

// error: txhooks: adapter_check needs of a session: template <class Db> void execute
// SPDX-License-Identifier: MIT

#include "adapter_check_session.hpp"

struct Mine : Session {
#ifndef CONTROL
    void execute(const std::string& sql);
#endif
};

bool check() {
    return txhooks::testing::adapter_check("mine", [] { return Mine(); }).passed();
}

// SPDX-License-Identifier: MIT

// Who imports that module.
#include <cstdio>

import service;

int main() {
    service::Db db;
    int ran = 0;
    service::sign_up(db, "ann", [&] { ++ran; });
    db.atomic([&] { db.on_commit([&] { ++ran; }); });
    std::printf("%d hooks ran\n", ran);
    return ran == 2 ? 0 : 1;
}

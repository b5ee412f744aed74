// SPDX-License-Identifier: MIT

// A user's module that has txhooks inside, and hands it on.
module;
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

export module service;

export namespace service {

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

template <class Hook>
void sign_up(Db& db, const char* name, Hook hook) {
    db.atomic([&] {
        db.backend().put(name);
        db.on_commit(hook);
    });
}

}  // namespace service

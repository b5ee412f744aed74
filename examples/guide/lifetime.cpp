// SPDX-License-Identifier: MIT
//
// The page on lifetime traps (lifetime.md): the cures. The traps are in tests/lifetime.test.cpp, where AddressSanitizer must
// see each of them.

#include <txhooks/retry.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "say.hpp"

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace {

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

void send(std::string_view name) {
    say("mail to ", name);
}
void send_text(const char* name) {
    say("mail to ", name);
}

void arguments() {
    Db db;
    txhooks::Atomic tx{db};
    {
        const std::string name = "Ann";
        const std::string_view view = name;
        db.on_commit(send, name);  // a copy of the string, although send takes a view
        db.on_commit(send, std::string{view});
        db.on_commit([name] { send_text(name.c_str()); });
    }
    tx.commit();  // `name` is gone by now
    check(said() == "mail to Ann;mail to Ann;mail to Ann;");
}

// ---- this

class View : public std::enable_shared_from_this<View> {
public:
    void draw() const { say("drawn"); }

    void draw_a_copy(Db& db) {
        db.on_commit([*this] { draw(); });
    }
    void stay_alive(Db& db) { db.on_commit(&View::draw, shared_from_this()); }
};

void skip_if_gone(Db& db, const std::shared_ptr<View>& view) {
    db.on_commit([weak = std::weak_ptr{view}] {
        if (const auto alive = weak.lock()) alive->draw();
    });
}

void objects() {
    Db db;
    txhooks::Atomic tx{db};
    const auto stays = std::make_shared<View>();
    std::make_shared<View>()->draw_a_copy(db);
    std::make_shared<View>()->stay_alive(db);
    skip_if_gone(db, stays);
    skip_if_gone(db, std::make_shared<View>());
    tx.commit();
    check(said() == "drawn;drawn;drawn;");
}

// ---- A mutex around the block

void mutex() {
    Db db;
    std::mutex mutex;
    txhooks::DetachedHooks after;
    {
        const std::lock_guard lock{mutex};
        db.atomic({.detach = &after}, [&] {
            db.on_commit([&] {
                const std::lock_guard mine{mutex};  // would wait for ever, if it ran in the block
                say("mine");
            });
        });
    }
    after.run();
    check(said() == "mine;");
}

}  // namespace

int main() {
    arguments();
    objects();
    mutex();
    return verdict();
}

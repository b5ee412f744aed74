// SPDX-License-Identifier: MIT
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>

// What a hook refers to must live until it runs: each way to get that wrong, which AddressSanitizer must see, and its cure.

using support::Trace;
using txhooks::Atomic;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;

namespace {

using Fake = HookedConnection<FakeBackend>;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool address_sanitizer = true;
#elif defined(__has_feature)
constexpr bool address_sanitizer = __has_feature(address_sanitizer);
#else
constexpr bool address_sanitizer = false;
#endif

// What AddressSanitizer calls the mistake that `act` makes, in a process of its own.
template <class Act>
std::string mistake_in(Act act) {
    const std::string said = support::end_of_process(act).said;
    const std::string_view before = "ERROR: AddressSanitizer: ";
    const std::size_t at = said.find(before);
    if (at == std::string::npos) return "none: " + said;
    const std::size_t start = at + before.size();
    return said.substr(start, said.find(' ', start) - start);
}

struct Order {
    int number;
};

// Mails: each notes what it was given.
struct Mails {
    std::string sent;
    void send(const Order& order) { sent += std::to_string(order.number); }
    void send_text(const char* text) {
        for (; *text != '\0'; ++text) sent += *text;
    }
    void send_view(std::string_view text) {
        for (const char c : text) sent += c;
    }
};

const std::string long_name(64, 'x');  // too long to be kept inside a std::string

}  // namespace

TEST_CASE("lifetime: [&] outlives the scope of a local variable", "[S3]") {
    if constexpr (address_sanitizer) {
        CHECK(mistake_in([] {
                  Fake db;
                  Mails mails;
                  Atomic tx{db};
                  {
                      const Order order{7};
                      db.on_commit([&] { mails.send(order); });
                  }
                  tx.commit();
              }) == "stack-use-after-scope");
        CHECK(mistake_in([] {
                  Fake db;
                  Mails mails;
                  Atomic tx{db};
                  for (Order order{1}; order.number != 4; ++order.number) db.on_commit([&] { mails.send(order); });
                  tx.commit();
              }) == "stack-use-after-scope");
    }

    Fake db;
    Mails mails;
    Atomic tx{db};
    {
        const Order order{7};
        db.on_commit([&mails, order] { mails.send(order); });
        db.on_commit(&Mails::send, &mails, order);
    }
    for (Order order{1}; order.number != 4; ++order.number) db.on_commit(&Mails::send, &mails, order);
    tx.commit();
    CHECK(mails.sent == "77123");
}

TEST_CASE("lifetime: a pointer argument is copied, and not what it points to", "[S3]") {
    if constexpr (address_sanitizer) {
        CHECK(mistake_in([] {
                  Fake db;
                  Mails mails;
                  Atomic tx{db};
                  {
                      const std::string name = long_name;
                      db.on_commit(&Mails::send_text, &mails, name.c_str());
                  }
                  tx.commit();
              }) == "heap-use-after-free");
        CHECK(mistake_in([] {
                  Fake db;
                  Mails mails;
                  Atomic tx{db};
                  {
                      const char name[] = "Ann";
                      db.on_commit(&Mails::send_text, &mails, name);  // an array becomes a pointer
                  }
                  tx.commit();
              }) == "stack-use-after-scope");
    }

    Fake db;
    Mails mails;
    Atomic tx{db};
    {
        const std::string name = "Ann,";
        db.on_commit([&mails, name] { mails.send_text(name.c_str()); });
    }
    db.on_commit(&Mails::send_text, &mails, "Bob");  // a literal lives for ever
    tx.commit();
    CHECK(mails.sent == "Ann,Bob");
}

TEST_CASE("lifetime: a string_view argument is copied, and not its text", "[S3]") {
    if constexpr (address_sanitizer)
        CHECK(mistake_in([] {
                  Fake db;
                  Mails mails;
                  Atomic tx{db};
                  {
                      const std::string name = long_name;
                      db.on_commit(&Mails::send_view, &mails, std::string_view{name});
                  }
                  tx.commit();
              }) == "heap-use-after-free");

    Fake db;
    Mails mails;
    Atomic tx{db};
    {
        const std::string name = long_name;
        const std::string_view view = name;
        db.on_commit(&Mails::send_view, &mails, std::string{view});  // what takes a view can be given a string
        db.on_commit(&Mails::send_view, &mails, name);
    }
    db.on_commit(&Mails::send_view, &mails, std::string_view{"Bob"});
    tx.commit();
    CHECK(mails.sent == long_name + long_name + "Bob");
}

TEST_CASE("lifetime: std::ref is a reference, and anything else a copy", "[S3]") {
    if constexpr (address_sanitizer)
        CHECK(mistake_in([] {
                  Fake db;
                  Mails mails;
                  Atomic tx{db};
                  {
                      const Order order{7};
                      db.on_commit(&Mails::send, &mails, std::cref(order));
                  }
                  tx.commit();
              }) == "stack-use-after-scope");

    Fake db;
    Mails mails;
    Order lives_longer{1};
    Atomic tx{db};
    {
        Order order{7};
        const Order& reference = order;
        db.on_commit(&Mails::send, &mails, reference);
        order.number = 8;
    }
    db.on_commit(&Mails::send, &mails, std::cref(lives_longer));
    lives_longer.number = 2;
    tx.commit();
    CHECK(mails.sent == "72");
}

TEST_CASE("lifetime: a DetachedHooks outlives the connection that its hooks refer to", "[S60]") {
    if constexpr (address_sanitizer)
        CHECK(mistake_in([] {
                  DetachedHooks after;
                  {
                      const auto db = std::make_unique<Fake>();
                      db->atomic({.detach = &after}, [&] { db->on_commit([&on = *db] { on.set_rollback(true); }); });
                  }
                  after.run();
              }) == "heap-use-after-free");

    DetachedHooks after;
    Fake second;
    {
        Fake db;
        db.atomic({.detach = &after}, [&] { db.on_commit([&second] { second.put("row"); }); });
    }
    after.run();
    CHECK(second.committed("row"));
}

// ---- this

namespace {

// Something that hears of commits, and may die first.
class View : public std::enable_shared_from_this<View> {
public:
    View(Fake& db, Trace& drawn) : db_{db}, drawn_{drawn} {}

    void trap() {
        db_.on_commit([this] { draw(); });
    }
    void trap_by_pointer() { db_.on_commit(&View::draw, this); }

    void copy() {
        db_.on_commit([*this] { draw(); });
    }
    void keep_alive() { db_.on_commit(&View::draw, shared_from_this()); }
    void if_still_there() {
        db_.on_commit([weak = weak_from_this()] {
            if (const auto view = weak.lock()) view->draw();
        });
    }

private:
    void draw() const { drawn_.note("view"); }

    Fake& db_;
    Trace& drawn_;
};

}  // namespace

TEST_CASE("lifetime: [this] outlives its object", "[S3]") {
    if constexpr (address_sanitizer)
        for (const auto trap : {&View::trap, &View::trap_by_pointer})
            CHECK(mistake_in([trap] {
                      Fake db;
                      Trace drawn;
                      Atomic tx{db};
                      ((*std::make_shared<View>(db, drawn)).*trap)();
                      tx.commit();
                  }) == "heap-use-after-free");

    Fake db;
    Trace drawn;
    Atomic tx{db};
    std::make_shared<View>(db, drawn)->copy();
    std::make_shared<View>(db, drawn)->keep_alive();
    tx.commit();
    CHECK(drawn.text() == "view,view");
}

TEST_CASE("lifetime: a hook with a weak_ptr skips a target that is gone and keeps none alive", "[S3]") {
    Fake db;
    Trace drawn;
    auto lives = std::make_shared<View>(db, drawn);
    auto dies = std::make_shared<View>(db, drawn);
    Atomic tx{db};
    lives->if_still_there();
    dies->if_still_there();
    CHECK(dies.use_count() == 1);
    dies.reset();
    tx.commit();
    CHECK(drawn.text() == "view");
    CHECK(lives.use_count() == 1);
}

TEST_CASE("lifetime: a hook with a shared_ptr lets its target go when it ran or is discarded", "[S18][S27]") {
    Fake db;
    Trace drawn;
    const auto view = std::make_shared<View>(db, drawn);
    db.atomic([&] {
        view->keep_alive();
        CHECK(view.use_count() == 2);
    });
    CHECK(view.use_count() == 1);
    db.atomic([&] {
        Atomic inner{db};
        view->keep_alive();
        inner.rollback();
        CHECK(view.use_count() == 1);
    });
    CHECK(drawn.text() == "view");
}

// ---- What is safe

TEST_CASE("lifetime: what lives long enough may be referred to in any way", "[S3]") {
    Fake db;
    Mails mails;
    const Order order{7};
    const char name[] = "Ann";
    db.atomic([&] {
        db.on_commit([&] { mails.send(order); });
        db.on_commit(&Mails::send, std::ref(mails), std::cref(order));
        db.on_commit(&Mails::send_text, &mails, name);
        db.on_commit(&Mails::send_view, &mails, std::string_view{name});
    });
    db.on_commit([&, here = Order{1}] { mails.send(here); });  // outside a block it runs at once
    CHECK(mails.sent == "77AnnAnn1");
}

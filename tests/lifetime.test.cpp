// SPDX-License-Identifier: MIT
#include <txhooks/doubt.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

// What a hook refers to must live until it runs: each way to get that wrong, which AddressSanitizer must see, and its cure.
// And the other traps of the README.

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

// ---- Traps of another kind

namespace {

const txhooks::RetryPolicy at_once{
    .transient = [](const std::exception_ptr&) noexcept { return true; },
    .sleep = [](std::chrono::nanoseconds) {},
};

}  // namespace

TEST_CASE("lifetime: what is moved into a hook is not there for the next attempt of retry", "[retry][S3]") {
    Fake db;
    Mails mails;
    std::string name = "Ann";
    const auto sign_up_by = [&](auto register_hook) {
        int attempts = 0;
        txhooks::retry(db, at_once, [&] {
            register_hook();
            if (++attempts == 1) throw support::Oops{};
        });
    };
    sign_up_by([&] { db.on_commit(&Mails::send_view, &mails, name); });  // the cure: copy
    CHECK(mails.sent == "Ann");
    mails.sent.clear();
    sign_up_by([&] { db.on_commit(&Mails::send_view, &mails, std::move(name)); });
    CHECK(mails.sent.empty());  // the trap: the first attempt's hook took it along
}

TEST_CASE("lifetime: a mutex held around the block is still held when its hooks run", "[S13][S60]") {
    Fake db;
    std::mutex mutex;
    Trace found;
    // A hook that waits for another thread that needs the mutex would wait for ever.
    const auto look = [&] {
        const bool free = std::async(std::launch::async, [&] {
                              const std::unique_lock lock{mutex, std::try_to_lock};
                              return lock.owns_lock();
                          }).get();
        found.note(free ? "free" : "held");
    };
    {
        const std::lock_guard lock{mutex};
        db.atomic([&] { db.on_commit(look); });
    }
    DetachedHooks after;
    {
        const std::lock_guard lock{mutex};
        db.atomic({.detach = &after}, [&] { db.on_commit(look); });
    }
    after.run();
    CHECK(found.text() == "held,free");
}

TEST_CASE("lifetime: std::exit in a hook destroys a static connection while its hooks are being called", "[S57]") {
    const auto trap = support::end_of_process([] {
        static Fake db;
        db.atomic([&] { db.on_commit([] { std::exit(0); }); });
    });
    CHECK(trap.terminated);
    CHECK_THAT(trap.said, Catch::Matchers::Contains("a connection was destroyed while its hooks are being called"));

    const auto cure = support::end_of_process([] {
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);  // for what the parent has not written yet
        static Fake db;
        bool asked_to_exit = false;
        db.atomic([&] { db.on_commit([&] { asked_to_exit = true; }); });
        if (asked_to_exit) std::exit(0);
    });
    CHECK_FALSE(cure.terminated);
    CHECK(cure.said.empty());
}

namespace {

// An uploaded file, which is removed unless somebody keeps it.
class Upload {
public:
    explicit Upload(Trace& disk) : disk_{&disk} {}
    Upload(Upload&& other) noexcept : disk_{std::exchange(other.disk_, nullptr)} {}
    Upload& operator=(Upload&&) = delete;
    ~Upload() {
        if (disk_ != nullptr) disk_->note("removed");
    }
    void keep() { std::exchange(disk_, nullptr)->note("kept"); }

private:
    Trace* disk_;
};

void lose_the_answer_to_commit(Fake& db) {
    db.faults.lose_connection(txhooks::testing::Verb::commit, txhooks::testing::When::after_effect);
}

}  // namespace

TEST_CASE("lifetime: a capture that undoes something when it dies also does so when COMMIT is in doubt",
          "[S48][S27][doubt]") {
    Trace disk;
    const auto add_picture = [&](Fake& db) {
        db.put("picture");
        db.on_commit([upload = Upload{disk}]() mutable { upload.keep(); });
    };
    {
        Fake db;
        lose_the_answer_to_commit(db);
        CHECK_THROWS_AS(db.atomic([&] { add_picture(db); }), txhooks::CommitUnknown);
        CHECK(db.committed("picture"));
        CHECK(disk.text() == "removed");
    }
    disk.clear();
    {
        Fake db;
        txhooks::Doubt doubt;
        lose_the_answer_to_commit(db);
        CHECK_THROWS_AS(db.atomic({.resolve = &doubt}, [&] { add_picture(db); }), txhooks::CommitUnknown);
        CHECK(disk.text().empty());
        db.reconnect();
        db.reset();
        doubt.resolve(db);
        CHECK(disk.text() == "kept");
    }
    disk.clear();
    {
        Fake db;  // without a marker: who catches knows what failed
        lose_the_answer_to_commit(db);
        std::optional<Upload> upload{disk};
        try {
            db.atomic([&] { db.put("picture"); });
            upload->keep();
        } catch (const txhooks::CommitUnknown&) {
            upload->keep();  // and somebody has to look
        }
        CHECK(db.committed("picture"));
        CHECK(disk.text() == "kept");
    }
}

TEST_CASE("lifetime: a pool that cleans its connections up in the middle of a block loses the transaction", "[S50]") {
    // A connection for a while; given back, it is cleaned up.
    struct Lease {
        Fake& db;
        ~Lease() {
            if (db.state() != txhooks::ConnectionState::idle) db.execute("ROLLBACK");
            db.execute("RESET ALL");
        }
    };
    Fake db;
    Trace ran;
    {
        Atomic tx{db};
        {
            const Lease lease{db};
            db.put("lost");
            db.on_commit(ran.hook("lost"));
        }
        CHECK_THROWS_AS(tx.commit(), txhooks::TransactionLost);
    }
    {
        const Lease lease{db};
        Atomic tx{db};  // ends first
        db.put("kept");
        db.on_commit(ran.hook("kept"));
        tx.commit();
    }
    CHECK(ran.text() == "kept");
    CHECK_FALSE(db.committed("lost"));
    CHECK(db.committed("kept"));
}

TEST_CASE("lifetime: what a rollback hook refers to is declared before the block", "[S74]") {
    Trace disk;
    const auto store = [&disk](bool before) {
        Fake db;
        const support::Sink sink{db};
        std::optional<std::string> declared_before;
        Atomic tx{db};
        auto declared_behind = std::make_unique<std::string>();
        std::string& path = before ? declared_before.emplace() : *declared_behind;
        path = long_name;
        db.on_rollback([&disk, &path] { disk.note(path.substr(0, 1)); });
        // The guard goes after what was declared behind it.
    };
    store(true);
    CHECK(disk.text() == "x");
    if (address_sanitizer) CHECK(mistake_in([&] { store(false); }) == "heap-use-after-free");
}

TEST_CASE("lifetime: a file that is stored in a block goes again unless its row may be there",
          "[S68][S69][S74][doubt]") {
    for (const std::string ends : {"commit", "rollback", "in doubt"}) {
        CAPTURE(ends);
        Trace disk;
        Trace cache;
        Fake db;
        if (ends == "in doubt") lose_the_answer_to_commit(db);
        static_cast<void>(support::ending([&] {
            db.atomic([&] {
                db.on_rollback([&] { disk.note("removed"); });
                db.unless_committed([&] { cache.note("forgotten"); });
                disk.note("stored");
                db.put("picture");
                if (ends == "rollback") throw support::Oops{};
            });
        }));
        CHECK(disk.text() == (ends == "rollback" ? "stored,removed" : "stored"));
        CHECK(cache.text() == (ends == "commit" ? "" : "forgotten"));
        CHECK(db.committed("picture").has_value() == (ends != "rollback"));
    }
}

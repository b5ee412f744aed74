// SPDX-License-Identifier: MIT
//
// The page for people who come from Django (django.md): each row of its table, done.

#include <txhooks/ambient.hpp>
#include <txhooks/http_status.hpp>
#include <txhooks/outbox/fake.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include "say.hpp"

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace {

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

void send_mail(const std::string& name) {
    say("mail to ", name);
}

void on_commit() {
    Db db, replica;
    db.atomic([&] {
        replica.atomic([&] {
            replica.on_commit(send_mail, "the replica's");  // using="replica": say it to that connection
            db.on_commit(send_mail, "the default's");
        });
        say("the replica's block has ended");
    });
    check(said() == "mail to the replica's;the replica's block has ended;mail to the default's;");

    db.set_error_sink([](void*, const char*, const std::exception_ptr&) { say("logged"); });
    db.atomic([&] {
        db.on_commit(txhooks::robust, [] { throw std::runtime_error{"no queue"}; });  // robust=True
        db.on_commit(send_mail, "Ann");
    });
    check(said() == "logged;mail to Ann;");

    db.on_commit(send_mail, "Bob");  // outside any block: at once
    check(said() == "mail to Bob;");
}

// ---- The decorator

template <class Fn>
auto atomic(Fn fn) {
    return [fn](Db& db, const auto&... args) { return db.atomic([&] { return fn(db, args...); }); };
}

const auto sign_up = atomic([](Db& db, const std::string& name) {
    db.put(name);
    db.on_commit(send_mail, name);
});

void decorator() {
    Db db;
    sign_up(db, std::string{"Ann"});
    check(db.log() == Log{"BEGIN", "INSERT Ann", "COMMIT"} and said() == "mail to Ann;");
}

// ---- Savepoints

void savepoints() {
    Db db;
    db.atomic([&] {
        db.put("Ann");
        txhooks::Atomic sid{db};  // sid = savepoint()
        db.put("Bob");
        sid.rollback();  // savepoint_rollback(sid)
        txhooks::Atomic another{db};
        db.put("Cleo");
        another.commit();  // savepoint_commit(sid)
    });
    check(db.committed("Ann") and not db.committed("Bob") and db.committed("Cleo"));
}

// ---- set_rollback

void set_rollback() {
    Db db;
    db.atomic([&] {
        db.put("Ann");
        db.set_rollback(true);
        db.set_rollback(false);  // takes it back
    });
    check(db.committed("Ann").has_value());

    try {
        db.atomic([&] {
            try {
                db.atomic({.join = true}, [] { throw std::runtime_error{"in a joined block"}; });
            } catch (const std::runtime_error&) {
                db.put("Bob");  // goes, whatever the function does from here on: the block is doomed
            }
        });
        check(false);
    } catch (const txhooks::TransactionAborted& error) {
        say(error.what());  // Django rolls back here and says nothing
    }
    said();
    check(not db.committed("Bob"));

    try {
        db.atomic([&] {
            try {
                db.atomic({.join = true}, [] { throw std::runtime_error{"in a joined block"}; });
            } catch (const std::runtime_error&) {
                db.set_rollback(false);  // takes back a set_rollback(true), and no more: doomed it stays
            }
        });
        check(false);
    } catch (const txhooks::TransactionAborted&) {}

    db.atomic([&] {
        try {
            db.atomic({.join = true}, [] { throw std::runtime_error{"in a joined block"}; });
        } catch (const std::runtime_error&) {
            db.set_rollback(true);  // I know: rolled back, silently
        }
    });
    check(said().empty());
}

// ---- Requests

void requests() {
    Db db;
    const auto atomic_request = [&](auto view) {  // ATOMIC_REQUESTS
        db.atomic([&] { return txhooks::HttpStatus{view(db)}; });
    };
    const auto create = [](Db& db_of_request) {
        db_of_request.put("Ann");
        return 500;
    };
    atomic_request(create);
    check(not db.committed("Ann"));
    create(db);  // non_atomic_requests: not wrapped
    check(db.committed("Ann").has_value());
}

// ---- Tests

void tests() {
    Db db;
    {
        txhooks::testing::RolledBack test_case{db};  // TestCase
        sign_up(db, std::string{"Ann"});
        check(said() == "mail to Ann;");  // hooks run, as Django's TestCase does not let them
        check(db.get("Ann").has_value());
    }
    check(not db.get("Ann"));
    {
        txhooks::testing::RolledBack test_case{db};
        txhooks::testing::CapturedHooks callbacks{db};  // captureOnCommitCallbacks(execute=True)
        sign_up(db, std::string{"Ann"});
        check(callbacks.size() == 1 and said().empty());
        callbacks.run();
        check(said() == "mail to Ann;");
    }
    sign_up(db, std::string{"Ann"});  // TransactionTestCase: nothing around it, and you clean up
    db.erase("Ann");
    said();
}

// ---- delay_on_commit

struct Welcome {
    static constexpr const char* job_name = "welcome";
    std::string name;
};
std::string to_payload(const Welcome& job) {
    return job.name;
}
void from_payload(std::string_view stored, Welcome& job) {
    job.name = stored;
}

void delay_on_commit() {
    Db db;
    txhooks::JobTypes<Db> types;
    types.handle<Welcome>([](const Welcome& job) { send_mail(job.name); });
    txhooks::Outbox<Db> outbox{db, types};
    outbox.create_table();

    db.atomic([&] {
        outbox.add(Welcome{"Ann"});  // send_mail.delay_on_commit("Ann"), and it survives the process
    });
    db.atomic([&] {
        outbox.add(Welcome{"Bob"});
        db.set_rollback(true);
    });
    check(said() == "mail to Ann;");
}

}  // namespace

int main() {
    on_commit();
    decorator();
    savepoints();
    set_rollback();
    requests();
    tests();
    delay_on_commit();
    return verdict();
}

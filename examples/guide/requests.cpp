// SPDX-License-Identifier: MIT
//
// The page on requests and ambient connections (requests.md), in small. The whole service is atomic_requests.cpp.

#include <txhooks/ambient.hpp>
#include <txhooks/http_status.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "say.hpp"

#include <string>
#include <thread>

namespace {

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

void send_mail(const std::string& name) {
    say("mail to ", name);
}

// ---- A block around each request

struct Request {
    std::string name;
};
struct Response {
    int status = 200;
};

// Written as always; knows nothing of blocks.
template <class Db>
void handle(Db& db, const Request& request, Response& response) {
    db.put(request.name);
    db.on_commit(send_mail, request.name);
    response.status = request.name == "Bob" ? 409 : 201;
}

Response atomic_request(Db& db, const Request& request) {
    Response response;
    db.atomic([&] {
        handle(db, request, response);
        return txhooks::HttpStatus{response.status};
    });
    return response;
}

// The hooks wait until the response is on its way.
template <class Send>
void send_first(Db& db, const Request& request, const Send& send) {
    Response response;
    txhooks::DetachedHooks after;
    db.atomic({.detach = &after}, [&] {
        handle(db, request, response);
        return txhooks::HttpStatus{response.status};
    });
    send(response);
    after.run();
}

void requests() {
    Db db;
    db.set_on_hook_failure(txhooks::HookFailure::report);
    check(atomic_request(db, {"Ann"}).status == 201);
    check(atomic_request(db, {"Bob"}).status == 409);  // rolled back, and the response stands
    check(said() == "mail to Ann;");
    check(db.committed("Ann") and not db.committed("Bob"));

    send_first(db, {"Cleo"}, [](const Response& response) { say("answered ", response.status); });
    check(said() == "answered 201;mail to Cleo;");
}

// ---- Code without a connection at hand

struct User {
    std::string name;
};

void welcome(const User& user) {  // far below, no connection in sight
    txhooks::call_after_commit(send_mail, user.name);
}

void sign_up(Db& db, const std::string& name) {
    db.put(name);
    welcome({name});
}

void ambient() {
    Db db;
    {
        txhooks::AmbientConnection here{db};     // binds db to this thread while it lives
        db.atomic([&] { sign_up(db, "Ann"); });  // calls welcome() somewhere: the mail goes out after COMMIT
        check(said() == "mail to Ann;");

        db.atomic([&] {
            sign_up(db, "Bob");
            check(said().empty());
            std::thread{[] { welcome({"another thread"}); }}.join();  // that one has no connection: at once
            check(said() == "mail to another thread;");
            db.set_rollback(true);
        });
        check(said().empty());
    }
    check(txhooks::AmbientConnection::nearest() == nullptr);
    welcome({"Cleo"});  // nothing is bound: at once
    check(said() == "mail to Cleo;");
}

}  // namespace

int main() {
    requests();
    ambient();
    return verdict();
}

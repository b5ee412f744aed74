// SPDX-License-Identifier: MIT
//
// Unit tests of your own code without a database: the fake backend keeps rows with transactional visibility, logs what
// was asked of it, and fails when it is told to.

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "../tests/support/catch.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace {

// ---- Your service

struct Mailer {
    std::vector<std::string> sent;
    void send(const std::string& name) { sent.push_back(name); }
};

template <class Db>
void sign_up(Db& db, Mailer& mailer, const std::string& name) {
    db.atomic([&] {
        db.put(name);
        db.on_commit(&Mailer::send, &mailer, name);
    });
}

// ---- Its tests

using Log = std::vector<std::string>;
using txhooks::HookedConnection;
using txhooks::testing::FakeBackend;
using txhooks::testing::Verb;
using txhooks::testing::When;

TEST_CASE("sign_up: writes the user and then sends the mail") {
    HookedConnection<FakeBackend> db;
    Mailer mailer;

    sign_up(db, mailer, "Ann");

    CHECK(db.log() == Log{"BEGIN", "INSERT Ann", "COMMIT"});
    CHECK(db.committed("Ann"));
    CHECK(mailer.sent == Log{"Ann"});
}

TEST_CASE("sign_up: sends no mail when the surrounding block rolls back") {
    HookedConnection<FakeBackend> db;
    Mailer mailer;

    txhooks::Atomic tx{db};
    sign_up(db, mailer, "Bob");
    tx.rollback();

    CHECK(not db.committed("Bob"));
    CHECK(mailer.sent.empty());
}

TEST_CASE("sign_up: sends no mail when nothing proves that the COMMIT arrived") {
    HookedConnection<FakeBackend> db;
    Mailer mailer;
    db.faults.lose_connection(Verb::commit, When::after_effect);

    CHECK_THROWS_AS(sign_up(db, mailer, "Cleo"), txhooks::CommitUnknown);

    CHECK(db.committed("Cleo"));  // the truth, which the client could not know
    CHECK(mailer.sent.empty());
}

}  // namespace

// SPDX-License-Identifier: MIT
//
// Tests of your own code on a real database, each in a transaction that is rolled back. RolledBack: blocks commit and
// hooks run as in production, and the rows are gone afterwards. CapturedHooks: the hooks are kept, to be counted, and
// run or dropped.
//
// Which one when: RolledBack to test what the hooks do; CapturedHooks as well where they would reach the world, or
// where the test is about when they run. Real commits, and rows that the test deletes, for code that uses a second
// connection (workers, pools) or that must survive what only a COMMIT can answer: a busy file, a deferred constraint, a
// lost reply.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/rolled_back.hpp>

#include "../tests/support/catch.hpp"

#include <SQLiteCpp/SQLiteCpp.h>

#include <string>
#include <vector>

namespace {

using Db = txhooks::HookedConnection<SQLite::Database>;

// ---- Your service

struct Mailer {
    std::vector<std::string> sent;
    void send(const std::string& name) { sent.push_back(name); }
};

void sign_up(Db& db, Mailer& mailer, const std::string& name) {
    db.atomic([&] {
        SQLite::Statement insert{db, "INSERT INTO user VALUES (?)"};
        insert.bind(1, name);
        insert.exec();
        db.on_commit(&Mailer::send, &mailer, name);
    });
}

// ---- Its tests: one database for all of them

Db& database() {
    static Db db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    static const int made = db.exec("CREATE TABLE IF NOT EXISTS user (name TEXT PRIMARY KEY)");
    static_cast<void>(made);
    return db;
}

int users(Db& db) {
    return db.execAndGet("SELECT count(*) FROM user");
}

TEST_CASE("sign_up: writes the user and sends the mail") {
    Db& db = database();
    txhooks::testing::RolledBack test{db};
    Mailer mailer;

    sign_up(db, mailer, "Ann");

    CHECK(mailer.sent == std::vector<std::string>{"Ann"});
    CHECK(users(db) == 1);
}

TEST_CASE("sign_up: sends no second mail to a name that is taken, and starts without the users of other tests") {
    Db& db = database();
    txhooks::testing::RolledBack test{db};
    Mailer mailer;

    sign_up(db, mailer, "Ann");
    CHECK_THROWS_AS(sign_up(db, mailer, "Ann"), SQLite::Exception);

    CHECK(mailer.sent.size() == 1);
    CHECK(users(db) == 1);
}

TEST_CASE("sign_up: leaves the mail to the end of the import it is part of") {
    Db& db = database();
    txhooks::testing::RolledBack test{db};
    txhooks::testing::CapturedHooks hooks{db};
    Mailer mailer;

    db.atomic([&] {
        sign_up(db, mailer, "Ann");
        sign_up(db, mailer, "Bob");
        CHECK(hooks.size() == 0);
    });

    CHECK(hooks.size() == 2);
    CHECK(mailer.sent.empty());
    hooks.run();
    CHECK(mailer.sent == std::vector<std::string>{"Ann", "Bob"});
}

}  // namespace

// SPDX-License-Identifier: MIT
//
// The program of the README: a mail that goes out after the commit, or never.

#include <txhooks/backends/sqlitecpp.hpp>

#include <iostream>
#include <stdexcept>
#include <string>

void send_welcome_email(const std::string& name) {
    std::cout << "mail: welcome, " << name << '\n';
}

int main() {
    txhooks::HookedConnection<SQLite::Database> db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.exec("CREATE TABLE user (name TEXT)");

    db.atomic([&] {  // commits when the function returns, rolls back when it throws
        db.exec("INSERT INTO user VALUES ('Ann')");
        db.on_commit(send_welcome_email, "Ann");  // runs after the COMMIT, or never
    });

    try {
        db.atomic([&] {
            db.exec("INSERT INTO user VALUES ('Bob')");
            db.on_commit(send_welcome_email, "Bob");
            throw std::runtime_error{"card declined"};  // no row, and no mail
        });
    } catch (const std::runtime_error&) {}

    std::cout << "users: " << db.execAndGet("SELECT count(*) FROM user") << '\n';
}

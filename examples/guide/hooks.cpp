// SPDX-License-Identifier: MIT
//
// The page on the other hooks (hooks.md), in small. The whole programs are write_behind.cpp, upload.cpp and order_total.cpp.

#include <txhooks/ambient.hpp>
#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/batch.hpp>

#include "say.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Database = txhooks::HookedConnection<SQLite::Database>;

void send_mail(const std::string& kind, const std::string& name) {
    say(kind, " to ", name);
}

void insert_user(Database& db, const std::string& name) {
    SQLite::Statement insert{db, "INSERT INTO user VALUES (?)"};
    insert.bind(1, name);
    insert.exec();
}

void on_commit(Database& db, const std::string& name) {
    db.atomic([&] {
        insert_user(db, name);
        db.on_commit(send_mail, "welcome", name);
    });
    check(said() == "welcome to " + name + ";");
}

// ---- One of each

struct Cache {
    void flush(Database& db) {
        db.exec("INSERT INTO user VALUES ('flushed')");
        say("flushed");
    }
};

struct Users {
    void forget(int id) { say("user ", id, " is forgotten"); }
};

void store_file(const std::string& path) {
    say(path, " is stored");
}
void remove_file(const std::string& path) {
    say(path, " is removed");
}

void four(Database& db, bool fail) {
    Cache cache;
    Users users;
    const int id = 7;
    const std::string path = "photo";
    db.atomic([&] {
        db.before_commit([&] { cache.flush(db); });  // inside the transaction, just before COMMIT: may write, may throw
        db.on_commit(send_mail, "welcome", "Ann");   // it is proven to be committed
        db.on_rollback(remove_file, path);           // the row is proven undone: the file may go
        db.unless_committed([&] { users.forget(id); });  // the row is not proven to be there: what memory knows must go
        store_file(path);                                // register first, then change
        if (fail) throw std::runtime_error{"no more room"};
    });
}

void kinds(Database& db) {
    four(db, false);
    check(said() == "photo is stored;flushed;welcome to Ann;");
    try {
        four(db, true);
    } catch (const std::runtime_error&) {}
    check(said() == "photo is stored;user 7 is forgotten;photo is removed;");
}

// ---- A cache that others read

void invalidate(int product) {
    say("entry ", product, " is dropped");
}

void shared_cache(Database& db) {
    const int product = 7;
    for (const bool fails : {false, true}) {
        db.atomic([&] {
            db.on_commit(invalidate, product);
            db.unless_committed(invalidate, product);
            db.set_rollback(fails);
        });
        check(said() == "entry 7 is dropped;");
    }
}

// ---- Batch

struct Line {
    int order;
    int price;
};

void insert(Database& db, const Line& line) {
    SQLite::Statement insert{db, "INSERT INTO line VALUES (?, ?)"};
    insert.bind(1, line.order);
    insert.bind(2, line.price);
    insert.exec();
}

void count(Database& db, int order) {
    SQLite::Statement total{db, "INSERT OR REPLACE INTO total SELECT id, sum(price) FROM line WHERE id = ?"};
    total.bind(1, order);
    total.exec();
    say("order ", order, " is counted");
}

void tell(const std::vector<int>& orders) {
    say("new totals of ", orders.size(), " orders");
}

void batch() {
    txhooks::Batch<int, Database> recount{[](Database& db, const std::vector<int>& orders) {
        for (const int order : orders) count(db, order);
        db.on_commit(tell, orders);  // one message for all of them
    }};
    Database db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.exec("CREATE TABLE line (id INTEGER, price INTEGER); CREATE TABLE total (id INTEGER PRIMARY KEY, sum INTEGER)");
    const std::vector<Line> lines{{1, 5}, {2, 7}, {1, 3}};
    db.atomic([&] {
        for (const Line& line : lines) {
            insert(db, line);
            recount.add(db, line.order);  // as often as you like
        }
    });

    check(said() == "order 1 is counted;order 2 is counted;new totals of 2 orders;");
}

// ---- Without a connection at hand

void store(const std::string& path) {
    if (txhooks::Connection* const db = txhooks::AmbientConnection::nearest()) db->on_rollback(remove_file, path);
    store_file(path);
}

void ambient(Database& db) {
    const txhooks::AmbientConnection here{db};
    db.atomic([&] {
        store("photo");
        db.set_rollback(true);
    });
    check(said() == "photo is stored;photo is removed;");
}

}  // namespace

int main() {
    Database db{":memory:", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.exec("CREATE TABLE user (name)");
    on_commit(db, "Ann");
    kinds(db);
    shared_cache(db);
    batch();
    ambient(db);
    return verdict();
}

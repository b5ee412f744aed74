// SPDX-License-Identifier: MIT
//
// An order keeps the total of its lines. Whoever adds a line has to see to it; done at once, the total of an order with
// many lines is counted as many times. A Batch collects the orders that a transaction has touched, and before COMMIT
// each is counted once. What a savepoint takes back touches nothing.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/batch.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

class Orders {
public:
    explicit Orders(Database& db) : db_{db} {}

    void add_line(int order, int price) {
        insert_line(order, price);
        recount_.add(db_, order);
    }

    void add_line_and_count(int order, int price) {
        insert_line(order, price);
        count(order);
    }

    // How often a total was counted, and what the world was told, since somebody asked.
    int take_counted() { return std::exchange(counted_, 0); }
    std::string take_told() { return std::exchange(told_, ""); }

private:
    void insert_line(int order, int price) {
        SQLite::Statement insert{db_, "INSERT INTO line (in_order, price) VALUES (?, ?)"};
        insert.bind(1, order);
        insert.bind(2, price);
        insert.exec();
    }

    void count(int order) {
        SQLite::Statement update{
            db_, "UPDATE purchase SET total = (SELECT sum(price) FROM line WHERE in_order = ?1) WHERE id = ?1"};
        update.bind(1, order);
        update.exec();
        ++counted_;
    }

    Database& db_;
    int counted_ = 0;
    std::string told_;

    // Inside the transaction: what it throws rolls everything back.
    txhooks::Batch<int, Database> recount_{[this](Database& db, const std::vector<int>& orders) {
        for (const int order : orders) count(order);
        db.on_commit([this, orders] {
            told_ += "changed:";
            for (const int order : orders) told_ += " " + std::to_string(order);
            told_ += "; ";
        });
    }};
};

// ---- What is true

bool all_well = true;

// What a second connection sees of order 1 and 2, which must be as expected.
void look(const char* what, Orders& orders, const std::string& file, int counted_expected,
          const std::string& told_expected, int first, int second) {
    SQLite::Database others{file};
    const int wrong = others.execAndGet(
        "SELECT count(*) FROM purchase WHERE total <> (SELECT coalesce(sum(price), 0) FROM line"
        " WHERE in_order = id)");
    const int first_total = others.execAndGet("SELECT total FROM purchase WHERE id = 1");
    const int second_total = others.execAndGet("SELECT total FROM purchase WHERE id = 2");
    const int counted = orders.take_counted();
    const std::string told = orders.take_told();
    std::printf("%-38s counted %3d times, totals %3d and %2d  %s\n", what, counted, first_total, second_total,
                told.c_str());
    if (wrong == 0 and counted == counted_expected and told == told_expected and first_total == first and
        second_total == second)
        return;
    std::printf("WRONG: expected %d times, %d and %d  %s\n", counted_expected, first, second, told_expected.c_str());
    all_well = false;
}

void use(Database& db, const std::string& file) {
    Orders orders{db};

    db.atomic([&] {
        for (int i = 0; i != 100; ++i) orders.add_line_and_count(1, 1);
    });
    look("a hundred lines, by hand", orders, file, 100, "", 100, 0);

    db.atomic([&] {
        for (int i = 0; i != 100; ++i) orders.add_line(1, 1);
    });
    look("a hundred lines, in a batch", orders, file, 1, "changed: 1; ", 200, 0);

    db.atomic([&] {
        orders.add_line(1, 1);
        try {
            db.atomic([&] {
                orders.add_line(2, 10);
                throw std::runtime_error{"not in stock"};
            });
        } catch (const std::runtime_error&) {}
    });
    look("a savepoint with a line rolled back", orders, file, 1, "changed: 1; ", 201, 0);

    db.atomic([&] {
        orders.add_line(2, 10);
        orders.add_line(1, 1);
        orders.add_line(2, 10);
    });
    look("two orders", orders, file, 2, "changed: 2 1; ", 202, 20);

    db.atomic([&] {
        orders.add_line(2, 10);
        db.before_commit([&] { orders.add_line(2, 5); });  // the postage: runs when the Batch has begun to collect
    });
    look("a hook before COMMIT adds a line", orders, file, 2, "changed: 2; changed: 2; ", 202, 35);

    try {
        db.atomic([&] { orders.add_line(2, 1'000); });  // the table refuses that total, before COMMIT
        all_well = false;
    } catch (const SQLite::Exception& e) {
        std::printf("%s\n", e.what());
    }
    look("rolled back, and nothing is told", orders, file, 0, "", 202, 35);
}

}  // namespace

int main() {
    const auto folder = std::filesystem::temp_directory_path() / ("txhooks_order_total_" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    const std::string file = (folder / "orders.db").string();
    {
        Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
        db.exec("CREATE TABLE purchase (id INTEGER PRIMARY KEY, total INTEGER NOT NULL CHECK (total <= 1000))");
        db.exec("CREATE TABLE line (in_order INTEGER REFERENCES purchase (id), price INTEGER)");
        db.exec("INSERT INTO purchase VALUES (1, 0), (2, 0)");
        use(db, file);
    }
    std::filesystem::remove_all(folder);
    return all_well ? EXIT_SUCCESS : EXIT_FAILURE;
}

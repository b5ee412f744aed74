// SPDX-License-Identifier: MIT
//
// A stale cache, shown and prevented. Prices are rows in SQLite and cached in Redis; who changes one invalidates its
// cache entry. Invalidated inside the transaction, a reader may come before COMMIT, find no entry, read the old price
// and cache it again, where it stays. Invalidated by on_commit, the next reader reads the new price.
//
// That leaves a reader that had read the old price before COMMIT and caches it after the invalidation. Redis takes care
// of it, here in both cases: a reader WATCHes the entry's version, and what it stores is refused if that has changed.
//
// Without on_commit most transactions are as fast as they can be, so how many prices become stale is up to the machine.
// The first one takes its time, so that it is never none: it goes on writing the history of its price until a reader
// has been there.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include "support/redis.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using Database = txhooks::HookedConnection<SQLite::Database>;
using support::Redis;
using support::RedisServer;

namespace {

constexpr const char* old_price = "1";
constexpr const char* new_price = "2";

std::string entry(int product) {
    return "price:" + std::to_string(product);
}
std::string version(int product) {
    return "version:" + std::to_string(product);
}

// ---- Readers ask for the price of whatever is being changed, again and again

class Readers {
public:
    Readers(const std::string& file, const std::string& socket) {
        for (int i = 0; i != 2; ++i)
            threads_.emplace_back([this, file, socket] {
                SQLite::Database db{file};
                Redis redis{socket};
                while (not stop_) {
                    const int product = popular_;
                    price(db, redis, product);
                    if (popular_ == product) ++reads_;
                }
            });
    }
    Readers(const Readers&) = delete;
    Readers& operator=(const Readers&) = delete;
    ~Readers() {
        stop_ = true;
        for (std::thread& thread : threads_) thread.join();
    }

    void let_ask_for(int product) { popular_ = product; }
    int reads() const { return reads_; }
    int stored() const { return stored_; }

private:
    std::string price(SQLite::Database& db, Redis& redis, int product) {
        if (const auto cached = redis({"GET", entry(product)})) return *cached;
        redis({"WATCH", version(product)});
        SQLite::Statement query{db, "SELECT price FROM product WHERE id = ?"};
        query.bind(1, product);
        query.executeStep();
        const std::string price = query.getColumn(0).getString();
        redis({"MULTI"});
        redis({"SET", entry(product), price});
        if (redis({"EXEC"})) ++stored_;
        return price;
    }

    std::atomic<int> popular_{1};
    std::atomic<int> reads_{0};
    std::atomic<int> stored_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

// ---- The shop

enum class Invalidate { inside_the_transaction, on_commit };

class Shop {
public:
    Shop(const std::string& file, const std::string& socket, Invalidate when)
        : db_{file, SQLite::OPEN_READWRITE, 20'000}, redis_{socket}, when_{when} {
        db_.exec("PRAGMA synchronous = NORMAL");
    }

    void change_price(int product, const Readers& readers) {
        db_.atomic([&] {
            run("UPDATE product SET price = price + 1 WHERE id = ?", product);
            if (when_ == Invalidate::on_commit)
                db_.on_commit(&Shop::invalidate, this, product);
            else
                invalidate(product);
            for (int i = 0; i != 5; ++i) write_history(product);
            if (product == 1) take_time(product, readers);
        });
    }

private:
    void run(const char* sql, int product) {
        SQLite::Statement statement{db_, sql};
        statement.bind(1, product);
        statement.exec();
    }

    void write_history(int product) { run("INSERT INTO history VALUES (?)", product); }

    void invalidate(int product) {
        redis_({"MULTI"});
        redis_({"INCR", version(product)});
        redis_({"DEL", entry(product)});
        redis_({"EXEC"});
    }

    // Until two reads have ended that may have begun before this, and so one that has not.
    void take_time(int product, const Readers& readers) {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds{20};
        for (const int before = readers.reads(); readers.reads() < before + 3;) {
            write_history(product);
            if (std::chrono::steady_clock::now() > give_up) throw std::runtime_error{"the readers do not read"};
        }
    }

    Database db_;
    Redis redis_;
    Invalidate when_;
};

// ---- Ten thousand changes

// How many prices are cached that are not the price.
int change_prices(RedisServer& server, int products, Invalidate when) {
    const std::string file = server.folder() + (when == Invalidate::on_commit ? "/on_commit.db" : "/inside.db");
    SQLite::Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
    db.exec("PRAGMA journal_mode = WAL");
    db.exec("CREATE TABLE product (id INTEGER PRIMARY KEY, price INTEGER); CREATE TABLE history (of_product)");
    Redis redis{server.socket()};
    redis({"FLUSHALL"});
    {
        SQLite::Transaction all{db};
        SQLite::Statement insert{db, "INSERT INTO product VALUES (?, 1)"};
        for (int product = 1; product <= products; ++product) {
            insert.bind(1, product);
            insert.exec();
            insert.reset();
            redis({"SET", entry(product), old_price});
        }
        all.commit();
    }
    {
        Shop shop{file, server.socket(), when};
        Readers readers{file, server.socket()};
        for (int product = 1; product <= products; ++product) {
            readers.let_ask_for(product);
            shop.change_price(product, readers);
        }
        if (readers.stored() == 0) throw std::runtime_error{"nothing was cached again"};
    }
    int stale = 0;
    for (int product = 1; product <= products; ++product)
        if (redis({"GET", entry(product)}).value_or(new_price) != new_price) ++stale;
    return stale;
}

}  // namespace

int main(int argc, char** argv) try {
    const int products = argc > 1 ? std::atoi(argv[1]) : 10'000;
    RedisServer server;
    const int without = change_prices(server, products, Invalidate::inside_the_transaction);
    const int with = change_prices(server, products, Invalidate::on_commit);
    std::printf("without on_commit: %5d of %d prices stay stale in the cache\n", without, products);
    std::printf("with on_commit:    %5d of %d prices stay stale in the cache\n", with, products);
    if (without == 0 or with != 0) {
        std::printf("WRONG: without it some must be, with it none\n");
        return EXIT_FAILURE;
    }
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return EXIT_FAILURE;
}

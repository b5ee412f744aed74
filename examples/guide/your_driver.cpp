// SPDX-License-Identifier: MIT
//
// The page on a driver of your own (your_driver.md): MyDatabase speaks SQL (here a thin class over SQLite, standing for any
// driver), gets an adapter of two functions, and is asked whether that keeps the promise.

#include <txhooks/testing/adapter_check.hpp>
#include <txhooks/txhooks.hpp>

#include "say.hpp"

#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace {

class MyDatabase {
public:
    explicit MyDatabase(const std::string& name) {
        if (sqlite3_open(name.c_str(), &handle_) != SQLITE_OK) throw std::runtime_error{"cannot open " + name};
        run("PRAGMA foreign_keys = ON");
    }
    MyDatabase(const MyDatabase&) = delete;
    MyDatabase& operator=(const MyDatabase&) = delete;
    ~MyDatabase() { sqlite3_close(handle_); }

    void run(const std::string& sql) {
        if (sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
            throw std::runtime_error{sqlite3_errmsg(handle_)};
    }
    long number(const std::string& query) {
        long result = 0;
        const auto read = [](void* into, int, char** values, char**) {
            *static_cast<long*>(into) = std::stol(values[0]);
            return 0;
        };
        if (sqlite3_exec(handle_, query.c_str(), read, &result, nullptr) != SQLITE_OK)
            throw std::runtime_error{sqlite3_errmsg(handle_)};
        return result;
    }
    bool in_transaction() const { return sqlite3_get_autocommit(handle_) == 0; }

private:
    sqlite3* handle_ = nullptr;
};

}  // namespace

template <>
struct txhooks::BackendAdapter<MyDatabase> : txhooks::SqlAdapter<txhooks::BackendAdapter<MyDatabase>> {
    explicit BackendAdapter(MyDatabase& database) : db{database} {}
    void execute(const char* sql) { db.run(sql); }     // throws if it fails
    txhooks::ConnectionState state() const noexcept {  // without a round trip
        return db.in_transaction() ? txhooks::ConnectionState::open : txhooks::ConnectionState::idle;
    }
    MyDatabase& db;
};

namespace {

void hooks() {
    txhooks::HookedConnection<MyDatabase> db{":memory:"};
    db.run("CREATE TABLE user (name)");
    db.atomic([&] {
        db.run("INSERT INTO user VALUES ('Ann')");
        db.on_commit([] { say("mail to Ann"); });
    });
    check(said() == "mail to Ann;");
}

// ---- Does it keep the promise?

struct Session {  // opens connections of its own, for each story
    explicit Session(const std::string& name) : db{name}, others{name} {}

    MyDatabase& backend() { return db; }
    template <class Db>
    void execute(Db&, const std::string& sql) {
        db.run(sql);
    }
    long look(const std::string& query) { return others.number(query); }

    MyDatabase db;
    MyDatabase others;
};

bool keeps_the_promise(const std::string& file) {
    return txhooks::testing::adapter_check("mine", [&] { return Session{file}; },
                                           {"busy COMMIT", "refused COMMIT", "reply to COMMIT lost",
                                            "killed before COMMIT", "killed during COMMIT"})
        .passed();
}

}  // namespace

int main() {
    hooks();
    const auto folder = std::filesystem::temp_directory_path() / ("txhooks_your_driver_" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    check(keeps_the_promise((folder / "mine.db").string()));
    std::filesystem::remove_all(folder);
    return verdict();
}

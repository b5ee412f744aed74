// SPDX-License-Identifier: MIT
//
// Accounts are changed in memory, as often as it takes, and written once, before COMMIT. The memory must follow the
// database wherever that goes: what a savepoint has changed goes back to what it was before it; what a transaction has
// changed is forgotten unless the commit is proven, and read again when somebody asks.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

struct Account {
    std::int64_t id = 0;  // 0: it has no row yet
    std::int64_t balance = 0;
    bool operator==(const Account&) const = default;
};

// All accounts, by their owners. Nobody else writes to their table.
class Accounts {
public:
    explicit Accounts(Database& db) : db_{db} {}

    // From memory, else from the database; null: there is none.
    const Account* find(const std::string& owner) {
        if (const auto at = known_.find(owner); at != known_.end()) return &at->second;
        SQLite::Statement query{db_, "SELECT id, balance FROM account WHERE owner = ?"};
        query.bind(1, owner);
        if (not query.executeStep()) return nullptr;
        return &(known_[owner] = {query.getColumn(0).getInt64(), query.getColumn(1).getInt64()});
    }

    void open(const std::string& owner) {
        if (find(owner) != nullptr) throw std::runtime_error{owner + " has an account"};
        change(owner, 0);
    }

    void pay_in(const std::string& owner, std::int64_t amount) {
        if (find(owner) == nullptr) throw std::runtime_error{owner + " has no account"};
        change(owner, amount);
    }

private:
    // Outside any block this is a block of its own.
    void change(const std::string& owner, std::int64_t amount) {
        db_.atomic({.join = true}, [&] {
            // First register, then change: whatever throws, the memory is right.
            if (changed_.empty()) db_.before_commit(&Accounts::write, this);
            if (not changed_.contains(owner))
                // Until now the memory said what the database does, so to forget it is always right; also where nobody
                // knows what became of the transaction, and the old balance would be a guess as the new one is.
                db_.unless_committed(&Accounts::forget, this, owner);
            else
                // What was there before this change is nowhere else, and right where this one is proven undone.
                db_.on_rollback(&Accounts::restore, this, owner, known_.at(owner));
            changed_.insert(owner);
            known_[owner].balance += amount;
        });
    }

    void write() {
        SQLite::Statement update{db_, "UPDATE account SET balance = ? WHERE id = ?"};
        SQLite::Statement insert{db_, "INSERT INTO account (owner, balance) VALUES (?, ?)"};
        for (const std::string& owner : std::exchange(changed_, {})) {  // what changes after this is written again
            Account& account = known_.at(owner);
            if (account.id == 0) {
                insert.bind(1, owner);
                insert.bind(2, account.balance);
                insert.exec();
                insert.reset();
                account.id = db_.getLastInsertRowid();
            } else {
                update.bind(1, account.balance);
                update.bind(2, account.id);
                update.exec();
                update.reset();
            }
        }
    }

    // With its id: that may be another's by and by.
    void forget(const std::string& owner) {
        changed_.erase(owner);
        known_.erase(owner);
    }

    void restore(const std::string& owner, const Account& before) { known_[owner] = before; }

    Database& db_;
    std::map<std::string, Account> known_;
    std::set<std::string> changed_;  // and not written
};

// ---- What is true

bool all_well = true;

void check(bool holds, const char* what) {
    if (holds) return;
    std::printf("WRONG: %s\n", what);
    all_well = false;
}

// A second connection to the same file.
std::map<std::string, Account> rows(const std::string& file) {
    SQLite::Database second{file};
    SQLite::Statement query{second, "SELECT owner, id, balance FROM account"};
    std::map<std::string, Account> all;
    while (query.executeStep())
        all[query.getColumn(0).getString()] = {query.getColumn(1).getInt64(), query.getColumn(2).getInt64()};
    return all;
}

void look(const char* what, Accounts& accounts, const std::string& file, std::int64_t ann, std::int64_t bob) {
    const auto truth = rows(file);
    bool agree = true;
    for (const char* owner : {"Ann", "Bob", "Dora", "Eve"}) {
        const Account* const account = accounts.find(owner);
        const auto row = truth.find(owner);
        agree = agree and (account == nullptr ? row == truth.end() : row != truth.end() and row->second == *account);
    }
    std::printf("%-46s Ann %4d  Bob %4d  memory and database %s\n", what, static_cast<int>(truth.at("Ann").balance),
                static_cast<int>(truth.at("Bob").balance), agree ? "agree" : "differ");
    check(agree, "the memory does not say what the database does");
    check(truth.at("Ann").balance == ann and truth.at("Bob").balance == bob, "that is not what was committed");
}

// How many rows `work` writes.
template <class Work>
int written(Database& db, const Work& work) {
    const int before = db.getTotalChanges();
    work();
    return db.getTotalChanges() - before;
}

void payments(Database& db, Accounts& accounts, const std::string& file) {
    const int by_hand = written(db, [&] {
        db.atomic([&] {
            SQLite::Statement update{db, "UPDATE account SET balance = balance + 1 WHERE owner = ?"};
            for (int i = 0; i != 1'000; ++i) {
                update.bind(1, i % 2 == 0 ? "Ann" : "Bob");
                update.exec();
                update.reset();
            }
        });
    });
    look("paid in by hand", accounts, file, 500, 500);
    const int behind = written(db, [&] {
        db.atomic([&] {
            for (int i = 0; i != 1'000; ++i) accounts.pay_in(i % 2 == 0 ? "Ann" : "Bob", 1);
        });
    });
    std::printf("a thousand payments: %d UPDATEs by hand, %d before COMMIT\n", by_hand, behind);
    check(by_hand == 1'000 and behind == 2, "each account is written once");
    look("paid in, written behind", accounts, file, 1'000, 1'000);
}

void failures(Database& db, Accounts& accounts, const std::string& file) {
    try {
        db.atomic([&] {
            accounts.pay_in("Ann", 7);
            throw std::runtime_error{"changed my mind"};
        });
    } catch (const std::runtime_error&) {}
    look("the block failed", accounts, file, 1'000, 1'000);

    db.atomic([&] {
        accounts.pay_in("Ann", 1);
        {
            txhooks::Atomic savepoint{db};
            for (const char* owner : {"Ann", "Ann", "Bob"}) accounts.pay_in(owner, 50);
            accounts.open("Dora");
            savepoint.rollback();
        }
        check(accounts.find("Ann")->balance == 1'001, "Ann has what she had before the savepoint, written or not");
        check(accounts.find("Bob")->balance == 1'000 and accounts.find("Dora") == nullptr, "the others, what is there");
    });
    look("a savepoint rolled back", accounts, file, 1'001, 1'000);

    std::int64_t dora = 0;
    try {
        db.atomic([&] {
            accounts.open("Dora");
            accounts.pay_in("Ann", 7);
            db.before_commit([&] { dora = accounts.find("Dora")->id; });
            db.exec("INSERT INTO card (owner) VALUES ('nobody')");  // COMMIT will be refused: it has no account
        });
    } catch (const SQLite::Exception&) {}
    look("COMMIT was refused, all was written", accounts, file, 1'001, 1'000);
    accounts.open("Eve");
    check(dora != 0 and accounts.find("Eve")->id == dora, "an id whose row was undone is given to the next");
    accounts.open("Dora");
    look("Eve has the id that Dora had, Dora a new one", accounts, file, 1'001, 1'000);
}

// Code in the block ends the transaction behind its back, with all written, and SQLite does not tell how.
void losses(Database& db, Accounts& accounts, const std::string& file) {
    for (const char* behind_its_back : {"ROLLBACK", "COMMIT"}) {
        try {
            db.atomic([&] {
                accounts.pay_in("Ann", 7);
                db.before_commit([&] { db.exec(behind_its_back); });
            });
            check(false, "that is a loss");
        } catch (const txhooks::TransactionLost& lost) {
            check(lost.outcome() == txhooks::Outcome::unknown, "nobody knows");
        }
        const bool rolled_back = *behind_its_back == 'R';
        look(rolled_back ? "lost, it was a ROLLBACK" : "lost, it was a COMMIT", accounts, file,
             rolled_back ? 1'001 : 1'008, 1'000);
    }
}

}  // namespace

int main() {
    const auto folder = std::filesystem::temp_directory_path() / ("txhooks_write_behind_" + std::to_string(getpid()));
    std::filesystem::create_directory(folder);
    const std::string file = (folder / "accounts.db").string();
    {
        Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
        db.exec("PRAGMA foreign_keys = ON");
        db.exec("CREATE TABLE account (id INTEGER PRIMARY KEY, owner TEXT UNIQUE, balance INTEGER)");
        db.exec("CREATE TABLE card (owner TEXT REFERENCES account (owner) DEFERRABLE INITIALLY DEFERRED)");

        db.exec("INSERT INTO account (owner, balance) VALUES ('Ann', 0), ('Bob', 0)");

        Accounts accounts{db};
        payments(db, accounts, file);
        failures(db, accounts, file);
        losses(db, accounts, file);
    }
    std::filesystem::remove_all(folder);
    return all_well ? EXIT_SUCCESS : EXIT_FAILURE;
}

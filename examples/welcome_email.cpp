// SPDX-License-Identifier: MIT
//
// Signing up writes a user and sends a welcome e-mail. The e-mail must go out if and only if the user is really there,
// for everybody: after the commit, and never for a sign-up that was rolled back.

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

// What the rest of the world sees: a second connection to the same file.
bool others_see(const std::string& file, const std::string& name) {
    SQLite::Database second{file};
    SQLite::Statement query{second, "SELECT count(*) FROM user WHERE name = ?"};
    query.bind(1, name);
    return query.executeStep() and query.getColumn(0).getInt() == 1;
}

void say(const std::string& what, const std::string& file, const std::string& name) {
    std::printf("    %-36s others see %s: %s\n", what.c_str(), name.c_str(), others_see(file, name) ? "yes" : "no");
}

std::vector<std::string> outbox;

// The hook: a job for a queue in real life.
void send_mail(const std::string& kind, const std::string& name, const std::string& file) {
    outbox.push_back(kind + " to " + name);
    say("e-mail sent: " + kind, file, name);
}

void insert_user(Database& db, const std::string& file, const std::string& name) {
    SQLite::Statement insert{db, "INSERT INTO user (name) VALUES (?)"};
    insert.bind(1, name);
    insert.exec();
    say("row inserted", file, name);
}

void charge_card(const std::string& name) {
    if (name == "Bob") throw std::runtime_error{"card declined"};
}

void subscribe_to_newsletter(const std::string& name) {
    if (name == "Cleo") throw std::runtime_error{"newsletter is full"};
}

void sign_up(Database& db, const std::string& file, const std::string& name) {
    db.atomic([&] {
        insert_user(db, file, name);
        db.on_commit(send_mail, "welcome", name, file);  // arguments are copied now, the mail goes out later

        try {
            db.atomic([&] {  // a savepoint: if it fails, its hooks go with it, and only they
                db.on_commit(send_mail, "newsletter", name, file);
                subscribe_to_newsletter(name);
            });
        } catch (const std::exception& e) {
            std::printf("    savepoint rolled back: %s\n", e.what());
        }

        charge_card(name);
        std::printf("    end of the block: COMMIT\n");
    });
}

}  // namespace

int main() {
    const std::string file = (std::filesystem::temp_directory_path() / "txhooks_welcome_email.db").string();
    for (const char* suffix : {"", "-journal"}) std::filesystem::remove(file + suffix);
    {
        Database db{file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
        db.exec("CREATE TABLE user (name TEXT PRIMARY KEY)");

        for (const char* name : {"Ann", "Bob", "Cleo"}) {
            std::printf("%s signs up\n", name);
            try {
                sign_up(db, file, name);
            } catch (const std::exception& e) {
                say(std::string{"ROLLBACK, no e-mail: "} + e.what(), file, name);
            }
        }
    }
    std::filesystem::remove(file);

    const std::vector<std::string> expected{"welcome to Ann", "newsletter to Ann", "welcome to Cleo"};
    std::printf("outbox:");
    for (const std::string& mail : outbox) std::printf(" [%s]", mail.c_str());
    std::printf("\n");
    if (outbox != expected) {
        std::printf("WRONG: that is not what was committed\n");
        return EXIT_FAILURE;
    }
}

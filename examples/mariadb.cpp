// SPDX-License-Identifier: MIT
//
// The sign-up story on a MariaDB server: the welcome e-mail goes out if and only if the user is committed.
//
//     mariadb <option file>
//
// The option file says how to connect, as for every MariaDB client ([client] with user, password, socket, database
// ...). Without one it is client.cnf in the folder that TXHOOKS_MARIADB names: a server of our tests. The table
// txhooks_example_user is made anew, and dropped at the end.

#include <txhooks/backends/mariadb.hpp>

#include <mysql.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using Handle = std::unique_ptr<MYSQL, void (*)(MYSQL*)>;
using Database = txhooks::HookedConnection<MYSQL*>;

namespace {

Handle open(const std::string& option_file) {
    Handle handle{mysql_init(nullptr), mysql_close};
    mysql_options(handle.get(), MYSQL_READ_DEFAULT_FILE, option_file.c_str());
    mysql_options(handle.get(), MYSQL_READ_DEFAULT_GROUP, "client");
    if (mysql_real_connect(handle.get(), nullptr, nullptr, nullptr, nullptr, 0, nullptr, 0) == nullptr)
        throw std::runtime_error{mysql_error(handle.get())};
    return handle;
}

void execute(MYSQL* handle, const std::string& sql) {
    if (mysql_real_query(handle, sql.data(), sql.size()) != 0) throw std::runtime_error{mysql_error(handle)};
}

std::string quoted(MYSQL* handle, const std::string& text) {
    std::string escaped(2 * text.size() + 1, '\0');
    escaped.resize(mysql_real_escape_string(handle, escaped.data(), text.data(), text.size()));
    return '\'' + escaped + '\'';
}

// What the rest of the world sees: a second connection.
class World {
public:
    explicit World(const std::string& option_file) : handle_{open(option_file)} {}

    bool sees(const std::string& name) {
        execute(handle_.get(), "SELECT 1 FROM txhooks_example_user WHERE name = " + quoted(handle_.get(), name));
        const std::unique_ptr<MYSQL_RES, void (*)(MYSQL_RES*)> result{mysql_store_result(handle_.get()),
                                                                      mysql_free_result};
        return mysql_num_rows(result.get()) == 1;
    }
    void say(const std::string& what, const std::string& name) {
        std::printf("    %-36s others see %s: %s\n", what.c_str(), name.c_str(), sees(name) ? "yes" : "no");
    }

private:
    Handle handle_;
};

class SignUp {
public:
    SignUp(Database& db, World& world) : db_{db}, world_{world} {}

    void run(const std::string& name) {
        db_.atomic([&] {
            execute(db_.backend(), "INSERT INTO txhooks_example_user VALUES (" + quoted(db_.backend(), name) + ")");
            world_.say("row inserted", name);
            send_after_commit("welcome", name);
            try {
                db_.atomic([&] {  // a savepoint: if it fails, its hooks go with it, and only they
                    send_after_commit("newsletter", name);
                    if (name == "Cleo") throw std::runtime_error{"newsletter is full"};
                });
            } catch (const std::exception& e) {
                std::printf("    savepoint rolled back: %s\n", e.what());
            }
            if (name == "Bob") throw std::runtime_error{"card declined"};
            // Creating a table commits, whatever comes next: the block is told, and no e-mail goes out for it.
            if (name == "Dan") execute(db_.backend(), "CREATE TABLE IF NOT EXISTS txhooks_example_user (name INT)");
            std::printf("    end of the block: COMMIT\n");
        });
    }

    std::vector<std::string> outbox;

private:
    void send_after_commit(const std::string& kind, const std::string& name) {
        db_.on_commit([this, kind, name] {
            outbox.push_back(kind + " to " + name);
            world_.say("e-mail sent: " + kind, name);
        });
    }

    Database& db_;
    World& world_;
};

int tell(const std::string& option_file) {
    const Handle handle = open(option_file);
    World world{option_file};
    Database db{handle.get()};
    execute(db.backend(), "DROP TABLE IF EXISTS txhooks_example_user");
    execute(db.backend(), "CREATE TABLE txhooks_example_user (name VARCHAR(40) PRIMARY KEY) ENGINE = InnoDB");

    SignUp sign_up{db, world};
    for (const char* name : {"Ann", "Bob", "Cleo", "Dan"}) {
        std::printf("%s signs up\n", name);
        try {
            sign_up.run(name);
        } catch (const txhooks::TransactionLost& e) {
            world.say("lost, no e-mail", name);
            std::printf("    %s\n", e.what());
        } catch (const std::exception& e) {
            world.say(std::string{"ROLLBACK, no e-mail: "} + e.what(), name);
        }
    }
    const bool rows = world.sees("Ann") and not world.sees("Bob") and world.sees("Cleo");
    execute(db.backend(), "DROP TABLE txhooks_example_user");

    std::printf("outbox:");
    for (const std::string& mail : sign_up.outbox) std::printf(" [%s]", mail.c_str());
    std::printf("\n");
    const std::vector<std::string> expected{"welcome to Ann", "newsletter to Ann", "welcome to Cleo"};
    if (rows and sign_up.outbox == expected) return EXIT_SUCCESS;
    std::printf("WRONG: that is not what was committed\n");
    return EXIT_FAILURE;
}

}  // namespace

int main(int argc, char* argv[]) {
    const char* const folder = std::getenv("TXHOOKS_MARIADB");  // NOLINT(concurrency-mt-unsafe): no other thread
    if (argc < 2 and folder == nullptr) {
        std::printf("usage: %s <option file>\n", argv[0]);
        return 2;
    }
    try {
        return tell(argc > 1 ? argv[1] : folder + std::string{"/client.cnf"});
    } catch (const std::exception& e) {
        std::printf("%s\n", e.what());
        return EXIT_FAILURE;
    }
}

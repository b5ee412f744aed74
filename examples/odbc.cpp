// SPDX-License-Identifier: MIT
//
// Signing up through ODBC, on three engines with the same code: the way to an engine that txhooks has no adapter for.
// support/odbc.hpp has the adapter. The arguments are connection strings; without any, SQLite and the servers that
// TXHOOKS_POSTGRES and TXHOOKS_MARIADB name: those of our tests.
//
//     odbc "Driver={PostgreSQL Unicode};Servername=localhost;Database=test;UID=me"

#include "support/odbc.hpp"

#include <txhooks/txhooks.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

class SignUp {
public:
    explicit SignUp(const std::string& where) : own_{where}, another_{where} {
        others_.execute("DROP TABLE IF EXISTS txhooks_example");
        others_.execute("CREATE TABLE txhooks_example (name VARCHAR(20) PRIMARY KEY)");
    }

    void operator()(const std::string& name) {
        std::printf("%s signs up\n", name.c_str());
        try {
            db_.atomic([&](OdbcConnection& odbc) {
                odbc.execute("INSERT INTO txhooks_example VALUES ('" + name + "')");
                db_.on_commit([this, name] { send_mail("welcome", name); });
                subscribe_to_newsletter(odbc, name);
                if (name == "Bob") throw std::runtime_error{"card declined"};
                if (name == "Dora") odbc.execute("ROLLBACK");  // somebody's, behind the block's back
                say("end of the block: COMMIT", name);
            });
        } catch (const txhooks::TransactionLost&) {
            say("the transaction was lost, no e-mail", name);
        } catch (const std::exception& e) {
            say(std::string{"ROLLBACK, no e-mail: "} + e.what(), name);
        }
    }

    void drop() { others_.execute("DROP TABLE txhooks_example"); }

    std::vector<std::string> outbox;

private:
    void subscribe_to_newsletter(OdbcConnection& odbc, const std::string& name) {
        try {
            db_.atomic([&] {  // a savepoint: if it fails, its hooks go with it, and only they
                db_.on_commit([this, name] { send_mail("newsletter", name); });
                if (name == "Cleo") odbc.execute("INSERT INTO txhooks_example VALUES ('Cleo')");
            });
        } catch (const txhooks::EngineError& e) {
            std::printf("    savepoint rolled back: SQLSTATE %s, %d\n", e.sqlstate(), e.code());
        }
    }

    // The hook: a job for a queue in real life.
    void send_mail(const std::string& kind, const std::string& name) {
        outbox.push_back(kind + " to " + name + (seen(name) ? "" : ", who is not there"));
        say("e-mail sent: " + kind, name);
    }

    void say(const std::string& what, const std::string& name) {
        std::printf("    %-45s others see %s: %s\n", what.c_str(), name.c_str(), seen(name) ? "yes" : "no");
    }

    bool seen(const std::string& name) {
        return others_.number("SELECT count(*) FROM txhooks_example WHERE name = '" + name + "'") == 1;
    }

    OdbcHandle own_;
    OdbcHandle another_;
    OdbcConnection others_{another_.get()};
    txhooks::HookedConnection<OdbcConnection> db_{own_.get()};
};

bool tell(const std::string& where) {
    std::printf("==== %s\n", where.substr(0, where.find(';')).c_str());
    SignUp sign_up{where};
    for (const char* name : {"Ann", "Bob", "Cleo", "Dora"}) sign_up(name);
    sign_up.drop();

    std::printf("outbox:");
    for (const std::string& mail : sign_up.outbox) std::printf(" [%s]", mail.c_str());
    std::printf("\n\n");
    return sign_up.outbox == std::vector<std::string>{"welcome to Ann", "newsletter to Ann", "welcome to Cleo"};
}

}  // namespace

int main(int argc, char* argv[]) {
    try {
        std::string folder = (std::filesystem::temp_directory_path() / "txhooks.XXXXXX").string();
        if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        std::vector<std::string> servers{argv + 1, argv + argc};
        if (servers.empty()) servers = {odbc_sqlite(folder + "/main.db"), odbc_postgres(), odbc_mariadb()};
        bool right = true;
        for (const std::string& server : servers) right = tell(server) and right;
        std::filesystem::remove_all(folder);
        if (right) return EXIT_SUCCESS;
        std::printf("WRONG: that is not what was committed\n");
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
    }
    return EXIT_FAILURE;
}

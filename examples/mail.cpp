// SPDX-License-Identifier: MIT
//
// A sign-up and its welcome mail, which libcurl hands to a real mail server: aiosmtpd, a program in Python. Sent by a hook
// the mail goes out after COMMIT, and not at all if the sign-up or its COMMIT fails; but it is lost if the server is away.
// Sent by a job it is not: the server is killed again and again, and the worker too, between a mail and the end of its
// job. Everybody gets a mail; who gets two can tell, for both carry the id of the job as their Message-ID.

#include <txhooks/outbox/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>
#include <curl/curl.h>

#include "support/process.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

// ---- Mail by SMTP

// The server will say the same tomorrow.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Mailer {
public:
    explicit Mailer(const std::string& socket) : curl_{curl_easy_init(), &curl_easy_cleanup} {
        curl_easy_setopt(curl_.get(), CURLOPT_URL, "smtp://localhost");
        curl_easy_setopt(curl_.get(), CURLOPT_UNIX_SOCKET_PATH, socket.c_str());
        curl_easy_setopt(curl_.get(), CURLOPT_TIMEOUT_MS, 1000L);  // far less than the lease of a job
        curl_easy_setopt(curl_.get(), CURLOPT_MAIL_FROM, "<app@example.org>");
        curl_easy_setopt(curl_.get(), CURLOPT_UPLOAD, 1L);
    }

    // Returns once the server has taken it.
    void send_welcome(const std::string& address, std::string_view id) {
        std::string mail = "From: <app@example.org>\r\nTo: " + address + "\r\nSubject: Welcome\r\nMessage-ID: <";
        mail.append(id).append("@example.org>\r\n\r\nIt is good to have you here.\r\n");
        const std::unique_ptr<std::FILE, int (*)(std::FILE*)> text{fmemopen(mail.data(), mail.size(), "r"),
                                                                   &std::fclose};
        const std::unique_ptr<curl_slist, void (*)(curl_slist*)> recipient{
            curl_slist_append(nullptr, ("<" + address + ">").c_str()), &curl_slist_free_all};
        char error[CURL_ERROR_SIZE] = "";
        curl_easy_setopt(curl_.get(), CURLOPT_READDATA, text.get());
        curl_easy_setopt(curl_.get(), CURLOPT_MAIL_RCPT, recipient.get());
        curl_easy_setopt(curl_.get(), CURLOPT_ERRORBUFFER, error);
        if (curl_easy_perform(curl_.get()) == CURLE_OK) return;
        long answer = 0;
        curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &answer);
        if (answer / 100 == 5) throw Refused{error};
        throw std::runtime_error{error};
    }

private:
    std::unique_ptr<CURL, void (*)(CURL*)> curl_;
};

struct Mail {
    std::string address, id;
};

class MailServer {
public:
    explicit MailServer(const std::string& folder) : folder_{folder} { start(); }

    void kill() { server_.reset(); }
    void start() {
        const std::string ready = folder_ + "/ready";
        std::filesystem::remove(ready);
        server_.emplace(support::python("mail_server.py", folder_), folder_ + "/server.log");
        support::wait_until("the mail server starts", [&] {
            server_->must_run();
            return std::filesystem::exists(ready);
        });
    }

    // What it has taken.
    std::vector<Mail> mails() const {
        std::vector<Mail> all;
        for (const auto& file : std::filesystem::directory_iterator{folder_ + "/mails/new"}) {
            Mail mail;
            std::ifstream in{file.path()};
            for (std::string line; std::getline(in, line) and not line.empty();) {
                if (line.starts_with("To: ")) mail.address = line.substr(4);
                if (line.starts_with("Message-ID: ")) mail.id = line.substr(12);
            }
            all.push_back(mail);
        }
        return all;
    }

private:
    std::string folder_;
    std::optional<support::Process> server_;
};

// ---- The service, and its worker in a process of its own

struct Welcome {
    static constexpr const char* job_name = "welcome";
    std::string address;
};
std::string to_payload(const Welcome& job) {
    return job.address;
}
void from_payload(std::string_view stored, Welcome& job) {
    job.address = stored;
}

struct Program {
    explicit Program(const std::string& folder)
        : mailer{folder + "/smtp"}, db{folder + "/app.db", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 20'000} {
        types.handle<Welcome>(
            [this](const Welcome& welcome, txhooks::JobRun& run) {
                try {
                    mailer.send_welcome(welcome.address, run.id());
                } catch (const Refused& e) {
                    run.give_up(e.what());
                }
                if (--mails_left == 0) std::raise(SIGKILL);
            },
            {.in_worker = true,
             .attempts = txhooks::forever,
             .lease = 1s,
             .first_delay = 20ms,
             .longest_delay = 200ms});
        db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});  // the rows of the jobs tell it
        db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
        db.exec(
            "CREATE TABLE IF NOT EXISTS user (address TEXT PRIMARY KEY,"
            " invited_by TEXT REFERENCES user DEFERRABLE INITIALLY DEFERRED)");
        outbox.create_table();
    }

    void insert(const std::string& address) {
        SQLite::Statement user{db, "INSERT INTO user (address) VALUES (?)"};
        user.bind(1, address);
        user.exec();
    }
    std::set<std::string> users() {
        std::set<std::string> all;
        SQLite::Statement query{db, "SELECT address FROM user"};
        while (query.executeStep()) all.insert(query.getColumn(0));
        return all;
    }

    Mailer mailer;
    Database db;
    txhooks::JobTypes<Database> types;
    txhooks::Outbox<Database> outbox{db, types};
    int mails_left = 0;  // until it dies, if it is not 0
};

txhooks::Outbox<Database>* working = nullptr;

void work(const std::string& folder, int dies_after) {
    Program program{folder};
    program.mails_left = dies_after;
    working = &program.outbox;
    std::signal(SIGTERM, [](int) { working->stop(); });
    program.outbox.work(20ms);
    std::signal(SIGTERM, SIG_IGN);
}

// ---- What happens

bool right = true;

void check(bool well, const char* what) {
    if (not well) std::printf("  WRONG: %s\n", what);
    right = right and well;
}

void by_a_hook(const std::string& folder) {
    MailServer server{folder};
    Program service{folder};
    const auto sign_up = [&](const std::string& name, auto then) {
        service.db.atomic([&] {
            service.insert(name + "@example.org");
            service.db.on_commit([&, name] { service.mailer.send_welcome(name + "@example.org", name); });
            then();
        });
    };
    const auto expect = [&](std::size_t users, std::size_t mails, const std::string& what) {
        std::printf("  %s\n      users: %zu, mails: %zu\n", what.c_str(), service.users().size(),
                    server.mails().size());
        check(service.users().size() == users and server.mails().size() == mails, "that was not to be");
    };

    std::puts("sent by a hook");
    sign_up("ann", [] {});
    expect(1, 1, "Ann signs up");
    try {
        sign_up("bob", [] { throw std::runtime_error{"card declined"}; });
    } catch (const std::runtime_error& e) {
        expect(1, 1, std::string{"Bob does not: "} + e.what());
    }
    try {
        sign_up("cleo", [&] { service.db.exec("UPDATE user SET invited_by = 'nobody' WHERE address LIKE 'cleo@%'"); });
    } catch (const SQLite::Exception& e) {
        expect(1, 1, std::string{"Cleo's COMMIT fails: "} + e.what());
    }
    server.kill();
    try {
        sign_up("dan", [] {});
    } catch (const txhooks::HookError& e) {
        expect(2, 1, std::string{"Dan signs up while the server is away:\n      "} + e.what());
    }
    server.start();
    expect(2, 1, "it is back, and Dan's mail is lost");
}

void by_a_job(const std::string& folder) {
    MailServer server{folder};
    Program service{folder};
    int declined = 0;
    const auto sign_up = [&](const std::string& address, bool card_is_good = true) {
        try {
            service.db.atomic([&] {
                service.insert(address);
                service.outbox.add(Welcome{address});
                if (not card_is_good) throw std::runtime_error{"card declined"};
            });
        } catch (const std::runtime_error&) {
            ++declined;
        }
    };
    const auto start_worker = [&](const char* dies_after) {
        return support::Process{{"/proc/self/exe", "worker", folder, dies_after}};
    };
    const auto any_job = [&](auto condition) {
        const std::vector<txhooks::JobRow> jobs = service.outbox.list();
        return std::any_of(jobs.begin(), jobs.end(), condition);
    };
    int user = 0;
    const auto sign_up_thirty = [&] {
        for (int n = 0; n != 30; ++n, ++user) sign_up("user" + std::to_string(user) + "@example.org", user % 10 != 0);
    };

    std::puts("sent by a job");
    support::Process mortal = start_worker("20");
    sign_up_thirty();
    const int end = mortal.wait();
    check(WIFSIGNALED(end) and WTERMSIG(end) == SIGKILL, "the worker was not killed");
    std::puts("  the worker is killed: its 20th mail is out, the row of that job is still there; another one starts");
    support::Process worker = start_worker("0");
    for (int outage = 1; outage <= 3; ++outage) {
        sign_up_thirty();
        server.kill();
        std::printf("  the mail server is killed, %d\n", outage);
        sign_up_thirty();
        support::wait_until("an attempt fails",
                            [&] { return any_job([](const auto& job) { return not job.error.empty(); }); });
        server.start();
    }
    sign_up("eve@nowhere.example");
    support::wait_until("the mails go out",
                        [&] { return not any_job([](const auto& job) { return not job.dead(); }); });
    worker.terminate();
    check(worker.wait() == 0, "the worker did not end well");

    const std::vector<Mail> mails = server.mails();
    std::set<std::string> addresses, ids;
    std::set<std::pair<std::string, std::string>> letters;
    for (const auto& [address, id] : mails) {
        addresses.insert(address);
        if (not ids.insert(id).second) std::printf("  twice: %s to %s\n", id.c_str(), address.c_str());
        letters.emplace(address, id);
    }
    std::printf("  users: %zu, declined: %d; mails: %zu, Message-IDs: %zu, addresses: %zu\n", service.users().size(),
                declined, mails.size(), ids.size(), addresses.size());
    std::puts("  what is left for an operator:");
    for (const txhooks::JobRow& job : service.outbox.dead_letters())
        std::printf("  | %s | %s | attempts %lld | %s\n", job.name.c_str(), job.payload.c_str(),
                    static_cast<long long>(job.attempts), job.error.c_str());

    check(letters.size() == ids.size() and ids.size() == addresses.size(), "an id is not that of one user");
    check(mails.size() > ids.size(), "the killed worker's last mail did not go out again");
    check(service.outbox.list().size() == 1 and addresses.insert("eve@nowhere.example").second,
          "Eve's job is not dead");
    check(addresses == service.users(), "not every user got a mail, or somebody else did");
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc == 4 and std::string{"worker"} == argv[1]) {
        work(argv[2], std::atoi(argv[3]));
        return EXIT_SUCCESS;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::string folder = (std::filesystem::temp_directory_path() / "txhooks_mail.XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
    for (const char* name : {"/hook", "/job"}) std::filesystem::create_directory(folder + name);
    by_a_hook(folder + "/hook");
    by_a_job(folder + "/job");
    std::filesystem::remove_all(folder);
    std::puts(right ? "no mail without a user, and with jobs no user without a mail" : "WRONG");
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
} catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return EXIT_FAILURE;
}

// SPDX-License-Identifier: MIT
//
// A sign-up whose mail survives the process. The row of the user and the job of the mail are committed together; then the
// program kills itself, between COMMIT and the mail. Started again, it finds the job, and the mail goes out: once. A job
// that fails too often is dead, until somebody has mended the cause and revives it. What an operator looks at: rows,
// numbers, dead letters; and the same in SQL, for the table is an interface.

#include <txhooks/outbox/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

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

// The mail server: a file. It refuses who is on the list `blocked`.
class MailServer {
public:
    explicit MailServer(const std::filesystem::path& folder) : sent_{folder / "sent"}, blocked_{folder / "blocked"} {}

    // `id` is the message's: a server that knows it already would drop the second one.
    void send(const std::string& address, std::string_view id) const {
        if (lines(blocked_) == std::vector<std::string>{address})
            throw std::runtime_error{"550 " + address + " is blocked"};
        std::ofstream{sent_, std::ios::app} << address << '\n';
        std::printf("  the mail to %s goes out, <%s@example.org>\n", address.c_str(), std::string{id}.c_str());
    }
    void block(const std::string& address) const { std::ofstream{blocked_} << address << '\n'; }
    void unblock() const { std::ofstream{blocked_}; }
    std::vector<std::string> sent() const { return lines(sent_); }

private:
    static std::vector<std::string> lines(const std::filesystem::path& file) {
        std::vector<std::string> all;
        std::ifstream in{file};
        for (std::string line; std::getline(in, line);) all.push_back(line);
        return all;
    }

    std::filesystem::path sent_, blocked_;
};

// ---- The program

struct Program {
    explicit Program(const std::filesystem::path& folder)
        : mailer{folder}, db{folder / "app.db", SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, 5000} {
        types.handle<Welcome>(
            [this](const Welcome& welcome, txhooks::JobRun& run) { mailer.send(welcome.address, run.id()); },
            {.attempts = 2, .lease = 300ms, .first_delay = 10ms});
        db.exec("PRAGMA journal_mode = WAL");
        db.exec("CREATE TABLE IF NOT EXISTS user (address TEXT)");
        outbox.create_table();
    }

    void sign_up(const std::string& address) {
        db.atomic([&] {
            SQLite::Statement insert{db, "INSERT INTO user VALUES (?)"};
            insert.bind(1, address);
            insert.exec();
            outbox.add(Welcome{address});
        });
    }

    MailServer mailer;
    Database db;
    txhooks::JobTypes<Database> types;
    txhooks::Outbox<Database> outbox{db, types};
};

// ---- What is true

bool all_well = true;

void check(bool well, const char* what) {
    if (not well) std::printf("  WRONG: %s\n", what);
    all_well = all_well and well;
}

void show(Program& program) {
    for (const txhooks::JobRow& job : program.outbox.list())
        std::printf("  | %.8s... | %s | %s | attempts %lld | %s | %s\n", job.id.c_str(), job.name.c_str(),
                    job.payload.c_str(), static_cast<long long>(job.attempts),
                    job.dead()               ? "dead"
                    : not job.holder.empty() ? "running"
                                             : "waiting",
                    job.error.empty() ? "-" : job.error.c_str());
    if (program.outbox.list().empty()) std::puts("  | (no jobs)");
    for (const txhooks::JobStats& stats : program.outbox.stats())
        std::printf("  %s: %zu due, %zu later, %zu running, %zu dead\n", stats.name.c_str(), stats.due, stats.later,
                    stats.running, stats.dead);
}

// Runs `act` in a process of its own. Returns how that ended.
template <class Act>
int in_a_process(const Act& act) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        act();
        std::fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

}  // namespace

int main() {
    std::string folder = (std::filesystem::temp_directory_path() / "txhooks_jobs.XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) return EXIT_FAILURE;
    std::printf("Ann signs up, and the program is killed between COMMIT and the mail\n");
    const int killed = in_a_process([&] {
        Program program{folder};
        program.db.atomic([&] {
            program.db.on_commit([] { std::raise(SIGKILL); });
            program.sign_up("ann@example.org");
        });
    });
    check(WIFSIGNALED(killed) and WTERMSIG(killed) == SIGKILL, "the program was not killed");
    check(MailServer{folder}.sent().empty(), "a mail went out");

    std::printf("\nwhat an operator sees\n");
    in_a_process([&] {
        Program program{folder};
        show(program);
    });

    std::printf("\nstarted again, it looks for what is due: at once, and when the lease of the dead one is over\n");
    in_a_process([&] {
        Program program{folder};
        std::printf("  jobs run: %zu\n", program.outbox.run_due());
        std::this_thread::sleep_for(400ms);
        std::printf("  jobs run: %zu\n", program.outbox.run_due());
        std::printf("  jobs run: %zu\n", program.outbox.run_due());
        show(program);
    });
    check(MailServer{folder}.sent() == std::vector<std::string>{"ann@example.org"}, "Ann did not get one mail");

    std::printf("\nBob's address is blocked: two attempts, then the job is dead\n");
    const int well = in_a_process([&] {
        Program program{folder};
        program.db.set_error_sink([](void*, const char*, const std::exception_ptr&) {});
        program.mailer.block("bob@example.org");
        program.sign_up("bob@example.org");
        std::this_thread::sleep_for(20ms);
        program.outbox.run_due();
        show(program);
        const std::vector<txhooks::JobRow> dead = program.outbox.dead_letters();
        check(dead.size() == 1, "the job is not dead");

        std::printf("\nsomebody mends it, and revives the job\n");
        program.mailer.unblock();
        for (const txhooks::JobRow& job : dead) program.outbox.revive(job.id);
        program.outbox.run_due();
        show(program);
        check(program.outbox.list().empty(), "a job is left");
        if (not all_well) _exit(1);
    });
    check(well == 0, "see above");

    std::printf("\nin SQL: two jobs from another language, of which one is buried\n");
    const int operated = in_a_process([&] {
        Program program{folder};
        program.db.exec("INSERT INTO txhooks_job (name, payload) VALUES ('welcome', 'cleo@example.org')");
        program.db.exec("INSERT INTO txhooks_job (name, payload) VALUES ('welcome', 'dan@example.org')");
        program.db.exec(
            "UPDATE txhooks_job SET due = 9223372036854775807, claim = claim + 1, holder = NULL, error = 'by hand'"
            " WHERE payload = 'dan@example.org'");
        SQLite::Statement backlog{program.db,
                                  "SELECT name, count(*), min(due) FROM txhooks_job"
                                  " WHERE due < 9223372036854775807 GROUP BY name"};
        while (backlog.executeStep())
            std::printf("  %s: a backlog of %d\n", backlog.getColumn(0).getText(), backlog.getColumn(1).getInt());
        program.outbox.run_due();
        show(program);
        const std::vector<txhooks::JobRow> dead = program.outbox.dead_letters();
        check(dead.size() == 1 and dead[0].payload == "dan@example.org" and dead[0].error == "by hand", "not buried");
        for (const txhooks::JobRow& job : dead) check(program.outbox.cancel(job.id), "not cancelled");
        check(program.outbox.list().empty(), "a job is left");
        if (not all_well) _exit(1);
    });
    check(operated == 0, "see above");
    check(
        MailServer{folder}.sent() == std::vector<std::string>{"ann@example.org", "bob@example.org", "cleo@example.org"},
        "each got one mail");

    std::filesystem::remove_all(folder);
    std::printf("\n%s\n", all_well ? "each got one mail, and who was buried none" : "WRONG");
    return all_well ? EXIT_SUCCESS : EXIT_FAILURE;
}

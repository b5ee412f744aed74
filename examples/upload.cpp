// SPDX-License-Identifier: MIT
//
// A file is stored in a folder, and a row tells of it. There must never be a row without its file. So the file is
// written first, and deleted if and only if its row is proven undone: where nobody knows, the row may be there, and the
// file stays. A process that dies runs no hook. The files that both leave behind are found by a sweep.

#include <txhooks/backends/sqlitecpp.hpp>
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
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>

namespace fs = std::filesystem;
using Database = txhooks::HookedConnection<SQLite::Database>;

namespace {

struct Store {
    fs::path folder;
    fs::path files() const { return folder / "files"; }
    std::string database() const { return (folder / "uploads.db").string(); }
};

// Nobody else's: the hook must not delete the file of another upload.
std::string new_name() {
    std::random_device random;
    return std::to_string(random()) + "-" + std::to_string(random());
}

void upload(Database& db, const Store& store, const std::string& content) {
    const std::string name = new_name();
    const fs::path path = store.files() / name;

    db.on_rollback([path] { fs::remove(path); });  // first: if that throws, there is no file
    std::ofstream file{path};
    file.exceptions(std::ios::failbit | std::ios::badbit);
    file << content;
    file.close();

    SQLite::Statement insert{db, "INSERT INTO upload (name) VALUES (?)"};
    insert.bind(1, name);
    insert.exec();
}

// ---- The sweep

using Hours = std::chrono::hours;
constexpr Hours longest_transaction{1};

bool has_row(SQLite::Database& db, const fs::path& path) {
    SQLite::Statement query{db, "SELECT 1 FROM upload WHERE name = ?"};
    query.bind(1, path.filename().string());
    return query.executeStep();
}

// Deletes what no row tells of, nor will: a younger file may be of a transaction that is still open. First the file is
// found to be old, then its row is looked for.
int sweep(SQLite::Database& db, const Store& store) {
    int swept = 0;
    for (const fs::directory_entry& file : fs::directory_iterator{store.files()}) {
        const auto age = fs::file_time_type::clock::now() - file.last_write_time();
        if (age > longest_transaction and not has_row(db, file) and fs::remove(file)) ++swept;
    }
    return swept;
}

// Time goes by.
void all_files_age(const Store& store) {
    for (const fs::directory_entry& file : fs::directory_iterator{store.files()})
        fs::last_write_time(file, file.last_write_time() - 2 * longest_transaction);
}

// ---- What is true

bool all_well = true;

void check(bool holds, const char* what) {
    if (holds) return;
    std::printf("WRONG: %s\n", what);
    all_well = false;
}

// What a second connection sees, and the folder has.
void look(const char* what, const Store& store, int rows_expected, int files_expected) {
    SQLite::Database second{store.database(), SQLite::OPEN_READWRITE};  // so that it can clean up after a crash
    int rows = 0;
    for (SQLite::Statement query{second, "SELECT name FROM upload"}; query.executeStep(); ++rows)
        check(fs::exists(store.files() / query.getColumn(0).getString()), "a row without its file");
    const auto files = std::distance(fs::directory_iterator{store.files()}, fs::directory_iterator{});
    std::printf("%-44s %d rows, %d files\n", what, rows, static_cast<int>(files));
    check(rows == rows_expected and files == files_expected, "these are not the rows and files that must be there");
}

void known_ends(Database& db, const Store& store) {
    db.atomic([&] { upload(db, store, "a photo"); });
    look("committed", store, 1, 1);

    try {
        db.atomic([&] {
            for (const char* photo : {"a photo", "another"}) upload(db, store, photo);
            throw std::runtime_error{"no more room"};
        });
    } catch (const std::runtime_error&) {}
    look("the function threw", store, 1, 1);

    db.atomic([&] {
        upload(db, store, "an album");
        {
            txhooks::Atomic savepoint{db};
            upload(db, store, "its cover");
            savepoint.rollback();
        }
        look("a savepoint rolled back, before COMMIT", store, 1, 2);
    });
    look("and after it", store, 2, 2);

    try {
        db.atomic([&] {
            upload(db, store, "a photo");
            db.exec("UPDATE upload SET album = 'nowhere'");  // refused by COMMIT
        });
    } catch (const SQLite::Exception&) {}
    look("COMMIT was refused", store, 2, 2);
}

// Code in the block ends the transaction behind its back, and SQLite does not tell how.
void lost(Database& db, const Store& store, const char* behind_its_back) {
    try {
        db.atomic([&] {
            upload(db, store, "a photo");
            db.exec(behind_its_back);
        });
        check(false, "that is a loss");
    } catch (const txhooks::TransactionLost& e) {
        check(e.outcome() == txhooks::Outcome::unknown, "nobody knows");
    }
}

// A process that uploads, and is killed before COMMIT.
void crash(const Store& store) {
    const pid_t child = fork();
    if (child == 0) {
        Database db{store.database(), SQLite::OPEN_READWRITE};
        db.atomic([&] {
            upload(db, store, "a photo");
            std::raise(SIGKILL);
        });
        _exit(EXIT_SUCCESS);
    }
    int status = 0;
    check(waitpid(child, &status, 0) == child and WIFSIGNALED(status) and WTERMSIG(status) == SIGKILL, "it was killed");
}

void sweeps(Database& db, const Store& store) {
    db.atomic([&] {
        all_files_age(store);
        upload(db, store, "a photo");
        SQLite::Database second{store.database()};
        check(sweep(second, store) == 2, "what the ROLLBACK and the crash have left");
        look("swept, while an upload is under way", store, 3, 4);
    });
    look("which commits", store, 4, 4);
    all_files_age(store);
    check(sweep(db, store) == 0, "every file has its row");
    look("swept again", store, 4, 4);
}

}  // namespace

int main() {
    const Store store{fs::temp_directory_path() / ("txhooks_upload_" + std::to_string(getpid()))};
    fs::create_directories(store.files());
    {
        Database db{store.database(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE};
        db.exec("PRAGMA foreign_keys = ON");
        db.exec("CREATE TABLE album (name TEXT PRIMARY KEY)");
        db.exec(
            "CREATE TABLE upload (name TEXT PRIMARY KEY,"
            " album TEXT REFERENCES album (name) DEFERRABLE INITIALLY DEFERRED)");
        known_ends(db, store);
        lost(db, store, "COMMIT");
        look("lost, it was a COMMIT: the file is needed", store, 3, 3);
        lost(db, store, "ROLLBACK");
        look("lost, it was a ROLLBACK: nobody needs it", store, 3, 4);
    }
    crash(store);
    look("a process was killed before COMMIT", store, 3, 5);

    Database db{store.database(), SQLite::OPEN_READWRITE};
    sweeps(db, store);
    fs::remove_all(store.folder);
    return all_well ? EXIT_SUCCESS : EXIT_FAILURE;
}

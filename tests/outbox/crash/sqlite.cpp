// SPDX-License-Identifier: MIT

#include "process.hpp"

#include <txhooks/outbox/sqlite3.hpp>

#include <sqlite3.h>

#include <stdexcept>
#include <string>

namespace crash {
namespace {

class Sqlite final : public Session {
public:
    using Handle = sqlite3*;
    using Db = txhooks::HookedConnection<Handle, Stalling<Handle>>;

    static constexpr bool has_clock = false;  // the host's

    explicit Sqlite(const std::string& folder, std::int64_t = 0) {
        if (sqlite3_open((folder + "/main.db").c_str(), &handle_) != SQLITE_OK)
            throw std::runtime_error{"cannot open the database"};
        sqlite3_busy_timeout(handle_, 10'000);
        run("PRAGMA journal_mode = WAL");
    }
    Sqlite(const Sqlite&) = delete;
    Sqlite& operator=(const Sqlite&) = delete;
    ~Sqlite() override { sqlite3_close(handle_); }

    sqlite3* handle() { return handle_; }
    void run(const std::string& sql) override { static_cast<void>(rows(sql)); }
    Rows rows(const std::string& sql) override {
        Rows rows;
        const auto keep = [](void* all, int count, char** values, char**) {
            std::vector<std::string>& row = static_cast<Rows*>(all)->emplace_back();
            for (int i = 0; i != count; ++i) row.emplace_back(values[i] != nullptr ? values[i] : "");
            return 0;
        };
        if (sqlite3_exec(handle_, sql.c_str(), keep, &rows, nullptr) != SQLITE_OK)
            throw txhooks::EngineError{sqlite3_extended_errcode(handle_), "", sqlite3_errmsg(handle_)};
        return rows;
    }

    /// Else a block that reads first cannot write when another has written since.
    static Db::Options writing() { return {.begin = txhooks::sqlite::Begin::immediate}; }
    static Trouble trouble(const std::exception_ptr&) noexcept { return Trouble::expected; }

private:
    sqlite3* handle_ = nullptr;
};

[[maybe_unused]] const bool there =
    add_engine<Sqlite>("sqlite", {"producer", "producer", "worker", "worker", "worker"}, Nature{}, nullptr);

}  // namespace
}  // namespace crash

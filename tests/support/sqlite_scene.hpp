// SPDX-License-Identifier: MIT
#pragma once

#include "support/endings.hpp"
#include "support/sqlite_database.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <exception>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace support {

using txhooks::sqlite::Begin;

/// One way of opening outermost blocks: which witness watches them, and how they begin.
template <class A, Begin mode>
struct Way {
    using Adapter = A;
    static constexpr Begin begin = mode;
    static constexpr bool counts = not std::is_same_v<A, txhooks::BackendAdapter<sqlite3*>>;
};

using Witness = txhooks::BackendAdapter<sqlite3*>;
using Counting = txhooks::sqlite::Counting<sqlite3*>;

using DeferredWays = std::tuple<Way<Witness, Begin::deferred>, Way<Counting, Begin::deferred>>;
using WitnessWays =
    std::tuple<Way<Witness, Begin::deferred>, Way<Witness, Begin::immediate>, Way<Witness, Begin::exclusive>>;
using CountingWays =
    std::tuple<Way<Counting, Begin::deferred>, Way<Counting, Begin::immediate>, Way<Counting, Begin::exclusive>>;
using LockingWays = std::tuple<Way<Witness, Begin::immediate>, Way<Witness, Begin::exclusive>,
                               Way<Counting, Begin::immediate>, Way<Counting, Begin::exclusive>>;
using ExclusiveWays = std::tuple<Way<Witness, Begin::exclusive>, Way<Counting, Begin::exclusive>>;
using SharingWays = std::tuple<Way<Witness, Begin::deferred>, Way<Witness, Begin::immediate>,
                               Way<Counting, Begin::deferred>, Way<Counting, Begin::immediate>>;
using EveryWay =
    std::tuple<Way<Witness, Begin::deferred>, Way<Witness, Begin::immediate>, Way<Witness, Begin::exclusive>,
               Way<Counting, Begin::deferred>, Way<Counting, Begin::immediate>, Way<Counting, Begin::exclusive>>;

/// The extended result codes that the tests meet, without their SQLITE_.
inline std::string code_name(int code) {
    switch (code) {
        case SQLITE_OK:
            return "OK";
        case SQLITE_ERROR:
            return "ERROR";
        case SQLITE_ABORT_ROLLBACK:
            return "ABORT_ROLLBACK";
        case SQLITE_BUSY:
            return "BUSY";
        case SQLITE_BUSY_SNAPSHOT:
            return "BUSY_SNAPSHOT";
        case SQLITE_NOMEM:
            return "NOMEM";
        case SQLITE_READONLY:
            return "READONLY";
        case SQLITE_INTERRUPT:
            return "INTERRUPT";
        case SQLITE_FULL:
            return "FULL";
        case SQLITE_IOERR:
            return "IOERR";
        case SQLITE_IOERR_FSYNC:
            return "IOERR_FSYNC";
        case SQLITE_IOERR_DELETE:
            return "IOERR_DELETE";
        case SQLITE_IOERR_WRITE:
            return "IOERR_WRITE";
        case SQLITE_CONSTRAINT_COMMITHOOK:
            return "CONSTRAINT_COMMITHOOK";
        case SQLITE_CONSTRAINT_FOREIGNKEY:
            return "CONSTRAINT_FOREIGNKEY";
        case SQLITE_CONSTRAINT_PRIMARYKEY:
            return "CONSTRAINT_PRIMARYKEY";
        default:
            return std::to_string(code);
    }
}

inline const auto codes_by_number =
    std::exchange(engine_error_name, [](const txhooks::EngineError& e) { return code_name(e.code()); });

/// A hooked connection on a database file with an empty table `t`, and what happened on it.
template <class W>
class Scene {
public:
    using Db = txhooks::HookedConnection<sqlite3*, typename W::Adapter>;
    using Tx = txhooks::Atomic<Db>;

    explicit Scene(const char* journal_mode = "DELETE", const char* vfs = nullptr) : handle{file.path(), vfs} {
        run(handle, std::string{"PRAGMA journal_mode = "} + journal_mode);
        run(handle, "CREATE TABLE t (n INTEGER PRIMARY KEY)");
        db.set_error_sink(
            [](void* to, const char* what, const std::exception_ptr& error) {
                auto& lines = *static_cast<std::vector<std::string>*>(to);
                lines.push_back(error ? std::string{what} + ": " + describe(error) : what);
            },
            &told);
    }

    DatabaseFile file;
    Handle handle;
    std::vector<std::string> told;  // what the error sink was told
    std::string hooks;              // the hooks that ran: "1,2"
    Db db{handle.get()};
    typename Db::Options options{.begin = W::begin};

    void hook(int n) {
        db.on_commit([this, n] {
            if (not hooks.empty()) hooks += ',';
            hooks += std::to_string(n);
        });
    }

    /// A row and its hook, which must share their fate.
    void row(int n) {
        run(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")");
        hook(n);
    }

    std::string truth() const { return support::truth(file); }

    /// Whether the connection works as a new one would: blocks commit, roll back and nest, and each hook shares the fate
    /// of its row.
    bool goes_on() {
        if (not db.usable() or db.pending_hooks() != 0 or sqlite3_get_autocommit(handle) == 0) return false;
        const std::string before = truth();
        hooks.clear();
        {
            Tx tx{db, options};
            row(90);
            {
                Tx inner{db};
                row(91);
                inner.rollback();
            }
            {
                Tx inner{db};
                row(92);
                inner.commit();
            }
            tx.commit();
        }
        {
            Tx tx{db, options};
            row(93);
            tx.rollback();
        }
        return hooks == "90,92" and truth() == (before.empty() ? "90,92" : before + ",90,92") and db.usable() and
               sqlite3_get_autocommit(handle) != 0;
    }
};

}  // namespace support

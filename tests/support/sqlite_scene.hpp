// SPDX-License-Identifier: MIT
#pragma once

#include "support/exceptions.hpp"
#include "support/scene.hpp"
#include "support/sqlite_database.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

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
        case SQLITE_TOOBIG:
            return "TOOBIG";
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

/// On a database file with an empty table `t`.
template <class W>
class Scene : public RowsAndHooks<Scene<W>, txhooks::HookedConnection<sqlite3*, typename W::Adapter>> {
public:
    using typename Scene::RowsAndHooks::Db;
    using typename Scene::RowsAndHooks::Tx;

    explicit Scene(const char* journal_mode = "DELETE", const char* vfs = nullptr) : handle{file.path(), vfs} {
        run(handle, std::string{"PRAGMA journal_mode = "} + journal_mode);
        run(handle, "CREATE TABLE t (n INTEGER PRIMARY KEY)");
        this->sink.listen_to(db);
        this->options.begin = W::begin;
    }

    DatabaseFile file;
    Handle handle;
    Db db{handle.get()};

    void insert(int n) { run(handle, "INSERT INTO t VALUES (" + std::to_string(n) + ")"); }
    std::string truth() const { return support::truth(file); }
    bool idle() const { return sqlite3_get_autocommit(handle) != 0; }
};

}  // namespace support

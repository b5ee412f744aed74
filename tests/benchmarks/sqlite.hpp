// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/backends/sqlitecpp.hpp>
#include <txhooks/txhooks.hpp>

#include <SQLiteCpp/SQLiteCpp.h>
#include <SQLiteCpp/Savepoint.h>
#include <sqlite3.h>

namespace benchmarks {

/// The statements that SQLite::Transaction sends, sent the same way: what is left over is what txhooks itself costs.
class TextAdapter : public txhooks::SqlAdapter<TextAdapter, txhooks::SqlWitness::none> {
public:
    explicit TextAdapter(SQLite::Database& db) : db_{db} {}
    void execute(const char* sql) { db_.exec(sql); }
    txhooks::ConnectionState state() const noexcept {
        return sqlite3_get_autocommit(db_.getHandle()) != 0 ? txhooks::ConnectionState::idle
                                                            : txhooks::ConnectionState::open;
    }

private:
    SQLite::Database& db_;
};

using TextConnection = txhooks::HookedConnection<SQLite::Database, TextAdapter>;
using ShippedConnection = txhooks::HookedConnection<SQLite::Database>;
using CountingConnection = txhooks::HookedConnection<SQLite::Database, txhooks::sqlite::Counting<SQLite::Database>>;

inline const int create = SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE;

}  // namespace benchmarks

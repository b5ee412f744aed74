// SPDX-License-Identifier: MIT
#pragma once

/// Commit hooks on a connection through ODBC, to whatever engine has BEGIN, SAVEPOINT and RELEASE SAVEPOINT:
///
///     txhooks::HookedConnection<OdbcConnection> db{dbc};    // an SQLHDBC that is connected
///     db.atomic([&](OdbcConnection& odbc) { odbc.execute("INSERT ..."); db.on_commit(...); });
///
/// Leave `SQL_ATTR_AUTOCOMMIT` on, as it is after connecting. BEGIN, COMMIT and ROLLBACK are sent as SQL, which the
/// server answers. `SQLEndTran` proves less: the driver sends what it thinks is needed. On a session that it has found
/// to be gone psqlodbc sends nothing, and returns SQL_SUCCESS, also for a COMMIT.
///
/// ODBC does not tell whether a transaction is open: what that means stands at `SqlAdapterWithoutState`. What a driver
/// does by itself is seen at the end of the block: one that reconnects (MariaDB's AUTO_RECONNECT), or rolls back the
/// whole transaction after an error (psqlodbc's Protocol=7.4-1), makes the block lost. Rows written after that stand
/// outside any transaction, so leave both off; psqlodbc's default, a savepoint of its own around each statement, is fine.

#include <txhooks/txhooks.hpp>

#include <sql.h>
#include <sqlext.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

/// What runs SQL on an `SQLHDBC`, which must outlive it. A type of its own because an `SQLHDBC` is a `void*`, of which
/// no adapter could know what it points to.
class OdbcConnection {
public:
    explicit OdbcConnection(SQLHDBC connected) noexcept : dbc_{connected} {}

    SQLHDBC handle() const noexcept { return dbc_; }

    /// Runs `sql`, and reads all that is answered: an error may come with any of the results.
    ///
    /// Throws `EngineError` with the SQLSTATE, and as `code()` the engine's own number.
    void execute(const std::string& sql) { run(sql, nullptr); }

    /// The one number that `query` returns. Throws like `execute`.
    long number(const std::string& query) {
        SQLINTEGER value = 0;
        run(query, &value);
        return value;
    }

    /// Throws what the last function on this handle reported.
    [[noreturn]] static void fail(SQLSMALLINT kind, SQLHANDLE handle) {
        SQLCHAR sqlstate[SQL_SQLSTATE_SIZE + 1] = "";
        SQLCHAR text[SQL_MAX_MESSAGE_LENGTH] = "no diagnosis";
        SQLINTEGER code = 0;
        SQLGetDiagRec(kind, handle, 1, sqlstate, &code, text, sizeof text, nullptr);
        throw txhooks::EngineError{code, reinterpret_cast<char*>(sqlstate), reinterpret_cast<char*>(text)};
    }
    static SQLCHAR* characters(std::string& text) noexcept { return reinterpret_cast<SQLCHAR*>(text.data()); }

private:
    struct Statement {
        explicit Statement(SQLHDBC dbc) {
            if (not SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_STMT, dbc, &handle))) fail(SQL_HANDLE_DBC, dbc);
        }
        Statement(const Statement&) = delete;
        Statement& operator=(const Statement&) = delete;
        ~Statement() { SQLFreeHandle(SQL_HANDLE_STMT, handle); }

        // SQL_NO_DATA: there was no row to change, or there is no more result.
        SQLRETURN check(SQLRETURN code) const {
            if (not SQL_SUCCEEDED(code) and code != SQL_NO_DATA) fail(SQL_HANDLE_STMT, handle);
            return code;
        }

        SQLHSTMT handle = SQL_NULL_HSTMT;
    };

    void run(std::string sql, SQLINTEGER* value) {
        const Statement statement{dbc_};
        statement.check(SQLExecDirect(statement.handle, characters(sql), SQL_NTS));
        if (value != nullptr) {
            statement.check(SQLFetch(statement.handle));
            statement.check(SQLGetData(statement.handle, 1, SQL_C_SLONG, value, 0, nullptr));
        }
        while (statement.check(SQLMoreResults(statement.handle)) != SQL_NO_DATA) continue;
    }

    SQLHDBC dbc_;
};

template <>
struct txhooks::BackendAdapter<OdbcConnection>
    : txhooks::SqlAdapterWithoutState<txhooks::BackendAdapter<OdbcConnection>> {
    explicit BackendAdapter(OdbcConnection& connection) noexcept : odbc{connection} {}
    void execute(const char* sql) { odbc.execute(sql); }
    OdbcConnection& odbc;
};

/// Opens an `SQLHDBC`, and closes it.
class OdbcHandle {
public:
    /// `where` is a connection string, with a driver that odbcinst.ini knows: "Driver={PostgreSQL Unicode};...".
    /// Throws `EngineError`.
    explicit OdbcHandle(std::string where) {
        if (not SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_ENV, SQL_NULL_HANDLE, &env_.handle)))
            throw txhooks::EngineError{0, "HY001", "ODBC cannot be initialised"};
        const auto version = reinterpret_cast<SQLPOINTER>(SQL_OV_ODBC3);
        if (not SQL_SUCCEEDED(SQLSetEnvAttr(env_.handle, SQL_ATTR_ODBC_VERSION, version, 0)) or
            not SQL_SUCCEEDED(SQLAllocHandle(SQL_HANDLE_DBC, env_.handle, &dbc_.handle)))
            OdbcConnection::fail(SQL_HANDLE_ENV, env_.handle);
        if (not SQL_SUCCEEDED(SQLDriverConnect(dbc_.handle, nullptr, OdbcConnection::characters(where), SQL_NTS,
                                               nullptr, 0, nullptr, SQL_DRIVER_NOPROMPT)))
            OdbcConnection::fail(SQL_HANDLE_DBC, dbc_.handle);
    }
    OdbcHandle(const OdbcHandle&) = delete;
    OdbcHandle& operator=(const OdbcHandle&) = delete;
    ~OdbcHandle() { SQLDisconnect(dbc_.handle); }

    SQLHDBC get() const noexcept { return dbc_.handle; }

private:
    struct Handle {
        explicit Handle(SQLSMALLINT which) noexcept : kind{which} {}
        Handle(const Handle&) = delete;
        Handle& operator=(const Handle&) = delete;
        ~Handle() {
            if (handle != SQL_NULL_HANDLE) SQLFreeHandle(kind, handle);
        }

        SQLSMALLINT kind;
        SQLHANDLE handle = SQL_NULL_HANDLE;
    };

    Handle env_{SQL_HANDLE_ENV};
    Handle dbc_{SQL_HANDLE_DBC};
};

// ---- Connection strings: a file, and the servers of our tests. Drivers are called as Debian's packages register them.

inline std::string odbc_sqlite(const std::string& file) {
    return "Driver={SQLite3};FKSupport=1;Timeout=100;Database=" + file;
}

/// A line of what stands in the folder of the server that `variable` names.
inline std::string odbc_server(const char* variable, const char* file) {
    const char* const folder = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nobody sets one
    if (folder == nullptr) throw std::runtime_error{std::string{variable} + " does not name the folder of a server"};
    std::ifstream in{std::filesystem::path{folder} / file};
    std::string line;
    if (not std::getline(in, line)) throw std::runtime_error{std::string{"no server in "} + folder};
    return line;
}

inline std::string odbc_postgres() {
    return "Driver={PostgreSQL Unicode};Servername=127.0.0.1;UID=postgres;Database=postgres;Port=" +
           odbc_server("TXHOOKS_POSTGRES", "port") + ";PWD=" + odbc_server("TXHOOKS_POSTGRES", "password");
}

inline std::string odbc_mariadb() {
    return "Driver={MariaDB Unicode};SERVER=127.0.0.1;UID=txhooks;DB=txhooks;PORT=" +
           odbc_server("TXHOOKS_MARIADB", "port") + ";PWD=" + odbc_server("TXHOOKS_MARIADB", "password");
}

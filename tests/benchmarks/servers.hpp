// SPDX-License-Identifier: MIT
#pragma once

// Transactions of servers: sent by hand, and as txhooks has them, with one hook.

#include "measured.hpp"

#include "support/mariadb_server.hpp"
#include "support/postgres_scene.hpp"

#include <txhooks/backends/libpqxx.hpp>
#include <txhooks/backends/mariadb.hpp>
#include <txhooks/doubt.hpp>

#include <libpq-fe.h>
#include <mysql.h>
#include <pqxx/pqxx>

#include <string_view>

namespace benchmarks {

class Postgres {
public:
    using Backend = PGconn*;

    Postgres() {
        execute("CREATE TABLE IF NOT EXISTS priced (n SERIAL PRIMARY KEY)");
        execute(support::marker_table);
    }
    Backend backend() { return handle_; }
    void execute(const char* sql) { PQclear(PQexec(handle_, sql)); }
    void insert() { execute("INSERT INTO priced DEFAULT VALUES"); }

private:
    support::PostgresHandle handle_;
};

class Mariadb {
public:
    using Backend = MYSQL*;

    Mariadb() {
        execute("CREATE TABLE IF NOT EXISTS priced (n INT AUTO_INCREMENT PRIMARY KEY)");
        execute(support::marker_table);
    }
    Backend backend() { return handle_; }
    void execute(std::string_view sql) { mysql_real_query(handle_, sql.data(), sql.size()); }
    void insert() { execute("INSERT INTO priced () VALUES ()"); }

private:
    support::Handle handle_;
};

template <class Server>
class ByHand {
public:
    template <class Work>
    void transaction(Work work) {
        server_.execute("BEGIN");
        work(server_);
        server_.execute("COMMIT");
    }

private:
    Server server_;
};

template <class Server, class Adapter, bool resolve = false>
class Hooked {
public:
    template <class Work>
    void transaction(Work work) {
        txhooks::Atomic tx{db_, {.resolve = resolve ? &doubt_ : nullptr}};
        work(server_);
        db_.on_commit(Hook24<struct Here>::with(counter_, 1));
        tx.commit();
    }

private:
    Server server_;
    txhooks::HookedConnection<typename Server::Backend, Adapter> db_{server_.backend()};
    txhooks::Doubt doubt_;
    Counter counter_ = 0;
};

class PqxxByHand {
public:
    template <class Work>
    void transaction(Work work) {
        pqxx::work tx{db_};
        work(tx);
        tx.commit();
    }

private:
    pqxx::connection db_{support::postgres_server()};
};

class PqxxHooked {
public:
    template <class Work>
    void transaction(Work work) {
        txhooks::Atomic tx{db_};
        work(db_.adapter().session());
        db_.on_commit(Hook24<struct Here>::with(counter_, 1));
        tx.commit();
    }

private:
    txhooks::HookedConnection<pqxx::connection> db_{support::postgres_server()};
    Counter counter_ = 0;
};

struct Nothing {
    template <class Server>
    void operator()(Server&) const noexcept {}
};
struct OneInsert {
    template <class Server>
    void operator()(Server& server) const {
        if constexpr (requires { server.insert(); })
            server.insert();
        else
            server.exec("INSERT INTO priced DEFAULT VALUES");
    }
};

/// Calls `add.template operator()<Subject, Work>(name)` with everything there is to measure.
template <class Add>
void each_subject(Add add) {
    using Event = txhooks::BackendAdapter<PGconn*>;
    using Compound = txhooks::BackendAdapter<MYSQL*>;
    const auto both = [&]<class Subject>(const std::string& name) {
        add.template operator()<Subject, Nothing>(name + "/empty");
        add.template operator()<Subject, OneInsert>(name + "/insert");
    };
    both.template operator()<ByHand<Postgres>>("postgres");
    both.template operator()<Hooked<Postgres, Event>>("postgres/event");
    both.template operator()<Hooked<Postgres, txhooks::postgres::SetLocal>>("postgres/set_local");
    both.template operator()<Hooked<Postgres, txhooks::postgres::Sentinel>>("postgres/sentinel");
    both.template operator()<Hooked<Postgres, Event, true>>("postgres/resolve");
    both.template operator()<PqxxByHand>("pqxx");
    both.template operator()<PqxxHooked>("pqxx/sentinel");
    both.template operator()<ByHand<Mariadb>>("mariadb");
    both.template operator()<Hooked<Mariadb, Compound>>("mariadb/compound");
    both.template operator()<Hooked<Mariadb, txhooks::mariadb::Plain>>("mariadb/plain");
    both.template operator()<Hooked<Mariadb, Compound, true>>("mariadb/resolve");
}

}  // namespace benchmarks

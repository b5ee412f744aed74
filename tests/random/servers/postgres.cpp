// SPDX-License-Identifier: MIT

#include "batch.hpp"
#include "random/dice.hpp"
#include "support/postgres_scene.hpp"

#include <libpq-fe.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

namespace random_programs {
namespace {

class Postgres {
public:
    using Handle = PGconn*;
    static constexpr unsigned isolations = 4;
    static constexpr bool has_ddl = false;
    static constexpr bool has_deferred = true;
    static constexpr bool has_bulk = true;
    static constexpr const char* look = "SELECT sum(v) FROM shared";
    static constexpr const char* deadlock = "40P01";
    static constexpr const char* serialization = "40001";
    static constexpr const char* lock_timeout = "55P03";
    static constexpr const char* duplicate = "23505";
    static constexpr const char* statement_timeout = "57014";

    class Session {
    public:
        Session(const Postgres& server, unsigned short proxy, Haste haste) : handle_{server.login(proxy, haste)} {}

        PGconn* get() const { return handle_; }
        unsigned long id() const { return static_cast<unsigned long>(PQbackendPID(handle_)); }
        std::string attempt(const std::string& sql) { return support::attempt(handle_, sql); }
        bool alive() { return attempt("SELECT 1").empty(); }
        bool make_anew() {
            PQreset(handle_);
            return PQstatus(handle_) == CONNECTION_OK;
        }
        void leave_unread() { PQsendQuery(handle_, "SELECT 1"); }
        void read_unread() { finish(); }

        /// Several statements or rows at once, whose answer is read by `finish()`.
        void start_copy(const std::vector<unsigned long>& rows) {
            const support::Result result{PQexec(handle_, "COPY kept FROM STDIN")};
            note(result.get());
            for (const unsigned long row : rows) {
                const std::string line = std::to_string(row) + '\n';
                PQputCopyData(handle_, line.data(), static_cast<int>(line.size()));
            }
        }
        void start_pipeline(const std::vector<std::string>& statements) {
            PQenterPipelineMode(handle_);
            for (const std::string& sql : statements)
                PQsendQueryParams(handle_, sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0);
        }
        /// Returns the first error since the start.
        std::string finish() {
            PQputCopyEnd(handle_, nullptr);  // fails if none is on
            if (PQpipelineStatus(handle_) != PQ_PIPELINE_OFF) {
                PQpipelineSync(handle_);
                while (PQstatus(handle_) == CONNECTION_OK and PQexitPipelineMode(handle_) == 0) take();
            }
            while (take()) {}
            return std::exchange(error_, "");
        }

    private:
        bool take() {
            const support::Result result{PQgetResult(handle_)};
            note(result.get());
            return result != nullptr;
        }
        void note(const PGresult* result) {
            if (result == nullptr or PQresultStatus(result) != PGRES_FATAL_ERROR or not error_.empty()) return;
            error_ = support::sqlstate(result);
            if (error_.empty()) error_ = "gone";
        }

        support::PostgresHandle handle_;
        std::string error_;
    };

    Postgres() {
        support::run(own_, "CREATE SCHEMA " + schema_ + "; SET search_path = " + schema_ +
                               "; CREATE TABLE kept (id bigint PRIMARY KEY);"
                               "CREATE TABLE taken (k int PRIMARY KEY);"
                               "CREATE TABLE shared (k int PRIMARY KEY, v int NOT NULL);"
                               "CREATE TABLE children (parent bigint REFERENCES kept DEFERRABLE INITIALLY DEFERRED);" +
                               support::marker_table);
    }
    Postgres(const Postgres&) = delete;
    Postgres& operator=(const Postgres&) = delete;
    ~Postgres() { support::attempt(own_, "DROP SCHEMA " + schema_ + " CASCADE"); }

    static unsigned short port() { return support::postgres_port(); }

    void empty_tables() {
        support::run(own_,
                     "TRUNCATE kept, taken, shared, children, txhooks_commit;"
                     "INSERT INTO shared SELECT k, 0 FROM generate_series(0, 5) k");
    }

    // A prepared transaction holds its locks: those that were left are rolled back.
    void wait_until_alone() {
        const std::string others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '" + schema_ + "'";
        while (support::run(own_, others) != "0") std::this_thread::sleep_for(std::chrono::milliseconds{5});
        for (;;) {
            const std::string gid =
                support::run(own_, "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '" + schema_ + "-%' LIMIT 1");
            if (gid.empty()) return;
            support::run(own_, "ROLLBACK PREPARED '" + gid + "'");
        }
    }

    std::unordered_set<unsigned long> rows() {
        const support::Result result{PQexec(own_, "SELECT id FROM kept")};
        std::unordered_set<unsigned long> ids;
        for (int i = 0; i != PQntuples(result.get()); ++i) ids.insert(std::stoul(PQgetvalue(result.get(), i, 0)));
        return ids;
    }

    static void kill(Session& by, unsigned long id) {
        by.attempt("SELECT pg_terminate_backend(" + std::to_string(id) + ")");
    }
    static void interrupt(Session& by, unsigned long id) {
        by.attempt("SELECT pg_cancel_backend(" + std::to_string(id) + ")");
    }

    // ROLLBACK AND CHAIN after a savepoint that is still there is what one witness does not see.
    template <class Adapter>
    std::string end_by_hand(Session& session, Dice& dice, bool savepoints) {
        static constexpr const char* ways[] = {
            "ROLLBACK",         "COMMIT",           "ROLLBACK; BEGIN",         "COMMIT; BEGIN",
            "COMMIT AND CHAIN", "COMMIT; SELECT 1", "ROLLBACK; BEGIN; COMMIT", "ROLLBACK AND CHAIN"};
        constexpr bool sees_all = not std::is_same_v<Adapter, support::EventWitness>;
        const unsigned way = dice.below(sees_all or not savepoints ? 9 : 8);
        if (way == 8 and sees_all) session.attempt("SAVEPOINT users");
        if (way != 7) {
            const std::string sql = ways[way == 8 ? 7 : way];
            session.attempt(sql);
            return sql;
        }
        const std::string gid = '\'' + schema_ + '-' + std::to_string(session.id()) + '\'';
        session.attempt("PREPARE TRANSACTION " + gid);
        session.attempt((dice.one_in(2) ? "COMMIT PREPARED " : "ROLLBACK PREPARED ") + gid);
        return "PREPARE";
    }

private:
    std::string login(unsigned short proxy, Haste haste) const {
        const bool tls = proxy == 0 and haste.locks;  // the proxy reads what is sent
        return support::postgres_server("application_name=" + schema_ + " options='-csearch_path=" + schema_ +
                                        " -cdeadlock_timeout=5ms -clock_timeout=" + (haste.locks ? "2ms" : "5s") +
                                        (haste.statements ? " -cstatement_timeout=2ms'" : "'") +
                                        (tls ? " host=127.0.0.1 sslmode=require" : "") +
                                        (proxy == 0 ? "" : " host=127.0.0.1 port=" + std::to_string(proxy)));
    }

    const std::string schema_ = "random_" + support::new_schema();
    support::PostgresHandle own_;
};

template <class Adapter>
Server::Witness witness(const char* name, const std::shared_ptr<Postgres>& server) {
    return {name, [server](std::uint64_t seed, unsigned long blocks) {
                return run_batch<Postgres, Adapter>(*server, seed, blocks);
            }};
}

[[maybe_unused]] const bool there = [] {
    servers().push_back({"postgres", {Count::ddl}, [] {
                             const auto server = std::make_shared<Postgres>();
                             return std::vector{witness<support::EventWitness>("event", server),
                                                witness<support::SetLocal>("SetLocal", server),
                                                witness<support::Sentinel>("Sentinel", server)};
                         }});
    return true;
}();

}  // namespace
}  // namespace random_programs

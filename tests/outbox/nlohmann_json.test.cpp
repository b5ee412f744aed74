// SPDX-License-Identifier: MIT

#include <txhooks/outbox/nlohmann_json.hpp>
#include <txhooks/outbox/sqlite3.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/sqlite_database.hpp"
#include "support/trace.hpp"

#include <string>
#include <string_view>
#include <vector>

using namespace txhooks;
using support::Log;

namespace json_jobs {  // with a name, or Clang warns of what the macros make

struct Order {
    static constexpr const char* job_name = "order";
    std::string customer;
    std::vector<int> items;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Order, customer, items)

// Its own bytes win.
struct Terse {
    static constexpr const char* job_name = "terse";
    int n = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Terse, n)
std::string to_payload(const Terse& job) {
    return std::to_string(job.n);
}
void from_payload(std::string_view stored, Terse& job) {
    job.n = std::stoi(std::string{stored});
}

class Old {
public:
    static constexpr const char* job_name = "old";
    int n = 0;
    int added_later = 7;
    NLOHMANN_DEFINE_TYPE_INTRUSIVE_WITH_DEFAULT(Old, n, added_later)
};

}  // namespace json_jobs

// No default constructor: nlohmann's own way is kept.
struct Fixed {
    static constexpr const char* job_name = "fixed";
    explicit Fixed(int value) : n{value} {}
    int n;
};
template <>
struct nlohmann::adl_serializer<Fixed> {
    static void to_json(json& to, const Fixed& job) { to = job.n; }
    static Fixed from_json(const json& from) { return Fixed{from.get<int>()}; }
};

using namespace json_jobs;

TEST_CASE("nlohmann_json: a job is stored as JSON, and read again") {
    CHECK(JobPayload<Order>::store({"Ann \"A\" Ö\n", {1, 2}}) == R"({"customer":"Ann \"A\" Ö\n","items":[1,2]})");
    const Order order = JobPayload<Order>::load(R"({"items":[3],"customer":"Bob","unknown":null})");
    CHECK(order.customer == "Bob");
    CHECK(order.items == std::vector<int>{3});
    CHECK(JobPayload<Old>::load(R"({"n":1})").added_later == 7);
    CHECK(JobPayload<Fixed>::load(JobPayload<Fixed>::store(Fixed{5})).n == 5);
}

TEST_CASE("nlohmann_json: a job with to_payload and from_payload of its own is stored by those") {
    CHECK(JobPayload<Terse>::store({12}) == "12");
    CHECK(JobPayload<Terse>::load("12").n == 12);
}

TEST_CASE("nlohmann_json: what is no UTF-8, or no JSON, or not what the type needs, is nlohmann's error") {
    CHECK_THROWS_AS(JobPayload<Order>::store({"\xff", {}}), nlohmann::json::type_error);
    CHECK_THROWS_AS(JobPayload<Order>::load("{"), nlohmann::json::parse_error);
    CHECK_THROWS_AS(JobPayload<Order>::load(""), nlohmann::json::parse_error);
    CHECK_THROWS_AS(JobPayload<Order>::load(R"({"customer":"Bob"})"), nlohmann::json::out_of_range);
    CHECK_THROWS_AS(JobPayload<Order>::load(R"({"customer":1,"items":[]})"), nlohmann::json::type_error);
}

TEST_CASE("nlohmann_json: through an outbox; a row that cannot be read is a failed attempt of that job alone",
          "[D10]") {
    const support::DatabaseFile file;
    const support::Handle handle{file.path()};
    HookedConnection<sqlite3*> db{handle.get()};
    using Db = decltype(db);
    const support::Sink sink{db};
    support::Trace trace;
    JobTypes<Db> types;
    types.handle<Order>([&](const Order& order) { trace.note(order.customer + std::to_string(order.items.size())); },
                        {.attempts = 1});
    Outbox<Db> outbox{db, types};
    outbox.create_table();

    CHECK_THROWS_AS(outbox.add(Order{"\xff", {}}), nlohmann::json::type_error);
    db.atomic([&] {
        outbox.add(Order{"Ann", {1, 2}});
        outbox.add(Order{"Ö", {}});
    });
    CHECK(trace.text() == "Ann2,Ö0");

    // Another program writes rows.
    support::run(handle,
                 "INSERT INTO txhooks_job (id, name, payload) VALUES ('1', 'order', '{\"items\":'), "
                 "('2', 'order', '{\"customer\":\"Bob\",\"items\":[]}'), ('3', 'order', '[]')");
    trace.clear();
    CHECK(outbox.run_due() == 3);
    CHECK(trace.text() == "Bob0");
    const std::vector<JobRow> dead = outbox.dead_letters();
    REQUIRE(dead.size() == 2);
    CHECK((dead[0].id == "1" and dead[1].id == "3"));
    CHECK(dead[0].error.find("json.exception.parse_error") != std::string::npos);
    CHECK(dead[1].error.find("json.exception.type_error") != std::string::npos);
    CHECK(outbox.list().size() == 2);
    CHECK(sink.sentences().size() == 2);
}

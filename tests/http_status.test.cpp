// SPDX-License-Identifier: MIT
#include <txhooks/http_status.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <string>

using support::Log;
using support::Trace;
using txhooks::Connection;
using txhooks::DetachedHooks;
using txhooks::HookedConnection;
using txhooks::HttpStatus;
using txhooks::testing::FakeBackend;
using txhooks::testing::Verb;
using txhooks::testing::When;

namespace {

using Fake = HookedConnection<FakeBackend>;

// A handler that writes a row and a job, and answers `status`.
HttpStatus handle(Fake& db, Trace& jobs, int status) {
    db.put("row");
    db.on_commit(jobs.hook("job"));
    return {status};
}

}  // namespace

TEST_CASE("http_status: commits below 400, rolls back from 400 on, and the response stands", "[S30]") {
    std::string wrong;
    for (int status = -1; status != 600; ++status) {  // -1: not set yet, in some frameworks
        Fake db;
        Trace jobs;
        const int answered = db.atomic([&] { return handle(db, jobs, status); }).code;
        const bool success = status < 400;
        const Log log{"BEGIN", "INSERT row", success ? "COMMIT" : "ROLLBACK"};
        if (answered != status or jobs.text() != (success ? "job" : "") or db.log() != log)
            wrong += std::to_string(status) + " ";
    }
    CHECK(wrong == "");
}

TEST_CASE("http_status: an exception rolls back and passes through", "[S30]") {
    Fake db;
    Trace jobs;
    const auto request = [&]() -> HttpStatus {
        handle(db, jobs, 200);
        throw support::Oops{};
    };
    CHECK_THROWS_AS(db.atomic(request), support::Oops);
    CHECK(jobs.text() == "");
    CHECK(db.log() == Log{"BEGIN", "INSERT row", "ROLLBACK"});
}

TEST_CASE("http_status: a COMMIT that fails replaces the response, and no hook runs", "[S46]") {
    Fake db;
    Trace jobs;
    db.faults.fail(Verb::commit, When::before_effect, txhooks::testing::FakeError{"disk full"});
    CHECK_THROWS_WITH(db.atomic([&] { return handle(db, jobs, 200); }), "disk full");
    CHECK(jobs.text() == "");
    CHECK_FALSE(db.committed("row"));
}

TEST_CASE("http_status: a ROLLBACK that fails leaves the response as it is and goes to the sink", "[S30][S49]") {
    Fake db;
    support::Sink sink{db};
    Trace jobs;
    db.faults.fail(Verb::rollback, When::before_effect, txhooks::testing::FakeError{"no reply"});
    CHECK(db.atomic([&] { return handle(db, jobs, 409); }).code == 409);
    CHECK(jobs.text() == "");
    CHECK(sink.errors() == Log{"no reply"});
    CHECK_FALSE(db.usable());
}

TEST_CASE("http_status: a hook that fails leaves the response as it is under the policy to report", "[S24]") {
    Fake db;
    support::Sink sink{db};
    Trace jobs;
    db.set_on_hook_failure(txhooks::HookFailure::report);
    const HttpStatus answered = db.atomic([&] {
        db.on_commit([] { throw 7; });
        return handle(db, jobs, 201);
    });
    CHECK(answered.code == 201);
    CHECK(jobs.text() == "job");
    CHECK(sink.errors() == Log{"7"});
}

TEST_CASE("http_status: hooks can wait until the response is sent", "[S60]") {
    Fake db;
    Trace jobs;
    for (const int status : {200, 500}) {
        DetachedHooks after;
        db.atomic({.durable = true, .detach = &after}, [&] { return handle(db, jobs, status); });
        jobs.note("sent " + std::to_string(status));
        after.run();
    }
    CHECK(jobs.text() == "sent 200,job,sent 500");
}

TEST_CASE("http_status: a request inside another block is a savepoint", "[S33]") {
    Fake db;
    Trace jobs;
    Connection& any = db;
    any.atomic([&] {
        any.atomic([&] { return handle(db, jobs, 303); });
        any.atomic([&] { return handle(db, jobs, 500); });
        CHECK(jobs.text() == "");
    });
    CHECK(jobs.text() == "job");
    CHECK(db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "INSERT row", "RELEASE txhooks_1", "SAVEPOINT txhooks_1",
                          "INSERT row", "ROLLBACK TO txhooks_1", "COMMIT"});
}

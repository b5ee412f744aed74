// SPDX-License-Identifier: MIT

#include <txhooks/result_traits.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

using namespace txhooks;
using support::Log;
using support::name_of;
using support::Sink;
using support::thrown_by;
using support::Trace;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

// Like std::expected<std::unique_ptr<T>, std::string>: move-only.
template <class T>
class Expected {
public:
    Expected(T value) : value_{std::make_unique<T>(std::move(value))} {}
    static Expected failure(std::string error) {
        Expected failed{T{}};
        failed.value_.reset();
        failed.error_ = std::move(error);
        return failed;
    }
    bool has_value() const noexcept { return value_ != nullptr; }
    const T& value() const { return *value_; }
    const std::string& error() const noexcept { return error_; }

private:
    std::unique_ptr<T> value_;
    std::string error_;
};

// Like an error code: needs to be told.
class Status {
public:
    explicit Status(int code) : code_{code} {}
    int value() const { return code_; }
    std::string message() const { return "status " + std::to_string(code_); }

private:
    int code_;
};

enum class Errno : int { ok, busy };
[[maybe_unused]] int make_error_code(Errno e) {
    return static_cast<int>(e);
}

struct Unsure {};

enum class Color : unsigned char { red, green };

struct World {
    HookedConnection<FakeBackend> db;
    Sink sink{db};
    Trace ran;

    // Does a row and a hook in a block, returns `result`, and says how the block ended.
    template <class Result>
    std::string ended(Result result) {
        ran.clear();
        db.clear_log();
        static_cast<void>(db.atomic([&]() -> Result {
            db.on_commit(ran.hook("hook"));
            return std::move(result);
        }));
        return db.log().back() + (ran.text().empty() ? "" : ", " + ran.text());
    }
};

}  // namespace

template <>
struct txhooks::result_traits<Status> {
    static bool failed(const Status& status) { return status.value() != 0; }
};
template <>
struct txhooks::result_traits<Errno> {
    static bool failed(const Errno& error) { return error != Errno::ok; }
};
template <>
struct txhooks::result_traits<Unsure> {
    static bool failed(const Unsure&) { throw 42; }
};

TEST_CASE("result_traits: what a hook may not return is what can mean failure", "[S5]") {
    STATIC_REQUIRE(detail::CanFail<Expected<int>>);
    STATIC_REQUIRE(detail::CanFail<Status>);
    STATIC_REQUIRE(detail::CanFail<Errno>);
    STATIC_REQUIRE(detail::CanFail<Unsure>);  // does not look like it, but was told
    STATIC_REQUIRE(detail::CanFail<std::error_code>);
    STATIC_REQUIRE(detail::CanFail<std::errc>);

    STATIC_REQUIRE_FALSE(detail::CanFail<void>);
    STATIC_REQUIRE_FALSE(detail::CanFail<bool>);
    STATIC_REQUIRE_FALSE(detail::CanFail<int*>);
    STATIC_REQUIRE_FALSE(detail::CanFail<int[2]>);
    STATIC_REQUIRE_FALSE(detail::CanFail<Color>);
    STATIC_REQUIRE_FALSE(detail::CanFail<std::string>);
    STATIC_REQUIRE_FALSE(detail::CanFail<std::optional<int>>);
    STATIC_REQUIRE_FALSE(detail::CanFail<Connection>);  // abstract; returned by reference
    STATIC_REQUIRE_FALSE(detail::CanFail<void()>);
    STATIC_REQUIRE_FALSE(detail::CanFail<struct NeverDefined>);
}

TEST_CASE("result_traits: an expected-like result fails when it holds an error", "[S30]") {
    World w;
    CHECK(w.ended(Expected<int>{7}) == "COMMIT, hook");
    CHECK(w.ended(Expected<int>::failure("no")) == "ROLLBACK");
    const Expected<int> result = w.db.atomic([] { return Expected<int>::failure("the reason"); });
    CHECK(result.error() == "the reason");
    CHECK(w.sink.text().empty());
}

TEST_CASE("result_traits: error-code-like results fail as they were told to", "[S30]") {
    World w;
    CHECK(w.ended(Status{0}) == "COMMIT, hook");
    CHECK(w.ended(Status{5}) == "ROLLBACK");
    CHECK(w.ended(Errno::ok) == "COMMIT, hook");
    CHECK(w.ended(Errno::busy) == "ROLLBACK");
    CHECK(w.db.atomic([] { return Status{5}; }).message() == "status 5");
}

TEST_CASE("result_traits: bool, optional, numbers, pointers and enums never fail", "[S30]") {
    World w;
    CHECK(w.ended(false) == "COMMIT, hook");
    CHECK(w.ended(std::optional<int>{}) == "COMMIT, hook");
    CHECK(w.ended(0) == "COMMIT, hook");
    CHECK(w.ended(-1) == "COMMIT, hook");
    CHECK(w.ended(static_cast<const char*>(nullptr)) == "COMMIT, hook");
    CHECK(w.ended(std::unique_ptr<int>{}) == "COMMIT, hook");
    CHECK(w.ended(std::string{}) == "COMMIT, hook");
    CHECK(w.ended(Color::red) == "COMMIT, hook");
}

TEST_CASE("result_traits: a reference to a result counts like the result", "[S30]") {
    World w;
    Expected<int> failed = Expected<int>::failure("no");
    Expected<int>& same = w.db.atomic([&]() -> Expected<int>& {
        w.db.on_commit(w.ran.hook("never"));
        return failed;
    });
    CHECK(&same == &failed);
    const Expected<int> succeeded{7};
    const Expected<int>& alike = w.db.atomic([&]() -> const Expected<int>& { return succeeded; });
    CHECK(&alike == &succeeded);
    CHECK(w.db.log() == Log{"BEGIN", "ROLLBACK", "BEGIN", "COMMIT"});
    CHECK(w.ran.text().empty());
}

TEST_CASE("result_traits: a failed result rolls back a savepoint alone and dooms from a joined block", "[S30][S34]") {
    World w;
    w.db.atomic([&] {
        w.db.on_commit(w.ran.hook("1"));
        CHECK(w.db.atomic([&] {
                      w.db.on_commit(w.ran.hook("2"));
                      return Status{1};
                  })
                  .value() == 1);
        w.db.on_commit(w.ran.hook("3"));
    });
    CHECK(w.ran.text() == "1,3");
    CHECK_THROWS_AS(w.db.atomic([&] { CHECK(w.db.atomic({.join = true}, [&] { return Status{1}; }).value() == 1); }),
                    TransactionAborted);
    CHECK(w.db.log() == Log{"BEGIN", "SAVEPOINT txhooks_1", "ROLLBACK TO txhooks_1", "COMMIT", "BEGIN", "ROLLBACK"});
}

TEST_CASE("result_traits: if rolling back fails the result is returned and the failure goes to the sink",
          "[S30][S49]") {
    World w;
    w.db.faults.fail(Verb::rollback, When::before_effect, 42);
    const Expected<int> result = w.db.atomic([&] {
        w.db.on_commit(w.ran.hook("never"));
        return Expected<int>::failure("the reason");
    });
    CHECK(result.error() == "the reason");
    CHECK(w.sink.text() == "42");
    CHECK(w.ran.text().empty());
    CHECK_THROWS_AS(w.db.atomic([] {}), ConnectionBroken);
}

TEST_CASE("result_traits: if the commit fails there is no result but the exception", "[S30][S46]") {
    World w;
    w.db.answer_commit({Outcome::rolled_back, std::make_exception_ptr(42)});
    CHECK_THROWS_AS(w.db.atomic([] { return Expected<int>{7}; }), int);
    CHECK(thrown_by<HookError>([&] {
              static_cast<void>(w.db.atomic([&] {
                  w.db.on_commit([] { throw 7; });
                  return Expected<int>{7};
              }));
          }).outcome() == Outcome::committed);
}

TEST_CASE("result_traits: a failed() that throws rolls back like fn itself", "[S30]") {
    World w;
    CHECK_THROWS_AS(w.db.atomic([&] {
        w.db.on_commit(w.ran.hook("never"));
        return Unsure{};
    }),
                    int);
    CHECK(w.db.log() == Log{"BEGIN", "ROLLBACK"});
    CHECK(w.ran.text().empty());
}

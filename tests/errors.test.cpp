// SPDX-License-Identifier: MIT

#include <txhooks/errors.hpp>
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>

using namespace txhooks;
using support::name_of;
using support::Oops;
using support::thrown_by;
using testing::FakeBackend;
using testing::Verb;
using testing::When;

namespace {

const std::exception_ptr oops = std::make_exception_ptr(Oops{});

bool starts_as_ours(const std::exception& error) {
    return std::string{error.what()}.rfind("txhooks: ", 0) == 0;
}

}  // namespace

static_assert(std::is_base_of_v<std::exception, Error>);
static_assert(std::is_nothrow_copy_constructible_v<HookError>);
static_assert(std::is_nothrow_copy_constructible_v<EngineError>);
static_assert(not std::is_constructible_v<UsageError, std::string>);

TEST_CASE("Error: outcome() answers whether a retry is allowed, for each family", "[S20][S34][S48][S49][S50]") {
    const auto may_retry = [](const Error& error) {
        return error.outcome() != Outcome::committed and error.outcome() != Outcome::unknown;
    };
    CHECK(may_retry(UsageError{"txhooks: text"}));
    CHECK(may_retry(TransactionAborted{}));
    CHECK(may_retry(ConnectionBroken{}));
    CHECK(may_retry(EngineError{1, "", "text"}));
    CHECK(may_retry(TransactionLost{Outcome::rolled_back}));
    CHECK_FALSE(may_retry(TransactionLost{Outcome::committed}));
    CHECK_FALSE(may_retry(TransactionLost{Outcome::unknown}));
    CHECK_FALSE(may_retry(CommitUnknown{oops}));
    CHECK_FALSE(may_retry(HookError{0, 0, 1, oops}));
    CHECK(UsageError{"txhooks: text"}.outcome() == Outcome::still_open);
    CHECK(TransactionAborted{}.outcome() == Outcome::rolled_back);
    CHECK(HookError{0, 0, 1, oops}.outcome() == Outcome::committed);
    CHECK(CommitUnknown{oops}.outcome() == Outcome::unknown);
}

TEST_CASE("Error: cause() is the first exception, or null; the text is ours") {
    CHECK_FALSE(TransactionAborted{}.cause());
    CHECK(name_of(TransactionAborted{oops}.cause()) == "oops");
    CHECK(name_of(CommitUnknown{oops}.cause()) == "oops");
    CHECK(name_of(TransactionLost{Outcome::unknown, oops}.cause()) == "oops");
    CHECK(name_of(HookError{0, 0, 1, oops}.cause()) == "oops");
    CHECK(std::string{UsageError{"txhooks: what to do"}.what()} == "txhooks: what to do");
    CHECK(starts_as_ours(TransactionAborted{}));
    CHECK(starts_as_ours(ConnectionBroken{}));
    CHECK(starts_as_ours(CommitUnknown{nullptr}));
    for (const Outcome outcome : {Outcome::committed, Outcome::rolled_back, Outcome::unknown})
        CHECK(starts_as_ours(TransactionLost{outcome}));
    CHECK(starts_as_ours(HookError{0, 0, 1, oops}));
}

TEST_CASE("TransactionLost: says in words what became of the transaction", "[S50]") {
    const auto says = [](Outcome outcome, const char* words) {
        return std::string{TransactionLost{outcome}.what()}.find(words) != std::string::npos;
    };
    CHECK(says(Outcome::committed, "was committed behind the block's back"));
    CHECK(says(Outcome::rolled_back, "was rolled back behind the block's back"));
    CHECK(says(Outcome::unknown, "may have been committed"));
}

TEST_CASE("HookError: has the place, the counts and the cause, and its text says committed", "[S20]") {
    const HookError error{2, 5, 1, oops};
    CHECK(error.position() == 2);
    CHECK(error.not_run() == 5);
    CHECK(error.failed() == 1);
    CHECK(std::string{error.what()} ==
          "txhooks: the transaction is committed, but hook number 3 threw (1 failed, 5 did not run): oops");
    const HookError copy = error;
    CHECK(std::string{copy.what()} == error.what());
    CHECK(copy.cause() == error.cause());
}

TEST_CASE("HookError: can never be taken for a failed commit", "[S20]") {
    HookedConnection<FakeBackend> db;
    bool as_other_family = false;
    try {
        db.atomic([&] { db.on_commit([] { throw TransactionAborted{}; }); });
    } catch (const TransactionAborted&) {
        as_other_family = true;
    } catch (const Error& error) {
        CHECK(error.outcome() == Outcome::committed);
        CHECK(dynamic_cast<const HookError*>(&error) != nullptr);
        CHECK_THROWS_AS(std::rethrow_exception(error.cause()), TransactionAborted);
    }
    CHECK_FALSE(as_other_family);
}

TEST_CASE("HookError: says of an exception of another language that it was one", "[S20]") {
    const HookError error{0, 0, 1, nullptr};
    CHECK(
        std::string{error.what()} ==
        "txhooks: the transaction is committed, but hook number 1 threw an exception of another language (1 failed, 0 "
        "did not run)");
    CHECK_FALSE(error.cause());
}

TEST_CASE("errors: the text ends with that of the cause, as far down as causes go", "[S20][S34][S48][S50]") {
    const auto ends_with = [](const Error& error, const std::string& end) {
        const std::string text = error.what();
        return text.size() > end.size() and text.substr(text.size() - end.size()) == end;
    };
    const auto smtp = std::make_exception_ptr(std::runtime_error{"smtp down: 451"});
    CHECK(ends_with(HookError{2, 0, 1, smtp}, "hook number 3 threw (1 failed, 0 did not run): smtp down: 451"));
    CHECK(ends_with(CommitUnknown{smtp}, "before doing the work again: smtp down: 451"));
    CHECK(ends_with(TransactionLost{Outcome::unknown, smtp}, "its hooks are discarded: smtp down: 451"));
    CHECK(ends_with(TransactionAborted{smtp}, "something in it failed: smtp down: 451"));
    CHECK(ends_with(TransactionAborted{std::make_exception_ptr(CommitUnknown{smtp})}, "work again: smtp down: 451"));
    CHECK(ends_with(TransactionAborted{std::make_exception_ptr(42)}, ": an exception that is not a std::exception"));

    CHECK(ends_with(TransactionAborted{}, "something in it failed"));
    CHECK(ends_with(CommitUnknown{nullptr}, "before doing the work again"));
    CHECK(ends_with(TransactionLost{Outcome::committed}, "its hooks are discarded"));
}

TEST_CASE("errors: the text of the cause is copied at the throw, up to 399 bytes") {
    const std::string sentence = TransactionAborted{}.what();
    const auto text = [](const std::string& cause) {
        return std::string{TransactionAborted{std::make_exception_ptr(std::runtime_error{cause})}.what()};
    };
    CHECK(text(std::string(399, 'x')) == sentence + ": " + std::string(399, 'x'));
    CHECK(text(std::string(1000, 'x')) == sentence + ": " + std::string(399, 'x'));
    const CommitUnknown longest{std::make_exception_ptr(std::runtime_error{std::string(1000, 'y')})};
    CHECK(std::string{longest.what()} == CommitUnknown{nullptr}.what() + (": " + std::string(399, 'y')));
}

TEST_CASE("EngineError: copies the engine's code, SQLSTATE and text") {
    std::string state = "40001";
    std::string text(1000, 'x');
    const EngineError error{7, state.c_str(), text.c_str()};
    state = text = "gone";
    CHECK(error.code() == 7);
    CHECK(std::string{error.sqlstate()} == "40001");
    CHECK(std::string{error.what()} == std::string(399, 'x'));
    CHECK(error.outcome() == Outcome::rolled_back);
    CHECK(EngineError{1, "", "busy", Outcome::still_open}.outcome() == Outcome::still_open);
}

TEST_CASE("errors: the first exception is never replaced by one from cleaning up", "[S49][S51]") {
    const auto loses = [](auto break_it) {
        HookedConnection<FakeBackend> db;
        support::Sink sink{db};
        break_it(db);
        CHECK_THROWS_AS(db.atomic([&] {
            db.atomic([&] {
                db.put("row");
                throw Oops{};
            });
        }),
                        Oops);
        CHECK(sink.text() == "42");
        CHECK(db.faults.planned() == 0);
    };
    loses([](auto& db) { db.faults.fail(Verb::rollback_to, When::before_effect, 42); });
    loses([](auto& db) { db.faults.fail(Verb::rollback, When::before_effect, 42); });
    loses([](auto& db) { db.faults.fail(Verb::rollback, When::after_effect, 42); });
}

TEST_CASE("errors: the engine's exceptions pass through unchanged, every verb", "[S40][S46][S49][S51]") {
    for (const Verb verb :
         {Verb::begin, Verb::commit, Verb::rollback, Verb::savepoint, Verb::release, Verb::rollback_to}) {
        CAPTURE(static_cast<int>(verb));
        HookedConnection<FakeBackend> db;
        support::Sink sink{db};
        db.faults.fail(verb, When::before_effect, Oops{});
        CHECK_THROWS_AS(
            [&] {
                Atomic tx{db};
                {
                    Atomic inner{db};
                    inner.commit();
                }
                {
                    Atomic inner{db};
                    inner.rollback();
                }
                if (verb == Verb::rollback)
                    tx.rollback();
                else
                    tx.commit();
            }(),
            Oops);
    }
}

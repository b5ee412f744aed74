// SPDX-License-Identifier: MIT
#include <txhooks/detail/callable.hpp>

#include "support/catch.hpp"

#include <array>
#include <coroutine>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace detail = txhooks::detail;

namespace {

struct Account {
    int balance = 10;
    int add(int n) { return balance += n; }
    int read() const { return balance; }
    int add_quietly(int n) noexcept { return balance += n; }
    std::string kind() & { return "lvalue"; }
    std::string kind() && { return "rvalue"; }
};

struct Savings : Account {};

union Number {
    int whole;
    float real;
    int get() const { return whole; }
};

// A smart pointer that is no library's.
struct Handle {
    Account* account;
    Account& operator*() const { return *account; }
};

int twice(int n) {
    return 2 * n;
}

// Counts how it came to be stored and passed on.
struct Traced {
    std::vector<std::string>* history;
    explicit Traced(std::vector<std::string>& told) : history{&told} {}
    Traced(const Traced& other) : history{other.history} { history->push_back("copied"); }
    Traced(Traced&& other) noexcept : history{other.history} { history->push_back("moved"); }
    Traced& operator=(const Traced&) = delete;
    ~Traced() = default;
};

using Words = std::vector<std::string>;

struct Task {
    struct promise_type {
        Task get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
    };
};

struct MemberAwaitable {
    std::suspend_never operator co_await() const { return {}; }
};

struct FreeAwaitable {};
[[maybe_unused]] std::suspend_never operator co_await(FreeAwaitable&) {
    return {};
}

struct ForeignFuture {
    void wait() {}
    int get() { return 1; }
};

// For one kind of value only.
struct RvalueAwaiter {
    bool await_ready() && { return true; }
};
struct ConstRvalueAwaitable {
    std::suspend_never operator co_await() const&& { return {}; }
};
struct LvalueAwaitable {
    std::suspend_never operator co_await() & { return {}; }
};
struct FreeRvalueAwaitable {};
[[maybe_unused]] std::suspend_never operator co_await(FreeRvalueAwaitable&&) {
    return {};
}
struct AwaitableByValue {
    AwaitableByValue(AwaitableByValue&&) = default;
};
[[maybe_unused]] std::suspend_never operator co_await(AwaitableByValue) {
    return {};
}
struct RvalueFuture {
    void wait() && {}
    int get() && { return 1; }
};
struct MixedFuture {
    void wait() & {}
    int get() && { return 1; }
};

// For none.
struct DeletedAwaitable {
    std::suspend_never operator co_await() & = delete;
    std::suspend_never operator co_await() && = delete;
};

struct OnlyGet {
    int get() && { return 1; }
};

struct OnlyWait {
    void wait() {}
};

}  // namespace

TEST_CASE("invoke: calls functions, function objects and lambdas", "[S3]") {
    CHECK(detail::invoke(twice, 4) == 8);
    CHECK(detail::invoke(&twice, 4) == 8);
    CHECK(detail::invoke([](int a, int b) { return a - b; }, 7, 2) == 5);
    CHECK(detail::invoke(std::function<int(int)>{twice}, 5) == 10);
    int n = 1;
    CHECK(&detail::invoke([](int& same) -> int& { return same; }, n) == &n);
}

TEST_CASE("invoke: calls member functions on an object, a pointer, a smart pointer and a std::ref", "[S3]") {
    Account account;
    CHECK(detail::invoke(&Account::add, account, 1) == 11);
    CHECK(detail::invoke(&Account::add, &account, 1) == 12);
    CHECK(detail::invoke(&Account::add, std::ref(account), 1) == 13);
    CHECK(detail::invoke(&Account::add, Handle{&account}, 1) == 14);
    CHECK(detail::invoke(&Account::add_quietly, account, 1) == 15);
    CHECK(detail::invoke(&Account::read, std::cref(account)) == 15);
    CHECK(detail::invoke(&Account::read, std::as_const(account)) == 15);
    CHECK(account.balance == 15);

    const auto shared = std::make_shared<Account>();
    CHECK(detail::invoke(&Account::add, shared, 2) == 12);
    CHECK(detail::invoke(&Account::add, std::make_unique<Account>(), 3) == 13);
    CHECK(shared->balance == 12);
}

TEST_CASE("invoke: calls member functions of a base", "[S3]") {
    Savings savings;
    CHECK(detail::invoke(&Account::add, savings, 1) == 11);
    CHECK(detail::invoke(&Account::add, &savings, 1) == 12);
    CHECK(detail::invoke(&Account::add, std::ref(savings), 1) == 13);
    CHECK(detail::invoke(&Account::add, std::make_shared<Savings>(), 1) == 11);
    CHECK(savings.balance == 13);
}

TEST_CASE("invoke: keeps the value category of the object", "[S3]") {
    Account account;
    std::string (Account::*on_lvalue)()& = &Account::kind;
    std::string (Account::*on_rvalue)()&& = &Account::kind;
    CHECK(detail::invoke(on_lvalue, account) == "lvalue");
    CHECK(detail::invoke(on_rvalue, Account{}) == "rvalue");
    CHECK(detail::invoke(on_lvalue, &account) == "lvalue");
}

TEST_CASE("invoke: reads data members", "[S3]") {
    Account account{7};
    CHECK(detail::invoke(&Account::balance, account) == 7);
    CHECK(detail::invoke(&Account::balance, &account) == 7);
    CHECK(detail::invoke(&Account::balance, std::ref(account)) == 7);
    CHECK(detail::invoke(&Account::balance, std::make_unique<Account>()) == 10);
    detail::invoke(&Account::balance, account) = 8;
    CHECK(account.balance == 8);
}

TEST_CASE("bind: a member function with a copied object, as a std::thread would", "[S3]") {
    Account account;
    auto on_copy = detail::bind(&Account::add, account, 5);
    std::move(on_copy)();
    CHECK(account.balance == 10);
    auto on_original = detail::bind(&Account::add, std::ref(account), 5);
    std::move(on_original)();
    CHECK(account.balance == 15);
    auto by_pointer = detail::bind(&Account::add, &account, 5);
    account.balance = 0;
    std::move(by_pointer)();
    CHECK(account.balance == 5);
    auto read_only = detail::bind(&Account::balance, &account);
    std::move(read_only)();
}

TEST_CASE("bind: copies the arguments at the call, so a loop variable cannot bind late", "[S3]") {
    std::vector<int> seen;
    const auto note = [&seen](int n) { seen.push_back(n); };
    std::vector<decltype(detail::bind(note, std::declval<int&>()))> bound;
    for (int i = 0; i < 3; ++i) bound.push_back(detail::bind(note, i));
    for (auto& each : bound) std::move(each)();
    CHECK(seen == std::vector{0, 1, 2});
}

TEST_CASE("bind: std::ref passes a reference", "[S3]") {
    int n = 1;
    auto bound = detail::bind([](int& same) { ++same; }, std::ref(n));
    n = 10;
    std::move(bound)();
    CHECK(n == 11);
}

TEST_CASE("bind: copies an lvalue once and moves an rvalue once, in place", "[S3]") {
    Words history;
    const auto ignore = [](const Traced&) {};
    Traced traced{history};
    {
        [[maybe_unused]] const auto copied = detail::bind(ignore, traced);
        CHECK(history == Words{"copied"});
        [[maybe_unused]] const auto moved = detail::bind(ignore, std::move(traced));
        CHECK(history == Words{"copied", "moved"});
    }
    history.clear();
    struct Hook : Traced {
        using Traced::Traced;
        void operator()() const {}
        void operator()(int) const {}
    };
    Hook hook{history};
    [[maybe_unused]] const auto copied = detail::bind(hook);
    [[maybe_unused]] const auto moved = detail::bind(std::move(hook));
    [[maybe_unused]] const auto copied_with_argument = detail::bind(hook, 1);
    [[maybe_unused]] const auto moved_with_argument = detail::bind(std::move(hook), 1);
    CHECK(history == Words{"copied", "moved", "copied", "moved"});
}

TEST_CASE("bind: passes the stored arguments as rvalues", "[S3]") {
    std::vector<std::string> received;
    const auto take = [&received](std::string&& text, std::unique_ptr<int> number) {
        received.push_back(std::move(text) + std::to_string(*number));
    };
    const std::string text = "a";
    auto bound = detail::bind(take, text, std::make_unique<int>(3));
    std::move(bound)();
    CHECK(received == std::vector<std::string>{"a3"});
    CHECK(text == "a");
    static_assert(not std::is_copy_constructible_v<decltype(bound)>);
    static_assert(std::is_nothrow_move_constructible_v<decltype(bound)>);
}

TEST_CASE("bind: calls the stored callable as an rvalue", "[S3]") {
    struct OnlyOnce {
        int* called;
        void operator()(int n) && { *called += n; }
    };
    int called = 0;
    auto bound = detail::bind(OnlyOnce{&called}, 4);
    std::move(bound)();
    CHECK(called == 4);
}

TEST_CASE("bind: arrays and functions decay", "[S3]") {
    std::string seen;
    char text[] = "before";
    auto bound = detail::bind([&seen](const std::string& copy) { seen = copy; }, "literal");
    std::move(bound)();
    CHECK(seen == "literal");
    auto decayed = detail::bind([&seen](const char* pointer) { seen = pointer; }, text);
    text[0] = 'B';
    std::move(decayed)();
    CHECK(seen == "Before");

    static_assert(std::is_same_v<decltype(detail::bind(std::declval<void (&)()>())), void (*)()>);
    int result = 0;
    auto function = detail::bind([&result](int (*f)(int)) { result = f(4); }, twice);
    std::move(function)();
    CHECK(result == 8);
}

TEST_CASE("bind: without arguments the callable is stored as it is", "[S3]") {
    auto hook = [n = 1]() mutable { return ++n; };
    static_assert(std::is_same_v<decltype(detail::bind(hook)), decltype(hook)>);
    static_assert(std::is_same_v<decltype(detail::bind(std::as_const(hook))), decltype(hook)>);
    CHECK(detail::bind(hook)() == 2);
    CHECK(hook() == 2);
}

TEST_CASE("bind: an argument whose copy throws leaves nothing behind", "[S7]") {
    struct Refuses {
        Refuses() = default;
        Refuses(const Refuses&) { throw std::runtime_error{"no copy"}; }
    };
    const auto alive = std::make_shared<int>(1);
    const Refuses refuses;
    const auto ignore = [](const std::shared_ptr<int>&, const Refuses&, const std::shared_ptr<int>&) {};
    CHECK_THROWS_WITH(detail::bind(ignore, alive, refuses, alive), "no copy");
    CHECK(alive.use_count() == 1);
}

TEST_CASE("is_empty: null function pointers, member pointers and std::functions are empty", "[S4]") {
    void (*const null_function)() = nullptr;
    int (Account::* const null_member_function)(int) = nullptr;
    int Account::* const null_member = nullptr;
    CHECK(detail::is_empty(null_function));
    CHECK(detail::is_empty(null_member_function));
    CHECK(detail::is_empty(null_member));
    CHECK(detail::is_empty(std::function<void()>{}));
    CHECK(detail::is_empty(std::function<void()>{null_function}));
}

TEST_CASE("is_empty: what can be called is not empty", "[S4]") {
    int n = 0;
    CHECK_FALSE(detail::is_empty(twice));
    CHECK_FALSE(detail::is_empty(&twice));
    CHECK_FALSE(detail::is_empty(&Account::add));
    CHECK_FALSE(detail::is_empty(&Account::balance));
    CHECK_FALSE(detail::is_empty(std::function<int(int)>{twice}));
    CHECK_FALSE(detail::is_empty([] {}));
    CHECK_FALSE(detail::is_empty([&n] { ++n; }));
    CHECK_FALSE(detail::is_empty(std::bind(twice, 1)));
    struct EqualsNothing {
        void operator()() const {}
        bool operator==(std::nullptr_t) const { return true; }
    };
    CHECK_FALSE(detail::is_empty(EqualsNothing{}));
}

TEST_CASE("copies_run_user_code: only for what is not trivially stored", "[S7]") {
    const auto trivial = [](int) {};
    const auto owning = [text = std::string{}](int) { static_cast<void>(text); };
    using Trivial = decltype(trivial);
    using Owning = decltype(owning);
    STATIC_REQUIRE_FALSE(detail::copies_run_user_code<Trivial&>);
    STATIC_REQUIRE_FALSE(detail::copies_run_user_code<Trivial&, int&>);
    STATIC_REQUIRE_FALSE(detail::copies_run_user_code<int (&)(int), int>);
    STATIC_REQUIRE_FALSE(detail::copies_run_user_code<Trivial&, const char(&)[5], Account*>);
    STATIC_REQUIRE_FALSE(detail::copies_run_user_code<Trivial&, std::reference_wrapper<std::string>>);
    STATIC_REQUIRE(detail::copies_run_user_code<Owning&>);
    STATIC_REQUIRE(detail::copies_run_user_code<Owning>);
    STATIC_REQUIRE(detail::copies_run_user_code<Trivial&, std::string&>);
    STATIC_REQUIRE(detail::copies_run_user_code<Trivial&, int, std::string>);
    STATIC_REQUIRE(detail::copies_run_user_code<Trivial&, std::unique_ptr<int>>);
    STATIC_REQUIRE(detail::copies_run_user_code<std::function<void()>&>);
}

TEST_CASE("Asynchronous: futures, coroutines and awaiters, and nothing else", "[S5]") {
    STATIC_REQUIRE(detail::Asynchronous<std::future<void>>);
    STATIC_REQUIRE(detail::Asynchronous<std::future<int>>);
    STATIC_REQUIRE(detail::Asynchronous<std::shared_future<int&>>);
    STATIC_REQUIRE(detail::Asynchronous<ForeignFuture>);
    STATIC_REQUIRE(detail::Asynchronous<Task>);
    STATIC_REQUIRE(detail::Asynchronous<std::suspend_never>);
    STATIC_REQUIRE(detail::Asynchronous<MemberAwaitable>);
    STATIC_REQUIRE(detail::Asynchronous<FreeAwaitable>);
    STATIC_REQUIRE(detail::Asynchronous<RvalueAwaiter>);
    STATIC_REQUIRE(detail::Asynchronous<ConstRvalueAwaitable>);
    STATIC_REQUIRE(detail::Asynchronous<LvalueAwaitable>);
    STATIC_REQUIRE(detail::Asynchronous<FreeRvalueAwaitable>);
    STATIC_REQUIRE(detail::Asynchronous<AwaitableByValue>);
    STATIC_REQUIRE(detail::Asynchronous<RvalueFuture>);
    STATIC_REQUIRE(detail::Asynchronous<MixedFuture>);

    STATIC_REQUIRE_FALSE(detail::Asynchronous<void>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<bool>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<int*>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<int[2]>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<std::optional<int>>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<DeletedAwaitable>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<std::string>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<std::unique_ptr<int>>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<std::reference_wrapper<int>>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<OnlyGet>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<OnlyWait>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<std::promise<int>>);
    STATIC_REQUIRE_FALSE(detail::Asynchronous<std::thread>);
}

TEST_CASE("invoke: calls members of a union", "[S3]") {
    Number number{};
    number.whole = 3;
    CHECK(detail::invoke(&Number::get, &number) == 3);
    CHECK(detail::invoke(&Number::whole, number) == 3);
}

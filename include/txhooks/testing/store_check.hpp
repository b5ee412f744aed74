// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/detail/access.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/testing/adapter_report.hpp>
#include <txhooks/testing/detail/store_stories.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace txhooks::testing {
namespace store_stories {

template <class Made>
class StoreOf final : public Store {
public:
    explicit StoreOf(Made& store) noexcept : store_{store} {}

    void insert(std::span<const NewJob> jobs, std::string_view holder) override { store_.insert(jobs, holder); }
    std::int64_t look(std::span<const JobsNamed> names, std::vector<FirstJob>& first) override {
        return store_.look(names, first);
    }
    std::vector<JobRow> claim(const JobClaim& wanted) override { return store_.claim(wanted); }
    std::vector<bool> settle(std::span<const JobEnd> ends, bool lazily) override { return store_.settle(ends, lazily); }
    bool extend(std::string_view id, std::int64_t claim, Micros lease) override {
        return store_.extend(id, claim, lease);
    }
    std::vector<JobRow> list(const JobFilter& filter) override { return store_.list(filter); }
    std::vector<JobStats> stats() override { return store_.stats(); }
    bool revive(std::string_view id) override { return store_.revive(id); }
    bool cancel(std::string_view id) override { return store_.cancel(id); }
    bool cancel(std::string_view name, std::string_view key) override { return store_.cancel(name, key); }

private:
    Made& store_;
};

template <class Db>
class DatabaseOf final : public Database {
    using Made = JobStore<txhooks::detail::backend_of<Db>>;
    using Options = txhooks::detail::options_of<Db>;
    using Blocks = txhooks::detail::JobBlocks<Db>;

public:
    explicit DatabaseOf(Db& db) : db_{db} {}

    std::string schema() override { return Made::schema(); }
    void create_table() override { Made::create_table(db_.backend()); }
    void writing(const Act& act) override { in_block({}, act); }
    void claiming(const Act& act) override {
        [[maybe_unused]] const auto lazily = blocks_.lazily();
        in_block(Blocks::claiming(), act);
    }
    void looking(const Act& act) override { in_block(db_.in_atomic_block() ? Options{} : Blocks::looking(), act); }
    Connection& connection() override { return db_; }
    void pass(Micros time) override {
        if constexpr (requires { db_.backend().pass_time(time); })
            db_.backend().pass_time(time);
        else
            std::this_thread::sleep_for(time);
    }

private:
    void in_block(const Options& options, const Act& act) {
        blocks_.in_block(options, [&](Made& made) {
            StoreOf<Made> store{made};
            act(store);
        });
    }

    Db& db_;
    Blocks blocks_{db_};
};

}  // namespace store_stories

/// Tries what a `JobStore` keeps of its promises on the real engine, and prints a table of it to `out`, if that is not
/// null:
///
///     TEST_CASE("my store keeps the promises") {
///         const auto open = [&] { return std::make_unique<Db>(path); };   // a HookedConnection, of the same database
///         CHECK(txhooks::testing::store_check("mine", open).passed());
///     }
///
/// `open` is called twice, and returns something that points to a connection. Null the second time: there is one only,
/// and rows that need two are *cannot*: not tried. Where `backend()` has `pass_time(duration)`, that is called instead
/// of waiting.
///
/// The table of jobs is made, and every row in it is deleted: take a database for tests, one check at a time, and a
/// lock timeout of a few seconds. Threads are started, to find out who waits for whom.
///
/// Throws: what `open` and `create_table` throw. What a store throws stands in the table.
template <class Open>
AdapterReport store_check(std::string_view name, Open open, std::FILE* out = stdout) {
    auto first = open();
    auto second = open();
    using Db = std::remove_reference_t<decltype(*first)>;
    store_stories::DatabaseOf<Db> db{*first};
    std::unique_ptr<store_stories::Database> other;
    if (second) other = std::make_unique<store_stories::DatabaseOf<Db>>(*second);
    const AdapterReport report{name, store_stories::play(db, other.get())};
    if (out != nullptr) std::fputs(report.table().c_str(), out);
    return report;
}

}  // namespace txhooks::testing

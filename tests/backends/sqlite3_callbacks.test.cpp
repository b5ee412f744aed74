// SPDX-License-Identifier: MIT

// SQLite calls code of the user's from inside COMMIT. What that asks of the connection is done, refused in a sentence, or
// ends the program with one.

#include "support/catch.hpp"
#include "support/sqlite_scene.hpp"
#include "support/trace.hpp"

#include <txhooks/backends/sqlite3.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace support;
using txhooks::HookedConnection;

namespace {

enum class Source { trace, progress_handler, commit_hook };

// Counting needs the commit hook for itself.
template <class W>
std::vector<Source> sources() {
    std::vector<Source> all{Source::trace, Source::progress_handler};
    if (not W::counts) all.push_back(Source::commit_hook);
    return all;
}

std::string name(Source source) {
    return source == Source::trace ? "trace" : source == Source::progress_handler ? "progress handler" : "commit hook";
}

// Calls `act` once, from the next statement that calls `source`.
class Callback {
public:
    Callback(sqlite3* db, Source source, std::function<void()> act) : db_{db}, act_{std::move(act)} {
        switch (source) {
            case Source::trace:
                sqlite3_trace_v2(
                    db, SQLITE_TRACE_STMT, [](unsigned, void* self, void*, void*) { return call(self); }, this);
                break;
            case Source::progress_handler:
                sqlite3_progress_handler(db, 1, &Callback::call, this);
                break;
            case Source::commit_hook:
                sqlite3_commit_hook(db, &Callback::call, this);
        }
    }
    Callback(const Callback&) = delete;
    Callback& operator=(const Callback&) = delete;
    ~Callback() {
        sqlite3_trace_v2(db_, 0, nullptr, nullptr);
        sqlite3_progress_handler(db_, 0, nullptr, nullptr);
        sqlite3_commit_hook(db_, nullptr, nullptr);
    }

    bool called = false;

private:
    static int call(void* self) {
        Callback& callback = *static_cast<Callback*>(self);
        if (not std::exchange(callback.called, true)) callback.act_();
        return 0;  // go on
    }

    sqlite3* db_;
    std::function<void()> act_;
};

constexpr const char* destroyed =
    "txhooks: a block, or its connection, was destroyed by code that the connection's own BEGIN, SAVEPOINT, COMMIT or "
    "ROLLBACK has called (a notice or trace callback?)\n";

}  // namespace

TEMPLATE_LIST_TEST_CASE("sqlite3: a callback of COMMIT may register a hook, and everything else is refused",
                        "[S28][S39]", EveryWay) {
    for (const Source source : sources<TestType>()) {
        INFO(name(source));
        Scene<TestType> scene;
        Trace told;
        typename Scene<TestType>::Tx tx{scene.db, scene.options};
        scene.row(1);
        {
            const Callback callback{scene.handle, source, [&] {
                                        scene.hook(2);
                                        told.note(ending([&] { scene.db.atomic([] {}); }));
                                        told.note(ending([&] { tx.commit(); }));
                                        told.note(ending([&] { tx.rollback(); }));
                                        told.note(ending([&] { scene.db.set_rollback(true); }));
                                        told.note(ending([&] { scene.db.reset(); }));
                                    }};
            CHECK(tx.commit() == txhooks::Outcome::committed);
            CHECK(callback.called);
        }
        CHECK(told.text() == "UsageError,UsageError,UsageError,UsageError,UsageError");
        CHECK(scene.hooks == "1,2");
        CHECK(scene.truth() == "1");
        CHECK(scene.sink.empty());
        CHECK(scene.goes_on());
    }
}

TEMPLATE_LIST_TEST_CASE("sqlite3: a callback of COMMIT that destroys the guard or the connection ends the program",
                        "[S57]", EveryWay) {
    using Db = HookedConnection<sqlite3*, typename TestType::Adapter>;
    for (const Source source : sources<TestType>()) {
        for (const bool connection : {false, true}) {
            INFO(name(source) << (connection ? ", the connection" : ", the guard"));
            const auto end = end_of_process([&] {
                const Handle handle{":memory:"};
                run(handle, "CREATE TABLE t (n INTEGER PRIMARY KEY)");
                auto db = std::make_unique<Db>(static_cast<sqlite3*>(handle));
                std::optional<txhooks::Atomic<Db>> tx;
                tx.emplace(*db, typename Db::Options{.begin = TestType::begin});
                run(handle, "INSERT INTO t VALUES (1)");
                const Callback callback{handle, source, [&] {
                                            if (connection)
                                                db.reset();
                                            else
                                                tx.reset();
                                        }};
                tx->commit();
            });
            CHECK(end.terminated);
            CHECK(end.said == destroyed);
        }
    }
}

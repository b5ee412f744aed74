// SPDX-License-Identifier: MIT

// A small program that is compiled in unusual ways (see run): with the headers precompiled, as a header unit, together
// with another file as one, without RTTI. It ends with 1 if a hook did not do what it must.
#ifdef AS_HEADER_UNIT
import <txhooks/testing/fake_backend.hpp>;
import <txhooks/txhooks.hpp>;
#else
#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>
#endif

#include <cstdio>
#include <stdexcept>
#include <string>

namespace {

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

std::string said;

void say(const std::string& word) {
    said += word + ' ';
}

}  // namespace

int main() {
    Db db;
    db.atomic([&] {
        db.on_commit(say, "first");
        db.before_commit([&] { db.backend().put("audit"); });
        try {
            db.atomic([&] {
                db.on_commit(say, "of a savepoint that is rolled back");
                db.on_rollback(say, "undone");
                throw std::runtime_error{"no"};
            });
        } catch (const std::runtime_error&) {
            say("caught");
        }
        txhooks::Atomic tx{db};
        db.on_commit(say, "second");
        tx.commit();
    });
    try {
        using namespace txhooks::testing;
        db.backend().faults.fail(Verb::commit, When::before_effect, std::runtime_error{"disk full"});
        db.atomic([&] { db.unless_committed(say, "not"); });
    } catch (const std::runtime_error&) {
        say("failed");
    }
    std::puts(said.c_str());
    return said == "undone caught first second not failed " and db.backend().committed("audit") ? 0 : 1;
}

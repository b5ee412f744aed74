// SPDX-License-Identifier: MIT
#pragma once

// Everything in the public headers that is not one database's, used on one connection.

#include <txhooks/ambient.hpp>
#include <txhooks/batch.hpp>
#include <txhooks/doubt.hpp>
#include <txhooks/http_status.hpp>
#include <txhooks/retry.hpp>
#include <txhooks/testing/capture.hpp>
#include <txhooks/testing/rolled_back.hpp>
#include <txhooks/txhooks.hpp>

#include <functional>
#include <vector>

template <class Db>
int use(Db& db) {
    int ran = 0;
    const auto hook = [&ran] { ++ran; };
    db.on_commit(hook);
    db.atomic([&] {
        db.on_commit(txhooks::robust, hook);
        txhooks::Atomic tx{db, {.join = true}};
        db.on_commit([](int& n, int by) { n += by; }, std::ref(ran), 1);
        tx.commit();
    });
    txhooks::Batch<int, Db> batch{[&ran](Db&, std::vector<int> values) { ran += values[0]; }};
    db.atomic([&] {
        db.before_commit(hook);
        batch.add(db, 1);
        db.on_rollback(hook);
        db.unless_committed(hook);
        db.set_rollback(true);
    });
    txhooks::DetachedHooks after;
    txhooks::Doubt doubt;
    db.atomic({.detach = &after}, hook);
    after.run();
    db.atomic({.resolve = &doubt}, hook);
    ran += db.atomic({.durable = true}, [&] { return ran; });
    ran += txhooks::retry(db, {.attempts = 2}, [&] { return db.in_atomic_block() ? 1 : 0; });
    txhooks::testing::RolledBack rolled_back{db};
    txhooks::testing::CapturedHooks captured{db};
    const txhooks::AmbientConnection ambient{db};
    txhooks::call_after_commit(hook);
    txhooks::AmbientConnection::nearest()->on_rollback(hook);
    captured.run();
    rolled_back.end();
    db.reset();
    return ran;
}

template <class Db, class Begin>
int use(Db& db, const Begin& how) {
    return use(db) + db.atomic({.begin = how}, [] { return txhooks::HttpStatus{200}.code; });
}

// SPDX-License-Identifier: MIT

// Programs of exactly known length for callgrind. `instructions <case> <n>` does the case n times; what one costs is the
// difference of two runs, without what the case of the same shape with nothing in it costs.

#include "cases.hpp"
#include "measured.hpp"
#include "peers.hpp"

#include <memory>
#include <vector>

namespace {

using namespace benchmarks;
using txhooks::Atomic;
using txhooks::HookList;

constexpr std::size_t hooks_per_transaction = 1000;

// ---- 1000 hooks in one transaction

void no_hooks(std::size_t transactions) {
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        for (std::size_t i = 0; i != hooks_per_transaction; ++i) keep(&counter);
        keep(&counter);
    }
}

// A function of its own, as in a program: the block around it does not take its registers.
template <class Hook, class Register>
[[gnu::noinline]] void register_hooks(Counter& counter, Register register_hook) {
    for (std::size_t i = 0; i != hooks_per_transaction; ++i) {
        register_hook(Hook::with(counter, i));
        keep(&counter);
    }
}

template <template <class> class HookOf>
void floor(std::size_t transactions) {
    using Hook = HookOf<struct InFloor>;
    Floor<Hook> hooks{hooks_per_transaction};
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        register_hooks<Hook>(counter, [&hooks](Hook hook) { hooks.push(hook); });
        hooks.run();
        keep(&counter);
    }
}

template <template <class> class HookOf>
void hook_list(std::size_t transactions) {
    using Hook = HookOf<struct InHookList>;
    HookList hooks;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        const HookList::Mark begin = hooks.mark();
        register_hooks<Hook>(counter, [&hooks](Hook hook) { hooks.push(hook); });
        HookList::Run{hooks, begin}();
        keep(&counter);
    }
}

template <class Db, template <class> class HookOf>
void connection(std::size_t transactions) {
    using Hook = HookOf<Db>;
    NoopConnection owner;
    Db& db = owner;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        Atomic tx{db};
        register_hooks<Hook>(counter, [&db](Hook hook) { db.on_commit(hook); });
        tx.commit();
        keep(&counter);
    }
}

template <class Peer, template <class> class HookOf>
void peer(std::size_t transactions) {
    using Hook = HookOf<Peer>;
    Peer db;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        PeerBlock tx{db};
        register_hooks<Hook>(counter, [&db](Hook hook) { db.on_commit(hook); });
        tx.commit();
        keep(&counter);
    }
}

// ---- Nested blocks, each with its hook

template <std::size_t depth>
void no_levels(std::size_t transactions) {
    const std::unique_ptr<void*[]> marks{new void*[depth]};
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        for (std::size_t i = 0; i != depth; ++i) keep(&counter);
        keep(&counter);
    }
}

template <std::size_t depth>
void hook_list_levels(std::size_t transactions) {
    HookList hooks;
    const std::unique_ptr<HookList::Mark[]> marks{new HookList::Mark[depth]};
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        for (std::size_t i = 0; i != depth; ++i) {
            marks[i] = hooks.mark();
            hooks.push(Hook8<struct Here>::with(counter, i));
            keep(&counter);
        }
        HookList::Run{hooks, marks[0]}();
        keep(&counter);
    }
}

[[gnu::noinline]] void empty_level(Counter& counter, std::size_t depth) {
    keep(&counter);
    if (depth > 1) empty_level(counter, depth - 1);
    keep(&counter);
}

template <std::size_t depth>
void no_blocks(std::size_t transactions) {
    Counter counter = 0;
    for (; transactions != 0; --transactions) empty_level(counter, depth);
}

template <class Block, class Db>
[[gnu::noinline]] void level(Db& db, Counter& counter, std::size_t depth) {
    Block tx{db};
    db.on_commit(Hook8<struct Here>::with(counter, 0));
    keep(&counter);
    if (depth > 1) level<Block>(db, counter, depth - 1);
    tx.commit();
    keep(&counter);
}

template <std::size_t depth>
void connection_levels(std::size_t transactions) {
    NoopConnection db;
    Counter counter = 0;
    for (; transactions != 0; --transactions) level<Atomic<NoopConnection>>(db, counter, depth);
}

template <class Peer, std::size_t depth>
void peer_levels(std::size_t transactions) {
    Peer db;
    Counter counter = 0;
    for (; transactions != 0; --transactions) level<PeerBlock<Peer>>(db, counter, depth);
}

// ---- Many savepoints in one transaction, each with its hook, every other one rolled back

template <std::size_t count>
void hook_list_savepoints(std::size_t transactions) {
    HookList hooks;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        const HookList::Mark begin = hooks.mark();
        for (std::size_t i = 0; i != count; ++i) {
            const HookList::Mark savepoint = hooks.mark();
            hooks.push(Hook8<struct Here>::with(counter, i));
            keep(&counter);
            if (i % 2 != 0) hooks.discard(savepoint);
        }
        HookList::Run{hooks, begin}();
        keep(&counter);
    }
}

template <class Block, class Db, std::size_t count>
void savepoints(std::size_t transactions) {
    Db db;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        Block tx{db};
        for (std::size_t i = 0; i != count; ++i) {
            Block inner{db};
            db.on_commit(Hook8<struct Here>::with(counter, i));
            keep(&counter);
            if (i % 2 != 0)
                inner.rollback();
            else
                inner.commit();
        }
        tx.commit();
        keep(&counter);
    }
}

// ---- One block

void no_block(std::size_t transactions) {
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        keep(&counter);
        keep(&counter);
    }
}

void nesting_guard(std::size_t transactions) {
    NestingGuard<NoopBackend>::Connection db;
    for (; transactions != 0; --transactions) {
        NestingGuard<NoopBackend> tx{db};
        keep(&db);
        tx.commit();
        keep(&db);
    }
}

template <class Db>
void block(std::size_t transactions) {
    NoopConnection owner;
    Db& db = owner;
    for (; transactions != 0; --transactions) {
        Atomic tx{db};
        keep(&owner);
        tx.commit();
        keep(&owner);
    }
}

void block_hook_24(std::size_t transactions) {
    NoopConnection db;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        Atomic tx{db};
        db.on_commit(Hook24<struct Here>::with(counter, transactions));
        keep(&db);
        tx.commit();
        keep(&db);
    }
}

// The same hook, registered by each verb, in a block that commits or is rolled back.

enum class Verb { on_commit, before_commit, on_rollback };

template <Verb verb, class Hook>
void register_by(NoopConnection& db, Hook hook) {
    if constexpr (verb == Verb::on_commit) db.on_commit(hook);
    if constexpr (verb == Verb::before_commit) db.before_commit(hook);
    if constexpr (verb == Verb::on_rollback) db.on_rollback(hook);
}

template <bool commits, Verb verb, std::size_t hooks>
void ended(std::size_t transactions) {
    NoopConnection db;
    Counter counter = 0;
    for (; transactions != 0; --transactions) {
        Atomic tx{db};
        for (std::size_t i = 0; i != hooks; ++i) {
            register_by<verb>(db, Hook24<struct Here>::with(counter, i));
            keep(&db);
        }
        if constexpr (commits)
            tx.commit();
        else
            tx.rollback();
        keep(&db);
    }
}

void function_block(std::size_t transactions) {
    NoopConnection db;
    for (; transactions != 0; --transactions) {
        db.atomic([&] { keep(&db); });
        keep(&db);
    }
}

using AtomicBlock = Atomic<NoopConnection>;

}  // namespace

int main(int argc, char** argv) {
    return run_case(argc, argv,
                    {
                        {"no_hooks", no_hooks},
                        {"floor/8", floor<Hook8>},
                        {"floor/24", floor<Hook24>},
                        {"hook_list/8", hook_list<Hook8>},
                        {"hook_list/24", hook_list<Hook24>},
                        {"connection/8", connection<NoopConnection, Hook8>},
                        {"connection/24", connection<NoopConnection, Hook24>},
                        {"erased_connection/24", connection<txhooks::Connection, Hook24>},
                        {"vector_of_function/8", peer<VectorOfFunctions, Hook8>},
                        {"vector_of_function/24", peer<VectorOfFunctions, Hook24>},

                        {"no_levels/100", no_levels<100>},
                        {"no_levels/1000", no_levels<1000>},
                        {"hook_list_levels/100", hook_list_levels<100>},
                        {"hook_list_levels/1000", hook_list_levels<1000>},
                        {"no_blocks/100", no_blocks<100>},
                        {"no_blocks/1000", no_blocks<1000>},
                        {"connection_levels/100", connection_levels<100>},
                        {"connection_levels/1000", connection_levels<1000>},

                        {"hook_list_savepoints/1000", hook_list_savepoints<1000>},
                        {"hook_list_savepoints/100000", hook_list_savepoints<100000>},
                        {"connection_savepoints/1000", savepoints<AtomicBlock, NoopConnection, 1000>},
                        {"connection_savepoints/100000", savepoints<AtomicBlock, NoopConnection, 100000>},

                        {"no_block", no_block},
                        {"nesting_guard", nesting_guard},
                        {"block", block<NoopConnection>},
                        {"erased_block", block<txhooks::Connection>},
                        {"block_hook/24", block_hook_24},
                        {"function_block", function_block},

                        {"committed/on_commit/1", ended<true, Verb::on_commit, 1>},
                        {"committed/before_commit/1", ended<true, Verb::before_commit, 1>},
                        {"committed/before_commit/2", ended<true, Verb::before_commit, 2>},
                        {"committed/on_rollback/1", ended<true, Verb::on_rollback, 1>},
                        {"rolled_back/on_commit/1", ended<false, Verb::on_commit, 1>},
                        {"rolled_back/on_rollback/1", ended<false, Verb::on_rollback, 1>},
                        {"rolled_back/on_rollback/2", ended<false, Verb::on_rollback, 2>},
                    });
}

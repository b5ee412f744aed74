// SPDX-License-Identifier: MIT
#pragma once

// What `adapter_check` plays on an engine. Blocks and hooks go through `Connection`, so that it is compiled once.

#include <txhooks/atomic.hpp>
#include <txhooks/outcome.hpp>
#include <txhooks/testing/adapter_report.hpp>
#include <txhooks/testing/detail/adapter_trial.hpp>
#include <txhooks/testing/faults.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace txhooks::testing::adapter_stories {

// How trials are had; and why some rows cannot be tried, if they cannot.
struct Engine {
    std::function<std::unique_ptr<Trial>()> open;
    bool has_state = false;
    std::string no_savepoints;
    std::string no_kill;
    std::string no_busy;
    std::string no_refusal;
    std::string no_lost_reply;
    std::string no_deferred;
};

// What a story has to tell.
struct Told {
    Told() = default;
    Told(Ending how, std::string what = {}) : ending{std::move(how)}, complaint{std::move(what)} {}

    Ending ending;          // of its block
    std::string complaint;  // what should have been otherwise, and may be declared
    std::string broken;     // what nobody can declare away
};

// A block of one row, with `act()` behind it.
template <class Act>
Ending block(Trial& t, long& id, const Act& act) {
    return ending_of([&] {
        t.db().atomic([&] {
            id = t.row();
            act();
        });
    });
}

inline Told commits(const Engine&, Trial& t) {
    long id = 0;
    const Ending ending = block(t, id, [] {});
    return {ending, !ending.returned() ? "a block that nothing is wrong with threw: " + ending.text
                    : t.runs(id) != 1  ? "the hook did not run"
                                       : ""};
}

inline Told rolls_back(const Engine&, Trial& t) {
    long id = 0;
    Told told{block(t, id, [&] { t.db().set_rollback(true); })};
    if (!told.ending.returned()) told.complaint = "ROLLBACK threw: " + told.ending.text;
    told.ending.text = "rolled back";
    return told;
}

inline Told nests(const Engine&, Trial& t) {
    long outer = 0;
    long kept = 0;
    long undone = 0;
    const Ending ending = block(t, outer, [&] {
        t.db().atomic([&] { kept = t.row(); });
        t.db().atomic([&] {
            undone = t.row();
            t.db().set_rollback(true);
        });
        t.db().atomic([&] {
            t.row();
            t.db().atomic([&] { t.row(); });
            t.db().set_rollback(true);
        });
        t.db().atomic([&] {
            t.row();
            t.db().atomic([&] {
                t.row();
                t.db().set_rollback(true);
            });
        });
    });
    if (!ending.returned()) return {ending, "a nested block threw: " + ending.text};
    const bool right = t.runs(outer) == 1 && t.runs(kept) == 1 && t.runs(undone) == 0;
    return {ending, right ? "" : "not the hooks of the blocks that were kept have run"};
}

inline Told swallows(const Engine&, Trial& t) {
    bool noticed = true;
    Told told{ending_of([&] {
        t.db().atomic([&] {
            const long id = t.insert();
            noticed = !ending_of([&] { t.execute(Trial::insertion(id)); }).returned();
            t.hook(id);
        });
    })};
    if (!noticed) told.complaint = "execute() did not throw for a duplicate key";
    if (told.ending.kind == Ending::Kind::unknown) told.complaint = "told as CommitUnknown";
    return told;
}

// The block's transaction ends by SQL, and then the block, well or not.
inline Told ends_behind(Trial& t, bool well, const char* how, const char* then = nullptr) {
    long id = 0;
    Told told{block(t, id, [&] {
        t.execute(how);
        if (then != nullptr) t.execute(then);
        if (well)
            t.row();
        else
            t.db().set_rollback(true);
    })};
    if (!told.ending.lost()) told.complaint = "told not as TransactionLost, but: " + told.ending.text;
    if (told.ending.lost() && told.ending.outcome == Outcome::committed && !t.there(id))
        told.broken = "A LOSS WAS CALLED COMMITTED, BUT THE ROW IS NOT THERE";
    return told;
}

// What is outside of blocks is no block's promise: a driver that cannot see this may say so.
inline Told begun_by_hand(const Engine&, Trial& t) {
    t.execute("BEGIN");
    const long id = t.insert();
    bool ran = false;
    const Ending hook = ending_of([&] { t.db().on_commit([&ran] { ran = true; }); });
    Told told{ending_of([&] { t.db().atomic([&] { t.row(); }); })};
    if (hook.kind != Ending::Kind::usage) told.complaint = "a hook in it was not refused";
    if (told.ending.kind != Ending::Kind::usage) told.complaint = "a block in it was not refused";
    if (t.there(id)) told.complaint = "a block ended the transaction that was open already";
    if (ran) told.complaint = "a hook ran at once, in the open transaction";
    ending_of([&] { t.execute("ROLLBACK"); });
    if (told.complaint.empty()) told.ending.text = "refused";
    return told;
}

// COMMIT is refused. If the block is still open the cause is mended and COMMIT sent again.
template <class Break, class Mend>
Told commits_at_last(Trial& t, const char* not_refused, const Break& make_it_fail, const Mend& mend) {
    Told told;
    Ending first;
    bool sent = false;
    bool still_open = false;
    told.ending = ending_of([&] {
        Atomic tx{t.db()};
        t.row();
        make_it_fail();
        sent = true;
        first = ending_of([&] { tx.commit(); });
        still_open = tx.active();
        mend(still_open);
        if (still_open) tx.commit();
    });
    if (!sent) {
        told.complaint = "COMMIT could not be made to fail: " + told.ending.text;
    } else if (first.returned()) {
        told.complaint = not_refused;
    } else if (!still_open) {
        told.ending = first;
        if (first.may_be_committed()) told.complaint = "a COMMIT that was refused is told as " + first.text;
    } else if (told.ending.returned()) {
        told.ending.text = "refused and still open, then committed";
    } else {
        told.complaint = "the second COMMIT threw: " + told.ending.text;
    }
    return told;
}

inline Told defers(const Engine&, Trial& t) {
    const std::string child = std::to_string(Trial::new_id());
    const long parent = Trial::new_id();
    return commits_at_last(
        t, "COMMIT did not look at the deferred constraint (SQLite: PRAGMA foreign_keys = ON)",
        [&] {
            t.execute("INSERT INTO txhooks_check_late (id, parent) VALUES (" + child + ", " + std::to_string(parent) +
                      ")");
        },
        [&](bool still_open) {
            if (still_open) t.execute(Trial::insertion(parent));
        });
}

// COMMIT fails, and the transaction is gone.
inline Told is_refused(const Engine&, Trial& t) {
    Told told = commits_at_last(
        t, "COMMIT was not refused after refuse_commit(true)", [&] { t.refuse_commit(true); },
        [&](bool) { t.refuse_commit(false); });
    // What a driver that only throws can say is that it does not know.
    if (told.ending.kind == Ending::Kind::unknown) told.complaint.clear();
    return told;
}

inline Told finds_it_busy(const Engine&, Trial& t) {
    return commits_at_last(
        t, "COMMIT was not refused after make_busy(true)", [&] { t.make_busy(true); },
        [&](bool) { t.make_busy(false); });
}

inline Told killed_before(const Engine&, Trial& t) {
    long id = 0;
    t.may_be_dead = true;
    Ending killed;
    const Ending ending = block(t, id, [&] { killed = ending_of([&] { t.kill(); }); });
    if (!killed.returned()) return {ending, "kill() threw: " + killed.text};
    return {ending, ending.returned() ? "COMMIT succeeded after kill()" : ""};
}

// COMMIT takes effect, and its reply never comes.
inline Told loses_reply(const Engine&, Trial& t) {
    using Clock = std::chrono::steady_clock;
    long id = 0;
    t.may_be_dead = true;
    const Ending ending = block(t, id, [&] { t.lose_reply(); });
    const Clock::time_point end = Clock::now() + std::chrono::seconds{2};
    while (!t.there(id) && Clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    return {ending, t.there(id) ? "" : "not tried: a reply was lost before COMMIT was sent"};
}

// How long kill() takes is measured; COMMIT is sent at each time in it.
inline Told killed_during(const Engine& engine, Trial&) {
    using Clock = std::chrono::steady_clock;
    constexpr int rounds = 30;
    int committed = 0;
    int in_doubt = 0;
    std::chrono::duration<double> duration{};
    Told told;
    for (int round = 0; round <= rounds && told.broken.empty() && told.complaint.empty(); ++round) {
        const std::unique_ptr<Trial> victim = engine.open();
        Ending killed;
        Ending ending;
        const Ending around = ending_of([&] {
            Atomic tx{victim->db()};
            victim->row();
            const Clock::time_point start = Clock::now();
            std::thread killer{[&] { killed = ending_of([&] { victim->kill(); }); }};
            if (round == 0) {
                killer.join();
                duration = Clock::now() - start;
            } else {
                const double part =
                    static_cast<double>(round) / rounds;  // mostly early: then comes the wait for the end
                std::this_thread::sleep_for(duration * part * part * part);
            }
            ending = ending_of([&] { tx.commit(); });
            if (round != 0) killer.join();
        });
        if (!around.returned()) told.complaint = "the block threw: " + around.text;
        if (!killed.returned()) told.complaint = "kill() threw: " + killed.text;
        told.broken = victim->broken_promise(ending);
        if (round == 0) continue;
        if (ending.returned()) ++committed;
        if (ending.may_be_committed()) ++in_doubt;
    }
    told.ending.text = std::to_string(committed) + " committed, " + std::to_string(in_doubt) + " in doubt, " +
                       std::to_string(rounds - committed - in_doubt) + " rolled back";
    return told;
}

// Blocks inside one another whose `verb` fails once.
template <Verb verb, When when>
Told fails(const Engine& engine, Trial& t) {
    constexpr bool outermost = verb == Verb::begin || verb == Verb::commit || verb == Verb::rollback;
    constexpr bool harmless = verb == Verb::savepoint || (verb == Verb::release && when == When::before_effect);
    // A ROLLBACK that has worked all the same is told to the error sink.
    constexpr bool must_be_told = outermost && !(verb == Verb::rollback && when == When::after_effect);
    constexpr bool in_doubt = verb == Verb::commit && when == When::after_effect;
    if (verb == Verb::rollback && when == When::before_effect)
        t.needs = Trial::Needs::to_be_ended;
    else if (in_doubt || (verb == Verb::rollback && !engine.has_state))
        t.needs = Trial::Needs::reset;
    auto& faults = t.faults();
    faults.fail(verb, when, std::runtime_error{"failed on purpose"});
    Ending inner;
    long id = 0;
    Told told{block(t, id, [&] {
        if (engine.no_savepoints.empty()) {
            ending_of([&] { t.db().atomic([&] { t.row(); }); });
            inner = ending_of([&] {
                t.db().atomic([&] {
                    t.row();
                    t.db().set_rollback(true);
                });
            });
            t.row();
        }
        if (verb == Verb::rollback) t.db().set_rollback(true);
    })};
    if (faults.planned() != 0) told.complaint = "the verb was never called";
    if (must_be_told && told.ending.returned()) told.complaint = "the failure was not thrown";
    if (harmless && !inner.returned()) told.complaint = "the next nested block threw: " + inner.text;
    if (harmless && !told.ending.returned()) told.complaint = "the block around threw: " + told.ending.text;
    return told;
}

// A row of the table is a story, and what cannot be told without.
struct Row {
    const char* name;
    Told (*story)(const Engine&, Trial&);
    std::string Engine::* missing = nullptr;
};

inline constexpr Row rows[] = {
    {"commit", commits},
    {"rollback", rolls_back},
    {"nested", nests, &Engine::no_savepoints},
    {"failed statement", swallows},
    {"raw ROLLBACK", [](const Engine&, Trial& t) { return ends_behind(t, true, "ROLLBACK"); }},
    {"raw COMMIT", [](const Engine&, Trial& t) { return ends_behind(t, true, "COMMIT"); }},
    {"raw ROLLBACK; BEGIN", [](const Engine&, Trial& t) { return ends_behind(t, true, "ROLLBACK", "BEGIN"); }},
    {"raw COMMIT; BEGIN", [](const Engine&, Trial& t) { return ends_behind(t, true, "COMMIT", "BEGIN"); }},
    {"raw COMMIT, rolled back", [](const Engine&, Trial& t) { return ends_behind(t, false, "COMMIT"); }},
    {"raw COMMIT; BEGIN, rolled back",
     [](const Engine&, Trial& t) { return ends_behind(t, false, "COMMIT", "BEGIN"); }},
    {"raw BEGIN before", begun_by_hand},
    {"deferred constraint", defers, &Engine::no_deferred},
    {"busy COMMIT", finds_it_busy, &Engine::no_busy},
    {"refused COMMIT", is_refused, &Engine::no_refusal},
    {"reply to COMMIT lost", loses_reply, &Engine::no_lost_reply},
    {"killed before COMMIT", killed_before, &Engine::no_kill},
    {"killed during COMMIT", killed_during, &Engine::no_kill},
    {"begin fails before its effect", fails<Verb::begin, When::before_effect>},
    {"begin fails after its effect", fails<Verb::begin, When::after_effect>},
    {"commit fails before its effect", fails<Verb::commit, When::before_effect>},
    {"commit fails after its effect", fails<Verb::commit, When::after_effect>},
    {"rollback fails before its effect", fails<Verb::rollback, When::before_effect>},
    {"rollback fails after its effect", fails<Verb::rollback, When::after_effect>},
    {"savepoint fails before its effect", fails<Verb::savepoint, When::before_effect>, &Engine::no_savepoints},
    {"savepoint fails after its effect", fails<Verb::savepoint, When::after_effect>, &Engine::no_savepoints},
    {"release fails before its effect", fails<Verb::release, When::before_effect>, &Engine::no_savepoints},
    {"release fails after its effect", fails<Verb::release, When::after_effect>, &Engine::no_savepoints},
    {"rollback_to fails before its effect", fails<Verb::rollback_to, When::before_effect>, &Engine::no_savepoints},
    {"rollback_to fails after its effect", fails<Verb::rollback_to, When::after_effect>, &Engine::no_savepoints},
};

inline void make_tables(Engine& engine) {
    const std::unique_ptr<Trial> trial = engine.open();
    const auto execute = [&](const char* sql) { return ending_of([&] { trial->execute(sql); }); };
    execute("DROP TABLE txhooks_check_late");
    execute("DROP TABLE txhooks_check");
    trial->execute("CREATE TABLE txhooks_check (id INTEGER PRIMARY KEY)");
    const Ending late = execute(
        "CREATE TABLE txhooks_check_late (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES txhooks_check "
        "(id) "
        "DEFERRABLE INITIALLY DEFERRED)");
    if (!late.returned()) engine.no_deferred = "no constraint can be deferred: " + late.text;
}

inline Told watched(const Engine& engine, const Row& row) {
    if (row.missing != nullptr && !(engine.*row.missing).empty()) return {{}, "not tried: " + engine.*row.missing};
    const std::unique_ptr<Trial> trial = engine.open();
    Told told = row.story(engine, *trial);
    if (told.broken.empty()) told.broken = trial->broken_promise(told.ending);
    if (!told.broken.empty()) return told;
    if (told.ending.kind == Ending::Kind::unknown && trial->needs == Trial::Needs::nothing)
        trial->needs = Trial::Needs::reset;
    const std::string stuck = trial->does_not_go_on();
    if (stuck.starts_with(Trial::left_open))
        told.broken = stuck;
    else if (told.complaint.empty())
        told.complaint = stuck;
    if (told.broken.empty()) told.broken = trial->broken_promise({});
    return told;
}

inline AdapterFinding judge(const Engine& engine, const Row& row, bool declared) {
    using Verdict = AdapterFinding::Verdict;
    Told told;
    const Ending played = ending_of([&] { told = watched(engine, row); });
    if (!played.returned()) told.complaint = "the session or its connection threw: " + played.text;
    if (!told.broken.empty()) return {row.name, Verdict::failed, told.broken + " (" + told.ending.text + ')'};
    if (!told.complaint.empty()) return {row.name, declared ? Verdict::cannot : Verdict::failed, told.complaint};
    if (declared) return {row.name, Verdict::failed, "declared, but kept: take it off the list"};
    return {row.name, Verdict::kept, told.ending.text};
}

inline std::vector<AdapterFinding> play(Engine engine, std::vector<std::string_view> declared) {
    using Verdict = AdapterFinding::Verdict;
    const Ending made = ending_of([&] { make_tables(engine); });
    if (!made.returned()) return {{"a session and its tables", Verdict::failed, made.text}};
    std::vector<AdapterFinding> findings;
    for (const Row& row : rows) findings.push_back(judge(engine, row, std::erase(declared, row.name) != 0));
    for (const std::string_view name : declared)
        findings.push_back({std::string{name}, Verdict::failed, "declared, but no row is called so"});
    return findings;
}

}  // namespace txhooks::testing::adapter_stories

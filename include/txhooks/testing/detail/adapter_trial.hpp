// SPDX-License-Identifier: MIT
#pragma once

// A session that `adapter_check` tries something on, and what then contradicts the promise.

#include <txhooks/connection.hpp>
#include <txhooks/detail/exception_text.hpp>
#include <txhooks/detail/failure.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/outcome.hpp>
#include <txhooks/testing/faults.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <map>
#include <string>

namespace txhooks::testing::adapter_stories {  // `detail` would hide that of txhooks from its neighbours

// How a call ended, in words and as what it was.
struct Ending {
    enum class Kind : unsigned char { returned, usage, lost, unknown, error };
    Kind kind = Kind::returned;
    Outcome outcome = Outcome::still_open;  // of a loss
    std::string text = "returned";

    bool returned() const noexcept { return kind == Kind::returned; }
    bool lost() const noexcept { return kind == Kind::lost; }
    bool may_be_committed() const noexcept {
        return kind == Kind::unknown || (lost() && outcome != Outcome::rolled_back);
    }
};

template <class Act>
Ending ending_of(const Act& act) {
    const detail::Failure failure = detail::attempt(act);
    if (!failure) return {};
    Ending ending{Ending::Kind::error, Outcome::still_open, "an exception of another language"};
    if (!failure.error) return ending;
    detail::with_text_of(failure.error, [&](const char* text) { ending.text = text; });
    try {
        std::rethrow_exception(failure.error);
    } catch (const TransactionLost& lost) {
        const char* const became = lost.outcome() == Outcome::committed     ? "committed"
                                   : lost.outcome() == Outcome::rolled_back ? "rolled back"
                                                                            : "unknown";
        ending = {Ending::Kind::lost, lost.outcome(), std::string{"TransactionLost: "} + became};
    } catch (const CommitUnknown&) {
        ending = {Ending::Kind::unknown, Outcome::unknown, "CommitUnknown"};
    } catch (const UsageError&) {
        ending.kind = Ending::Kind::usage;
    } catch (const TransactionAborted&) {
        ending.text = "TransactionAborted";
    } catch (...) {
        // As it is.
    }
    return ending;
}

// A session with its connection, and the rows that were inserted through it, each with its hook.
class Trial {
public:
    Trial() = default;
    Trial(const Trial&) = delete;
    Trial& operator=(const Trial&) = delete;
    virtual ~Trial() = default;

    virtual Connection& db() noexcept = 0;
    virtual Faults& faults() noexcept = 0;
    virtual void execute(const std::string& sql) = 0;
    virtual long look(const std::string& query) = 0;
    virtual void kill() = 0;
    virtual void make_busy(bool busy) = 0;
    virtual void refuse_commit(bool refuse) = 0;
    virtual void lose_reply() = 0;
    virtual bool can_reconnect() const noexcept = 0;
    virtual void reconnect() = 0;

    // Before the connection goes on.
    enum class Needs : unsigned char {
        nothing,
        reset,        // it may be in doubt
        to_be_ended,  // its transaction may be open still: that must end first, by `reconnect`
    };
    Needs needs = Needs::nothing;
    bool may_be_dead = false;  // or gone for ever

    // A row, and then its hook.
    long row() {
        const long id = insert();
        hook(id);
        return id;
    }
    long insert() {
        const long id = new_id();
        rows_.emplace(id, Seen{});
        execute(insertion(id));
        return id;
    }
    void hook(long id) {
        db().on_commit([this, id] {
            Seen& seen = rows_.at(id);
            ++seen.runs;
            const Ending ending = ending_of([&] { seen.early = seen.early || !there(id); });
            if (!ending.returned()) seen.trouble = ending.text;
        });
        rows_.at(id).registered = true;
    }
    static std::string insertion(long id) {
        return "INSERT INTO txhooks_check (id) VALUES (" + std::to_string(id) + ")";
    }
    // Rows of one check are never called the same.
    static long new_id() {
        static std::atomic<long> last = 0;
        return ++last;
    }

    bool there(long id) { return look("SELECT count(*) FROM txhooks_check WHERE id = " + std::to_string(id)) != 0; }
    std::size_t runs(long id) const { return rows_.at(id).runs; }

    // What contradicts *hook ran <=> row there*, the last block having ended like that. Nobody can declare it away.
    std::string broken_promise(const Ending& ending) {
        for (auto& [id, seen] : rows_) {
            if (seen.runs > 1) return "A HOOK RAN TWICE";
            if (!seen.trouble.empty())
                return "A HOOK RAN, BUT WHETHER ITS ROW IS THERE NOBODY CAN SEE: " + seen.trouble;
            bool is_there = false;
            if (const Ending look = ending_of([&, row = id] { is_there = there(row); }); !look.returned())
                return "WHETHER A ROW IS THERE NOBODY CAN SEE: " + look.text;
            if (seen.runs != 0 && !is_there) return "A HOOK RAN FOR LOST DATA";
            if (seen.early) return "A HOOK RAN BEFORE ITS ROW WAS THERE FOR OTHERS";
            seen.told = seen.told || ending.may_be_committed();
            if (is_there && seen.registered && seen.runs == 0 && !seen.told)
                return "A ROW IS THERE WHOSE HOOK DID NOT RUN, AND NOBODY WAS TOLD";
        }
        return {};
    }

    static constexpr const char* left_open = "A TRANSACTION IS LEFT OPEN";

    // Whether the connection works after all that: what speaks against it.
    std::string does_not_go_on() {
        faults().clear();
        if (!db().usable()) {
            if (may_be_dead && !can_reconnect()) return {};
            if (may_be_dead) needs = Needs::to_be_ended;
            if (needs == Needs::nothing) return "the connection is not usable() afterwards";
            const Ending recovery = ending_of([&] {
                if (needs == Needs::to_be_ended) reconnect();
                db().reset();
            });
            if (!recovery.returned()) return "the connection cannot be recovered: " + recovery.text;
        }
        const long alone = new_id();
        const Ending outside = ending_of([&] { execute(insertion(alone)); });
        if (!outside.returned()) return "SQL outside of blocks fails afterwards: " + outside.text;
        bool seen = false;
        ending_of([&] { seen = there(alone); });
        if (!seen) return std::string{left_open} + ": a row inserted outside of blocks is not there for others";
        long id = 0;
        const Ending block = ending_of([&] { db().atomic([&] { id = row(); }); });
        if (!block.returned()) return "the next block fails: " + block.text;
        if (runs(id) != 1) return "the hook of the next block did not run";
        const Ending undone = ending_of([&] {
            db().atomic([&] {
                row();
                db().set_rollback(true);
            });
        });
        return undone.returned() ? "" : "the next block that is rolled back fails: " + undone.text;
    }

private:
    struct Seen {
        std::size_t runs = 0;
        bool registered = false;
        bool early = false;
        bool told = false;  // that it may be committed without its hook
        std::string trouble;
    };

    std::map<long, Seen> rows_;
};

}  // namespace txhooks::testing::adapter_stories

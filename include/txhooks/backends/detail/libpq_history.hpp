// SPDX-License-Identifier: MIT
#pragma once

// What became of a transaction on a PGconn, told from what the server answered to everybody since it began.

#include <txhooks/outcome.hpp>

#include <libpq-events.h>
#include <libpq-fe.h>

#include <new>
#include <string_view>

namespace txhooks::postgres::detail {

// Savepoints of the user's, and whether a hook may have been registered in one that was rolled back. A tag tells no name:
// ROLLBACK TO is taken to go back to the outermost, and to be the end of it, as it mostly is.
class StraySavepoints {
public:
    // Around statements of our own.
    class Ours {
    public:
        explicit Ours(StraySavepoints& strays) noexcept : strays_{strays} { strays_.ours_ = true; }
        Ours(const Ours&) = delete;
        Ours& operator=(const Ours&) = delete;
        ~Ours() { strays_.ours_ = false; }

    private:
        StraySavepoints& strays_;
    };

    void set() noexcept {
        if (!ours_ && open_++ == 0) asked_ = false;
    }
    void released() noexcept {
        if (!ours_ && open_ != 0) --open_;
    }
    void rolled_back() noexcept {
        if (ours_) return;
        undone_ = undone_ || (open_ != 0 && asked_);
        open_ = 0;
    }

    // The state is asked for whenever a hook is registered.
    void asked() noexcept { asked_ = true; }

    bool undone() const noexcept { return undone_; }

private:
    unsigned open_ = 0;  // at most
    bool ours_ = false;
    bool asked_ = false;
    bool undone_ = false;
};

// Reads the command tags. ROLLBACK and ROLLBACK TO have the same one: with no savepoint set it was the former,
// otherwise it is in doubt until something is answered that only one of them allows.
class TagHistory {
public:
    StraySavepoints strays;

    void restart() noexcept { *this = TagHistory{}; }

    void tag(std::string_view tag) noexcept {
        if (ended_ || tag.empty()) return;
        if (failed_ && tag != "ROLLBACK") return end(Outcome::rolled_back);  // nothing else is done in a failed one
        failed_ = false;
        if (tag == "SAVEPOINT") {
            strays.set();
            ++savepoints_;
            if (in_doubt_) ++set_in_doubt_;
        } else if (tag == "RELEASE") {
            strays.released();
            if (savepoints_ != 0) --savepoints_;
            if (set_in_doubt_ != 0)
                --set_in_doubt_;
            else
                in_doubt_ = asked_in_doubt_ = false;  // it had survived the ROLLBACK
        } else if (tag == "ROLLBACK") {
            if (savepoints_ == 0) return end(Outcome::rolled_back);
            strays.rolled_back();
            in_doubt_ = true;
        } else if (tag == "COMMIT") {
            end(in_doubt_ ? Outcome::unknown : Outcome::committed);
        } else if (tag == "PREPARE TRANSACTION") {
            end(Outcome::unknown);
        } else if (in_doubt_ && (tag == "BEGIN" || tag == "START TRANSACTION")) {
            end(Outcome::unknown);
        }
    }

    // The state was asked for, as whenever a hook is registered. `running`: in the middle of a COPY, or of a pipeline.
    void asked(bool running) noexcept {
        strays.asked();
        asked_in_doubt_ = asked_in_doubt_ || (in_doubt_ && running);
    }

    // An error the server reported: the transaction has failed, or it was the COMMIT that did.
    void error() noexcept { failed_ = true; }

    void end(Outcome outcome) noexcept {
        if (ended_) return;
        ended_ = true;
        fate_ = outcome;
    }

    // It is not open any more, for certain.
    bool ended() const noexcept { return ended_; }

    // What became of it. `idle`: the connection is in no transaction at all.
    Outcome fate(bool idle) const noexcept {
        if (ended_) return fate_;
        if (asked_in_doubt_) return Outcome::unknown;  // the hook may be that of a row outside of the transaction
        return idle && (failed_ || in_doubt_) ? Outcome::rolled_back : Outcome::unknown;
    }

private:
    unsigned savepoints_ = 0;    // set, at most
    unsigned set_in_doubt_ = 0;  // of these since the ROLLBACK in doubt, at most
    bool in_doubt_ = false;
    bool asked_in_doubt_ = false;
    bool failed_ = false;
    bool ended_ = false;
    Outcome fate_ = Outcome::unknown;
};

// Keeps the history by an event procedure of libpq, which is called for every result that anybody gets on the
// connection. It cannot be unregistered: the connection keeps a list of who is there to be told, which may be empty.
class Watch {
public:
    explicit Watch(PGconn* conn) : conn_{conn} {
        next_ = static_cast<Watch*>(PQinstanceData(conn, &Watch::event));
        if (PQsetInstanceData(conn, &Watch::event, this) != 0) return;
        if (PQregisterEventProc(conn, &Watch::event, "txhooks", nullptr) == 0) throw std::bad_alloc{};
        PQsetInstanceData(conn, &Watch::event, this);
    }
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() {
        if (conn_ == nullptr) return;
        auto* other = static_cast<Watch*>(PQinstanceData(conn_, &Watch::event));
        if (other == this) {
            PQsetInstanceData(conn_, &Watch::event, next_);
            return;
        }
        while (other->next_ != this) other = other->next_;
        other->next_ = next_;
    }

    // Null once the handle was closed, which libpq takes for a connection that is gone.
    PGconn* conn() const noexcept { return conn_; }

    TagHistory history;

private:
    // Results may outlive the Watch: nothing is kept in them.
    static int event(PGEventId id, void* info, void*) noexcept {
        if (id == PGEVT_RESULTCREATE) {
            const auto* created = static_cast<PGEventResultCreate*>(info);
            for_all(created->conn, [&](Watch& watch) { watch.add(created->result); });
        } else if (id == PGEVT_CONNRESET) {
            for_all(static_cast<PGEventConnReset*>(info)->conn, [](Watch& watch) { watch.gone(); });
        } else if (id == PGEVT_CONNDESTROY) {
            for_all(static_cast<PGEventConnDestroy*>(info)->conn, [](Watch& watch) {
                watch.gone();
                watch.conn_ = nullptr;
            });
        }
        return 1;
    }

    template <class Fn>
    static void for_all(PGconn* conn, Fn fn) noexcept {
        for (auto* watch = static_cast<Watch*>(PQinstanceData(conn, &Watch::event)); watch != nullptr;
             watch = watch->next_)
            fn(*watch);
    }

    void add(PGresult* result) noexcept {
        if (PQresultStatus(result) != PGRES_FATAL_ERROR) return history.tag(PQcmdStatus(result));
        const char* const severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
        if (severity == nullptr) return;  // libpq's own, which says nothing about the server
        if (std::string_view{severity} == "ERROR") history.error();
        if (std::string_view{severity} == "FATAL") history.end(Outcome::rolled_back);
    }

    void gone() noexcept { history.end(Outcome::unknown); }

    PGconn* conn_;
    Watch* next_;
};

}  // namespace txhooks::postgres::detail

// SPDX-License-Identifier: MIT

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include "support/catch.hpp"
#include "support/trace.hpp"

#include <ostream>
#include <stdexcept>
#include <string>

// Every way a block can end, in every place it can stand, in every form it can be written.

using namespace txhooks;
using support::join;
using support::Log;
using support::Oops;
using support::Sink;
using support::Trace;
using testing::FakeBackend;

namespace {

enum class End : unsigned char { commit, rollback };
enum class Kind : unsigned char { savepoint, joined, durable };
enum class Form : unsigned char { guard, function, failed_result };
enum class Place : unsigned char { from_scratch, in_open_block };

std::ostream& operator<<(std::ostream& out, End end) {
    return out << (end == End::commit ? "commit" : "rollback");
}
std::ostream& operator<<(std::ostream& out, Kind kind) {
    return out << (kind == Kind::savepoint ? "savepoint" : kind == Kind::joined ? "joined" : "durable");
}
std::ostream& operator<<(std::ostream& out, Form form) {
    return out << (form == Form::guard ? "guard" : form == Form::function ? "function" : "failed result");
}
std::ostream& operator<<(std::ostream& out, Place place) {
    return out << (place == Place::from_scratch ? "from scratch" : "in an open block");
}

// Expected-like.
struct Result {
    bool ok;
    bool has_value() const { return ok; }
    int error() const { return 1; }
};

using Options = BlockOptions<>;

Options options(Kind kind) {
    return {.durable = kind == Kind::durable, .join = kind == Kind::joined};
}

struct World {
    HookedConnection<FakeBackend> db;
    Sink sink{db};
    Trace ran;

    // A row and its hook, which sees for itself that the row is committed.
    void act(const std::string& name) {
        db.put(name);
        db.on_commit([this, name] { ran.note(db.committed(name) ? name : name + " too early"); });
    }

    // A block that ends as it is told to. What that makes it throw by itself is swallowed, everything else passes.
    template <class Body>
    void block(Form form, const Options& how, End end, Body body) {
        switch (form) {
            case Form::guard: {
                Atomic tx{db, how};
                body();
                if (end == End::rollback) {
                    tx.rollback();
                } else {
                    const Outcome outcome = tx.commit();
                    CHECK(outcome == Outcome::committed);
                }
                CHECK_FALSE(tx.active());
                return;
            }
            case Form::function:
                try {
                    db.atomic(how, [&] {
                        body();
                        if (end == End::rollback) throw Oops{};
                    });
                    CHECK(end == End::commit);
                } catch (const Oops&) {
                    CHECK(end == End::rollback);
                }
                return;
            case Form::failed_result:
                const Result result = db.atomic(how, [&] {
                    body();
                    return Result{end == End::commit};
                });
                CHECK(result.ok == (end == End::commit));
        }
    }

    std::string rows() const {
        Log rows;
        for (const char* row : {"base", "outer", "inner", "after"})
            if (db.committed(row)) rows.emplace_back(row);
        return join(rows);
    }
};

}  // namespace

TEST_CASE("atomic: a block alone or in an open one ends as it should, in every kind and form",
          "[S25][S26][S30][S31][S33][S34][S35][S37]") {
    struct Cell {
        Place place;
        Kind kind;
        End end;
        std::string log;
        std::string done;  // hooks that ran, and rows that are visible: always the same
        std::string thrown;
    };
    const std::string refused = "durable";
    const std::string aborted = "aborted";
    const auto scratch = Place::from_scratch;
    const auto inside = Place::in_open_block;
    // clang-format off
    const Cell cells[] = {
        {scratch, Kind::savepoint, End::commit,   "BEGIN,INSERT inner,COMMIT",   "inner", ""},
        {scratch, Kind::savepoint, End::rollback, "BEGIN,INSERT inner,ROLLBACK", "",      ""},
        {scratch, Kind::joined,    End::commit,   "BEGIN,INSERT inner,COMMIT",   "inner", ""},
        {scratch, Kind::joined,    End::rollback, "BEGIN,INSERT inner,ROLLBACK", "",      ""},
        {scratch, Kind::durable,   End::commit,   "BEGIN,INSERT inner,COMMIT",   "inner", ""},
        {scratch, Kind::durable,   End::rollback, "BEGIN,INSERT inner,ROLLBACK", "",      ""},

        {inside, Kind::savepoint, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT inner,RELEASE txhooks_1,COMMIT", "base,inner", ""},
        {inside, Kind::savepoint, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT inner,ROLLBACK TO txhooks_1,COMMIT", "base", ""},
        {inside, Kind::joined, End::commit,   "BEGIN,INSERT base,INSERT inner,COMMIT", "base,inner", ""},
        {inside, Kind::joined, End::rollback, "BEGIN,INSERT base,INSERT inner,ROLLBACK", "", aborted},
        {inside, Kind::durable, End::commit,   "BEGIN,INSERT base,ROLLBACK", "", refused},
        {inside, Kind::durable, End::rollback, "BEGIN,INSERT base,ROLLBACK", "", refused},
    };
    // clang-format on
    for (const Cell& cell : cells) {
        for (const Form form : {Form::guard, Form::function, Form::failed_result}) {
            CAPTURE(cell.place, cell.kind, cell.end, form);
            World world;
            std::string thrown;
            try {
                const auto block = [&] {
                    world.block(form, options(cell.kind), cell.end, [&] { world.act("inner"); });
                };
                if (cell.place == Place::from_scratch)
                    block();
                else
                    world.db.atomic([&] {
                        world.act("base");
                        block();
                    });
            } catch (const UsageError&) {
                thrown = refused;
            } catch (const TransactionAborted&) {
                thrown = aborted;
            }
            CHECK(thrown == cell.thrown);
            CHECK(join(world.db.log()) == cell.log);
            CHECK(world.ran.text() == cell.done);
            CHECK(world.rows() == cell.done);
            CHECK(world.sink.text().empty());
            CHECK(world.db.usable());
        }
    }
}

TEST_CASE("atomic: the ends of an outer and an inner block combine, in every kind and form",
          "[S11][S12][S25][S26][S30][S31][S33][S34][S35]") {
    struct Cell {
        Place place;
        Kind kind;  // of the inner block
        End outer;
        End inner;
        std::string log;
        std::string done;
        bool aborted;  // the outer block was to commit and could not
    };
    const auto scratch = Place::from_scratch;
    const auto inside = Place::in_open_block;
    // clang-format off
    const Cell cells[] = {
        {scratch, Kind::savepoint, End::commit, End::commit,
         "BEGIN,INSERT outer,SAVEPOINT txhooks_1,INSERT inner,RELEASE txhooks_1,INSERT after,COMMIT",
         "outer,inner,after", false},
        {scratch, Kind::savepoint, End::commit, End::rollback,
         "BEGIN,INSERT outer,SAVEPOINT txhooks_1,INSERT inner,ROLLBACK TO txhooks_1,INSERT after,COMMIT",
         "outer,after", false},
        {scratch, Kind::savepoint, End::rollback, End::commit,
         "BEGIN,INSERT outer,SAVEPOINT txhooks_1,INSERT inner,RELEASE txhooks_1,INSERT after,ROLLBACK",
         "", false},
        {scratch, Kind::savepoint, End::rollback, End::rollback,
         "BEGIN,INSERT outer,SAVEPOINT txhooks_1,INSERT inner,ROLLBACK TO txhooks_1,INSERT after,ROLLBACK",
         "", false},

        {scratch, Kind::joined, End::commit, End::commit,
         "BEGIN,INSERT outer,INSERT inner,INSERT after,COMMIT", "outer,inner,after", false},
        {scratch, Kind::joined, End::commit, End::rollback,
         "BEGIN,INSERT outer,INSERT inner,INSERT after,ROLLBACK", "", true},
        {scratch, Kind::joined, End::rollback, End::commit,
         "BEGIN,INSERT outer,INSERT inner,INSERT after,ROLLBACK", "", false},
        {scratch, Kind::joined, End::rollback, End::rollback,
         "BEGIN,INSERT outer,INSERT inner,INSERT after,ROLLBACK", "", false},

        {scratch, Kind::durable, End::commit, End::commit,
         "BEGIN,INSERT outer,INSERT after,COMMIT", "outer,after", false},
        {scratch, Kind::durable, End::commit, End::rollback,
         "BEGIN,INSERT outer,INSERT after,COMMIT", "outer,after", false},
        {scratch, Kind::durable, End::rollback, End::commit,
         "BEGIN,INSERT outer,INSERT after,ROLLBACK", "", false},
        {scratch, Kind::durable, End::rollback, End::rollback,
         "BEGIN,INSERT outer,INSERT after,ROLLBACK", "", false},

        {inside, Kind::savepoint, End::commit, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,SAVEPOINT txhooks_2,INSERT inner,RELEASE txhooks_2,"
         "INSERT after,RELEASE txhooks_1,COMMIT",
         "base,outer,inner,after", false},
        {inside, Kind::savepoint, End::commit, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,SAVEPOINT txhooks_2,INSERT inner,ROLLBACK TO txhooks_2,"
         "INSERT after,RELEASE txhooks_1,COMMIT",
         "base,outer,after", false},
        {inside, Kind::savepoint, End::rollback, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,SAVEPOINT txhooks_2,INSERT inner,RELEASE txhooks_2,"
         "INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", false},
        {inside, Kind::savepoint, End::rollback, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,SAVEPOINT txhooks_2,INSERT inner,ROLLBACK TO txhooks_2,"
         "INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", false},

        {inside, Kind::joined, End::commit, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT inner,INSERT after,RELEASE txhooks_1,COMMIT",
         "base,outer,inner,after", false},
        {inside, Kind::joined, End::commit, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT inner,INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", true},
        {inside, Kind::joined, End::rollback, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT inner,INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", false},
        {inside, Kind::joined, End::rollback, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT inner,INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", false},

        {inside, Kind::durable, End::commit, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT after,RELEASE txhooks_1,COMMIT",
         "base,outer,after", false},
        {inside, Kind::durable, End::commit, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT after,RELEASE txhooks_1,COMMIT",
         "base,outer,after", false},
        {inside, Kind::durable, End::rollback, End::commit,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", false},
        {inside, Kind::durable, End::rollback, End::rollback,
         "BEGIN,INSERT base,SAVEPOINT txhooks_1,INSERT outer,INSERT after,ROLLBACK TO txhooks_1,COMMIT",
         "base", false},
    };
    // clang-format on
    for (const Cell& cell : cells) {
        for (const Form form : {Form::guard, Form::function, Form::failed_result}) {
            CAPTURE(cell.place, cell.kind, cell.outer, cell.inner, form);
            World world;
            const auto inner = [&] {
                const auto block = [&] {
                    world.block(form, options(cell.kind), cell.inner, [&] { world.act("inner"); });
                };
                if (cell.kind == Kind::durable)
                    CHECK_THROWS_AS(block(), UsageError);
                else
                    block();
                world.act("after");
                CHECK(world.ran.text().empty());
            };
            const auto outer = [&] {
                bool aborted = false;
                try {
                    world.block(form, {}, cell.outer, [&] {
                        world.act("outer");
                        inner();
                    });
                } catch (const TransactionAborted& error) {
                    aborted = true;
                    CHECK(support::name_of(error.cause()) == (form == Form::function ? "oops" : "none"));
                }
                CHECK(aborted == cell.aborted);
            };
            if (cell.place == Place::from_scratch)
                outer();
            else
                world.db.atomic([&] {
                    world.act("base");
                    outer();
                    CHECK(world.ran.text().empty());
                });
            CHECK(join(world.db.log()) == cell.log);
            CHECK(world.ran.text() == cell.done);
            CHECK(world.rows() == cell.done);
            CHECK(world.sink.text().empty());
            CHECK(world.db.usable());
        }
    }
}

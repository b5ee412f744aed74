// SPDX-License-Identifier: MIT
#pragma once

#include "history.hpp"
#include "trouble.hpp"

#include <txhooks/testing/fake_backend.hpp>
#include <txhooks/txhooks.hpp>

#include <cstdint>
#include <string>

namespace random_programs {

/// The fake backend, and all that it can be told to do wrong.
class FakeWorld {
public:
    using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;
    static constexpr bool has_begin_modes = false;
    static constexpr bool has_markers = true;
    static constexpr bool proves_losses = true;
    static constexpr bool has_unknown_losses = false;
    static constexpr const char* name = "fake";

    explicit FakeWorld(std::uint32_t setting) : notices_exchange_{setting % 2 == 0} {
        db_.keep_log(false);
        if (not notices_exchange_) db_.set_witness(Db::Witness::at_the_end);
    }

    Db& db() { return db_; }
    void put(unsigned row) { db_.put(std::to_string(row)); }
    bool sees(unsigned row) const { return db_.committed(std::to_string(row)).has_value(); }

    /// Whether it shows at the next call that raw SQL has ended the transaction and begun another.
    bool notices_exchange() const { return notices_exchange_; }

    Said trouble(std::uint32_t number, bool in_block) {
        Numbers numbers{number};
        switch (numbers.below(in_block ? 12 : 5)) {
            default:
                return plan_faults(db_.faults, numbers);
            case 4:
            case 5:
                return answer(numbers);
            case 6:
                db_.fail_transaction();
                return {"a statement failed: only ROLLBACK is left", true};
            case 7:
                db_.lose_connection();
                return {"the connection is lost"};
            case 8:
                db_.lose_connection(), db_.reconnect();
                return {"the driver has reconnected"};
            case 9:
            case 10:
            case 11:
                return raw(raw_statements[numbers.below(5)]);
        }
    }

    void settle(std::uint32_t number) {
        if (number % 4 == 0) db_.faults.clear();
    }

    bool foreign_begin() {
        db_.execute("BEGIN");
        return true;
    }
    void foreign_end() { db_.execute("COMMIT"); }

    void after_step() {
        if (++steps_ % 4 == 0) db_.faults.clear();
    }

    void recover() { db_.reconnect(); }

private:
    Said answer(Numbers& numbers) {
        Db::CommitAnswer answer;
        answer.proven = numbers.pick<txhooks::Outcome>(4);
        answer.really_committed = numbers.below(2) == 1;
        if (numbers.below(3) != 0) answer.error = std::make_exception_ptr(Deliberate{});
        db_.answer_commit(answer);
        const std::string what = std::string{"COMMIT will be answered: "} + text(answer.proven);
        return {answer.error ? what + " with an error" : what, false, false, true};
    }

    Said raw(const char* sql) {
        try {
            db_.execute(sql);
            return {sql, false, true};
        } catch (const std::exception&) {
            return {sql, true, true};
        }
    }

    const bool notices_exchange_;
    Db db_;
    unsigned steps_ = 0;
};

}  // namespace random_programs

// SPDX-License-Identifier: MIT
#pragma once

#include "support/mariadb_server.hpp"

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

namespace support {

/// Interrupts the statements of a connection from another one, again and again, from `start()` until `stop()`.
class Interrupter {
public:
    explicit Interrupter(MYSQL* db)
        : db_{db}, sql_{"KILL QUERY " + std::to_string(mysql_thread_id(db))}, thread_{[this] { work(); }} {}
    Interrupter(const Interrupter&) = delete;
    Interrupter& operator=(const Interrupter&) = delete;
    ~Interrupter() {
        state_ = State::ended;
        thread_.join();
    }

    void start() { state_ = State::active; }

    /// After it no interrupt is on its way.
    void stop() {
        State active = State::active;
        if (not state_.compare_exchange_strong(active, State::stopping)) return;
        while (state_ == State::stopping) std::this_thread::yield();
        while (attempt(db_, "DO 0") == 1317) {}
    }

private:
    enum class State { idle, active, stopping, ended };

    void work() {
        Handle other;
        while (state_ != State::ended) {
            if (state_ == State::active) attempt(other, sql_);
            State stopping = State::stopping;
            state_.compare_exchange_strong(stopping, State::idle);
            std::this_thread::sleep_for(std::chrono::microseconds{20});
        }
    }

    MYSQL* db_;
    std::string sql_;
    std::atomic<State> state_ = State::idle;
    std::thread thread_;
};

}  // namespace support

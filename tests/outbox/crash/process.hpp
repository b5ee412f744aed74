// SPDX-License-Identifier: MIT
#pragma once

#include "engine.hpp"
#include "host_clock.hpp"
#include "jobs.hpp"
#include "log.hpp"
#include "random/dice.hpp"

#include <txhooks/detached_hooks.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/retry.hpp>

#include <signal.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace crash {

using std::chrono::milliseconds;

inline constexpr milliseconds lease{300};

/// Who is told to stop by SIGTERM.
inline volatile sig_atomic_t stopping = 0;
inline void (*stop_outbox)() noexcept = nullptr;

[[noreturn]] inline void die() noexcept {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}
inline void sleep(milliseconds some) {
    std::this_thread::sleep_for(some);
}

/// An adapter whose BEGIN takes longer than a lease now and then, as where the machine has no time for a process.
template <class Handle>
class Stalling : public txhooks::BackendAdapter<Handle> {
    using Base = txhooks::BackendAdapter<Handle>;

public:
    using Base::Base;
    void begin(const typename Base::begin_options& options) {
        if (dice().one_in(80)) sleep(lease * 3 / 2);
        Base::begin(options);
    }

    static random_programs::Dice& dice() {
        static random_programs::Dice dice{std::random_device{}()};
        return dice;
    }
};

/// A producer or a worker.
template <class Own>
class Process {
    using Db = typename Own::Db;
    using Dice = random_programs::Dice;

public:
    explicit Process(const Start& start)
        : start_{start}, log_{start.folder + "/log", start.process}, dice_{start.seed} {
        Stalling<typename Own::Handle>::dice() = Dice{dice_.below(~0u)};
        handle_all(std::make_index_sequence<static_cast<std::size_t>(Type::count)>{});
        types_.observe(
            [](void* self, const txhooks::JobEvent& event) noexcept {
                static_cast<Process*>(self)->log_.note({.what = What::settled,
                                                        .c = event.attempt,
                                                        .d = static_cast<std::int64_t>(event.step),
                                                        .id = std::string{event.id}});
            },
            this);
    }

    int run() {
        struct sigaction action{};
        action.sa_handler = [](int) {
            stopping = 1;
            if (stop_outbox != nullptr) stop_outbox();
        };
        sigaction(SIGTERM, &action, nullptr);
        while (stopping == 0) {
            try {
                Connected connected{*this};
                if (start_.role == "producer")
                    produce();
                else if (start_.role == "worker")
                    work();
                else
                    add_behind();
            } catch (const std::exception& e) {
                trouble(e.what(), Own::trouble(std::current_exception()));
                sleep(milliseconds{20});
            }
        }
        return 0;
    }

private:
    class Connected {
    public:
        explicit Connected(Process& process) : process_{process}, own_{process.start_.folder, process.start_.process} {
            db_.set_error_sink(
                [](void* self, const char* what, const std::exception_ptr& error) {
                    if (std::string_view{what}.find("could not be noted") == std::string_view::npos) return;
                    static_cast<Process*>(self)->trouble(what, error ? Own::trouble(error) : Trouble::fault, true);
                },
                &process);
            process.own_ = &own_;
            process.db_ = &db_;
            process.outbox_ = &outbox_;
            outbox_to_stop() = &outbox_;
            stop_outbox = []() noexcept { outbox_to_stop()->stop(); };
        }
        Connected(const Connected&) = delete;
        Connected& operator=(const Connected&) = delete;
        ~Connected() { stop_outbox = nullptr; }

    private:
        static txhooks::Outbox<Db>*& outbox_to_stop() {
            static txhooks::Outbox<Db>* outbox = nullptr;
            return outbox;
        }

        Process& process_;
        Own own_;
        Db db_{own_.handle()};
        txhooks::Outbox<Db> outbox_{db_, process_.types_};
    };

    std::int64_t next_number() { return start_.process << 24 | ++numbers_; }

    void trouble(const char* text, Trouble trouble, bool not_of_work = false) {
        troubled_ = true;
        log_.note({.what = What::trouble, .c = not_of_work, .d = static_cast<std::int64_t>(trouble), .text = text});
    }

    // ---- Producers

    void produce() {
        for (unsigned blocks = 1; stopping == 0; ++blocks) {
            block();
            sleep(milliseconds{dice_.below(30)});
            while (blocks % 4 == 0 and stopping == 0 and waiting() > 20) sleep(milliseconds{50});
        }
    }
    std::int64_t waiting() { return number("SELECT count(*) FROM txhooks_job WHERE due < 9223372036854775807"); }

    // Where transactions are serializable one that only reads may be refused too.
    std::int64_t number(const std::string& sql) {
        for (;;) {
            try {
                return own_->number(sql);
            } catch (...) {
                if (Own::trouble(std::current_exception()) != Trouble::in_the_way) throw;
            }
        }
    }

    // One or a few jobs, and what may happen to their block.
    void block() {
        enum class End : unsigned { commits, dies_before, dies_behind, throws, hook_throws, other_language };
        static constexpr End ends[] = {End::dies_before, End::dies_before, End::dies_before,    End::dies_behind,
                                       End::throws,      End::hook_throws, End::other_language, End::commits};
        std::vector<std::function<void()>> acts;
        const auto end = dice_.one_in(3) ? ends[dice_.below(8)] : End::commits;
        txhooks::DetachedHooks after;
        typename Db::Options options = Own::writing();
        const bool detached = dice_.one_in(10);
        if (detached) options.detach = &after;
        const std::int64_t number = next_number();
        std::vector<std::int64_t> born;  // here
        const unsigned jobs = 1 + dice_.below(4);
        std::int64_t rows = 0;
        for (unsigned i = 0; i != jobs; ++i) {
            const bool nested = dice_.one_in(4), undone = dice_.one_in(2);
            if (not nested or not undone) ++rows;
            acts.push_back([this, nested, undone, number, detached, act = some_job(), &born] {
                if (not nested) return act(number, detached, born);
                db_->atomic([&] {
                    act(number, detached, born);
                    if (undone) db_->set_rollback(true);
                });
            });
        }
        if (end == End::other_language) {
            acts.push_back([this, number] { insert_by_hand(number); });
            ++rows;
        }
        const auto body = [&] {
            if (end == End::dies_before) db_->on_commit([]() noexcept { die(); });
            if (end == End::hook_throws) db_->on_commit([] { throw std::runtime_error{"an unrelated hook"}; });
            for (const auto& act : acts) act();
            if (end == End::dies_behind) db_->on_commit([]() noexcept { die(); });
            if (end == End::throws) throw std::runtime_error{"no commit"};
            const std::int64_t until = now() + std::chrono::microseconds{lease}.count();
            for (const std::int64_t job : born) leases_[job] = until;
        };
        log_.note({.what = What::block, .a = number});
        try {
            unsigned tries = 0;
            if (dice_.one_in(5) and not detached)
                txhooks::retry(
                    *db_, {.transient = [](const std::exception_ptr& error) noexcept { return is_again(error); }}, [&] {
                        body();
                        if (++tries == 1) throw Again{};
                    });
            else
                db_->atomic(options, body);
            log_.note({.what = What::committed, .a = number, .b = rows});
        } catch (const std::exception& e) {
            const auto* const known = dynamic_cast<const txhooks::Error*>(&e);
            const bool committed = known != nullptr and known->outcome() == txhooks::Outcome::committed;
            const Trouble trouble = committed ? Trouble::expected : Own::trouble(std::current_exception());
            log_.note({.what = committed ? What::committed : What::failed,
                       .a = number,
                       .b = rows,
                       .d = static_cast<std::int64_t>(trouble),
                       .text = e.what()});
            if (not db_->usable()) throw;
        }
        try {
            after.run();
        } catch (const txhooks::HookError&) {
            // The unrelated hook.
        }
    }

    struct Again : std::exception {};
    static bool is_again(const std::exception_ptr& error) noexcept {
        try {
            std::rethrow_exception(error);
        } catch (const Again&) {
            return true;
        } catch (...) {
            return false;
        }
    }

    using Act = std::function<void(std::int64_t block, bool detached, std::vector<std::int64_t>& born)>;

    template <Type type>
    Act job_of(Plan plan) {
        const std::int64_t number = next_number();
        std::string key = type == Type::keyed ? 'k' + std::to_string(start_.process) + '-' + std::to_string(number % 3)
                                              : std::string{};
        const milliseconds delay{not is_ordered(type) and dice_.one_in(12) ? 100 + dice_.below(500) : 0};
        return [=, this](std::int64_t block, bool detached, std::vector<std::int64_t>& born) {
            const bool here = is_run_here(type) and delay == milliseconds{0} and not detached;
            write_down(number, block, type, plan, here, key);
            Named<type> job;
            job.number = number;
            job.plan = plan;
            outbox_->add(job, {.key = key, .delay = delay});
            if (here) born.push_back(number);
        };
    }

    void write_down(std::int64_t number, std::int64_t block, Type type, Plan plan, bool here, const std::string& key) {
        own_->run("INSERT INTO committed VALUES (" + std::to_string(number) + ", " + std::to_string(block) + ", " +
                  std::to_string(static_cast<int>(type)) + ", " + std::to_string(static_cast<int>(plan)) + ", " +
                  (here ? "1" : "0") + ", '" + key + "')");
    }

    Act some_job() {
        const Type type = dice_.pick<Type>(static_cast<unsigned>(Type::count));
        const Plan plan = some_plan(type);
        return pick_type(type, plan, std::make_index_sequence<static_cast<std::size_t>(Type::count)>{});
    }
    template <std::size_t... I>
    Act pick_type(Type type, Plan plan, std::index_sequence<I...>) {
        Act act;
        (void)((static_cast<Type>(I) == type and (act = job_of<static_cast<Type>(I)>(plan), true)) or ...);
        return act;
    }

    Plan some_plan(Type type) {
        struct Chance {
            Plan plan;
            unsigned outside, inside, ordered, fragile;
        };
        // Those that sleep hold up all that is locked, or behind them.
        static constexpr Chance chances[] = {{Plan::well, 20, 20, 30, 36},
                                             {Plan::slow, 3, 2, 2, 0},
                                             {Plan::throws, 6, 6, 4, 6},
                                             {Plan::sleeps, 14, 1, 1, 0},
                                             {Plan::sleeps_then_throws, 6, 1, 1, 0},
                                             {Plan::extends, 3, 1, 1, 0},
                                             {Plan::again, 5, 5, 2, 0},
                                             {Plan::adds, 10, 10, 4, 0},
                                             {Plan::dies, 2, 2, 1, 0},
                                             {Plan::dies_late, 2, 2, 1, 0},
                                             {Plan::dies_next, 2, 2, 1, 0},
                                             {Plan::dies_in_commit, 0, 3, 1, 0},
                                             {Plan::gives_up, 1, 1, 1, 1},
                                             {Plan::always_throws, 0, 0, 0, 1},
                                             {Plan::always_dies, 0, 0, 0, 1}};
        const auto chance = [&](const Chance& each) {
            return is_fragile(type)   ? each.fragile
                   : is_ordered(type) ? each.ordered
                   : is_inside(type)  ? each.inside
                                      : each.outside;
        };
        unsigned sum = 0;
        for (const Chance& each : chances) sum += chance(each);
        unsigned left = dice_.below(sum);
        for (const Chance& each : chances) {
            if (left < chance(each)) return each.plan;
            left -= chance(each);
        }
        return Plan::well;
    }

    // A row from another language, whose transaction commits late: with a `due` before that of others.
    void insert_by_hand(std::int64_t block) {
        const std::int64_t number = next_number();
        write_down(number, block, Type::worker, Plan::well, false, "");
        char id[37];
        std::snprintf(id, sizeof id, "00000000-0000-7000-8000-%012llx", static_cast<unsigned long long>(number));
        own_->run(std::string{"INSERT INTO txhooks_job (id, name, payload) VALUES ('"} + id + "', 'worker', '" +
                  to_payload({number, Plan::well}) + "')");
        sleep(milliseconds{dice_.below(60)});
    }

    // ---- The last one: a job whose transaction commits late, when everybody has looked for later ones of its name

    void add_behind() {
        Named<Type::worker> job;
        job.number = next_number();
        db_->atomic(Own::writing(), [&] {
            write_down(job.number, job.number, Type::worker, Plan::well, false, "");
            outbox_->add(job, {.delay = milliseconds{4000}});
        });
        sleep(milliseconds{1000});  // nobody has anything else to do
        db_->atomic(Own::writing(), [&] {
            insert_by_hand(job.number);
            sleep(milliseconds{1500});
        });
        stopping = 1;
    }

    // ---- Workers

    void work() {
        if (dice_.one_in(2)) {
            works_ = true;
            while (stopping == 0) {
                outbox_->work(milliseconds{50});
                look_what_is_held();
            }
            return;
        }
        while (stopping == 0) {
            since_ = now();
            std::size_t ran = 0;
            try {
                ran = outbox_->run_due();
            } catch (const std::exception& e) {
                if (not db_->usable()) throw;
                trouble(e.what(), Own::trouble(std::current_exception()), true);
            }
            since_ = 0;
            if (ran == 0) sleep(milliseconds{5 + dice_.below(20)});
        }
    }

    // Nothing: what was not begun has been given back, and the rest is settled.
    void look_what_is_held() {
        if (troubled_) return;
        const std::int64_t rows =
            number("SELECT count(*) FROM txhooks_job WHERE holder LIKE '%:" + std::to_string(getpid()) + "'");
        log_.note({.what = What::held, .d = rows});
    }

    // ---- Handlers

    template <std::size_t... I>
    void handle_all(std::index_sequence<I...>) {
        (handle<static_cast<Type>(I)>(), ...);
    }

    template <Type type>
    void handle() {
        txhooks::HandlerOptions options;
        options.in_worker = not is_run_here(type) and not is_ordered(type);
        options.in_order = is_ordered(type);
        options.attempts = is_fragile(type) ? 5 : 40;
        options.lease = lease;
        options.first_delay = milliseconds{20};
        options.longest_delay = milliseconds{150};
        const auto handler = [this](Db&, const Named<type>& job, txhooks::JobRun& run) { attempt(type, job, run); };
        if constexpr (is_inside(type))
            types_.template handle<Named<type>>(txhooks::in_transaction, handler, options);
        else
            types_.template handle<Named<type>>(handler, options);
    }

    void attempt(Type type, const Work& job, txhooks::JobRun& run) {
        if (die_next_) die();
        if (works_ and dice_.one_in(20)) outbox_->stop();  // the rest is given back
        const std::int64_t number = ++runs_;
        const auto born = leases_.find(job.number);
        const bool is_born = born != leases_.end() and run.attempt() == 1;
        const std::int64_t until = is_born       ? born->second
                                   : since_ != 0 ? since_ + std::chrono::microseconds{lease}.count()
                                                 : 0;
        log_.note({.what = What::begun,
                   .a = job.number,
                   .b = number,
                   .c = run.attempt(),
                   .d = until,
                   .id = std::string{run.id()},
                   .text = std::to_string(static_cast<int>(type))});
        How how = How::threw;
        struct Note {
            Process& self;
            const Work& job;
            std::int64_t number;
            const How& how;
            ~Note() {
                self.log_.note(
                    {.what = What::returned, .a = job.number, .b = number, .d = static_cast<std::int64_t>(how)});
            }
        } const note{*this, job, number, how};
        how = follow(type, job, run, number);
    }

    How follow(Type type, const Work& job, txhooks::JobRun& run, std::int64_t number) {
        const bool early = run.attempt() <= 2;
        switch (job.plan) {
            case Plan::slow:
                sleep(milliseconds{40});
                break;
            case Plan::sleeps:
                if (run.attempt() <= 3) sleep(is_inside(type) ? lease * 3 / 2 : lease * 3);
                break;
            case Plan::sleeps_then_throws:
                if (run.attempt() > 4) break;
                if (run.attempt() % 2 == 0) {
                    sleep(lease * 4 / 5);  // the one before settles meanwhile
                    break;
                }
                sleep(lease * 3 / 2);
                throw std::runtime_error{"late"};
            case Plan::extends:
                extend(type, job, run, number);
                break;
            case Plan::again:
                if (dice_.one_in(2)) break;
                run.again_in(milliseconds{10});
                if (is_inside(type)) effect(type, job, number);
                return How::again;
            case Plan::adds:
                add_another();
                break;
            case Plan::dies:
                if (early) die();
                break;
            case Plan::throws:
                if (run.attempt() == 1 and not is_inside(type)) throw std::runtime_error{"not yet"};
                break;
            default:
                break;
        }
        if (is_inside(type) or not ends_dead(job.plan)) effect(type, job, number);
        switch (job.plan) {
            case Plan::dies_late:
                if (early) die();
                break;
            case Plan::dies_next:
                die_next_ = early;
                break;
            case Plan::dies_in_commit:
                if (early and is_inside(type) and dice_.one_in(2)) db_->before_commit([]() noexcept { die(); });
                if (early and is_inside(type) and dice_.one_in(2)) db_->on_commit([]() noexcept { die(); });
                break;
            case Plan::throws:
                if (run.attempt() == 1 and is_inside(type)) throw std::runtime_error{"not yet"};
                break;
            case Plan::gives_up:
                run.give_up("for good");
                return How::gave_up;
            case Plan::always_throws:
                throw std::runtime_error{"never"};
            case Plan::always_dies:
                die();
            default:
                break;
        }
        return How::well;
    }

    void effect(Type type, const Work& job, std::int64_t number) {
        if (is_inside(type))
            own_->run("INSERT INTO effects VALUES (" + std::to_string(job.number) + ", " +
                      std::to_string(start_.process) + ")");
        else
            log_.note({.what = What::effect, .a = job.number, .b = number});
    }

    // In a transaction it is the lock that lasts, not what others read of the lease.
    void extend(Type type, const Work& job, txhooks::JobRun& run, std::int64_t number) {
        sleep(lease * 2 / 3);
        const std::int64_t until = now() + std::chrono::microseconds{lease}.count();
        if (run.extend(lease) and not is_inside(type))
            log_.note({.what = What::extended, .a = job.number, .b = number, .d = until});
        sleep(lease * 2 / 3);
    }

    void add_another() {
        const Act act = dice_.one_in(2) ? job_of<Type::here>(Plan::well) : job_of<Type::inside_worker>(Plan::well);
        std::vector<std::int64_t> born;
        const std::int64_t block = next_number();
        const auto add = [&] {
            act(block, false, born);
            for (const std::int64_t job : born) leases_[job] = now() + std::chrono::microseconds{lease}.count();
        };
        if (db_->in_atomic_block()) return add();
        db_->atomic(Own::writing(), add);
    }

    const Start start_;
    const Log log_;
    Dice dice_;
    txhooks::JobTypes<Db> types_;
    Own* own_ = nullptr;
    Db* db_ = nullptr;
    txhooks::Outbox<Db>* outbox_ = nullptr;
    std::int64_t numbers_ = 0;
    std::int64_t runs_ = 0;
    std::map<std::int64_t, std::int64_t> leases_;  // of the jobs that were born here, at least until
    std::int64_t since_ = 0;                       // what is run was claimed after this; 0: not known
    bool die_next_ = false;
    bool troubled_ = false;
    bool works_ = false;  // by work()
};

template <class Own>
bool add_engine(const char* name, std::vector<std::string> roles, const Nature& nature, std::function<void()> crash) {
    engines().push_back({name, std::move(roles), nature,
                         [](const std::string& folder) { return std::make_unique<Own>(folder); },
                         [](Session& session) {
                             Own& own = static_cast<Own&>(session);
                             own.run("DROP TABLE IF EXISTS txhooks_job");
                             own.run("DROP TABLE IF EXISTS committed");
                             own.run("DROP TABLE IF EXISTS effects");
                             own.run(
                                 "CREATE TABLE committed (job BIGINT PRIMARY KEY, block BIGINT, type INT, plan INT, "
                                 "here INT, job_key VARCHAR(60))");
                             own.run("CREATE TABLE effects (job BIGINT, process BIGINT)");
                             if constexpr (requires { own.make_time_zone(); }) own.make_time_zone();
                             typename Own::Db db{own.handle()};
                             txhooks::JobTypes<typename Own::Db> types;
                             txhooks::Outbox<typename Own::Db>{db, types}.create_table();
                         },
                         [](const Start& start) {
                             if (Own::has_clock) misplace_host_clock(start.process);
                             return Process<Own>{start}.run();
                         },
                         std::move(crash)});
    return true;
}

}  // namespace crash

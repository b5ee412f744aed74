// SPDX-License-Identifier: MIT
#pragma once

// A Redis server of the example's own, and a connection to it.

#include <hiredis/hiredis.h>

#include "process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace support {

/// A connection to Redis. One thread at a time.
class Redis {
public:
    explicit Redis(const std::string& socket) : context_{redisConnectUnix(socket.c_str()), &redisFree} {
        if (context_ == nullptr or context_->err != 0) throw std::runtime_error{"no connection to Redis"};
    }

    /// Sends a command: `redis({"LPUSH", "jobs", "7"})`. Returns its answer: text, a number as text, or nothing.
    /// Throws what Redis reports.
    std::optional<std::string> operator()(std::initializer_list<std::string_view> words) {
        std::vector<const char*> starts;
        std::vector<std::size_t> lengths;
        for (const std::string_view word : words) {
            starts.push_back(word.data());
            lengths.push_back(word.size());
        }
        const std::unique_ptr<redisReply, void (*)(void*)> reply{
            static_cast<redisReply*>(
                redisCommandArgv(context_.get(), static_cast<int>(words.size()), starts.data(), lengths.data())),
            &freeReplyObject};
        if (reply == nullptr) throw std::runtime_error{std::string{"Redis: "} + context_->errstr};
        return text(*reply);
    }

private:
    // The last element stands for an array: of BLPOP and of EXEC it is what one asked for.
    static std::optional<std::string> text(const redisReply& reply) {
        switch (reply.type) {
            case REDIS_REPLY_NIL:
                return std::nullopt;
            case REDIS_REPLY_INTEGER:
                return std::to_string(reply.integer);
            case REDIS_REPLY_ARRAY:
                return reply.elements == 0 ? std::nullopt : text(*reply.element[reply.elements - 1]);
            case REDIS_REPLY_ERROR:
                throw std::runtime_error{std::string{"Redis: "} + reply.str};
            default:
                return std::string{reply.str, reply.len};
        }
    }

    std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

/// A redis-server on a unix socket in a new folder, where there is room for other files too. Both are gone when this
/// object is, or when the program has ended in whatever way: a process of its own waits for that. Make it before any
/// thread.
class RedisServer {
public:
    RedisServer() {
        folder_ = (std::filesystem::temp_directory_path() / "txhooks.XXXXXX").string();
        if (mkdtemp(folder_.data()) == nullptr) throw std::runtime_error{"no temporary folder"};
        int life[2], end[2];
        if (pipe2(life, O_CLOEXEC) != 0 or pipe2(end, O_CLOEXEC) != 0) throw std::runtime_error{"no pipe"};
        const pid_t child = fork();
        if (child == 0) {
            if (fork() != 0)
                _exit(0);  // the keeper is nobody's child: who ends this program's children does not find it
            setsid();
            ::close(life[1]);
            ::close(end[0]);
            keep(life[0]);
        }
        ::close(life[0]);
        ::close(end[1]);
        life_ = life[1];
        end_ = end[0];
        if (child > 0) waitpid(child, nullptr, 0);
        wait_until_it_answers();
    }
    RedisServer(const RedisServer&) = delete;
    RedisServer& operator=(const RedisServer&) = delete;
    ~RedisServer() { stop(); }

    const std::string& folder() const noexcept { return folder_; }
    std::string socket() const { return folder_ + "/redis"; }

private:
    // Runs the server until the other end of `life` is closed, by stop() or with the program.
    [[noreturn]] void keep(int life) const {
        const pid_t server = fork();
        if (server == 0) serve();
        char nothing;
        while (read(life, &nothing, 1) > 0) continue;
        end_process(server);
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
        _exit(0);
    }

    [[noreturn]] void serve() const {
        constexpr unsigned nobody = 65534;
        const bool root = geteuid() == 0;
        if (root and (chown(folder_.c_str(), nobody, nobody) != 0 or setgid(nobody) != 0 or setuid(nobody) != 0))
            _exit(1);
        prctl(PR_SET_PDEATHSIG, SIGKILL);  // with the keeper
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket().c_str(), "--dir",
               folder_.c_str(), "--logfile", "redis.log", "--save", "", "--appendonly", "no", nullptr);
        _exit(127);
    }

    void wait_until_it_answers() {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds{20};
        for (;;) {
            try {
                Redis{socket()}({"PING"});
                return;
            } catch (const std::runtime_error&) {
                if (std::chrono::steady_clock::now() > give_up) {
                    stop();
                    throw std::runtime_error{"redis-server does not answer; is it installed?"};
                }
                std::this_thread::sleep_for(std::chrono::milliseconds{5});
            }
        }
    }

    void stop() noexcept {
        ::close(life_);
        char nothing;
        while (read(end_, &nothing, 1) > 0) continue;  // until the keeper has ended
        ::close(end_);
    }

    std::string folder_;
    int life_ = -1;
    int end_ = -1;
};

}  // namespace support

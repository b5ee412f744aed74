// SPDX-License-Identifier: MIT
#pragma once

#ifdef __SANITIZE_THREAD__
#define ASIO_DISABLE_FENCED_BLOCK  // GCC: the sanitizer knows no fences
#endif
#include <asio.hpp>

#include <array>
#include <cstddef>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// What a TcpProxy does to a request.
enum class Cut {
    request,    ///< does not pass it on, and closes both connections
    reply,      ///< passes it on, waits for the first of the answer, keeps it, and closes both connections
    after,      ///< passes it on and closes both connections at once
    no_answer,  ///< does not pass it on, nor anything else from then on, and leaves both connections open
};

/// Stands between clients and a server on the loopback: connect to `port()` instead of the server's.
///
///     TcpProxy proxy{server_port};
///     proxy.arm("COMMIT", Cut::reply);   // the next request that contains COMMIT
///
/// It knows no protocol: a request is what arrives from the client in one piece. Runs in a thread of its own.
class TcpProxy {
public:
    explicit TcpProxy(unsigned short server_port)
        : server_{asio::ip::address_v4::loopback(), server_port},
          acceptor_{io_, {asio::ip::address_v4::loopback(), 0}},
          port_{acceptor_.local_endpoint().port()} {
        accept();
        thread_ = std::thread{[this] { io_.run(); }};
    }
    TcpProxy(const TcpProxy&) = delete;
    TcpProxy& operator=(const TcpProxy&) = delete;
    ~TcpProxy() {
        io_.stop();
        thread_.join();
    }

    unsigned short port() const noexcept { return port_; }

    /// Cuts at the next request that contains `text`, once.
    void arm(std::string text, Cut how) {
        in_thread([&] {
            armed_ = true;
            cut_ = false;
            text_ = std::move(text);
            how_ = how;
        });
    }

    /// Whether it has cut since it was armed; false before.
    bool has_cut() {
        bool cut = false;
        in_thread([&] { cut = cut_; });
        return cut;
    }

    /// Closes every connection there is.
    void close_all() {
        in_thread([this] {
            for (const std::weak_ptr<Link>& weak : links_)
                if (const std::shared_ptr<Link> link = weak.lock()) link->close();
        });
    }

    /// How often a client has spoken and then waited for the server, on all connections together, since this was called
    /// last. Connecting counts too.
    std::size_t round_trips() {
        std::size_t trips = 0;
        in_thread([&] { trips = std::exchange(round_trips_, std::size_t{0}); });
        return trips;
    }

private:
    using Socket = asio::ip::tcp::socket;

    struct Link {
        Socket client;
        Socket server;
        std::array<char, 65536> request{};
        std::array<char, 65536> answer{};
        bool server_spoke = true;
        bool keeps_answer = false;
        bool silent = false;

        void close() {
            std::error_code ignored;
            for (Socket* socket : {&client, &server}) {
                socket->shutdown(Socket::shutdown_both, ignored);
                socket->close(ignored);
            }
        }
    };
    using LinkPtr = std::shared_ptr<Link>;

    template <class Fn>
    void in_thread(Fn fn) {
        std::promise<void> done;
        asio::post(io_, [&] {
            fn();
            done.set_value();
        });
        done.get_future().wait();
    }

    void accept() {
        acceptor_.async_accept([this](std::error_code error, Socket client) {
            if (error) return;
            const auto link = std::make_shared<Link>(Link{std::move(client), Socket{io_}});
            link->server.connect(server_, error);
            if (not error) {
                const asio::ip::tcp::no_delay at_once{true};
                link->client.set_option(at_once, error);
                link->server.set_option(at_once, error);
                links_.push_back(link);
                read_request(link);
                read_answer(link);
            }
            accept();
        });
    }

    void read_request(const LinkPtr& link) {
        link->client.async_read_some(asio::buffer(link->request), [this, link](std::error_code error,
                                                                               std::size_t size) {
            if (error) return end(*link);
            if (link->silent) return read_request(link);
            if (std::exchange(link->server_spoke, false)) ++round_trips_;
            const bool cuts = armed_ and std::string_view{link->request.data(), size}.find(text_) != std::string::npos;
            if (cuts) {
                armed_ = false;
                cut_ = true;
                link->silent = how_ == Cut::no_answer;
                link->keeps_answer = how_ == Cut::reply;
                if (how_ == Cut::request) return link->close();
            }
            if (not link->silent) asio::write(link->server, asio::buffer(link->request, size), error);
            if (error or (cuts and how_ == Cut::after)) return link->close();
            read_request(link);
        });
    }

    void read_answer(const LinkPtr& link) {
        link->server.async_read_some(asio::buffer(link->answer), [this, link](std::error_code error, std::size_t size) {
            if (error) return end(*link);
            if (link->keeps_answer) return link->close();
            link->server_spoke = true;
            if (not link->silent) asio::write(link->client, asio::buffer(link->answer, size), error);
            if (error) return link->close();
            read_answer(link);
        });
    }

    // One side has gone.
    static void end(Link& link) {
        if (not link.silent) link.close();
    }

    asio::io_context io_;
    asio::ip::tcp::endpoint server_;
    asio::ip::tcp::acceptor acceptor_;
    unsigned short port_;
    bool armed_ = false;
    bool cut_ = false;
    std::string text_;
    Cut how_ = Cut::request;
    std::size_t round_trips_ = 0;
    std::vector<std::weak_ptr<Link>> links_;
    std::thread thread_;
};

}  // namespace support

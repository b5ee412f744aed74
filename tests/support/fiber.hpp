// SPDX-License-Identifier: MIT
#pragma once

#include "support/exceptions.hpp"

#include <cxxabi.h>
#include <boost/context/fiber.hpp>

#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <utility>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__  // GCC says it this way
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace support {

/// A stackful fiber that waits to be resumed, at its start too. Destroyed while it waits, it unwinds its stack by an
/// exception of Boost's, which must arrive at the end of it, alone or as the cause of one of ours.
///
/// It keeps its exceptions apart from those of the thread and of other fibers, as Boost.Context does from 1.88 on.
class Fiber {
public:
    /// `work(*this)` is what it does.
    template <class Work>
    explicit Fiber(Work work)
        : there_{std::allocator_arg, Stack{*this}, [this, work = std::move(work)](Context&& resumer) mutable {
                     const Stay stay{*this};
                     there_ = std::move(resumer);
                     wait();
                     try {
                         work(*this);
                     } catch (const boost::context::detail::forced_unwind&) {
                         throw;
                     } catch (const txhooks::Error& e) {
                         error_ = std::current_exception();
                         if (not there_) std::rethrow_exception(e.cause());
                     } catch (...) {
                         error_ = std::current_exception();
                     }
                     done_ = true;
                     return std::move(there_);
                 }} {
        resume();
    }
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;
    ~Fiber() {
        if (not done_) switch_by([this] { there_ = Context{}; });
    }

    void resume() {
        switch_by([this] { there_ = std::move(there_).resume(); });
    }
    void resume_on_another_thread() {
        std::thread{[this] { resume(); }}.join();
    }
    bool done() const noexcept { return done_; }
    std::string error() const { return name_of(error_); }

    /// Called in it: waits to be resumed. Not while it is being destroyed: nobody would resume it.
    void wait() {
        if (there_) switch_by([this] { there_ = std::move(there_).resume(); });
    }

private:
    using Context = boost::context::fiber;

    struct Stack {
        Fiber& fiber;
        boost::context::stack_context allocate() {
            boost::context::stack_context stack;
            stack.size = fiber.stack_size_ = 256 * 1024;
            fiber.stack_ = ::operator new(stack.size);
            stack.sp = static_cast<std::byte*>(const_cast<void*>(fiber.stack_)) + stack.size;
            return stack;
        }
        void deallocate(boost::context::stack_context& stack) noexcept {
            ::operator delete(static_cast<std::byte*>(stack.sp) - stack.size);
        }
    };

    // What a thread knows of the exceptions in flight and in handlers: the head of __cxa_eh_globals.
    struct Exceptions {
        void* handled = nullptr;
        unsigned uncaught = 0;
    };

    // Not inlined: the address is the thread's, and the compiler takes it for a constant.
    [[gnu::noinline]] static Exceptions exchange(const Exceptions& exceptions) noexcept {
        return std::exchange(*reinterpret_cast<Exceptions*>(abi::__cxa_get_globals()), exceptions);
    }

    // Leaves this stack by `jump`, and comes back at the end of it.
    template <class Jump>
    void switch_by(Jump jump) {
        struct Back {
            Fiber& fiber;
            Exceptions exceptions = exchange({});
            void* fake_stack = nullptr;
            explicit Back(Fiber& of) : fiber{of} {
#ifdef __SANITIZE_ADDRESS__
                __sanitizer_start_switch_fiber(&fake_stack, fiber.stack_, fiber.stack_size_);
#endif
            }
            Back(const Back&) = delete;
            Back& operator=(const Back&) = delete;
            ~Back() {
#ifdef __SANITIZE_ADDRESS__
                __sanitizer_finish_switch_fiber(fake_stack, &fiber.stack_, &fiber.stack_size_);
#endif
                exceptions.uncaught += exchange({}).uncaught;  // what unwinds this stack was thrown just now
                exchange(exceptions);
            }
        } const back{*this};
        jump();
    }

    // From the first arrival on its stack to its end.
    struct Stay {
        Fiber& fiber;
        explicit Stay(Fiber& of) : fiber{of} {
#ifdef __SANITIZE_ADDRESS__
            __sanitizer_finish_switch_fiber(nullptr, &fiber.stack_, &fiber.stack_size_);
#endif
        }
        Stay(const Stay&) = delete;
        Stay& operator=(const Stay&) = delete;
        ~Stay() {
#ifdef __SANITIZE_ADDRESS__
            __sanitizer_start_switch_fiber(nullptr, fiber.stack_, fiber.stack_size_);
#endif
        }
    };

    // The stack that `there_` is on: the fiber's own, or while it runs that of who resumed it.
    const void* stack_ = nullptr;
    std::size_t stack_size_ = 0;
    std::exception_ptr error_;
    bool done_ = false;
    Context there_;
};

}  // namespace support

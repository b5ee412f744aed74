// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <thread>

#include <unwind.h>

namespace support {

/// Throws what is no C++ exception, as code in another language does: `catch (...)` catches it, `throw;` throws it on,
/// and `std::current_exception()` is null. libstdc++ ends the program if it is caught while another exception is being
/// handled.
[[noreturn]] inline void raise_foreign() {
    auto exception = std::make_unique<_Unwind_Exception>();
    exception->exception_class = 0x54584800'4f544852;  // "TXH\0OTHR": vendor and language
    exception->exception_cleanup = [](_Unwind_Reason_Code, _Unwind_Exception* self) { delete self; };
    _Unwind_RaiseException(exception.release());
    std::abort();  // nobody catches it
}

/// Whether `act()` throws, and that is no C++ exception. A C++ exception passes through.
///
/// It runs on a thread of its own: in libstdc++ a `throw;` of such an exception leaves `std::uncaught_exceptions()` one
/// too high for the rest of the thread, and Catch2's sections go by that.
template <class Act>
bool raises_foreign(Act act) {
    bool raised = false;
    std::exception_ptr error;
    std::thread{[&] {
        try {
            act();
        } catch (...) {
            error = std::current_exception();
            raised = true;
        }
    }}.join();
    if (error) std::rethrow_exception(error);
    return raised;
}

}  // namespace support

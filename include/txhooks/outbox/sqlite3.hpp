// SPDX-License-Identifier: MIT
#pragma once

/// Jobs that survive the process, over a `sqlite3*`. Several processes on one file need WAL mode and a busy timeout
/// (`sqlite3_busy_timeout`). Times are the host's clock. An `Outbox` keeps its statements prepared in the connection as long
/// as it lives: they are not the application's to finalize.

#include <txhooks/backends/sqlite3.hpp>
#include <txhooks/outbox.hpp>
#include <txhooks/outbox/detail/sqlite.hpp>

#include <exception>

namespace txhooks {
namespace sqlite::detail {

struct CJobDriver : CDriver {
    static std::exception_ptr job_error(int code, const char* text) noexcept {
        return std::make_exception_ptr(EngineError{code, "", text});
    }
};

}  // namespace sqlite::detail

template <>
class JobStore<sqlite3*> : public sqlite::detail::JobTable<sqlite::detail::CJobDriver> {
    using JobTable::JobTable;
};

}  // namespace txhooks

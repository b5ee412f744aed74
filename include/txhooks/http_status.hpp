// SPDX-License-Identifier: MIT
#pragma once

#include <txhooks/result_traits.hpp>

namespace txhooks {

/// The status of an HTTP response, as the result of a function given to `atomic`: 400 and above rolls back.
///
/// That makes a block around a request, whatever the framework:
///
///     db.atomic([&] {
///         handle(request, response);
///         return txhooks::HttpStatus{response.status};
///     });
///
/// Below 400 (redirections too) it commits and then runs the hooks. From 400 on it rolls back, runs none, and the
/// response stands; an exception rolls back and passes through. A COMMIT that fails throws: then the response, which
/// says that all is well, must be replaced, and no hook has run. A hook that fails does not undo the data, so it should
/// not turn the response into an error either: `db.set_on_hook_failure(HookFailure::report)`.
struct HttpStatus {
    int code;
};

template <>
struct result_traits<HttpStatus> {
    static constexpr bool failed(const HttpStatus& status) noexcept { return status.code >= 400; }
};

}  // namespace txhooks

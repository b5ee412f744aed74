// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace crash {

/// From now on this process believes that it is an hour later, or an hour earlier, or what it is. Jobs must not care: their
/// times are those of the server's clock.
void misplace_host_clock(std::int64_t process);

}  // namespace crash

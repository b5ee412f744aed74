// SPDX-License-Identifier: MIT
#pragma once

/// The core of txhooks. It includes no driver: add <txhooks/backends/...> for yours.

#include <txhooks/atomic.hpp>
#include <txhooks/backend_adapter.hpp>
#include <txhooks/connection.hpp>
#include <txhooks/detached_hooks.hpp>
#include <txhooks/error_sink.hpp>
#include <txhooks/errors.hpp>
#include <txhooks/hook_list.hpp>
#include <txhooks/hooked_connection.hpp>
#include <txhooks/options.hpp>
#include <txhooks/outcome.hpp>
#include <txhooks/result_traits.hpp>
#include <txhooks/sql_adapter.hpp>
#include <txhooks/version.hpp>

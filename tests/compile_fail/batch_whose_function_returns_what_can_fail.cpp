// error: txhooks: the function of a Batch returns a coroutine, a future, or a result
// SPDX-License-Identifier: MIT
#include <txhooks/batch.hpp>

#include <system_error>
#include <vector>

#ifndef CONTROL
std::error_code recount(txhooks::Connection& db, std::vector<int> orders);
#else
void recount(txhooks::Connection& db, std::vector<int> orders);
#endif

const txhooks::Batch<int> batch{recount};

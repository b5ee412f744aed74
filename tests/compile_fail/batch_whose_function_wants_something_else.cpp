// error: txhooks: the function of a Batch<T, Db> is called with
// SPDX-License-Identifier: MIT
#include <txhooks/batch.hpp>

#include <vector>

#ifndef CONTROL
void recount(std::vector<int> orders);
#else
void recount(txhooks::Connection& db, std::vector<int> orders);
#endif

const txhooks::Batch<int> batch{recount};

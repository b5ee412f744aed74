// SPDX-License-Identifier: MIT
#pragma once

// A session for adapter_check that has all it needs.

#include "backend.hpp"

#include <txhooks/testing/adapter_check.hpp>

#include <string>

struct Session {
    Database database;
    Database& backend();
    template <class Db>
    void execute(Db& db, const std::string& sql);
    long look(const std::string& query);
};

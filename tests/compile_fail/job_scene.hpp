// SPDX-License-Identifier: MIT
#pragma once

// A connection with an outbox, and a job, for the refusals to be tried on.

#include <txhooks/outbox/fake.hpp>
#include <txhooks/txhooks.hpp>

#include <string>
#include <string_view>

using Db = txhooks::HookedConnection<txhooks::testing::FakeBackend>;

struct Welcome {
    static constexpr const char* job_name = "welcome";
};
std::string to_payload(const Welcome&);
void from_payload(std::string_view stored, Welcome&);

// SPDX-License-Identifier: MIT

#include <txhooks/outbox/detail/job_id.hpp>

#include "support/catch.hpp"
#include "support/fork.hpp"

#include <unistd.h>

#include <set>
#include <string>
#include <utility>

using txhooks::detail::job_holder;
using txhooks::detail::make_job_id;

TEST_CASE("job_id: a UUIDv7, each more than the last", "[outbox]") {
    std::string last;
    std::set<char> variants, digits;
    for (int n = 0; n != 20'000; ++n) {
        const std::string id = make_job_id();
        std::string dashes = id;
        for (char& c : dashes)
            if (c != '-') digits.insert(std::exchange(c, 'x'));
        const bool right = last < id and dashes == "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" and id[14] == '7';
        if (not right) FAIL(id);
        variants.insert(id[19]);
        last = id;
    }
    CHECK(std::string{variants.begin(), variants.end()} == "89ab");
    CHECK(std::string{digits.begin(), digits.end()} == "0123456789abcdef");
}

TEST_CASE("job_id: a process and its child make different ones, and hold jobs by different names", "[outbox]") {
    const std::string mine = job_holder();
    CHECK(mine.ends_with(':' + std::to_string(getpid())));
    std::set<std::string> random;
    const auto rest = [] { return make_job_id().substr(19); };
    random.insert(rest());
    for (int n = 0; n != 5; ++n) random.insert(support::in_a_child(rest));
    CHECK(random.size() == 6);
    CHECK(support::in_a_child([] { return job_holder(); }) != mine);
}

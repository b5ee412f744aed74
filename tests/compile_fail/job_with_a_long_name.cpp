// error: txhooks: job_name is 1 to 64 letters, digits,
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mail {
#ifndef CONTROL
    static constexpr const char* job_name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
#else
    static constexpr const char* job_name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
#endif
};
std::string to_payload(const Mail&);
void from_payload(std::string_view stored, Mail&);

void sign_up(txhooks::JobQueue& jobs) {
    jobs.add(Mail{});
}

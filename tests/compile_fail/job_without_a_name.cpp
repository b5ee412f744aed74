// error: txhooks: a job has a name, by which its rows are known for ever: static constexpr const char\* job_name
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mail {
#ifndef CONTROL
    static constexpr const char* name = "mail";
#else
    static constexpr const char* job_name = "mail";
#endif
};
std::string to_payload(const Mail&);
void from_payload(std::string_view stored, Mail&);

void sign_up(txhooks::JobQueue& jobs) {
    jobs.add(Mail{});
}

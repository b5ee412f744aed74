// error: txhooks: a job is stored as bytes; write std::string to_payload\(const Job&\)
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mail {
    static constexpr const char* job_name = "mail";
};
#ifdef CONTROL
std::string to_payload(const Mail&);
#endif
void from_payload(std::string_view stored, Mail&);

void sign_up(txhooks::JobQueue& jobs) {
    jobs.add(Mail{});
}

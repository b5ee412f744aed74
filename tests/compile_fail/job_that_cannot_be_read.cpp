// error: txhooks: a job is read from its bytes
// SPDX-License-Identifier: MIT
#include "job_scene.hpp"

struct Mail {
    static constexpr const char* job_name = "mail";
};
std::string to_payload(const Mail&);
#ifdef CONTROL
void from_payload(std::string_view stored, Mail&);
#endif

void fill(txhooks::JobTypes<Db>& types) {
    types.handle<Mail>([](const Mail&) {});
}

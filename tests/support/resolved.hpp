// SPDX-License-Identifier: MIT
#pragma once

#include "support/catch.hpp"
#include "support/exceptions.hpp"
#include "support/tcp_proxy.hpp"

#include <txhooks/outcome.hpp>

#include <string>

namespace support {

/// What must be true after the COMMIT of `s.scene`, rows and hooks 1 and 2, met `how` and `s.doubt` was resolved to
/// `outcome`. The marker's row says `written` if the COMMIT wrote it, `fenced` if resolving did.
template <class DoubtScene>
void check_resolved(DoubtScene& s, Cut how, txhooks::Outcome outcome, const std::string& written,
                    const std::string& fenced) {
    // What was cut right after the request may come too late for the marker that resolve() has written.
    const bool arrived = how == Cut::reply or (how == Cut::after and outcome == txhooks::Outcome::committed);
    CHECK(name(outcome) == (arrived ? "committed" : "rolled_back"));
    CHECK(s.scene.truth() == (arrived ? "1,2" : ""));
    CHECK(s.scene.hooks == s.scene.truth());
    CHECK_FALSE(s.doubt.in_doubt());
    CHECK(s.markers() == (arrived ? written : fenced));
}

}  // namespace support

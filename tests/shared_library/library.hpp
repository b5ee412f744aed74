// SPDX-License-Identifier: MIT
#pragma once

[[gnu::visibility("default")]] void call_after_commit_in_the_library(void (*hook)());

// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

namespace txhooks::detail {

// What a hook waits for. The last two are called when that is not a commit: order counts.
enum class HookKind : unsigned char {
    commit,
    gone,  // no longer: it was called or destroyed before its neighbours
    before_commit,
    rollback,
    unless_committed,
};

template <std::size_t n>
struct Literal {
    char text[n];
    consteval Literal(const char (&literal)[n]) {
        for (std::size_t i = 0; i != n; ++i) text[i] = literal[i];
    }
};

template <HookKind kind>
consteval auto verb() {
    if constexpr (kind == HookKind::commit)
        return Literal{"on_commit()"};
    else if constexpr (kind == HookKind::before_commit)
        return Literal{"before_commit()"};
    else if constexpr (kind == HookKind::rollback)
        return Literal{"on_rollback()"};
    else
        return Literal{"unless_committed()"};
}

template <Literal before, Literal between, Literal after>
struct Joined {
    char text[sizeof before.text + sizeof between.text + sizeof after.text - 2];
    consteval Joined() : text{} {
        std::size_t end = 0;
        const auto append = [this, &end](const auto& literal) {
            for (const char c : literal.text)
                if (c != '\0') text[end++] = c;
        };
        append(before), append(between), append(after);
    }
};

// A sentence with the verb that registers hooks of this kind.
template <HookKind kind, Literal before, Literal after>
inline constexpr Joined<before, verb<kind>(), after> sentence{};

}  // namespace txhooks::detail

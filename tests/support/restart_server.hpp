// SPDX-License-Identifier: MIT
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace support {

/// Ends the server that support/servers/`name` has started in `folder` by `signal`, and starts it again with what is on
/// its disk, at the same port.
inline void restart_server(const std::string& name, const std::filesystem::path& folder, const std::string& signal,
                           const std::string& settings = "") {
    const auto script = std::filesystem::path{__FILE__}.parent_path() / "servers" / name;
    const std::string command = "bash -c 'source \"" + script.string() + "\" available; place=$(readlink \"" +
                                folder.string() +
                                "\"); pid=$(< \"$place/pid\"); port=$(< \"$place/port\"); settings=(" + settings +
                                "); kill -" + signal + R"( "$pid"
while kill -0 "$pid" 2> /dev/null; do sleep 0.02; done
(serve "$port") > "$place/log" 2>&1 < /dev/null &
echo $! > "$place/pid"
until answers "$port" > /dev/null 2>&1; do kill -0 $!; sleep 0.05; done')";
    if (std::system(command.c_str()) != 0) throw std::runtime_error{name + " does not start again"};
}

}  // namespace support

// SPDX-License-Identifier: MIT
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace support {

/// The path of a database in a directory of its own, which is removed at the end.
class DatabaseFile {
public:
    DatabaseFile() {
        std::string directory = (std::filesystem::temp_directory_path() / "txhooks.XXXXXX").string();
        if (mkdtemp(directory.data()) == nullptr) throw std::runtime_error{"no temporary directory"};
        directory_ = directory;
    }
    DatabaseFile(const DatabaseFile&) = delete;
    DatabaseFile& operator=(const DatabaseFile&) = delete;
    ~DatabaseFile() {
        std::error_code ignored;
        std::filesystem::remove_all(directory_, ignored);
    }

    std::string path(const char* name = "main.db") const { return (directory_ / name).string(); }

private:
    std::filesystem::path directory_;
};

}  // namespace support

// SPDX-License-Identifier: MIT

// A disk that takes two milliseconds longer to flush: for LD_PRELOAD.

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace {

int flush(long call, int file) {
    std::this_thread::sleep_for(std::chrono::milliseconds{2});
    return static_cast<int>(syscall(call, file));
}

}  // namespace

extern "C" int fsync(int file) {
    return flush(SYS_fsync, file);
}
extern "C" int fdatasync(int file) {
    return flush(SYS_fdatasync, file);
}

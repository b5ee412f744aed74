// SPDX-License-Identifier: MIT
#pragma once

#include <sqlite3.h>

#include <functional>
#include <string>

namespace support {

/// A SQLite VFS that does what the default one does, except where `fault` says otherwise.
class FaultyVfs {
public:
    enum class Call { write, sync, remove };
    enum class File { database, journal, wal, other };

    /// Asked before every call: SQLITE_OK lets it pass, any other result code is what SQLite gets instead.
    std::function<int(Call, File)> fault;

    FaultyVfs() : real_{sqlite3_vfs_find(nullptr)}, name_{"faulty" + std::to_string(++registered)}, vfs_{*real_} {
        vfs_.szOsFile = static_cast<int>(sizeof(Open)) + real_->szOsFile;
        vfs_.pNext = nullptr;
        vfs_.zName = name_.c_str();
        vfs_.pAppData = this;
        vfs_.xOpen = &open;
        vfs_.xDelete = &remove;
        vfs_.xAccess = [](sqlite3_vfs* v, const char* path, int flags, int* out) {
            return real(v)->xAccess(real(v), path, flags, out);
        };
        vfs_.xFullPathname = [](sqlite3_vfs* v, const char* path, int size, char* out) {
            return real(v)->xFullPathname(real(v), path, size, out);
        };
        sqlite3_vfs_register(&vfs_, 0);
    }
    FaultyVfs(const FaultyVfs&) = delete;
    FaultyVfs& operator=(const FaultyVfs&) = delete;
    ~FaultyVfs() { sqlite3_vfs_unregister(&vfs_); }

    const char* name() const { return name_.c_str(); }

    /// From now on `call` on `file` fails with `code`.
    void fail(Call call, File file, int code) {
        fault = [=](Call c, File f) { return c == call and f == file ? code : SQLITE_OK; };
    }

private:
    // The real file lies right behind.
    struct Open {
        sqlite3_file base;
        FaultyVfs* vfs;
        File file;
    };

    int ask(Call call, File file) const { return fault ? fault(call, file) : SQLITE_OK; }

    static FaultyVfs& self(sqlite3_vfs* vfs) { return *static_cast<FaultyVfs*>(vfs->pAppData); }
    static sqlite3_vfs* real(sqlite3_vfs* vfs) { return self(vfs).real_; }
    static Open& opened(sqlite3_file* file) { return *reinterpret_cast<Open*>(file); }
    static sqlite3_file* real(sqlite3_file* file) {
        return reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + sizeof(Open));
    }

    static int open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* out_flags) {
        Open& open = opened(file);
        open.vfs = &self(vfs);
        open.file = (flags & SQLITE_OPEN_MAIN_DB) != 0        ? File::database
                    : (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0 ? File::journal
                    : (flags & SQLITE_OPEN_WAL) != 0          ? File::wal
                                                              : File::other;
        const int rc = real(vfs)->xOpen(real(vfs), path, real(file), flags, out_flags);
        open.base.pMethods = real(file)->pMethods == nullptr ? nullptr : methods();
        return rc;
    }

    static int remove(sqlite3_vfs* vfs, const char* path, int sync_directory) {
        const std::string name{path};
        const File file = name.ends_with("-journal") ? File::journal : name.ends_with("-wal") ? File::wal : File::other;
        const int rc = self(vfs).ask(Call::remove, file);
        return rc != SQLITE_OK ? rc : real(vfs)->xDelete(real(vfs), path, sync_directory);
    }

    static int write(sqlite3_file* file, const void* data, int size, sqlite3_int64 at) {
        const int rc = opened(file).vfs->ask(Call::write, opened(file).file);
        return rc != SQLITE_OK ? rc : real(file)->pMethods->xWrite(real(file), data, size, at);
    }
    static int sync(sqlite3_file* file, int flags) {
        const int rc = opened(file).vfs->ask(Call::sync, opened(file).file);
        return rc != SQLITE_OK ? rc : real(file)->pMethods->xSync(real(file), flags);
    }

    template <auto method, class... Args>
    static auto pass_on(sqlite3_file* file, Args... args) {
        return (real(file)->pMethods->*method)(real(file), args...);
    }

    static const sqlite3_io_methods* methods() {
        using Methods = sqlite3_io_methods;
        static const Methods all = [] {
            Methods m{};
            m.iVersion = 2;  // with shared memory for WAL, without memory-mapped files
            m.xClose = &pass_on<&Methods::xClose>;
            m.xRead = &pass_on<&Methods::xRead, void*, int, sqlite3_int64>;
            m.xWrite = &write;
            m.xTruncate = &pass_on<&Methods::xTruncate, sqlite3_int64>;
            m.xSync = &sync;
            m.xFileSize = &pass_on<&Methods::xFileSize, sqlite3_int64*>;
            m.xLock = &pass_on<&Methods::xLock, int>;
            m.xUnlock = &pass_on<&Methods::xUnlock, int>;
            m.xCheckReservedLock = &pass_on<&Methods::xCheckReservedLock, int*>;
            m.xFileControl = &pass_on<&Methods::xFileControl, int, void*>;
            m.xSectorSize = &pass_on<&Methods::xSectorSize>;
            m.xDeviceCharacteristics = &pass_on<&Methods::xDeviceCharacteristics>;
            m.xShmMap = &pass_on<&Methods::xShmMap, int, int, int, void volatile**>;
            m.xShmLock = &pass_on<&Methods::xShmLock, int, int, int>;
            m.xShmBarrier = &pass_on<&Methods::xShmBarrier>;
            m.xShmUnmap = &pass_on<&Methods::xShmUnmap, int>;
            return m;
        }();
        return &all;
    }

    inline static int registered = 0;

    sqlite3_vfs* real_;
    std::string name_;
    sqlite3_vfs vfs_;
};

}  // namespace support

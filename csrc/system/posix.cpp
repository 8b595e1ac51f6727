// Files and threads of Linux and macOS.

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <new>

#include "system/files.h"
#include "system/threads.h"

#if defined(__linux__)
#include <linux/fs.h>
#include <sys/syscall.h>
#endif

namespace cnnviz {

int create_file(const char* path) {
    for (;;) {
        const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0 || errno != EINTR) return file;
    }
}

int write_all(int file, const uint8_t* bytes, size_t count) {
    while (count > 0) {
        const ssize_t written = write(file, bytes, count);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        bytes += written;
        count -= static_cast<size_t>(written);
    }
    return 0;
}

int close_file(int file) { return close(file) == 0 ? 0 : errno; }

void remove_file(const char* path) { unlink(path); }

// A rename onto a file makes ext4 write the new one to the disk at once (its option auto_da_alloc). Measured: 1.8 ms for
// 1.5 MB, 0.27 ms for 57 KB. To let both files change their names and remove the older one makes it wait for nothing:
// 0.11 and 0.03 ms. (On tmpfs 0.23 instead of 0.31 ms for 1.5 MB, the same for 57 KB.)
int move_file(const char* from, const char* to) {
#if defined(SYS_renameat2) && defined(RENAME_EXCHANGE)
    struct stat older;
    if (lstat(to, &older) == 0 && S_ISREG(older.st_mode) &&
        syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0) {
        unlink(from);
        return 0;
    }
#endif
    // There is no older file, or the file system cannot exchange two.
    return std::rename(from, to) == 0 ? 0 : errno;
}

namespace {

struct Start {
    void (*work)(void*);
    void* argument;
};

void* begin(void* given) {
    const Start start = *static_cast<Start*>(given);
    delete static_cast<Start*>(given);
    start.work(start.argument);
    return nullptr;
}

}  // namespace

bool start_thread(void (*work)(void*), void* argument) {
    Start* start = new (std::nothrow) Start{work, argument};
    pthread_t thread;
    if (start == nullptr || pthread_create(&thread, nullptr, begin, start) != 0) {
        delete start;
        return false;
    }
    pthread_detach(thread);
    return true;
}

long process_id() { return getpid(); }

}  // namespace cnnviz

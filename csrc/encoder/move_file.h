// A finished file to its place.

#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#if defined(__linux__)
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace cnnviz {

// Moves a file to a name in the same folder, where at every moment either the older file of that name is or this one.
// Returns 0 or an errno.
//
// A rename onto a file makes ext4 write the new one to the disk at once (its option auto_da_alloc). Measured: 1.8 ms for
// 1.5 MB, 0.27 ms for 57 KB. To let both files change their names and remove the older one makes it wait for nothing:
// 0.11 and 0.03 ms. (On tmpfs 0.23 instead of 0.31 ms for 1.5 MB, the same for 57 KB.)
inline int move_file(const char* from, const char* to) {
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

}  // namespace cnnviz

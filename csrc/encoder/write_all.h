// Bytes to a file, all of them.

#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace cnnviz {

// Returns 0 or an errno.
inline int write_all(int file, const uint8_t* bytes, size_t count) {
    while (count > 0) {
        const ssize_t written = write(file, bytes, count);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        bytes += written;
        count -= static_cast<size_t>(written);
    }
    return 0;
}

}  // namespace cnnviz

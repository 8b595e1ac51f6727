// Files, as the operating system has them. Paths are UTF-8 on Windows, and elsewhere the bytes that the system takes.

#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

// Makes a file that is not there yet. Returns its descriptor, or -1 with errno set.
int create_file(const char* path);

// Writes all bytes to a descriptor. Returns 0 or an errno.
int write_all(int file, const uint8_t* bytes, size_t count);

// Returns 0 or an errno, which may tell of bytes that were not written.
int close_file(int file);

void remove_file(const char* path);

// Moves a file to a name in the same folder, where at every moment either the older file of that name is or this one.
// Returns 0 or an errno.
int move_file(const char* from, const char* to);

}  // namespace cnnviz

// What stands before and after the blocks of any zlib stream: in a PNG file, and alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cnnviz {

// RFC 1950: deflate with a window of 32 KB, fastest level; the two bytes as a number are divisible by 31.
constexpr uint8_t ZLIB_HEADER[2] = {0x78, 0x01};

// The last deflate block: empty, with the fixed codes (1, then 01, then seven zeros for its end).
constexpr uint8_t LAST_BLOCK[2] = {0x03, 0x00};
constexpr unsigned LAST_BLOCK_BITS = 10;

constexpr size_t ADLER_BYTES = 4;

}  // namespace cnnviz
